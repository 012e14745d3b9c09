"""Videos in and out: lossless round trip, cropping, rates, and what damaged files get."""

import json
import sys

import numpy as np
import pytest

av = pytest.importorskip("av", reason='needs PyAV: pip install "genie-env[video]"')

from training.data import clip_store  # noqa: E402
from training.data.clip_store import ClipStore, ClipWriter, StoreFullError  # noqa: E402
from training.data.videos import export_store, export_video, import_videos  # noqa: E402


def noise(length, size=64, seed=0):
    shape = (length, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def moving_square(length, height, width, step=2):
    """A white square that runs right on a coloured ground: easy to compress and to locate."""
    frames = np.zeros((length, height, width, 3), np.uint8)
    frames[:] = (20, 60, 160)
    for t in range(length):
        left = 10 + step * t
        frames[t, height // 2 - 8 : height // 2 + 8, left : left + 16] = 255
    return frames


def run(folder, out, **kwargs):
    return import_videos(folder, out, progress=False, **kwargs)


def segments_of(folder):
    store = ClipStore(folder, clip_frames=1)
    return [np.array(store.segment(row)) for row in range(len(store.segments))]


def test_a_store_exported_and_imported_is_the_same_to_the_byte(tmp_path):
    segments = [noise(5, seed=0), noise(1, seed=1), noise(30, seed=2)]
    clip_store.write_meta(tmp_path / "store", frame_size=64, fps=5.0)
    for shard, part in enumerate((segments[:2], segments[2:])):
        with ClipWriter(tmp_path / "store", shard, 64) as writer:
            for frames in part:
                writer.add(frames)
    paths = export_store(tmp_path / "store", tmp_path / "videos")
    assert len(paths) == 3 and all(path.suffix == ".mkv" for path in paths)

    report = run(tmp_path / "videos", tmp_path / "again")
    assert list(report.imported.values()) == [5, 1, 30] and not report.skipped
    for got, want in zip(segments_of(tmp_path / "again"), segments, strict=True):
        np.testing.assert_array_equal(got, want)
    assert clip_store.read_meta(tmp_path / "again")["fps"] == 5


@pytest.mark.filterwarnings("error")
def test_any_size_and_container_is_scaled_and_centre_cropped(tmp_path):
    videos = tmp_path / "videos"
    wide = moving_square(20, 96, 192, step=4)
    export_video(wide, videos / "deep" / "wide.mp4", fps=25, codec="libx264")
    export_video(wide.transpose(0, 2, 1, 3), videos / "tall.MKV", fps=25, codec="libx264")
    export_video(moving_square(20, 31, 33, step=0), videos / "odd.avi", fps=25)
    with av.open(str(videos / "small.gif"), "w") as container:
        stream = container.add_stream("gif", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb8"
        for frame in moving_square(20, 32, 32, step=0):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="rgb8")))
        container.mux(stream.encode())
    (videos / "notes.txt").write_text("not a video")

    report = run(videos, tmp_path / "store", frame_size=48)
    assert sorted(report.imported) == ["deep/wide.mp4", "odd.avi", "small.gif", "tall.MKV"]
    assert set(report.imported.values()) == {20}
    assert report.ignored == ["notes.txt"] and not report.skipped
    got = segments_of(tmp_path / "store")[0]
    # The middle 96 columns of 192, halved.
    want = wide[:, ::2, 48:144:2].astype(int)
    assert np.abs(got.astype(int) - want).mean() < 6
    assert (got[10] != got[12]).any()


def test_fps_keeps_every_other_frame_and_never_invents_one(tmp_path):
    frames = moving_square(30, 64, 64, step=1)
    export_video(frames, tmp_path / "videos" / "a.mkv", fps=30)
    export_video(frames[:10], tmp_path / "videos" / "slow.mkv", fps=5)
    with pytest.warns(UserWarning, match="skipped video .*slow.mkv.*5 frames.*fewer than the 15"):
        report = run(tmp_path / "videos", tmp_path / "store", fps=15)
    assert report.imported == {"a.mkv": 15}
    assert list(report.skipped) == ["slow.mkv"]
    np.testing.assert_array_equal(segments_of(tmp_path / "store")[0], frames[::2])
    assert clip_store.read_meta(tmp_path / "store")["fps"] == 15


def test_mixed_rates_are_pointed_out(tmp_path):
    for name, fps in (("a", 30), ("b", 30), ("c", 10)):
        export_video(noise(4), tmp_path / "videos" / f"{name}.mkv", fps=fps)
    with pytest.warns(UserWarning, match=r"most have 30 a second\): c.mkv \(10\)"):
        run(tmp_path / "videos", tmp_path / "store")
    assert clip_store.read_meta(tmp_path / "store")["fps"] == 30


def damaged_folder(folder):
    """One good video, and one of each kind of bad one."""
    export_video(noise(12), folder / "good.mkv", fps=15)
    whole = export_video(noise(40, seed=1), folder / "flipped.mkv", fps=15).read_bytes()
    middle = len(whole) // 2
    (folder / "flipped.mkv").write_bytes(whole[:middle] + b"\xff\x00" * 8 + whole[middle + 16 :])
    (folder / "cut.mkv").write_bytes(whole[:middle])
    plays = export_video(moving_square(40, 64, 96), folder / "cut.mp4", 15, "libx264").read_bytes()
    (folder / "cut.mp4").write_bytes(plays[: len(plays) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.avi").write_text("this is not a video" * 20)
    with av.open(str(folder / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with av.open(str(folder / "no_frames.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=15)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "bgr0"
        container.start_encoding()


def test_damaged_videos_are_named_with_their_reason_and_skipped(tmp_path):
    damaged_folder(tmp_path / "videos")
    with pytest.warns(UserWarning) as warned:
        report = run(tmp_path / "videos", tmp_path / "store")
    assert report.imported == {"good.mkv": 12}
    reasons = {
        "cut.mkv": "cut off",
        "cut.mp4": "Invalid data",
        "empty.mp4": "Invalid data",
        "flipped.mkv": "damaged at frame",
        "no_frames.mkv": "no frames",
        "sound.mkv": "no video stream",
        "text.avi": "Invalid data",
    }
    assert sorted(report.skipped) == sorted(reasons)
    for name, reason in reasons.items():
        assert reason in report.skipped[name], (name, report.skipped[name])
        assert any(name in str(warning.message) for warning in warned)
    # Nothing of them is in the store, not even the frames before the damage.
    (only,) = segments_of(tmp_path / "store")
    np.testing.assert_array_equal(only, noise(12))


@pytest.mark.filterwarnings("ignore:skipped video")
def test_no_usable_video_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        run(tmp_path / "nowhere", tmp_path / "store")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"no video in .*\.mp4.*found 1 others"):
        run(tmp_path / "videos", tmp_path / "store")
    (tmp_path / "videos" / "bad.mp4").write_bytes(b"x" * 500)
    with pytest.raises(ValueError, match="none of the 1 videos .*readable .*bad.mp4: Invalid"):
        run(tmp_path / "videos", tmp_path / "store")


def test_interrupted_import_resumes_and_new_videos_are_added(tmp_path, monkeypatch):
    videos = tmp_path / "videos"
    for k in range(5):
        export_video(noise(6, seed=k), videos / f"{k}.mkv", fps=15)
    whole = tmp_path / "whole"
    run(videos, whole, shard_frames=12)

    opened = []
    real_open = av.open

    def open_until_killed(file, *args, **kwargs):
        opened.append(file)
        if len(opened) == 4:
            raise KeyboardInterrupt
        return real_open(file, *args, **kwargs)

    killed = tmp_path / "killed"
    monkeypatch.setattr(av, "open", open_until_killed)
    with pytest.raises(KeyboardInterrupt):
        run(videos, killed, shard_frames=12)
    monkeypatch.undo()
    assert not list(killed.glob("*.tmp"))
    report = run(videos, killed, shard_frames=12)
    assert list(report.already) == ["0.mkv", "1.mkv"]
    assert list(report.imported) == ["2.mkv", "3.mkv", "4.mkv"]
    for path in whole.iterdir():
        assert (killed / path.name).read_bytes() == path.read_bytes()

    export_video(noise(6, seed=9), videos / "new.mkv", fps=15)
    report = run(videos, killed, shard_frames=12)
    assert report.imported == {"new.mkv": 6} and len(report.already) == 5
    np.testing.assert_array_equal(segments_of(killed)[-1], noise(6, seed=9))
    assert run(videos, killed, shard_frames=12).imported == {}


def test_a_store_of_another_kind_is_not_mixed_into(tmp_path):
    export_video(noise(6), tmp_path / "videos" / "a.mkv", fps=15)
    run(tmp_path / "videos", tmp_path / "store")
    before = json.loads((tmp_path / "store" / "meta.json").read_text())
    for change in ({"frame_size": 32}, {"fps": 5.0}):
        with pytest.raises(ValueError, match="store of another kind"):
            run(tmp_path / "videos", tmp_path / "store", **change)
    assert json.loads((tmp_path / "store" / "meta.json").read_text()) == before


@pytest.mark.skipif(not clip_store.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_the_import(tmp_path):
    export_video(noise(6), tmp_path / "videos" / "a.mkv", fps=15)
    clip_store.write_meta(tmp_path / "store", frame_size=64, source={"kind": "videos", "fps": None})
    (tmp_path / "store" / "frames-00000.npy.tmp").symlink_to("/dev/full")
    with pytest.raises(StoreFullError, match="disk full while writing shard 0"):
        run(tmp_path / "videos", tmp_path / "store")


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"frames_THWC": np.zeros((3, 8, 8, 3))}, r"uint8 \(T, H, W, 3\), got float64"),
        ({"frames_THWC": np.zeros((8, 8, 3), np.uint8)}, "uint8"),
        ({"frames_THWC": np.zeros((0, 8, 8, 3), np.uint8)}, "nothing to write"),
        ({"codec": "h265"}, "codec must be one of.*ffv1.*libx264.*h265"),
        ({"path": "a.mp4"}, "ffv1 is written to .mkv, .avi, got a.mp4"),
        ({"fps": 0}, "fps must be positive, got 0"),
        (
            {"frames_THWC": np.zeros((2, 7, 8, 3), np.uint8), "codec": "libx264"},
            "even height and width, got 7x8",
        ),
    ],
)
def test_bad_exports_are_named(tmp_path, kwargs, says):
    arguments = {"frames_THWC": noise(2), "path": "a.mkv", **kwargs}
    arguments["path"] = tmp_path / arguments["path"]
    with pytest.raises(ValueError, match=says):
        export_video(**arguments)
    assert not list(tmp_path.iterdir())


def test_bad_import_arguments_are_named(tmp_path):
    for kwargs in ({"fps": 0}, {"frame_size": 0}, {"shard_frames": 0}):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            run(tmp_path, tmp_path / "store", **kwargs)


def test_missing_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r'pip install "genie-env\[video\]"'):
        import_videos(tmp_path, tmp_path / "store")
    with pytest.raises(ImportError, match="PyAV"):
        export_video(noise(2), tmp_path / "a.mkv")
