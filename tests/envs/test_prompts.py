"""Prompts: every kind is read, every bad one is told by name."""

import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genie_env.envs import prompts
from genie_env.envs.prompts import COINRUN_LEVELS, check_prompt, draw_prompt, load_prompt

SIZE = 64


@pytest.fixture
def frame_HWC() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def clip_THWC() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


def write_video(path: Path, frames_THWC: np.ndarray) -> Path:
    """A lossless video, frames uint8 (T, H, W, 3), T may be 0."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=15)
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "bgr0"
        for frame_HWC in frames_THWC:
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))
        if len(frames_THWC):
            container.mux(stream.encode())
        else:
            container.start_encoding()
    return path


def test_array_of_one_frame(frame_HWC):
    frames_THWC = load_prompt(frame_HWC, SIZE)
    assert frames_THWC.shape == (1, SIZE, SIZE, 3)
    assert frames_THWC.dtype == np.uint8
    assert np.array_equal(frames_THWC[0], frame_HWC)
    assert not np.shares_memory(frames_THWC, frame_HWC)


def test_array_and_tensor_of_several_frames(clip_THWC):
    import torch

    assert np.array_equal(load_prompt(clip_THWC, SIZE), clip_THWC)
    assert np.array_equal(load_prompt(torch.from_numpy(clip_THWC), SIZE), clip_THWC)


def test_max_frames_keeps_the_last(clip_THWC, tmp_path):
    assert np.array_equal(load_prompt(clip_THWC, SIZE, max_frames=2), clip_THWC[-2:])
    video = write_video(tmp_path / "clip.mkv", clip_THWC)
    assert np.array_equal(load_prompt(video, SIZE, max_frames=2), clip_THWC[-2:])


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "gif", "jpg"])
def test_image_file(frame_HWC, tmp_path, suffix):
    path = tmp_path / f"sketch.{suffix}"
    Image.fromarray(frame_HWC).save(path, lossless=True)
    for prompt in (path, str(path)):
        frames_THWC = load_prompt(prompt, SIZE)
        assert frames_THWC.shape == (1, SIZE, SIZE, 3)
    if suffix not in ("gif", "jpg"):
        assert np.array_equal(frames_THWC[0], frame_HWC)


def test_video_file(clip_THWC, tmp_path):
    video = write_video(tmp_path / "clip.mkv", clip_THWC)
    assert np.array_equal(load_prompt(video, SIZE), clip_THWC)


def test_animated_image_gives_all_its_frames(clip_THWC, tmp_path):
    images = [Image.fromarray(frame) for frame in clip_THWC]
    images[0].save(tmp_path / "clip.png", save_all=True, append_images=images[1:])
    assert np.array_equal(load_prompt(tmp_path / "clip.png", SIZE), clip_THWC)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_image_modes_become_rgb(frame_HWC, mode):
    frames_THWC = load_prompt(Image.fromarray(frame_HWC).convert(mode), SIZE)
    assert frames_THWC.shape == (1, SIZE, SIZE, 3)
    if mode == "RGBA":
        assert np.array_equal(frames_THWC[0], frame_HWC)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    grey = np.full((SIZE, SIZE), 0x8040, np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (load_prompt(tmp_path / "grey.png", SIZE) == 0x80).all()


def test_transparent_pixels_are_black():
    image = Image.new("RGBA", (SIZE, SIZE), (255, 0, 0, 0))
    assert (load_prompt(image, SIZE) == 0).all()


def test_enlarged_pixel_art_comes_back_exactly(frame_HWC):
    enlarged = frame_HWC.repeat(7, axis=0).repeat(7, axis=1)
    assert np.array_equal(load_prompt(enlarged, SIZE)[0], frame_HWC)


@pytest.mark.parametrize(("height", "width"), [(64, 100), (100, 64), (33, 64), (1, 1), (200, 300)])
def test_any_size_is_cropped_and_resized(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    assert load_prompt(image, SIZE).shape == (1, SIZE, SIZE, 3)


def test_the_crop_is_centred():
    wide = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    wide[:, SIZE : 2 * SIZE] = 200
    assert (load_prompt(wide, SIZE) == 200).all()


def test_list_draws_each(clip_THWC):
    rng = np.random.default_rng(0)
    drawn = {int(load_prompt(list(clip_THWC), SIZE, rng=rng)[0, 0, 0, 0]) for _ in range(50)}
    assert drawn == set(clip_THWC[:, 0, 0, 0].tolist())


def test_none_draws_a_shipped_start(clip_THWC):
    shipped_PTHWC = clip_THWC[:, None]
    rng = np.random.default_rng(0)
    assert {draw_prompt(None, rng, 5) for _ in range(50)} == {f"shipped:{i}" for i in range(5)}
    frames_THWC = load_prompt("shipped:3", SIZE, shipped_PTHWC=shipped_PTHWC)
    assert np.array_equal(frames_THWC, shipped_PTHWC[3])


def test_coinrun_level():
    pytest.importorskip("procgen")
    first, again = load_prompt("coinrun:123", SIZE), load_prompt("coinrun:123", SIZE)
    assert first.shape == (1, SIZE, SIZE, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, load_prompt("coinrun:124", SIZE))
    assert not np.array_equal(first, load_prompt("coinrun:123", SIZE, look="full"))


def test_coinrun_draws_a_level_outside_of_the_training_range():
    rng = np.random.default_rng(0)
    levels = [int(draw_prompt("coinrun", rng).removeprefix("coinrun:")) for _ in range(200)]
    assert set(levels) <= set(COINRUN_LEVELS)
    assert min(levels) >= 10_000
    assert len(set(levels)) > 100


def test_same_rng_same_prompt(clip_THWC):
    prompt = ["coinrun", None, *clip_THWC]
    draws = [
        [str(draw_prompt(prompt, rng, 9)) for _ in range(20)]
        for rng in (np.random.default_rng(4), np.random.default_rng(4))
    ]
    assert draws[0] == draws[1]


def test_reading_an_image_needs_no_torch(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code = (
        "import sys; from genie_env.envs.prompts import load_prompt; "
        f"load_prompt({str(tmp_path / 'a.png')!r}, 64); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["nothing.png", "folder/nothing", "nothing.mp4", "~/nothing.png"])
def test_path_that_is_not_there(name):
    with pytest.raises(FileNotFoundError, match=name):
        load_prompt(name, SIZE)


def test_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        load_prompt(tmp_path, SIZE)


@pytest.mark.parametrize("name", ["coinrnu", "sketch", ""])
def test_unknown_string(name):
    with pytest.raises(ValueError, match=f"unknown prompt '{name}'.*coinrun:LEVEL"):
        load_prompt(name, SIZE)


@pytest.mark.parametrize("number", ["", "-1", "1.5", "abc", str(2**31), "²"])
def test_coinrun_level_out_of_range(number):
    with pytest.raises(ValueError, match="a whole number from 0 to 2147483646"):
        load_prompt(f"coinrun:{number}", SIZE)


def test_shipped_start_out_of_range(clip_THWC):
    with pytest.raises(ValueError, match="from 0 to 4"):
        load_prompt("shipped:5", SIZE, shipped_PTHWC=clip_THWC[:, None])
    with pytest.raises(ValueError, match="ships no starts"):
        load_prompt("shipped:0", SIZE)
    with pytest.raises(ValueError, match="ships no starts"):
        load_prompt(None, SIZE, shipped_PTHWC=np.zeros((0, 1, SIZE, SIZE, 3), np.uint8))


def test_empty_list():
    with pytest.raises(ValueError, match="empty list"):
        load_prompt([], SIZE)


def test_bad_one_in_a_list_is_found_before_it_is_drawn(frame_HWC):
    with pytest.raises(FileNotFoundError, match="nothing.png"):
        check_prompt([frame_HWC, "nothing.png"])


@pytest.mark.parametrize("prompt", [3, 1.5, {"a": 1}, b"bytes", object()])
def test_type_that_is_no_prompt(prompt):
    with pytest.raises(TypeError, match=f"type {type(prompt).__name__}; accepted"):
        load_prompt(prompt, SIZE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16, np.bool_, object])
def test_array_of_another_dtype(dtype):
    with pytest.raises(TypeError, match=f"dtype {np.dtype(dtype)}; accepted: uint8"):
        load_prompt(np.zeros((SIZE, SIZE, 3), dtype), SIZE)


def test_array_that_is_not_finite():
    with pytest.raises(TypeError, match="uint8"):
        load_prompt(np.full((SIZE, SIZE, 3), np.nan), SIZE)


def test_tensor_of_another_dtype():
    import torch

    with pytest.raises(TypeError, match=r"torch.float32; accepted: uint8"):
        load_prompt(torch.zeros(SIZE, SIZE, 3), SIZE)


@pytest.mark.parametrize(
    "shape", [(64, 64), (64, 64, 4), (64, 64, 1), (3,), (1, 1, 64, 64, 3), (5, 64, 64, 4)]
)
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"shape .*; accepted: \(H, W, 3\)"):
        load_prompt(np.zeros(shape, np.uint8), SIZE)


def test_channels_first_gets_a_hint():
    with pytest.raises(ValueError, match="channels come last"):
        load_prompt(np.zeros((3, 64, 64), np.uint8), SIZE)


@pytest.mark.parametrize("shape", [(0, 64, 64, 3), (0, 64, 3), (64, 0, 3)])
def test_no_frames_or_pixels(shape):
    with pytest.raises(ValueError, match="no frames or no pixels"):
        load_prompt(np.zeros(shape, np.uint8), SIZE)


def test_pil_image_without_pixels():
    with pytest.raises(ValueError, match="no pixels"):
        load_prompt(Image.new("RGB", (0, 5)), SIZE)


def test_pil_image_of_a_mode_without_a_scale():
    with pytest.raises(ValueError, match="mode 'F'"):
        load_prompt(Image.new("F", (SIZE, SIZE)), SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "mp4", "mkv"])
def test_empty_file(tmp_path, suffix):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"broken.{suffix}.* is empty"):
        load_prompt(path, SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "txt"])
def test_file_that_is_no_image(tmp_path, suffix):
    path = tmp_path / f"broken.{suffix}"
    path.write_bytes(b"this is no image" * 20)
    with pytest.raises(ValueError, match=f"broken.{suffix}.* is no readable image"):
        load_prompt(path, SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp"])
def test_truncated_image(frame_HWC, tmp_path, suffix):
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(frame_HWC).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"broken.{suffix}.* is no readable image"):
        load_prompt(path, SIZE)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "webm"])
def test_corrupt_video(tmp_path, suffix):
    pytest.importorskip("av")
    path = tmp_path / f"broken.{suffix}"
    # The same noise every time: some of it looks like sound, which is another complaint.
    path.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(ValueError, match=f"broken.{suffix}.* is no readable video"):
        load_prompt(path, SIZE)


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_video_with_no_frames(tmp_path, suffix):
    path = write_video(tmp_path / f"none.{suffix}", np.zeros((0, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match=f"none.{suffix}.* no frames"):
        load_prompt(path, SIZE)


def test_sound_without_video(tmp_path):
    pytest.importorskip("av")
    with wave.open(str(tmp_path / "sound.avi"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    with pytest.raises(ValueError, match="sound.avi.* no video stream"):
        load_prompt(tmp_path / "sound.avi", SIZE)


def test_video_without_pyav_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(prompts.DependencyNotInstalled, match=r"genie-env\[video\]"):
        load_prompt(tmp_path / "clip.mp4", SIZE)


def test_max_frames_out_of_range(frame_HWC):
    with pytest.raises(ValueError, match="max_frames must be at least 1, got 0"):
        load_prompt(frame_HWC, SIZE, max_frames=0)
