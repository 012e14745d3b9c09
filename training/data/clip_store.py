"""Clips of uint8 frames on disk: memory-mapped, sharded, and never cut across a reset.

A store is a folder:

    meta.json             format version, frame_size, frame_skip, fps, look, source (free form)
    frames-00000.npy      uint8 (N, H, W, 3)
    segments-00000.npy    int64 (S, 2): start and length of each unbroken run of frames
    labels-00000.npz      optional: true actions, rewards, levels and outcomes (see `load_labels`)

A shard counts once its frames file is there: that file is renamed into place last.

Shape legend: N frames of a shard, S segments, B clips, T frames of a clip, M = T-1, H W C pixels.
"""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMAT = "genie-clip-store"
VERSION = 1

CUT, SUCCESS, DEATH, TRUNCATION = 0, 1, 2, 3
OUTCOMES = ("cut", "success", "death", "truncation")
"""How a segment ends; "cut" means that the recording stopped and the episode did not."""


class StoreFullError(OSError):
    """The disk is full; what was complete before is intact."""


def frames_path(folder: Path, shard: int) -> Path:
    return folder / f"frames-{shard:05d}.npy"


def segments_path(folder: Path, shard: int) -> Path:
    return folder / f"segments-{shard:05d}.npy"


def labels_path(folder: Path, shard: int) -> Path:
    return folder / f"labels-{shard:05d}.npz"


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def list_shards(folder: str | Path) -> list[int]:
    """Numbers of the complete shards in `folder`, in order."""
    return sorted(int(path.stem.split("-")[1]) for path in Path(folder).glob("frames-*.npy"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` in one piece: a reader sees the old file or the new one."""
    temporary = _temporary(path)
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def read_meta(folder: str | Path) -> dict[str, Any]:
    """The store's meta.json.

    Raises:
        FileNotFoundError: no such folder, or one without meta.json.
        ValueError: meta.json is damaged, or of another format or version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"clip store {folder} is not there (expected a folder)")
    path = folder / "meta.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a clip store: it has no meta.json")
    try:
        meta = json.loads(path.read_text())
        kind = (meta["format"], meta["version"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no clip store's: {error!r}") from error
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{path} is of format {kind}, this code reads {(FORMAT, VERSION)}")
    return meta


def write_meta(
    folder: str | Path,
    *,
    frame_size: int,
    frame_skip: int | None = None,
    fps: float | None = None,
    look: str | None = None,
    source: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Create the folder if need be and write its meta.json; returns what was written.

    `frame_skip` and `look` are None where they have no meaning, `fps` where it is not known.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    meta = {
        "format": FORMAT,
        "version": VERSION,
        "frame_size": frame_size,
        "frame_skip": frame_skip,
        "fps": fps,
        "look": look,
        "source": source or {},
    }
    write_json(folder / "meta.json", meta)
    return meta


def _npy_header(num_frames: int, height: int, width: int) -> bytes:
    # numpy pads headers so that the first axis can grow in place: the length stays the same.
    buffer = io.BytesIO()
    shape = (num_frames, height, width, 3)
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


class ClipWriter:
    """Writes one shard: segments are appended, then `commit` makes the shard count.

    Used as a context manager, it commits on a clean exit and removes its temporary files on an
    error, so a shard is there whole or not at all:

        with ClipWriter(folder, shard=0, frame_size=64) as writer:
            writer.add(frames_THWC)

    Args:
        folder: a store whose meta.json is written already (`write_meta`).
        shard: number of the shard; a complete one of that number is replaced on commit.
        frame_size: height and width of the frames.
        expected_frames: how many are to come, if known; named when the disk is full.

    Raises:
        StoreFullError: (anywhere) the disk is full; names the shard, the folder and the bytes
            needed. The temporary files are gone then.
        ValueError: (add, add_stream) frames of another shape or dtype; (add) labels for some
            segments only.
    """

    def __init__(
        self, folder: str | Path, shard: int, frame_size: int, expected_frames: int = 0
    ) -> None:
        self.folder = Path(folder)
        self.shard = shard
        self.frame_size = frame_size
        self.expected_frames = expected_frames
        self.num_frames = 0
        self._segments: list[tuple[int, int]] = []
        self._labels: list[dict[str, np.ndarray]] = []
        self._outcomes: list[int] = []
        self._extra_files: dict[Path, bytes] = {}
        self._frames_tmp = _temporary(frames_path(self.folder, shard))
        self._frame_bytes = frame_size * frame_size * 3
        header = _npy_header(0, frame_size, frame_size)
        self._header_bytes = len(header)
        with self._disk_full_explained(0):
            self._file = open(self._frames_tmp, "wb")  # noqa: SIM115 (closed by commit, discard)
            self._file.write(header)

    def add(
        self, frames_THWC: np.ndarray, labels: dict[str, Any] | None = None, outcome: int = CUT
    ) -> None:
        """Append one segment: consecutive frames, uint8 (T, H, W, 3), T >= 1.

        Args:
            labels: None, or `actions` (T,), `rewards` (T,) and `level_seeds` (T,) as in
                `load_labels`; either every segment of a shard has labels or none.
            outcome: `CUT`, `SUCCESS`, `DEATH` or `TRUNCATION`; kept with the labels.
        """
        length = len(frames_THWC)
        if self._segments and bool(self._labels) != (labels is not None):
            raise ValueError("either every segment of a shard has labels or none has")
        columns: dict[str, np.ndarray] = {}
        if labels is not None:
            # Copied: the caller may go on writing into its own arrays.
            columns = {
                "actions": np.array(labels["actions"], np.int8),
                "rewards": np.array(labels["rewards"], np.float32),
                "level_seeds": np.array(labels["level_seeds"], np.int32),
            }
            for name, column in columns.items():
                if column.shape != (length,):
                    raise ValueError(f"labels {name} must be ({length},), got {column.shape}")
        self.add_stream([frames_THWC])
        if labels is not None:
            self._labels.append(columns)
            self._outcomes.append(outcome)

    def add_stream(self, chunks: Iterable[np.ndarray]) -> int:
        """Append one segment, without labels, from consecutive chunks uint8 (T, H, W, 3).

        An error raised while the chunks are made leaves the shard as it was before the call.

        Returns:
            Number of frames of the segment.
        """
        length = 0
        try:
            for frames_THWC in chunks:
                self._check_frames(frames_THWC)
                with self._disk_full_explained(length + len(frames_THWC)):
                    self._file.write(np.ascontiguousarray(frames_THWC).data)
                length += len(frames_THWC)
            if length == 0:
                raise ValueError("a segment must have at least one frame, got none")
        except BaseException:
            if not self._file.closed:
                self._file.seek(self._header_bytes + self.num_frames * self._frame_bytes)
                self._file.truncate()
            raise
        self._segments.append((self.num_frames, length))
        self.num_frames += length
        return length

    def add_file(self, path: Path, data: bytes) -> None:
        """A further file to put in place with the shard, before it counts."""
        self._extra_files[path] = data

    def commit(self) -> None:
        """Put the shard in place. Labels and segments first, frames last: see the module."""
        if self.num_frames == 0:
            raise ValueError(f"shard {self.shard} of {self.folder} has no frames to commit")
        with self._disk_full_explained(0):
            self._file.seek(0)
            self._file.write(_npy_header(self.num_frames, self.frame_size, self.frame_size))
            self._file.close()
            files = {segments_path(self.folder, self.shard): self._segment_bytes()}
            if self._labels:
                files[labels_path(self.folder, self.shard)] = self._label_bytes()
            files |= self._extra_files
            for path, data in files.items():
                _temporary(path).write_bytes(data)
            final = frames_path(self.folder, self.shard)
            # From here on an older shard of this number no longer counts.
            final.unlink(missing_ok=True)
            for path in files:
                os.replace(_temporary(path), path)
            os.replace(self._frames_tmp, final)

    def discard(self) -> None:
        """Remove the temporary files of this shard."""
        with suppress(OSError):  # a full disk also fails the flush on close
            self._file.close()
        for path in (
            self._frames_tmp,
            _temporary(segments_path(self.folder, self.shard)),
            _temporary(labels_path(self.folder, self.shard)),
            *map(_temporary, self._extra_files),
        ):
            path.unlink(missing_ok=True)

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.discard()
        else:
            self.commit()

    def _check_frames(self, frames_THWC: np.ndarray) -> None:
        size = self.frame_size
        if (
            not isinstance(frames_THWC, np.ndarray)
            or frames_THWC.dtype != np.uint8
            or frames_THWC.ndim != 4
            or frames_THWC.shape[1:] != (size, size, 3)
        ):
            got = f"{getattr(frames_THWC, 'dtype', type(frames_THWC))} {np.shape(frames_THWC)}"
            raise ValueError(f"frames must be a uint8 array (T, {size}, {size}, 3), got {got}")

    def _segment_bytes(self) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.array(self._segments, np.int64).reshape(-1, 2))
        return buffer.getvalue()

    def _label_bytes(self) -> bytes:
        buffer = io.BytesIO()
        columns = {
            name: np.concatenate([part[name] for part in self._labels]) for name in self._labels[0]
        }
        np.savez(buffer, **columns, outcomes=np.array(self._outcomes, np.int8))
        return buffer.getvalue()

    @contextmanager
    def _disk_full_explained(self, pending_frames: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            frames = max(self.expected_frames, self.num_frames + pending_frames)
            needed = self._header_bytes + frames * self._frame_bytes
            if hasattr(self, "_file"):
                self.discard()
            raise StoreFullError(
                errno.ENOSPC,
                f"disk full while writing shard {self.shard} of {self.folder}: at least "
                f"{needed:,} free bytes are needed for it. Earlier shards are intact; free some "
                "space and run the same command again to go on",
            ) from error


class ClipStore:
    """Clips of `clip_frames` consecutive frames from one store or several. Opens no labels.

    Args:
        paths: a store's folder, or several, concatenated in that order.
        clip_frames: T >= 1, frames of a clip. Segments that are shorter give no clip.

    Attributes:
        meta: the first store's meta.json; `metas` has all.
        num_frames: frames in all, whether a clip starts at them or not.

    Reads may come from many threads; a pickled copy opens the files anew.

    Raises:
        FileNotFoundError: a folder that is not there, is no store, or has no complete shard.
        ValueError: another format version, frame sizes that differ, damaged shards, no segment of
            at least `clip_frames` frames.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], clip_frames: int = 16) -> None:
        folders = [paths] if isinstance(paths, (str, Path)) else list(paths)
        if not folders:
            raise ValueError("expected at least one store folder, got an empty list")
        if clip_frames < 1:
            raise ValueError(f"clip_frames must be >= 1, got {clip_frames}")
        self.paths = [Path(folder) for folder in folders]
        self.clip_frames = int(clip_frames)
        self.metas = [read_meta(folder) for folder in self.paths]
        sizes = [meta["frame_size"] for meta in self.metas]
        if len(set(sizes)) > 1:
            pairs = zip(self.paths, sizes, strict=True)
            listed = ", ".join(f"{path} has {size}" for path, size in pairs)
            raise ValueError(f"stores read together must share one frame_size, but {listed}")
        self.meta = self.metas[0]
        self.frame_size: int = self.meta["frame_size"]

        self.shards: list[tuple[Path, int]] = []
        for folder in self.paths:
            numbers = list_shards(folder)
            if not numbers:
                raise FileNotFoundError(
                    f"clip store {folder} has no complete shard (expected frames-00000.npy ...)"
                )
            self.shards += [(folder, number) for number in numbers]

        self._open_frames()
        segment_rows = []
        for shard, (folder, number) in enumerate(self.shards):
            segments_S2 = _load_segments(folder, number, len(self._frames[shard]))
            segment_rows.append(np.insert(segments_S2, 0, shard, axis=1))
        # One row a segment: index into self.shards, first frame, length.
        self.segments = np.concatenate(segment_rows)
        starts_S = np.maximum(self.segments[:, 2] - self.clip_frames + 1, 0)
        self._clip_ends_S = np.cumsum(starts_S)
        if self._clip_ends_S[-1] == 0:
            raise ValueError(
                f"no segment in {', '.join(map(str, self.paths))} has the {self.clip_frames} "
                f"frames of a clip: the longest of {len(self.segments)} has "
                f"{self.segments[:, 2].max()}"
            )
        self.num_frames = sum(len(frames) for frames in self._frames)

    def __len__(self) -> int:
        """Number of clips: every start from which `clip_frames` unbroken frames follow."""
        return int(self._clip_ends_S[-1])

    def clip(self, index: int) -> np.ndarray:
        """Clip `index`, uint8 (T, H, W, 3), a copy. IndexError outside [-len, len)."""
        shard, start = self.locate(index)
        return np.array(self._frames[shard][start : start + self.clip_frames])

    def clips(self, indices_B: Sequence[int] | np.ndarray) -> np.ndarray:
        """Clips stacked to uint8 (B, T, H, W, 3)."""
        size = self.frame_size
        frames_BTHWC = np.empty((len(indices_B), self.clip_frames, size, size, 3), np.uint8)
        for b, index in enumerate(indices_B):
            shard, start = self.locate(int(index))
            frames_BTHWC[b] = self._frames[shard][start : start + self.clip_frames]
        return frames_BTHWC

    def batch(self, indices_B: Sequence[int] | np.ndarray) -> tuple[np.ndarray, ...]:
        """As `clips`, the only thing that there is to train on here."""
        return (self.clips(indices_B),)

    def locate(self, index: int) -> tuple[int, int]:
        """Where clip `index` lies: (index into `shards`, first frame in that shard)."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of a store with {len(self)} clips")
        index %= len(self)
        row = int(np.searchsorted(self._clip_ends_S, index, side="right"))
        first = int(self._clip_ends_S[row - 1]) if row else 0
        shard, start, _ = self.segments[row]
        return int(shard), int(start) + index - first

    def last_clips(self) -> np.ndarray:
        """Of each segment that is long enough, the index of its last clip: int64."""
        return np.unique(self._clip_ends_S[self._clip_ends_S > 0]) - 1

    def segment(self, row: int) -> np.ndarray:
        """All frames of segment `row`, uint8 (length, H, W, 3), read-only and memory-mapped."""
        shard, start, length = self.segments[row]
        return self._frames[shard][start : start + length]

    def shard_frames(self, shard: int) -> np.ndarray:
        """All frames of shard `shard` (index into `shards`), uint8 (N, H, W, 3), memory-mapped."""
        return self._frames[shard]

    def _open_frames(self) -> None:
        self._frames = [_open_shard(folder, n, self.frame_size) for folder, n in self.shards]

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would carry the data itself.
        state = self.__dict__.copy()
        del state["_frames"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_frames()


class EndsOften:
    """A `ClipStore` in which about `share` of the clips (0 <= share < 1) are the last ones of their
    segments. What an episode ends with, a coin or a fall, is on few frames of it."""

    def __init__(self, store: ClipStore, share: float) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"share={share}; accepted: 0 <= share < 1")
        self._store = store
        self._last = store.last_clips()
        self._extra = round(share / (1 - share) * len(store))

    def __len__(self) -> int:
        return len(self._store) + self._extra

    def batch(self, indices_B: Sequence[int] | np.ndarray) -> tuple[np.ndarray, ...]:
        """As of the store, indices from its length on being those of last clips."""
        indices_B = np.asarray(indices_B)
        beyond_B = indices_B - len(self._store)
        last_B = self._last[beyond_B % len(self._last)]
        return self._store.batch(np.where(beyond_B < 0, indices_B, last_B))


def _open_shard(folder: Path, shard: int, frame_size: int) -> np.ndarray:
    path = frames_path(folder, shard)
    try:
        frames_NHWC = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if frames_NHWC.dtype != np.uint8 or frames_NHWC.shape[1:] != (frame_size, frame_size, 3):
        raise ValueError(
            f"{path} must be uint8 (N, {frame_size}, {frame_size}, 3), "
            f"got {frames_NHWC.dtype} {frames_NHWC.shape}"
        )
    return frames_NHWC


def _load_segments(folder: Path, shard: int, num_frames: int) -> np.ndarray:
    path = segments_path(folder, shard)
    if not path.is_file():
        raise ValueError(f"{folder} has frames but no segments for shard {shard}: {path.name}")
    segments_S2 = np.load(path)
    if segments_S2.ndim != 2 or segments_S2.shape[1] != 2 or len(segments_S2) == 0:
        raise ValueError(f"{path} must be (S >= 1, 2), got {segments_S2.shape}")
    starts_S, lengths_S = segments_S2.T
    if (starts_S < 0).any() or (lengths_S < 1).any() or (starts_S + lengths_S).max() > num_frames:
        raise ValueError(f"{path} points outside of the shard's {num_frames} frames")
    return segments_S2


class Labels(NamedTuple):
    """Labels of one shard; N frames, S segments."""

    actions: np.ndarray
    """int8 (N,): the true action taken at frame i, which leads to frame i+1; -1 = not known."""
    rewards: np.ndarray
    """float32 (N,): reward of that action."""
    level_seeds: np.ndarray
    """int32 (N,): level that frame i shows."""
    outcomes: np.ndarray
    """int8 (S,): how each segment ends, an index into `OUTCOMES`. Where it is not "cut", the
    segment's last action is known too: it is the one that ended the episode."""


def load_labels(path: str | Path, shard: int) -> Labels:
    """Labels of one shard of a store.

    Only four things may read labels: the small labelled set of latent behavioural cloning, the
    outcome (reward and termination) head, the expert, and evaluation. No world-model objective
    may: action-free training would be a claim without ground.

    Raises:
        FileNotFoundError: the store was recorded without labels (an import of videos, say).
    """
    file = labels_path(Path(path), shard)
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not there: shard {shard} was recorded without labels "
            "(collected stores have them, imported videos have none)"
        )
    with np.load(file) as columns:
        return Labels(**{name: columns[name] for name in Labels._fields})


def has_labels(folders: Sequence[Path]) -> bool:
    """Whether all shards of these stores were recorded with labels."""
    return all(labels_path(folder, n).is_file() for folder in folders for n in list_shards(folder))


class ClipLabels:
    """Labels of a `ClipStore`'s clips, by the same indices. `load_labels` says who may use it."""

    def __init__(self, store: ClipStore) -> None:
        self._store = store
        self._labels = [load_labels(folder, number) for folder, number in store.shards]

    def actions(self, indices_B: Sequence[int] | np.ndarray) -> np.ndarray:
        """True actions between the frames of each clip, int64 (B, M)."""
        return self._gather("actions", indices_B)[:, :-1].astype(np.int64)

    def rewards(self, indices_B: Sequence[int] | np.ndarray) -> np.ndarray:
        """Reward of the action taken at each frame, float32 (B, T)."""
        return self._gather("rewards", indices_B)

    def level_seeds(self, indices_B: Sequence[int] | np.ndarray) -> np.ndarray:
        """Level of each frame, int32 (B, T)."""
        return self._gather("level_seeds", indices_B)

    def _gather(self, name: str, indices_B: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = []
        for index in indices_B:
            shard, start = self._store.locate(int(index))
            column = getattr(self._labels[shard], name)
            rows.append(column[start : start + self._store.clip_frames])
        return np.stack(rows)
