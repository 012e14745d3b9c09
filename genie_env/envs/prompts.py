"""Anything a user may call a prompt, turned into frames that a world model can start from.

Shapes: T frames, H W pixels, C = 3 channels (RGB), P shipped starts. Frames are uint8, 0-255.

Randomness is apart from reading: `draw_prompt` picks one concrete prompt (a list, `None` and
"coinrun" leave something to pick), `load_prompt` reads it, and the same concrete prompt always
gives the same frames.
"""

import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled
from PIL import Image, ImageOps, ImageSequence

# Levels for "coinrun": the validation range. Models train on 0-9,999, so a random start is
# never one that the model has seen.
COINRUN_LEVELS = range(10_000, 11_000)
MAX_COINRUN_LEVEL = 2**31 - 2  # the engine keeps the end of a range of levels in an int32

VIDEO_SUFFIXES = frozenset(
    [
        ".avi",
        ".flv",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".ogv",
        ".ts",
        ".webm",
        ".wmv",
    ]
)
# Other formats may hold several images that are no frames of a video (a phone's MPO).
_ANIMATED_FORMATS = frozenset({"GIF", "PNG", "WEBP"})

ACCEPTED = (
    "a path to an image or a video, a uint8 array or tensor of shape (H, W, 3) or (T, H, W, 3), "
    'a PIL image, "coinrun", "coinrun:LEVEL", "shipped:INDEX", a list of these to draw from, '
    "or None for a start that ships with the model"
)


def check_prompt(prompt: Any, num_shipped: int = 0) -> None:
    """Raises what is wrong with a prompt as far as can be told without reading a file.

    Args:
        prompt: see `ACCEPTED`.
        num_shipped: how many starts the model ships.

    Raises:
        FileNotFoundError, IsADirectoryError: a path that is not there, or is a folder.
        TypeError: a type or a dtype that is not accepted.
        ValueError: an empty list, an unknown string, a level or index out of range, a wrong
            shape, or `None` where the model ships no starts.
    """
    if isinstance(prompt, list | tuple):
        if not prompt:
            raise ValueError(f"prompt is an empty list; accepted: {ACCEPTED}")
        for one in prompt:
            check_prompt(one, num_shipped)
    elif prompt is None:
        if num_shipped == 0:
            raise ValueError(
                f"this model ships no starts, so prompt=None has none; give {ACCEPTED}"
            )
    elif isinstance(prompt, str) and prompt.partition(":")[0] in ("coinrun", "shipped"):
        _parse_name(prompt, num_shipped)
    elif isinstance(prompt, str | Path):
        _check_path(prompt)
    elif not isinstance(prompt, Image.Image):
        _check_array(prompt)


def draw_prompt(prompt: Any, rng: np.random.Generator, num_shipped: int = 0) -> Any:
    """Draws one concrete prompt: from a list one of it, for `None` "shipped:INDEX", for
    "coinrun" "coinrun:LEVEL" with a level in `COINRUN_LEVELS`. Any other is returned as it is.

    Raises: as `check_prompt`.
    """
    check_prompt(prompt, num_shipped)
    while isinstance(prompt, list | tuple):
        prompt = prompt[rng.integers(len(prompt))]
    if prompt is None:
        return f"shipped:{rng.integers(num_shipped)}"
    if isinstance(prompt, str) and prompt == "coinrun":
        return f"coinrun:{rng.integers(COINRUN_LEVELS.start, COINRUN_LEVELS.stop)}"
    return prompt


def load_prompt(
    prompt: Any,
    frame_size: int,
    *,
    rng: np.random.Generator | None = None,
    look: str = "plain",
    difficulty: str = "easy",
    shipped_PTHWC: np.ndarray | None = None,
    max_frames: int | None = None,
) -> np.ndarray:
    """Reads a prompt.

    Args:
        prompt: see `ACCEPTED`. An animated GIF, PNG or WebP and a video give several frames.
        frame_size: height and width of the frames returned; other sizes are cropped to a centred
            square and resized.
        rng: for what `draw_prompt` draws; fresh entropy if None.
        look, difficulty: of the real game, for "coinrun" and "coinrun:LEVEL".
        shipped_PTHWC: the starts that ship with the model, uint8.
        max_frames: of a longer prompt only the last frames are kept: the world goes on from the
            end of a video.

    Returns:
        uint8 array (T, frame_size, frame_size, 3), T >= 1, never the caller's own memory.

    Raises:
        As `check_prompt`; ValueError, which names the file and the reason, for an empty or
        corrupt image or video; DependencyNotInstalled where a video needs PyAV; ImportError
        where a level needs the real game.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    num_shipped = 0 if shipped_PTHWC is None else len(shipped_PTHWC)
    prompt = draw_prompt(prompt, rng or np.random.default_rng(), num_shipped)

    frames: Iterable[np.ndarray | Image.Image]
    if isinstance(prompt, str) and prompt.startswith("shipped:"):
        assert shipped_PTHWC is not None  # draw_prompt has checked it
        frames = shipped_PTHWC[_parse_name(prompt, num_shipped)]
    elif isinstance(prompt, str) and prompt.startswith("coinrun:"):
        frames = _coinrun_start(_parse_name(prompt, num_shipped), look, difficulty)
    elif isinstance(prompt, str | Path):
        path = _check_path(prompt)
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        frames = _read_video(path, max_frames) if is_video else _read_image(path)
    elif isinstance(prompt, Image.Image):
        frames = _image_frames(prompt, f"PIL image {prompt.size[0]}x{prompt.size[1]}")
    else:
        array = _check_array(prompt)
        frames = array[None] if array.ndim == 3 else array
    last = deque(frames, maxlen=max_frames)
    return np.stack([_fit(frame, frame_size) for frame in last])


def describe_prompt(prompt: Any) -> str:
    """One line on a concrete prompt: a string or path as it is, else its type and shape."""
    if isinstance(prompt, str | Path):
        return str(prompt)
    if isinstance(prompt, Image.Image):
        return f"PIL image {prompt.size[0]}x{prompt.size[1]}"
    return f"{type(prompt).__name__} {tuple(prompt.shape)}"


def _parse_name(prompt: str, num_shipped: int) -> int | None:
    """The number in "coinrun:LEVEL" or "shipped:INDEX"; None for "coinrun"."""
    if prompt == "coinrun":
        return None
    name, _, number = prompt.partition(":")
    what = "LEVEL" if name == "coinrun" else "INDEX"
    limit = MAX_COINRUN_LEVEL + 1 if name == "coinrun" else num_shipped
    if name == "shipped" and num_shipped == 0:
        raise ValueError(f"prompt {prompt!r}, but this model ships no starts")
    if not (number.isascii() and number.isdigit() and int(number) < limit):
        raise ValueError(
            f"unknown prompt {prompt!r}; accepted: {name}:{what}, a whole number from 0 to "
            f"{limit - 1}"
        )
    return int(number)


def _check_path(prompt: str | Path) -> Path:
    path = Path(prompt).expanduser()
    if path.is_dir() and prompt != "":
        raise IsADirectoryError(f"prompt {str(prompt)!r} is a folder; accepted: {ACCEPTED}")
    if path.is_file():
        return path
    if isinstance(prompt, str) and not path.suffix and len(path.parts) <= 1:
        raise ValueError(f"unknown prompt {prompt!r} (and no such file); accepted: {ACCEPTED}")
    raise FileNotFoundError(f"prompt file {str(prompt)!r} is not there (looked in {Path.cwd()})")


def _check_array(prompt: Any) -> np.ndarray:
    # A tensor can only come from a program that has imported torch: reading an image need not.
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(prompt, torch.Tensor)
    if not is_tensor and not isinstance(prompt, np.ndarray):
        raise TypeError(f"prompt of type {type(prompt).__name__}; accepted: {ACCEPTED}")
    if str(prompt.dtype) not in ("uint8", "torch.uint8"):
        raise TypeError(f"prompt has dtype {prompt.dtype}; accepted: uint8, 0-255")
    shape = tuple(prompt.shape)
    if len(shape) not in (3, 4) or shape[-1] != 3:
        hint = "; channels come last" if 3 in shape[:2] else ""
        raise ValueError(
            f"prompt has shape {shape}; accepted: (H, W, 3) or (T, H, W, 3), RGB{hint}"
        )
    if 0 in shape:
        raise ValueError(f"prompt has shape {shape}: no frames or no pixels")
    return prompt.detach().cpu().numpy() if is_tensor else prompt


def _read_image(path: Path) -> list[Image.Image]:
    with path.open("rb") as file:  # a file that may not be read raises here, as itself
        if not file.read(1):
            raise ValueError(f"prompt file {str(path)!r} is empty")
        file.seek(0)
        try:
            image = Image.open(file)
        except Exception as error:  # Pillow's decoders raise a dozen types on bad bytes
            raise ValueError(
                f"prompt file {str(path)!r} is no readable image ({error}); videos end in "
                f"{', '.join(sorted(VIDEO_SUFFIXES))}"
            ) from error
        return _image_frames(image, f"prompt file {str(path)!r}")


def _image_frames(image: Image.Image, name: str) -> list[Image.Image]:
    """Every frame of an image, in RGB. Raises ValueError that begins with `name`."""
    if 0 in image.size:
        raise ValueError(f"{name} has no pixels (size {image.size})")
    try:
        if image.format in _ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1:
            return [_to_rgb(frame) for frame in ImageSequence.Iterator(image)]
        return [_to_rgb(ImageOps.exif_transpose(image))]
    except Exception as error:
        raise ValueError(f"{name} is no readable image ({error})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # convert() would clip at 255 where it should scale
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"pixel mode {image.mode!r}; accepted: 8 or 16 bits a channel")
    if image.has_transparency_data:
        # Black, as the real game's plain background: what lies behind transparent pixels.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


def _read_video(path: Path, max_frames: int | None) -> deque[np.ndarray]:
    try:
        import av
    except ImportError as error:
        raise DependencyNotInstalled(
            f"reading the video {str(path)!r} needs PyAV: pip install 'genie-env[video]'"
        ) from error
    with path.open("rb") as file:
        if not file.read(1):
            raise ValueError(f"prompt file {str(path)!r} is empty")
        file.seek(0)
        try:
            with av.open(file, mode="r") as container:
                if not container.streams.video:
                    raise ValueError(f"prompt file {str(path)!r} has no video stream")
                frames_THWC = deque(
                    (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)),
                    maxlen=max_frames,
                )
        except av.EOFError:  # some formats end where the first frame should be
            frames_THWC = deque()
        except av.FFmpegError as error:
            raise ValueError(f"prompt file {str(path)!r} is no readable video ({error})") from error
    if not frames_THWC:
        raise ValueError(f"prompt file {str(path)!r} is a video with no frames")
    return frames_THWC


def _coinrun_start(level: int | None, look: str, difficulty: str) -> np.ndarray:
    """The first frame of a level of the real game, (1, 64, 64, 3)."""
    from genie_env.envs.coinrun import LOOKS, CoinRunVectorEnv

    assert level is not None  # drawn
    if look not in LOOKS:
        raise ValueError(
            f"prompt 'coinrun:{level}' is a level of the real CoinRun, which this model was not "
            f"trained on; accepted: {ACCEPTED}"
        )
    env = CoinRunVectorEnv(1, look, difficulty, start_level=level, num_levels=1)
    try:
        frames_BHWC, _ = env.reset()
    finally:
        env.close()
    return np.array(frames_BHWC)


def _fit(frame: np.ndarray | Image.Image, size: int) -> np.ndarray:
    """Crops to a centred square and resizes to (size, size, 3) uint8.

    BOX gives an enlarged pixel image back exactly where the factor is whole, and came out best
    for most others (against the 64x64 original, PSNR); BICUBIC enlarges.
    """
    if isinstance(frame, np.ndarray) and frame.shape == (size, size, 3):
        return frame.copy()
    image = frame if isinstance(frame, Image.Image) else Image.fromarray(frame)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    resample = Image.Resampling.BOX if side >= size else Image.Resampling.BICUBIC
    box = (left, top, left + side, top + side)
    return np.array(image.resize((size, size), resample, box))
