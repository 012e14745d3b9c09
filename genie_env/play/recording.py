"""What was played as a GIF or an MP4, written frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("gif", "mp4")


def check_kind(kind: str) -> None:
    """Raises ValueError for another kind of film, ImportError for an MP4 without PyAV."""
    if kind not in KINDS:
        raise ValueError(f"film {kind!r}; accepted: {' or '.join(KINDS)}")
    if kind == "mp4":
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "an MP4 needs PyAV: pip install 'genie-env[video]'; or record a GIF"
            ) from error


def write_film(
    folder: str | Path, kind: str, frames_T: Sequence[np.ndarray], fps: float, scale: int = 4
) -> Path:
    """Frames, uint8 (H, W, 3) each, their pixels enlarged without smoothing, in the next free
    `folder/played-NNN.kind`.

    Raises as `check_kind`; ValueError without frames.
    """
    check_kind(kind)
    if not len(frames_T):
        raise ValueError("no frame was recorded")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    taken = [int(path.stem[7:]) for path in folder.glob("played-*") if path.stem[7:].isdigit()]
    path = folder / f"played-{max(taken, default=0) + 1:03d}.{kind}"
    large = (np.asarray(frame).repeat(scale, 0).repeat(scale, 1) for frame in frames_T)
    if kind == "gif":
        _write_gif(path, large, fps)
    else:
        _write_mp4(path, large, fps)
    return path


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    images = (Image.fromarray(frame).quantize(128) for frame in frames)
    # GIF counts in hundredths, and most viewers slow down what is faster than two.
    duration = max(20, round(100 / fps) * 10)
    next(images).save(path, save_all=True, append_images=images, duration=duration, loop=0)


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    import av

    first = next(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=max(1, round(fps)))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame_HWC in chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
