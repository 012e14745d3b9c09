"""Videos to latent actions: what the frozen latent action model says was done at each frame.

Shapes: N frames of a shard, H W pixels, C = 3, E width of a latent action.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from agents.networks import NOT_KNOWN
from genie_env.envs.coinrun import ENGINE_FPS
from genie_env.world_model import WorldModel
from training.data.clip_store import ClipStore
from training.data.videos import import_videos

NEW, AT_ONCE = 56, 384
"""Frames that are labelled together, beside those that only show their past; frames in a batch."""
RATE_TOLERANCE = 0.01
NAMES = ("codes", "latents")

Window = tuple[int, int, int, int]
"""Shard, first frame that is looked at, first frame that is labelled, end."""


@dataclass(frozen=True)
class Labels:
    """Of each shard of a store."""

    codes: list[np.ndarray]
    """int64 (N,): the latent action between this frame and the next; `NOT_KNOWN` at the last frame
    of a segment."""
    latents: list[np.ndarray]
    """fp32 (N, E): what the codes were chosen by; 0 where there is none."""


def open_videos(videos: Path, model: WorldModel, imported: Path) -> ClipStore:
    """A clip store, or a folder of ordinary videos, which is imported to `imported` first.

    Raises ValueError for frames of another size, or another time between them, than the model's;
    FileNotFoundError where there is nothing.
    """
    config = model.config
    fps = ENGINE_FPS / config.frame_skip if config.frame_skip else None
    if not (videos / "meta.json").exists():
        import_videos(videos, imported, frame_size=config.frame_size, fps=fps)
        videos = imported
    store = ClipStore(videos, 1)
    if store.frame_size != config.frame_size:
        raise ValueError(
            f"{videos} has frames of {store.frame_size} pixels a side, this model's have "
            f"{config.frame_size}: import the videos with --frame-size {config.frame_size}"
        )
    found = store.meta["fps"]
    if fps and found and abs(found - fps) > RATE_TOLERANCE * fps:
        raise ValueError(
            f"{videos} has {found:g} frames a second, this model learnt from {fps:g}: the same "
            f"action looks different; import the videos with --fps {fps:g}"
        )
    return store


def label(model: WorldModel, store: ClipStore, out: Path | None = None) -> Labels:
    """What the model's latent action model says of every frame of the store.

    Every code is read with all of its segment before it in view, as far as the model looks back.
    out: file (.npz) that the labels are written to, and read from where it is there already.

    Raises ValueError for a file of another store.
    """
    sizes = [len(store.shard_frames(shard)) for shard in range(len(store.shards))]
    if out is not None and out.exists():
        with np.load(out) as saved:
            read = Labels(
                *([saved[f"{name}-{shard}"] for shard in range(len(saved) // 2)] for name in NAMES)
            )
        if [len(codes_N) for codes_N in read.codes] != sizes:
            raise ValueError(f"{out} holds labels of another video than {store.paths}")
        return read
    width = model.latent_actions.quantizer.latent_dim
    codes = [np.full(size, NOT_KNOWN) for size in sizes]
    latents = [np.zeros((size, width), np.float32) for size in sizes]
    for batch in _batches(list(_windows(store, model.latent_actions.look_back))):
        longest = max(end - start for _, start, _, end in batch)
        clips = np.stack([_padded(store, window, longest) for window in batch])
        with torch.no_grad():
            actions = model.latent_actions(torch.from_numpy(clips).to(model.device))
        codes_BM = actions.codes.cpu().numpy()
        latents_BME = actions.latents.float().cpu().numpy()
        for row, (shard, start, first, end) in enumerate(batch):
            # Transition m of the window lies between its frames m and m + 1.
            inside = slice(first - start, end - 1 - start)
            codes[shard][first : end - 1] = codes_BM[row, inside]
            latents[shard][first : end - 1] = latents_BME[row, inside]
    labels = Labels(codes, latents)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".partial.npz")
        columns = zip(NAMES, (codes, latents), strict=True)
        np.savez(partial, **{f"{n}-{i}": a for n, rows in columns for i, a in enumerate(rows)})
        partial.rename(out)
    return labels


def _windows(store: ClipStore, look_back: int) -> Iterator[Window]:
    """Each transition is labelled in the window that shows most of what came before it."""
    for shard, start, length in store.segments.tolist():
        end = start + length
        first = start
        while first < end - 1:
            look = max(start, first + 2 - look_back)
            stop = min(end, first + NEW)
            yield shard, look, first, stop
            first = stop - 1


def _batches(windows: list[Window]) -> Iterator[list[Window]]:
    """Windows of about the same length together: little is looked at for nothing."""
    batch: list[Window] = []
    for window in tqdm(sorted(windows, key=lambda w: w[3] - w[1]), desc="label", leave=False):
        if batch and (len(batch) + 1) * (window[3] - window[1]) > AT_ONCE:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _padded(store: ClipStore, window: Window, length: int) -> np.ndarray:
    """uint8 (length, H, W, 3). The last frame is repeated: nothing looks ahead."""
    shard, start, _, end = window
    return store.shard_frames(shard)[np.minimum(np.arange(start, start + length), end - 1)]
