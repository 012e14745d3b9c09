"""Episodes that people played, kept as training data: one shard an episode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from genie_env.world_model import WorldModelConfig
from training.data.clip_store import ClipWriter, list_shards, read_meta, write_meta


def keeper_of(
    folder: str | Path, config: WorldModelConfig
) -> Callable[[np.ndarray, np.ndarray], str]:
    """Of frames uint8 (T, H, W, 3) and the latent actions (T - 1,) between them: writes them as one
    segment of the store, the actions beside it (`played-NNNNN.npy`), and says where.

    Raises ValueError for a store of another frame size.
    """
    folder = Path(folder)
    if folder.exists() and (folder / "meta.json").exists():
        size = read_meta(folder)["frame_size"]
        if size != config.frame_size:
            raise ValueError(
                f"{folder} holds frames of {size} pixels a side, this world's have "
                f"{config.frame_size}"
            )

    def keep(frames_THWC: np.ndarray, codes_M: np.ndarray) -> str:
        if not (folder / "meta.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_meta(folder, frame_size=config.frame_size)
        shard = max(list_shards(folder), default=-1) + 1
        with ClipWriter(folder, shard, config.frame_size) as writer:
            writer.add(frames_THWC)
        np.save(folder / f"played-{shard:05d}.npy", codes_M.astype(np.int64))
        return f"kept {len(frames_THWC)} frames as segment {shard} of {folder}"

    return keep
