"""Ordinary video files in and out of the clip store. Needs PyAV (`genie-env[video]`).

Shape legend: T frames, H W C pixels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.data import clip_store
from training.data.clip_store import ClipStore, ClipWriter

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mkv", ".webm", ".avi", ".gif", ".mov")
CODECS = {"ffv1": (".mkv", ".avi"), "libx264": (".mp4", ".m4v", ".mkv", ".mov")}
"""codec -> suffixes of the containers it is written to. "ffv1" is lossless."""

_CHUNK_FRAMES = 256
# How far two frame rates may lie apart and still count as the same.
_RATE_TOLERANCE = 0.05


@dataclass(frozen=True)
class ImportReport:
    """What `import_videos` did. Names are paths relative to the imported folder."""

    store: Path
    imported: dict[str, int]
    """Video -> its number of frames in the store."""
    already: dict[str, int]
    """The same, for videos that an earlier call had imported."""
    skipped: dict[str, str]
    """Video -> why it could not be used."""
    ignored: list[str] = field(default_factory=list)
    """Files that are no videos by their suffix."""


class _UnusableVideo(Exception):
    """The message says why."""


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError(
            f"reading and writing videos needs PyAV, which is not installed ({error}). "
            'Install it with: pip install "genie-env[video]"'
        ) from error
    return av


def import_videos(
    folder: str | Path,
    out: str | Path,
    frame_size: int = 64,
    fps: float | None = None,
    shard_frames: int = 65_536,
    progress: bool = True,
) -> ImportReport:
    """Import every video under `folder` (subfolders too) into the clip store `out`.

    Each video is scaled so that its shorter side is `frame_size`, cropped around the centre, and
    becomes one segment, so no clip spans two videos. Videos already in the store are not read
    again: an interrupted import goes on where it was, and new files can be added later.

    Args:
        folder: holds files with one of `VIDEO_SUFFIXES`.
        out: folder of the store.
        frame_size: height and width of the stored frames.
        fps: frames a second to keep; frames are dropped, never invented, so slower videos are
            skipped with that reason. None keeps every frame.
        shard_frames: a shard is closed once it holds that many frames.

    Returns:
        What was imported and, by name and with the reason, what was not: files that cannot be
        opened or decoded to their end, and those with no frames. Each is also a `UserWarning`.

    Raises:
        ImportError: PyAV is not installed.
        FileNotFoundError: `folder` is not there.
        ValueError: no video, or no readable one, in `folder`; `out` is a store of another kind,
            frame size or fps; an argument out of range.
        StoreFullError: the disk is full; complete shards stay.
    """
    av = _import_av()
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise FileNotFoundError(f"video folder {folder} is not there (expected a folder)")
    if frame_size < 1 or shard_frames < 1:
        raise ValueError(f"frame_size and shard_frames must be >= 1: {frame_size}, {shard_frames}")
    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be positive or None, got {fps}")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and out not in path.parents)
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    ignored = [str(path.relative_to(folder)) for path in files if path not in set(videos)]
    if not videos:
        raise ValueError(
            f"no video in {folder}: expected files with one of {', '.join(VIDEO_SUFFIXES)}, "
            f"found {len(ignored)} others"
        )

    source = {"kind": "videos", "fps": fps}
    if (out / "meta.json").exists():
        meta = clip_store.read_meta(out)
        found = (meta["frame_size"], meta["source"])
        if found != (frame_size, source):
            raise ValueError(
                f"{out} holds a store of another kind: (frame_size, source) is {found}, "
                f"asked {(frame_size, source)}; choose another folder"
            )
    else:
        clip_store.write_meta(out, frame_size=frame_size, fps=fps, source=source)

    shards = clip_store.list_shards(out)
    known = [row for shard in shards for row in json.loads(_sources_path(out, shard).read_text())]
    already = {row["video"]: row["frames"] for row in known}
    rates = {row["video"]: row["fps"] for row in known}
    imported: dict[str, int] = {}
    skipped: dict[str, str] = {}
    pending = [path for path in videos if path.relative_to(folder).as_posix() not in already]
    queue = iter(tqdm(pending, unit="video", disable=not progress))
    shard = shards[-1] + 1 if shards else 0
    exhausted = False
    while not exhausted:
        rows: list[dict[str, Any]] = []
        writer = ClipWriter(out, shard, frame_size)
        try:
            while writer.num_frames < shard_frames:
                path = next(queue, None)
                if path is None:
                    exhausted = True
                    break
                name = path.relative_to(folder).as_posix()
                try:
                    with _decoder_errors(av) as errors, av.open(str(path)) as container:
                        rate = _frame_rate(container)
                        chunks = _decode(container, errors, rate, frame_size, fps)
                        imported[name] = writer.add_stream(chunks)
                except (av.FFmpegError, _UnusableVideo) as error:
                    skipped[name] = getattr(error, "strerror", None) or str(error)
                    if isinstance(error, av.EOFError):
                        skipped[name] = "it has no frames"
                    warnings.warn(f"skipped video {path}: {skipped[name]}", stacklevel=2)
                    continue
                rates[name] = rate
                rows.append({"video": name, "frames": imported[name], "fps": rate})
            if rows:
                writer.add_file(_sources_path(out, shard), json.dumps(rows, indent=1).encode())
                writer.commit()
                shard += 1
            else:
                writer.discard()
        except BaseException:
            writer.discard()
            raise

    if not imported and not already:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ValueError(f"none of the {len(videos)} videos in {folder} is readable ({reasons})")
    if fps is None:
        fps = _common_rate(rates)
        clip_store.write_meta(out, frame_size=frame_size, fps=fps, source=source)
    return ImportReport(out, imported, already, skipped, ignored)


def export_video(
    frames_THWC: np.ndarray, path: str | Path, fps: float = 15, codec: str = "ffv1"
) -> Path:
    """Write frames uint8 (T, H, W, 3), T >= 1, as a video.

    Args:
        path: its suffix chooses the container; `CODECS` lists those that fit the codec.
        codec: "ffv1" is lossless; "libx264" plays everywhere, costs colour detail and needs an
            even height and width.

    Raises:
        ImportError: PyAV is not installed.
        ValueError: frames of another shape or dtype, an unknown codec or suffix, fps <= 0.
    """
    av = _import_av()
    path = Path(path)
    frames_THWC = np.asarray(frames_THWC)
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
        raise ValueError(
            f"frames must be uint8 (T, H, W, 3), got {frames_THWC.dtype} {frames_THWC.shape}"
        )
    _, height, width, _ = frames_THWC.shape
    if 0 in frames_THWC.shape:
        raise ValueError(f"there is nothing to write in frames of shape {frames_THWC.shape}")
    if codec not in CODECS:
        raise ValueError(f"codec must be one of {sorted(CODECS)}, got {codec!r}")
    if path.suffix.lower() not in CODECS[codec]:
        raise ValueError(f"{codec} is written to {', '.join(CODECS[codec])}, got {path.name}")
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    if codec == "libx264" and (height % 2 or width % 2):
        raise ValueError(f"libx264 needs an even height and width, got {height}x{width}")

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = width, height
        # bgr0 keeps RGB as it is; every yuv format of ffv1 would round the colours.
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "18"}
        for frame_HWC in frames_THWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    return path


def export_store(store: str | Path, out: str | Path, max_segments: int | None = None) -> list[Path]:
    """Write each segment of a store as a lossless ffv1 video, named so that they sort in order.

    Importing the folder again gives the same segments, byte for byte.

    Args:
        max_segments: write only the first ones; None writes all.
    """
    clips = ClipStore(store, clip_frames=1)
    fps = clips.meta["fps"] or 15
    rows = range(len(clips.segments))[:max_segments]
    return [
        export_video(clips.segment(row), Path(out) / f"segment-{row:06d}.mkv", fps) for row in rows
    ]


def _sources_path(folder: Path, shard: int) -> Path:
    return folder / f"sources-{shard:05d}.json"


def _frame_rate(container: Any) -> float | None:
    if not container.streams.video:
        raise _UnusableVideo("it has no video stream")
    rate = container.streams.video[0].average_rate
    return float(rate) if rate else None


@contextmanager
def _decoder_errors(av: Any) -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg reports as errors meanwhile: many a decoder conceals damage and goes on."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as errors:
            yield errors
    finally:
        av.logging.set_level(level)


def _decode(
    container: Any,
    errors: list[tuple[int, str, str]],
    rate: float | None,
    size: int,
    fps: float | None,
) -> Iterator[np.ndarray]:
    """The kept frames in chunks, uint8 (T, size, size, 3)."""
    if fps is not None and rate is not None and rate < fps * (1 - _RATE_TOLERANCE):
        raise _UnusableVideo(f"it has {rate:g} frames a second, fewer than the {fps:g} asked for")
    stream = container.streams.video[0]
    # Messages of decoder threads would not reach `errors`, and can deadlock with Python's lock.
    stream.thread_type = "NONE"
    aspect = float(stream.codec_context.sample_aspect_ratio or 1) or 1.0
    kept: list[np.ndarray] = []
    num_frames = 0
    start_time = next_time = last_time = 0.0
    for frame in container.decode(stream):
        num_frames += 1
        if errors or frame.is_corrupt:
            problem = errors[0][2].strip() if errors else "marked as corrupt"
            raise _UnusableVideo(f"damaged at frame {num_frames}: {problem}")
        seconds = frame.time if frame.time is not None else (num_frames - 1) / (rate or 30)
        if num_frames == 1:
            start_time = next_time = seconds
        last_time = seconds
        if fps is not None:
            # Containers round times to milliseconds.
            if seconds < next_time - 1e-3:
                continue
            # A gap in a video gives no burst of frames after it.
            next_time += max(1, int((seconds + 1e-3 - next_time) * fps) + 1) / fps
        kept.append(_square(frame, size, aspect))
        if len(kept) == _CHUNK_FRAMES:
            yield np.stack(kept)
            kept = []
    if num_frames == 0:
        raise _UnusableVideo("it has no frames")
    _check_whole(container, stream, num_frames, last_time - start_time, rate)
    if kept:
        yield np.stack(kept)


def _square(frame: Any, size: int, aspect: float) -> np.ndarray:
    """The frame upright, scaled and centre-cropped, uint8 (size, size, 3)."""
    width = frame.width * aspect
    scale = size / min(width, frame.height)
    scaled_W, scaled_H = max(size, round(width * scale)), max(size, round(frame.height * scale))
    frame_HWC = frame.reformat(scaled_W, scaled_H, "rgb24", interpolation="AREA").to_ndarray()
    top, left = (scaled_H - size) // 2, (scaled_W - size) // 2
    frame_HWC = frame_HWC[top : top + size, left : left + size]
    return np.rot90(frame_HWC, round(frame.rotation / 90))


def _check_whole(
    container: Any, stream: Any, num_frames: int, seconds: float, rate: float | None
) -> None:
    # A cut-off file decodes without an error in many containers, and just ends early.
    promised = 0.0
    if stream.duration is not None:
        promised = float(stream.duration * stream.time_base)
    elif "DURATION" in stream.metadata:
        hours, minutes, rest = stream.metadata["DURATION"].split(":")
        promised = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    one_frame = 1 / rate if rate else 0.0
    if seconds + one_frame < 0.9 * promised - one_frame:
        raise _UnusableVideo(
            f"it is cut off: it ends after {seconds + one_frame:.1f} s ({num_frames} frames) of "
            f"the {promised:.1f} s that its header promises"
        )


def _common_rate(rates: dict[str, float | None]) -> float | None:
    known = {name: rate for name, rate in rates.items() if rate}
    if not known:
        return None
    common = float(np.median(list(known.values())))
    others = [
        f"{name} ({rate:g})"
        for name, rate in known.items()
        if abs(rate - common) > _RATE_TOLERANCE * common
    ]
    if others:
        warnings.warn(
            f"videos of different frame rates in one store (most have {common:g} a second): "
            f"{', '.join(others)}. A step then stands for different times; give fps to even out",
            stacklevel=3,
        )
    return common
