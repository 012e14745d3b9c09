"""From video of games of two to a model of both players."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor

from genie_env.world_model.two_player import PlayersNotSeenError, TwoPlayerConfig, TwoPlayerModel
from training.data.clip_store import ClipStore
from training.data.duels import DuelConfig, record_duels
from training.loop import LoopConfig, processes, train
from training.remember import remember
from training.two_player import TwoPlayerLossConfig, TwoPlayerStage

NUM_STARTS, START_FRAMES = 32, 8


@dataclass(frozen=True)
class TwoPlayerRun:
    """How to find two players in video."""

    model: TwoPlayerConfig = field(default_factory=TwoPlayerConfig)
    loss: TwoPlayerLossConfig = field(default_factory=TwoPlayerLossConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=2_400,
            batch_size=24,
            learning_rate=1.5e-3,
            final_learning_rate=6e-5,
            warmup_steps=30,
            compile=True,
            validate_every=200,
        )
    )
    """`clip_frames` follows from the model."""
    start_from: str = ""
    """Model whose weights to begin with, of the same size: a shipped name, a folder, a hub id."""


def train_two_player(
    config: TwoPlayerRun, run_dir: Path, data: Sequence[Path], validation: Sequence[Path]
) -> TwoPlayerModel:
    """Train to the end, with the bundle in `run_dir/model`; the same call resumes. Without data,
    games of our own are recorded.

    Raises TrainingStopped (state saved) before the end, and ValueError for the folder of another
    config or frames of another size.
    """
    with processes().main_process_first():
        remember(replace(config, loop=replace(config.loop, max_minutes=None)), run_dir / "run.json")
        if not data:
            data = (record_duels(DuelConfig("data/duels")),)
            held_out = DuelConfig("data/duels-validation", num_games=400, first_shard=500_000)
            validation = (record_duels(held_out),)
    loop = replace(config.loop, clip_frames=_clip_frames(config))
    set_seed(loop.seed)
    stage = TwoPlayerStage(config.model, config.loss)
    if config.start_from:
        stage.model.load_state_dict(_weights_of(config.start_from, config.model))
    stores = [_open(folders, config) if folders else None for folders in (data, validation)]
    assert stores[0] is not None
    train(stage, loop, run_dir / "training", stores[0], stores[1])
    model = stage.model.cpu()
    model.prompts = _starts(model, stores[1] or stores[0])
    if processes().is_main_process:
        model.save_pretrained(run_dir / "model")
    return model


def _starts(model: TwoPlayerModel, store: ClipStore) -> np.ndarray:
    """Frames to start from, uint8 (P, T, H, W, C), of games in which the model sees both
    players."""
    starts = ClipStore(store.paths, START_FRAMES)
    found: list[np.ndarray] = []
    for number in np.random.default_rng(0).permutation(len(starts))[: 4 * NUM_STARTS]:
        frames_THWC = starts.clips(np.array([number]))[0]
        try:
            model.start(frames_THWC[None])
        except PlayersNotSeenError:
            continue
        found.append(frames_THWC)
        if len(found) == NUM_STARTS:
            break
    size = model.config.frame_size
    return np.array(found) if found else np.zeros((0, START_FRAMES, size, size, 3), np.uint8)


def _weights_of(name: str, config: TwoPlayerConfig) -> dict[str, Tensor]:
    """fp32. Raises ValueError for a model of another config."""
    model = TwoPlayerModel.from_pretrained(name, device="cpu", dtype=torch.float32)
    if model.config != config:
        raise ValueError(f"start_from={name} has {model.config}, this run has {config}")
    return model.state_dict()


def _clip_frames(config: TwoPlayerRun) -> int:
    return config.model.past_frames + 1 + config.loss.own_frames


def _open(folders: Sequence[Path], config: TwoPlayerRun) -> ClipStore:
    store = ClipStore(folders, _clip_frames(config))
    if store.frame_size != config.model.frame_size:
        raise ValueError(
            f"{folders[0]} has frames of {store.frame_size} pixels a side, this model takes "
            f"{config.model.frame_size}: import them with --frame-size {config.model.frame_size}"
        )
    return store
