"""Episodes that people played, kept as training data: one shard an episode."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from genie_env.world_model import WorldModelConfig
from training.data.clip_store import ClipWriter, list_shards, read_meta, write_meta

SOURCE = {"kind": "played"}


def keeper_of(
    folder: str | Path, config: WorldModelConfig
) -> Callable[[np.ndarray, np.ndarray, int], str]:
    """Of frames uint8 (T, H, W, 3), the latent actions (T - 1,) between them and the number of the
    episode: writes them as one segment of the store, the actions beside it (`codes-NNNNN.npy`), and
    says where. What was kept of that episode before is replaced.

    Raises ValueError for a folder with other video, or of another frame size.
    """
    folder = Path(folder)
    if (folder / "meta.json").exists():
        meta = read_meta(folder)
        if meta["source"] != SOURCE:
            raise ValueError(
                f"{folder} holds video that was not played ({meta['source']}): name another folder"
            )
        if meta["frame_size"] != config.frame_size:
            raise ValueError(
                f"{folder} holds frames of {meta['frame_size']} pixels a side, this world's have "
                f"{config.frame_size}"
            )
    shard_of: dict[int, int] = {}

    def keep(frames_THWC: np.ndarray, codes_M: np.ndarray, episode: int) -> str:
        if not (folder / "meta.json").exists():
            look = None if config.look == "other" else config.look
            write_meta(
                folder,
                frame_size=config.frame_size,
                frame_skip=config.frame_skip,
                look=look,
                source=SOURCE,
            )
        shard = shard_of.setdefault(episode, max(list_shards(folder), default=-1) + 1)
        codes = io.BytesIO()
        np.save(codes, codes_M.astype(np.int64))
        with ClipWriter(folder, shard, config.frame_size) as writer:
            writer.add(frames_THWC)
            writer.add_file(folder / f"codes-{shard:05d}.npy", codes.getvalue())
        return f"kept {len(frames_THWC)} frames as segment {shard} of {folder}"

    return keep
