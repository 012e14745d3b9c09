"""What was played as a GIF or an MP4."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".gif", ".mp4")


def write_film(path: str | Path, frames_THWC: np.ndarray, fps: float, scale: int = 4) -> Path:
    """Frames uint8 (T, H, W, 3), pixels enlarged without smoothing.

    Raises ValueError for another suffix than .gif and .mp4 or without frames, ImportError for an
    .mp4 without PyAV.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"film {path}; accepted: {' or '.join(SUFFIXES)}")
    if not len(frames_THWC):
        raise ValueError(f"film {path}: no frame was recorded")
    large_THWC = np.asarray(frames_THWC).repeat(scale, 1).repeat(scale, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        first, *rest = [Image.fromarray(frame).quantize(128) for frame in large_THWC]
        # GIF counts in hundredths, and most viewers slow down what is faster than two.
        duration = max(20, round(100 / fps) * 10)
        first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)
    else:
        _write_mp4(path, large_THWC, fps)
    return path


def _write_mp4(path: Path, frames_THWC: np.ndarray, fps: float) -> None:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "an MP4 needs PyAV: pip install 'genie-env[video]'; or use .gif"
        ) from error
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=max(1, round(fps)))
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame_HWC in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
