"""From videos without actions, and a few labels, to a policy of the real game.

Shapes: N frames of a shard, X labelled transitions, K latent actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from agents.config import CloningConfig, remember
from agents.latent_bc.clone import DecidedClips, clone, fast, network_of
from agents.latent_bc.controller import fit_controller
from agents.latent_bc.label import Labels, label, open_videos
from agents.latent_bc.mapping import fit_map
from agents.latent_bc.policy import RealPolicy
from agents.networks import NOT_KNOWN, Policy
from genie_env.world_model import WorldModel
from training.data.clip_store import ClipStore, has_labels, load_labels


@dataclass(frozen=True)
class Footage:
    """One folder of videos, and what the latent action model says of it."""

    store: ClipStore
    labels: Labels


@dataclass(frozen=True)
class LabelledSet:
    """Transitions whose true actions are known."""

    frames_XHWC: np.ndarray
    """uint8: the frames at which the actions were taken."""
    codes_X: np.ndarray
    """int64: their latent actions."""
    before_XE: np.ndarray
    """fp32: the continuous latent action of the transition before; 0 where there is none."""
    actions_X: np.ndarray
    """int64: their buttons, of the engine's 15."""
    places: list[tuple[int, int, int]]
    """Footage, shard and frame of each."""


class Lesson:
    """All that a run of `CloningConfig` learns from, made when first asked for.

    Raises ValueError for a run of another config, or as `open_videos`; FileNotFoundError for what
    is not there.
    """

    def __init__(self, config: CloningConfig) -> None:
        self.config = config
        remember(config, config.run / "cloning.json", apart=("run", "labels", "map", "labelled"))

    @cached_property
    def model(self) -> WorldModel:
        return WorldModel.from_pretrained(self.config.model)

    @cached_property
    def footage(self) -> list[Footage]:
        """Of the videos to clone."""
        return [self._watch(folder) for folder in self.config.videos]

    @cached_property
    def labelled(self) -> list[Footage]:
        """With true actions. ValueError where there are none."""
        if self.config.labelled:
            watched = [self._watch(folder) for folder in self.config.labelled]
        else:
            watched = self.footage
        paths = [footage.store.paths[0] for footage in watched]
        without = [str(path) for path in paths if not has_labels([path])]
        if without:
            raise ValueError(
                f"no true actions beside {', '.join(without)}: name clip stores that have some "
                "(--config.labelled)"
            )
        return watched

    def _watch(self, folder: Path) -> Footage:
        store = open_videos(folder, self.model, self.config.run / "imported" / folder.name)
        name = "-".join(folder.parts[-2:])
        return Footage(store, label(self.model, store, self.config.run / f"latent-{name}.npz"))

    def clips(self, done: Sequence[Sequence[np.ndarray]]) -> DecidedClips:
        """Of all videos. done: for each footage, for each shard, what was done at its frames."""
        folders = [footage.store.paths[0] for footage in self.footage]
        store = ClipStore(folders, network_of(self.config.clone).num_frames)
        return DecidedClips(store, [shard_N for shards in done for shard_N in shards])

    def latent_policy(self) -> Policy:
        """The clone of what the latent action model says was done, trained if need be."""
        folder = self.config.run / "latent"
        if not (folder / "policy.json").exists():
            clips = self.clips([footage.labels.codes for footage in self.footage])
            num_codes = self.model.config.num_actions
            clone(self.config.clone, num_codes, clips, folder / "clone").save(folder)
        return fast(Policy.load(folder))

    def draw_labelled(self, count: int | None, seed: int) -> LabelledSet:
        """Some labelled transitions of the videos' levels, drawn evenly; all if None.

        Raises ValueError where there are fewer, or none is asked for.
        """
        places = [
            (number, shard, int(frame))
            for number, footage in enumerate(self.labelled)
            for shard, codes_N in enumerate(footage.labels.codes)
            for frame in np.flatnonzero(codes_N != NOT_KNOWN)
        ]
        if count is not None:
            if not 1 <= count <= len(places):
                raise ValueError(f"labels={count}; accepted: 1 to {len(places):,}")
            rng = np.random.default_rng(seed)
            places = [places[i] for i in sorted(rng.choice(len(places), count, replace=False))]
        actions = [
            [load_labels(*shard).actions for shard in footage.store.shards]
            for footage in self.labelled
        ]
        footage = self.labelled
        return LabelledSet(
            np.stack([footage[f].store.shard_frames(s)[n] for f, s, n in places]),
            np.array([footage[f].labels.codes[s][n] for f, s, n in places]),
            # At the last frame of a segment the latent is 0, and so before the first of the next.
            np.stack([footage[f].labels.latents[s][n - 1] * (n > 0) for f, s, n in places]),
            np.array([actions[f][s][n] for f, s, n in places], np.int64),
            places,
        )


def logits_at(policy: Policy, frames_XHWC: np.ndarray, at_once: int = 256) -> np.ndarray:
    """What a policy says of single frames, fp32 (X, K)."""
    groups = range(0, len(frames_XHWC), at_once)
    return np.concatenate([policy.logits(frames_XHWC[i : i + at_once])[0] for i in groups])


def learn(config: CloningConfig) -> RealPolicy:
    """Label, clone, map; ends with the policy in `config.run / "policy"`, and with it
    `controller.npz`, the way back from real to latent actions."""
    lesson = Lesson(config)
    policy = lesson.latent_policy()
    some = lesson.draw_labelled(config.labels, config.seed)
    found = fit_map(config.map, some.codes_X, some.actions_X, logits_at(policy, some.frames_XHWC))
    real = RealPolicy(policy, found, config.seed)
    real.save(config.run / "policy", {"model": config.model, "labels": config.labels})
    back = fit_controller(some.actions_X, some.before_XE, some.codes_X, policy.num_actions)
    back.save(config.run / "policy" / "controller.npz")
    return real
