"""Behavioural cloning: a policy that does at each frame of a video what was done there.

What was done may be latent actions (the labels that a latent action model gives) or real ones.

Shapes: B clips, T frames, N frames of a shard, A actions, H W pixels, C = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.config import CloneConfig
from agents.latent_bc.mapping import plain_button_index
from agents.networks import NOT_KNOWN, NetworkConfig, Policy
from training.data.clip_store import ClipStore, load_labels
from training.loop import LoopConfig, train


class DecidedClips:
    """Clips that end at each frame of which it is known what was done.

    Args:
        store: the frames.
        actions: int64 (N,) for each shard of the store: what was done at each frame, `NOT_KNOWN`
            where that is not known.
        num_frames: T, of a clip. Before the first frame of a segment there is that frame again and
            no action, as at play.
        last_only: nothing is said of what was done at the frames before the last.

    Raises ValueError for actions that are not one a frame, or where none is known.
    """

    def __init__(
        self,
        store: ClipStore,
        actions: Sequence[np.ndarray],
        num_frames: int = 1,
        last_only: bool = False,
    ) -> None:
        self.store, self.num_frames = store, num_frames
        self._actions, self._last_only = actions, last_only
        frames = [len(store.shard_frames(shard)) for shard in range(len(store.shards))]
        given = [len(shard_N) for shard_N in actions]
        if frames != given:
            raise ValueError(f"actions for {given} frames a shard; the store has {frames}")
        # One row a clip: shard, its last frame, the first frame of that one's segment.
        rows = []
        for shard, start, length in store.segments.tolist():
            known = start + np.flatnonzero(actions[shard][start : start + length] != NOT_KNOWN)
            rows.append(np.stack(np.broadcast_arrays(shard, known, start), 1))
        self._clips = np.concatenate(rows)
        if not len(self._clips):
            raise ValueError(
                f"no action is known of the {store.num_frames} frames of {store.paths}"
            )

    def __len__(self) -> int:
        return len(self._clips)

    def batch(self, indices_B: np.ndarray) -> tuple[np.ndarray, ...]:
        """uint8 (B, T, H, W, C) and int64 (B, T)."""
        before_T = np.arange(1 - self.num_frames, 1)
        frames, actions = [], []
        for shard, last, start in self._clips[indices_B].tolist():
            places_T = last + before_T
            known_T = places_T >= start
            if self._last_only:
                known_T = before_T == 0
            places_T = np.maximum(places_T, start)
            frames.append(self.store.shard_frames(shard)[places_T])
            actions.append(np.where(known_T, self._actions[shard][places_T], NOT_KNOWN))
        return np.stack(frames), np.stack(actions).astype(np.int64)


class CloneStage(nn.Module):
    """Cross-entropy of what was done: a stage of `training.loop`."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self, frames_BTHWC: Tensor, actions_BT: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        logits_BTA = self.policy(frames_BTHWC, actions_BT).float()
        logits = logits_BTA.flatten(0, 1)
        target = actions_BT[:, -logits_BTA.shape[1] :].flatten()
        loss = F.cross_entropy(logits, target, ignore_index=NOT_KNOWN)
        known = target != NOT_KNOWN
        right = (logits.argmax(-1) == target)[known].float().mean()
        return loss, {"accuracy": right.detach()}

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in metrics.items()}

    def parts_to_compile(self) -> list[nn.Module]:
        return [self.policy.network]


def network_of(config: CloneConfig) -> NetworkConfig:
    return NetworkConfig(config.network, config.channels, config.frames)


def true_buttons(store: ClipStore) -> list[np.ndarray]:
    """Which of `PLAIN_BUTTONS` was pressed at each frame of each shard, int64 (N,); `NOT_KNOWN`
    where that is not."""
    pressed = [load_labels(*shard).actions for shard in store.shards]
    return [np.where(a < 0, NOT_KNOWN, plain_button_index(np.maximum(a, 0))) for a in pressed]


def logits_of(policy: Policy, clips: DecidedClips, at_once: int = 256) -> np.ndarray:
    """What a policy says at the last frame of every clip, told of no action, fp32 (clips, A)."""
    rows = []
    for first in range(0, len(clips), at_once):
        frames, actions = clips.batch(np.arange(first, min(first + at_once, len(clips))))
        rows.append(policy.at(frames, np.full_like(actions, NOT_KNOWN)))
    return np.concatenate(rows)


def fast(policy: Policy) -> Policy:
    """To play with: in bf16, which is several times faster where it is not slower."""
    return policy.to(torch.bfloat16).eval()


def clone(
    config: CloneConfig,
    num_actions: int,
    clips: DecidedClips,
    run: Path,
    validation: DecidedClips | None = None,
    network: NetworkConfig | None = None,
) -> Policy:
    """A policy trained to do as was done; `run` holds its state and log, and resumes.

    network: in place of the config's.
    """
    torch.manual_seed(config.seed)
    policy = Policy(network or network_of(config), num_actions, clips.store.frame_size)
    loop = LoopConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        clip_frames=clips.num_frames,
        learning_rate=config.learning_rate,
        warmup_steps=min(100, config.steps // 10),
        seed=config.seed,
        validate_every=max(1, config.steps // 10),
    )
    train(CloneStage(policy), loop, run, clips, validation)
    return policy.eval()


def trained(folder: Path, train: Callable[[Path], Policy]) -> Policy:
    """The policy that is kept in a folder, trained if need be, to play with."""
    if not (folder / "policy.json").exists():
        train(folder / "clone").save(folder)
    return fast(Policy.load(folder))
