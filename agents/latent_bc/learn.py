"""From videos without actions, and a few labels, to a policy of the real game.

Shapes: N frames of a shard, X labelled transitions, K latent actions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from agents.config import CloningConfig
from agents.latent_bc.clone import DecidedClips, clone, logits_of, network_of, trained
from agents.latent_bc.controller import fit_controller
from agents.latent_bc.label import Labels, label, open_videos
from agents.latent_bc.mapping import (
    MAP_KINDS,
    ActionMap,
    MapKind,
    count_codes,
    fit_linear,
    fit_map,
    plain_button_index,
    softmax,
)
from agents.latent_bc.policy import RealPolicy
from agents.networks import NOT_KNOWN, Policy, fingerprint
from genie_env.envs.coinrun import PLAIN_BUTTONS
from genie_env.world_model import WorldModel
from training.data.clip_store import ClipStore, has_labels, load_labels
from training.data.collect import VALIDATION_LEVELS
from training.remember import remember

NUM_BUTTONS = len(PLAIN_BUTTONS)
SPAN = range(-1, 4)
"""Frames, seen from one, whose latent actions tell what was pressed there: what is pressed in the
air shows late, and who labels videos may look ahead."""
DECODER_DECAY = 10.0
"""Of the weights that read buttons from latent actions; like `SPAN` chosen on training levels, for
200 labels."""
READS_FROM = 100
"""Labels: fewer read videos worse than they are counted, though they are no fair sample."""
ASK_ROUNDS, ASK_AMONG, ASK_BESIDE = 4, 20_000, 10
"""How often labels are asked for again, among how many, and of how many for each that is asked
for: those beside it would else all look the same."""


@dataclass(frozen=True)
class Footage:
    """One folder of videos, and what the latent action model says of it."""

    store: ClipStore
    labels: Labels


@dataclass(frozen=True)
class LabelledSet:
    """Transitions whose true actions are known."""

    codes_X: np.ndarray
    """int64: their latent actions."""
    before_XE: np.ndarray
    """fp32: the continuous latent action of the transition before; 0 where there is none."""
    actions_X: np.ndarray
    """int64: their buttons, of the engine's 15."""
    places: np.ndarray
    """int64 (X, 3): footage, shard and frame of each."""


class Lesson:
    """All that a run of `CloningConfig` learns from, made when first asked for.

    Raises ValueError for a run of another config, or as `open_videos`; FileNotFoundError for what
    is not there.
    """

    def __init__(self, config: CloningConfig) -> None:
        self.config = config
        self.model = WorldModel.from_pretrained(config.model)
        remember(
            config,
            config.run / "cloning.json",
            apart=("run", "labels", "map"),
            latent_actions=fingerprint(self.model.latent_actions),
        )

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
        # Folders of one name may lie in different places.
        name = f"{folder.name}-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"
        store = open_videos(folder, self.model, self.config.run / "imported" / name)
        first, _ = VALIDATION_LEVELS
        if has_labels(store.paths):
            last = max(int(load_labels(*shard).level_seeds.max()) for shard in store.shards)
            if last >= first:
                raise ValueError(
                    f"{folder} shows level {last}; accepted: training levels, below {first:,}"
                )
        return Footage(store, label(self.model, store, self.config.run / f"latent-{name}.npz"))

    def clips(self, done: Sequence[Sequence[np.ndarray]]) -> DecidedClips:
        """Of all videos. done: for each footage, for each shard, what was done at its frames."""
        store = ClipStore([footage.store.paths[0] for footage in self.footage], 1)
        flat = [shard_N for shards in done for shard_N in shards]
        return DecidedClips(store, flat, network_of(self.config.clone).num_frames)

    def labelled_clips(
        self, some: LabelledSet, num_frames: int = 1, after: int = 0
    ) -> DecidedClips:
        """Clips that end so many frames after the labelled ones, with their buttons; no others."""
        known = [
            [np.full(len(codes_N), NOT_KNOWN) for codes_N in footage.labels.codes]
            for footage in self.labelled
        ]
        for (f, s, n), button in zip(
            some.places.tolist(), plain_button_index(some.actions_X), strict=True
        ):
            known[f][s][n + after] = button
        store = ClipStore([footage.store.paths[0] for footage in self.labelled], 1)
        flat = [shard_N for shards in known for shard_N in shards]
        return DecidedClips(store, flat, num_frames, last_only=True)

    def latent_policy(self) -> Policy:
        """The clone of what the latent action model says was done, trained if need be."""

        def train(run: Path) -> Policy:
            clips = self.clips([footage.labels.codes for footage in self.footage])
            return clone(self.config.clone, self.model.config.num_actions, clips, run)

        return trained(self.config.run / "latent", train)

    @cached_property
    def _all_labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Footage, shard and frame of every labelled transition, int64 (X, 3), and its button."""
        places, actions = [], []
        for f, footage in enumerate(self.labelled):
            for s, codes_N in enumerate(footage.labels.codes):
                pressed_N = load_labels(*footage.store.shards[s]).actions
                frames = np.flatnonzero((codes_N != NOT_KNOWN) & (pressed_N >= 0))
                places.append(np.stack(np.broadcast_arrays(f, s, frames), 1))
                actions.append(pressed_N[frames].astype(np.int64))
        return np.concatenate(places), np.concatenate(actions)

    def draw_labelled(self, count: int | None, seed: int) -> LabelledSet:
        """Some labelled transitions of the videos' levels, chosen as `config.choose` says; all if
        None.

        Raises ValueError where there are fewer, or none is asked for.
        """
        places_X3, actions_X = self._all_labelled
        if count is not None:
            if not 1 <= count <= len(places_X3):
                raise ValueError(f"labels={count}; accepted: 1 to {len(places_X3):,}")
            rng = np.random.default_rng(seed)
            choose = self._ask if self.config.choose == "doubtful" else self._evenly
            chosen = np.sort(choose(count, rng))
            places_X3, actions_X = places_X3[chosen], actions_X[chosen]
        labels = [footage.labels for footage in self.labelled]
        places = places_X3.tolist()
        return LabelledSet(
            np.array([labels[f].codes[s][n] for f, s, n in places]),
            # At the last frame of a segment the latent is 0, and so before the first of the next.
            np.stack([labels[f].latents[s][n - 1] * (n > 0) for f, s, n in places]),
            actions_X,
            places_X3,
        )

    def _evenly(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.choice(len(self._all_labelled[0]), count, replace=False)

    def _ask(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Which labels to ask for: some drawn evenly, then, `ASK_ROUNDS` times, some of those that
        the labels so far leave the most doubtful (margin sampling, Scheffer et al., 2001)."""
        places_X3, actions_X = self._all_labelled
        everything, asked = len(places_X3), np.empty(0, np.int64)
        for number in range(ASK_ROUNDS + 1):
            more = count * (number + 1) // (ASK_ROUNDS + 1) - len(asked)
            if not len(asked):
                asked = self._evenly(more, rng)
                continue
            weight, bias = self._reader(places_X3[asked], actions_X[asked])
            pool = rng.choice(everything, min(ASK_AMONG, everything), replace=False)
            pool = pool[~np.isin(pool, asked)]
            likely = np.sort(softmax(self._shown_at(places_X3[pool]) @ weight + bias), axis=-1)
            doubtful = pool[np.argsort(likely[:, -1] - likely[:, -2])[: ASK_BESIDE * more]]
            asked = np.append(asked, rng.choice(doubtful, more, replace=False))
        return asked

    def _reader(self, places_X3: np.ndarray, actions_X: np.ndarray) -> tuple[np.ndarray, ...]:
        """Weights (F, A) and bias that read buttons from what shows them."""
        button_X = plain_button_index(actions_X)
        return fit_linear(self._shown_at(places_X3), button_X, NUM_BUTTONS, DECODER_DECAY)

    @cached_property
    def _shown(self) -> list[list[np.ndarray]]:
        """What tells the buttons of each shard of the labelled footage, fp32."""
        num_codes = self.model.config.num_actions
        return [_shown_in(footage.labels, num_codes) for footage in self.labelled]

    @cached_property
    def _shown_in_videos(self) -> list[list[np.ndarray]]:
        """The same of the videos to clone."""
        if self.labelled is self.footage:
            return self._shown
        num_codes = self.model.config.num_actions
        return [_shown_in(footage.labels, num_codes) for footage in self.footage]

    def _shown_at(self, places_X3: np.ndarray) -> np.ndarray:
        return np.stack([self._shown[f][s][n] for f, s, n in places_X3.tolist()])

    def taught(
        self, train: Callable[[Lesson, LabelledSet, Path], Policy], count: int, seed: int
    ) -> tuple[str, Policy]:
        """A policy that needs a labelled set of its own, trained if need be, and its name."""
        name = f"{train.__name__}-{count}-{seed}"
        some = self.draw_labelled(count, seed)
        return name, trained(self.config.run / name, partial(train, self, some))

    def maps(
        self, some: LabelledSet, policy: Policy, kinds: Sequence[MapKind] = MAP_KINDS
    ) -> dict[MapKind, ActionMap]:
        """From the latent policy's actions to real ones, in each of these ways."""
        logits_XK = logits_of(policy, self.labelled_clips(some, policy.config.num_frames))
        count_KA = self._counts(some)
        return {kind: fit_map(kind, count_KA, some.actions_X, logits_XK) for kind in kinds}

    def _counts(self, some: LabelledSet) -> np.ndarray:
        """How often each latent action goes with each button, fp64 (K, A)."""
        num_codes = self.model.config.num_actions
        count, everything = len(some.actions_X), len(self._all_labelled[0])
        if self.config.choose == "evenly" or not READS_FROM <= count < everything:
            return count_codes(some.codes_X, some.actions_X, num_codes)
        # Labels that were asked for are no fair sample. What they read in all videos is one.
        weight, bias = self._reader(some.places, some.actions_X)
        count_KA = np.zeros((num_codes, NUM_BUTTONS))
        for footage, shown_F in zip(self.footage, self._shown_in_videos, strict=True):
            for codes_N, x_NF in zip(footage.labels.codes, shown_F, strict=True):
                known_N = codes_N != NOT_KNOWN
                chances_NA = softmax(x_NF[known_N] @ weight + bias)
                np.add.at(count_KA, codes_N[known_N], chances_NA)
        return count_KA

    def relabelled(self, some: LabelledSet, run: Path) -> Policy:
        """The labels teach what latent actions mean, these label the videos, which are then cloned
        (the way of LAPO+). The policy presses buttons."""
        weight, bias = self._reader(some.places, some.actions_X)
        # By half of their frequency: to stop where one must is rare, and a clone forgives labels
        # that are wrong here and there, not those that are always wrong.
        count_A = np.bincount(plain_button_index(some.actions_X), minlength=NUM_BUTTONS)
        bias = bias - np.log(count_A / count_A.sum() + 0.01) / 2
        done = [
            [
                np.where(codes_N == NOT_KNOWN, NOT_KNOWN, (x_NF @ weight + bias).argmax(-1))
                for codes_N, x_NF in zip(footage.labels.codes, shown_F, strict=True)
            ]
            for footage, shown_F in zip(self.footage, self._shown_in_videos, strict=True)
        ]
        return clone(self.config.clone, NUM_BUTTONS, self.clips(done), run)


def _shown_in(labels: Labels, num_codes: int) -> list[np.ndarray]:
    return [shown(*shard, num_codes) for shard in zip(labels.latents, labels.codes, strict=True)]


def shown(latents_NE: np.ndarray, codes_N: np.ndarray, num_codes: int) -> np.ndarray:
    """What tells the button at each frame: latent actions and codes, as one-hot, over `SPAN`,
    (N, len(SPAN) * (E + K)); 0 beyond the ends of a segment."""
    known_N = codes_N != NOT_KNOWN
    there = np.concatenate([latents_NE, np.eye(num_codes)[codes_N]], 1) * known_N[:, None]
    there = there.astype(np.float32)
    # The last frame of a segment has no action, and belongs to it.
    segment_N = np.cumsum(np.r_[False, ~known_N[:-1]])
    columns = []
    for k in SPAN:
        other_N = np.arange(len(codes_N)) + k
        inside_N = (other_N >= 0) & (other_N < len(codes_N))
        other_N = np.where(inside_N, other_N, 0)
        inside_N &= segment_N[other_N] == segment_N
        columns.append(there[other_N] * inside_N[:, None])
    return np.concatenate(columns, 1)


def learn(config: CloningConfig) -> RealPolicy:
    """Label, clone, map; ends with the policy in `config.run / "policy"`, and with it
    `controller.npz`, the way back from real to latent actions."""
    lesson = Lesson(config)
    some = lesson.draw_labelled(config.labels, config.seed)
    if config.map == "relabel":
        _, policy = lesson.taught(Lesson.relabelled, config.labels, config.seed)
        real = RealPolicy(policy, None, config.seed)
    else:
        policy = lesson.latent_policy()
        action_map = lesson.maps(some, policy, (config.map,))[config.map]
        real = RealPolicy(policy, action_map, config.seed)
    real.save(config.run / "policy", {"model": config.model, "labels": config.labels})
    num_codes = lesson.model.config.num_actions
    back = fit_controller(some.actions_X, some.before_XE, some.codes_X, num_codes)
    back.save(config.run / "policy" / "controller.npz")
    return real
