"""What a policy cloned from videos is worth in the real game, beside everything that it is not.

Every policy plays the same fixed levels, one episode on each, so that differences are paired.

Shapes: L levels, X labelled transitions, N frames of a shard.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from agents.config import CloningConfig, CloningScoreConfig, PlanConfig
from agents.latent_bc.clone import DecidedClips, clone, fast, logits_of, trained, true_buttons
from agents.latent_bc.learn import NUM_BUTTONS, Footage, LabelledSet, Lesson
from agents.latent_bc.mapping import MAP_KINDS
from agents.latent_bc.policy import RealPolicy
from agents.latent_bc.report import (
    ALL,
    EXPERT,
    NONE,
    ORACLE,
    PLAIN,
    Score,
    compare,
    read_scores,
    with_others,
    write_report,
)
from agents.networks import NOT_KNOWN, NetworkConfig, Policy
from agents.plan import plan_ways
from agents.score import Levels, frames_env, score_buttons, solved
from training.evaluation.config import parse_levels

FEW_STEPS = 400
"""Of training on nothing but a small labelled set."""


class Scores:
    """Plays policies on fixed levels and keeps what came of it: a second run reads it."""

    def __init__(self, folder: Path, levels: Levels, frame_skip: int) -> None:
        self.folder, self.levels, self.frame_skip = folder, levels, frame_skip
        folder.mkdir(parents=True, exist_ok=True)

    def kept(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        path = self.folder / f"{name}.npy"
        if not path.exists():
            partial_path = path.with_suffix(".partial.npy")
            np.save(partial_path, make())
            partial_path.rename(path)
        return np.load(path)

    def of(self, name: str, policy: RealPolicy) -> np.ndarray:
        """Which levels a policy solves, bool (L,)."""
        make_env = partial(frames_env, self.levels, self.frame_skip)
        return self.kept(
            f"{name}-{policy.fingerprint()}",
            lambda: solved(policy.player(), make_env, self.levels, what=name),
        )


def evaluate(config: CloningConfig, score: CloningScoreConfig) -> dict[str, list[Score]]:
    """The scores of every difficulty, written to `run/score.json`, `.md` and `.png`; with those of
    `score.beside` that are missing here.

    Raises as `Lesson` and `read_scores`; ImportError without the engine.
    """
    others = [read_scores(path) for path in score.beside]
    lesson = Lesson(config)
    policies = list(_policies(lesson, score))
    found: dict[str, list[Score]] = {}
    for difficulty in score.difficulties:
        levels = Levels(lesson.model.config.look, difficulty, *parse_levels(score.levels))
        scores = Scores(
            config.run / f"scores-{difficulty}-{score.levels}", levels,
            lesson.model.config.frame_skip or 1,
        )  # fmt: skip
        won = {(name, NONE): won_L[None] for name, won_L in _buttons(scores)}
        if score.expert:
            won[EXPERT, ALL] = scores.kept("expert", partial(_expert, scores))[None]
        for method, labels, draws in policies:
            won[method, labels] = np.array([scores.of(name, policy) for name, policy in draws])
        found[difficulty] = compare(won)
        # What is known is written, should the rest be cut off.
        write_report(config.run, with_others(found, others))
    return with_others(found, others)


def _buttons(scores: Scores) -> Iterator[tuple[str, np.ndarray]]:
    """Those that look at nothing: name and which levels they solve, bool (L,)."""
    path = scores.folder / "buttons.json"
    if not path.exists():
        won = {name: won_L.tolist() for name, won_L in score_buttons(scores.levels).items()}
        path.write_text(json.dumps(won))
    for name, won in json.loads(path.read_text()).items():
        yield name, np.array(won)


def _expert(scores: Scores) -> np.ndarray:
    levels = scores.levels
    ways = plan_ways(
        levels.states, levels.look, levels.difficulty, scores.frame_skip, PlanConfig(), EXPERT
    )
    return np.array([way is not None for way in ways])


Draws = list[tuple[str, RealPolicy]]
"""A name and a policy for each draw of the labelled set."""


def _policies(lesson: Lesson, score: CloningScoreConfig) -> Iterator[tuple[str, str, Draws]]:
    """Method, number of labels, and its policies; trained where they are not there yet."""
    run = lesson.config.run
    oracle = trained(run / "oracle", partial(oracle_clone, lesson))
    yield ORACLE, ALL, [("oracle", RealPolicy(oracle, seed=0))]
    if "maps" in score.methods:
        yield from _mapped(lesson, score)
    if "alone" in score.methods:
        for size in score.labels:
            yield PLAIN, str(size), _trained_draws(lesson, labels_alone, size, score.draws)
    for name, method, train in (
        ("relabelled", "videos relabelled by decoded latents", Lesson.relabelled),
        ("inverse", "videos labelled by inverse dynamics", inverse_dynamics),
    ):
        for size in score.retrained_labels if name in score.methods else ():
            yield method, str(size), _trained_draws(lesson, train, size, score.retrained_draws)


def _mapped(lesson: Lesson, score: CloningScoreConfig) -> Iterator[tuple[str, str, Draws]]:
    """The latent policy, with its actions mapped in every way."""
    latent = lesson.latent_policy()
    sizes: list[int | None] = [*score.labels, None]
    for size in sizes:
        draws: dict[str, Draws] = {kind: [] for kind in MAP_KINDS}
        for seed in range(1 if size is None else score.draws):
            some = lesson.draw_labelled(size, seed)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="no label among")
                maps = lesson.maps(some, latent)
            for kind, action_map in maps.items():
                # One seed: draws that teach the same map are one policy, and played once.
                draws[kind].append(("latent", RealPolicy(latent, action_map, seed=0)))
        for kind in MAP_KINDS:
            yield f"latent policy, {kind}", ALL if size is None else str(size), draws[kind]


def _trained_draws(
    lesson: Lesson, train: Callable[[Lesson, LabelledSet, Path], Policy], size: int, draws: int
) -> Draws:
    taught = [(seed, *lesson.taught(train, size, seed)) for seed in range(draws)]
    return [(name, RealPolicy(policy, seed=seed)) for seed, name, policy in taught]


def oracle_clone(lesson: Lesson, run: Path) -> Policy:
    """Cloned from what was truly done in every frame of the videos."""
    clips = lesson.clips([true_buttons(footage.store) for footage in lesson.footage])
    return clone(lesson.config.clone, NUM_BUTTONS, clips, run)


def labels_alone(lesson: Lesson, some: LabelledSet, run: Path) -> Policy:
    """Cloned from the labelled frames and nothing else."""
    config = replace(lesson.config.clone, network="impala")
    config = replace(config, steps=min(config.steps, FEW_STEPS))
    return clone(config, NUM_BUTTONS, lesson.labelled_clips(some), run)


def inverse_dynamics(lesson: Lesson, some: LabelledSet, run: Path) -> Policy:
    """A network learns from the labelled frames, those before and the one after, what was done,
    labels the videos, and those are cloned: what a latent action model must beat."""
    network = NetworkConfig("st-vivit")
    config = replace(lesson.config.clone, network="st-vivit", learning_rate=5e-4)
    config = replace(config, steps=min(config.steps, FEW_STEPS))
    # What was done at a frame shows in the one after it.
    clips = lesson.labelled_clips(some, network.num_frames, after=1)
    between = fast(clone(config, NUM_BUTTONS, clips, run.with_name("between"), network=network))
    done = [_done(between, footage) for footage in lesson.footage]
    return clone(lesson.config.clone, NUM_BUTTONS, lesson.clips(done), run)


def _done(between: Policy, footage: Footage) -> list[np.ndarray]:
    """What a network of inverse dynamics says was done at each frame of each shard, int64 (N,);
    `NOT_KNOWN` where no frame follows."""
    codes = footage.labels.codes
    # It looks at the frames after which something was done, and at those before them.
    after = [np.r_[NOT_KNOWN, codes_N[:-1]] for codes_N in codes]
    clips = DecidedClips(footage.store, after, between.config.num_frames, last_only=True)
    all_codes = np.concatenate(codes)
    found = np.full(len(all_codes), NOT_KNOWN)
    # Few at once: what lies between its matrix products should fit the cache.
    found[all_codes != NOT_KNOWN] = logits_of(between, clips, at_once=32).argmax(-1)
    return np.split(found, np.cumsum([len(codes_N) for codes_N in codes])[:-1])
