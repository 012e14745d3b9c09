"""What a policy cloned from videos is worth in the real game, beside everything that it is not.

Every policy plays the same fixed levels, one episode on each, so that differences are paired.

Shapes: L levels, D draws of the labelled set, X labelled transitions, N frames of a shard.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from agents.config import CloningConfig, CloningScoreConfig
from agents.latent_bc.clone import DecidedClips, clone, fast, true_buttons
from agents.latent_bc.learn import LabelledSet, Lesson, logits_at
from agents.latent_bc.mapping import MAP_KINDS, fit_linear, fit_map, plain_button_index
from agents.latent_bc.policy import RealPolicy
from agents.networks import NOT_KNOWN, NetworkConfig, Policy
from agents.score import Levels, frames_env, score_buttons, solved
from genie_env.envs.coinrun import PLAIN_BUTTONS
from training.data.clip_store import ClipStore
from training.evaluation.config import parse_levels
from training.evaluation.sections import Estimate, bootstrap

NUM_BUTTONS = len(PLAIN_BUTTONS)
AHEAD = 3
"""Latent actions that say what was done at a frame: its own and those after it. What is pressed in
the air shows late, and who labels videos may look ahead."""
ALL = "all"
FEW_STEPS = 400
"""Of training on nothing but a small labelled set."""


@dataclass
class Curve:
    """A method's share of levels solved, by the number of labels."""

    method: str
    won: dict[str, np.ndarray] = field(default_factory=dict)
    """Number of labels, or `ALL`, to bool (D, L)."""

    def estimate(self, labels: str) -> Estimate:
        """Mean over draws, with the interval over levels."""
        return bootstrap(self.won[labels].mean(0))


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
        """Which levels a policy solves, bool (L,). A name stands for one set of weights; maps are
        told apart here."""
        facts = None if policy.action_map is None else policy.action_map.to_json()
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
        make_env = partial(frames_env, self.levels, self.frame_skip)
        return self.kept(
            f"{name}-{key}", lambda: solved(policy.player(), make_env, self.levels, what=name)
        )


def evaluate(config: CloningConfig, score: CloningScoreConfig) -> dict[str, list[Curve]]:
    """The curves of every difficulty, written to `run/score.json`, `.md` and `.png`.

    Raises as `Lesson`; ImportError without the engine.
    """
    lesson = Lesson(config)
    found = {}
    for difficulty in score.difficulties:
        levels = Levels.of(lesson.model.config.look, difficulty, *parse_levels(score.levels))
        scores = Scores(
            config.run / f"scores-{difficulty}-{score.levels}", levels,
            lesson.model.config.frame_skip or 1,
        )  # fmt: skip
        found[difficulty] = [*_references(scores, score), *_cloned(lesson, scores, score)]
    _write(config.run, found)
    return found


def _references(scores: Scores, score: CloningScoreConfig) -> Iterator[Curve]:
    """Those that learn from no video."""
    path = scores.folder / "buttons.json"
    if not path.exists():
        won = {name: won_L.tolist() for name, won_L in score_buttons(scores.levels).items()}
        path.write_text(json.dumps(won))
    for name, won in json.loads(path.read_text()).items():
        yield Curve(name, {"0": np.array([won])})
    if score.expert is not None:
        expert = RealPolicy(fast(Policy.load(score.expert)), seed=0)
        yield Curve("expert", {ALL: scores.of("expert", expert)[None]})


def _cloned(lesson: Lesson, scores: Scores, score: CloningScoreConfig) -> Iterator[Curve]:
    sizes: list[int | None] = [*score.labels, None]
    latent = lesson.latent_policy()
    for kind in MAP_KINDS:
        curve = Curve(f"latent policy, {kind}")
        for size in sizes:
            rows = []
            for seed in range(1 if size is None else score.draws):
                some = lesson.draw_labelled(size, seed)
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="no label among")
                    action_map = fit_map(
                        kind, some.codes_X, some.actions_X, logits_at(latent, some.frames_XHWC)
                    )
                rows.append(scores.of("latent", RealPolicy(latent, action_map, seed=0)))
            curve.won[_name(size)] = np.array(rows)
        yield curve
    trained: dict[str, Callable[[Lesson, LabelledSet, Path], Policy]] = {
        "videos relabelled by decoded latents": relabelled,
        "videos labelled by inverse dynamics": inverse_dynamics,
        "nothing but the labels": labels_alone,
    }
    for method, train in trained.items():
        curve = Curve(method)
        for size in score.retrained_labels:
            rows = []
            for seed in range(score.retrained_draws):
                name = f"{train.__name__}-{size}-{seed}"
                policy = _trained(
                    lesson.config.run / name,
                    lambda run, train=train, size=size, seed=seed: train(  # type: ignore[misc]
                        lesson, lesson.draw_labelled(size, seed), run
                    ),
                )
                rows.append(scores.of(name, RealPolicy(policy, seed=0)))
            curve.won[_name(size)] = np.array(rows)
        yield curve
    oracle = _trained(lesson.config.run / "oracle", partial(oracle_clone, lesson))
    yield Curve(
        "videos with all true actions", {ALL: scores.of("oracle", RealPolicy(oracle, seed=0))[None]}
    )


def _trained(folder: Path, train: Callable[[Path], Policy]) -> Policy:
    if not (folder / "policy.json").exists():
        train(folder / "clone").save(folder)
    return fast(Policy.load(folder))


def _name(size: int | None) -> str:
    return ALL if size is None else str(size)


def oracle_clone(lesson: Lesson, run: Path) -> Policy:
    """Cloned from what was truly done in every frame of the videos."""
    clips = lesson.clips([true_buttons(footage.store) for footage in lesson.footage])
    return clone(lesson.config.clone, NUM_BUTTONS, clips, run)


def relabelled(lesson: Lesson, some: LabelledSet, run: Path) -> Policy:
    """The labels teach what latent actions mean, these label the videos, which are then cloned
    (the way of LAPO+)."""
    seen = [
        [_ahead(*shard) for shard in zip(footage.labels.latents, footage.labels.codes, strict=True)]
        for footage in lesson.labelled
    ]
    x = np.stack([seen[f][s][n] for f, s, n in some.places])
    weight, bias = fit_linear(x, plain_button_index(some.actions_X), NUM_BUTTONS)
    done = [
        [
            np.where(
                codes_N == NOT_KNOWN,
                NOT_KNOWN,
                (_ahead(latents_NE, codes_N) @ weight + bias).argmax(-1),
            )
            for latents_NE, codes_N in zip(
                footage.labels.latents, footage.labels.codes, strict=True
            )
        ]
        for footage in lesson.footage
    ]
    return clone(lesson.config.clone, NUM_BUTTONS, lesson.clips(done), run)


def _ahead(latents_NE: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """The latent action at each frame and those that follow, (N, AHEAD * E); 0 beyond the end of a
    segment."""
    inside_N = codes_N != NOT_KNOWN
    columns = []
    for k in range(AHEAD):
        following = np.r_[np.arange(k, len(codes_N)), np.zeros(min(k, len(codes_N)), np.int64)]
        inside_N = inside_N & (codes_N[following] != NOT_KNOWN)
        inside_N[len(codes_N) - k :] = False
        columns.append(np.where(inside_N[:, None], latents_NE[following], 0.0))
    return np.concatenate(columns, 1)


def labels_alone(lesson: Lesson, some: LabelledSet, run: Path) -> Policy:
    """Cloned from the labelled frames and nothing else."""
    config = replace(lesson.config.clone, network="impala")
    config = replace(config, steps=min(config.steps, FEW_STEPS))
    return clone(config, NUM_BUTTONS, _labelled_clips(lesson, some, 1), run)


def inverse_dynamics(lesson: Lesson, some: LabelledSet, run: Path) -> Policy:
    """A network learns from the labelled pairs of frames what was done between two, labels the
    videos, and those are cloned: what a latent action model must beat."""
    # The action stands at the later frame of a pair: a policy sees that one and the one before it.
    between = _Pairs(lesson, _labelled_clips(lesson, some, 2), run.with_name("pairs"))
    done = [
        [between.done(footage.store, s, codes_N) for s, codes_N in enumerate(footage.labels.codes)]
        for footage in lesson.footage
    ]
    return clone(lesson.config.clone, NUM_BUTTONS, lesson.clips(done), run)


def _labelled_clips(lesson: Lesson, some: LabelledSet, num_frames: int) -> DecidedClips:
    """Clips that begin at the labelled frames, with the button at their last frame; no others."""
    known = [
        [np.full(len(codes_N), NOT_KNOWN) for codes_N in footage.labels.codes]
        for footage in lesson.labelled
    ]
    for (f, s, n), button in zip(some.places, plain_button_index(some.actions_X), strict=True):
        known[f][s][n + num_frames - 1] = button
    store = ClipStore([footage.store.paths[0] for footage in lesson.labelled], num_frames)
    return DecidedClips(store, [shard_N for shards in known for shard_N in shards])


class _Pairs:
    """What was done between two frames, learnt from labelled pairs."""

    def __init__(self, lesson: Lesson, clips: DecidedClips, run: Path) -> None:
        network = NetworkConfig("st-vivit")
        network = replace(network, transformer=replace(network.transformer, context_frames=2))
        config = replace(lesson.config.clone, network="st-vivit")
        config = replace(config, steps=min(config.steps, FEW_STEPS), learning_rate=5e-4)
        self.policy = clone(config, NUM_BUTTONS, clips, run, network=network)

    @torch.no_grad()
    def done(self, store: ClipStore, shard: int, codes_N: np.ndarray) -> np.ndarray:
        """Int64 (N,), `NOT_KNOWN` where no frame follows."""
        frames = store.shard_frames(shard)
        found_N = np.full(len(frames), NOT_KNOWN)
        places = np.flatnonzero(codes_N != NOT_KNOWN)
        unknown = torch.full((1, 2), NOT_KNOWN)
        for first in range(0, len(places), 256):
            some = places[first : first + 256]
            pairs = torch.from_numpy(np.stack((frames[some], frames[some + 1]), 1))
            logits = self.policy(pairs, unknown.expand(len(some), 2))[:, -1]
            found_N[some] = logits.argmax(-1).numpy()
        return found_N


def _write(run: Path, found: dict[str, list[Curve]]) -> None:
    (run / "score.md").write_text(report(found))
    facts = {
        difficulty: {
            curve.method: {labels: won.mean(1).tolist() for labels, won in curve.won.items()}
            for curve in curves
        }
        for difficulty, curves in found.items()
    }
    (run / "score.json").write_text(json.dumps(facts, indent=2) + "\n")
    plot(run / "score.png", found)


def report(found: dict[str, list[Curve]]) -> str:
    """Markdown: the share of levels solved, with its 95% interval over levels."""
    parts = []
    for difficulty, curves in found.items():
        parts += [f"### {difficulty}", "", "| method | labels | levels solved | draws |"]
        parts += ["|---|---|---|---|"]
        for curve in curves:
            for labels, won_DL in curve.won.items():
                e = curve.estimate(labels)
                parts.append(
                    f"| {curve.method} | {labels} | {e.value:.3f} [{e.low:.3f}, {e.high:.3f}] | "
                    f"{len(won_DL)} |"
                )
        parts.append("")
    return "\n".join(parts)


def plot(path: Path, found: dict[str, list[Curve]]) -> None:
    """Figure 15 of the paper, with all methods: levels solved by labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(found), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (difficulty, curves) in zip(
        np.ravel(figure.subplots(1, len(found))), found.items(), strict=True
    ):
        for number, curve in enumerate(curves):
            known = [(int(k), curve.estimate(k)) for k in curve.won if k not in (ALL, "0")]
            colour = f"C{number % 10}"
            if known:
                x = [labels for labels, _ in known]
                axes.plot(x, [e.value for _, e in known], "o-", color=colour, label=curve.method)
                axes.fill_between(
                    x, [e.low for _, e in known], [e.high for _, e in known],
                    color=colour, alpha=0.2, linewidth=0,
                )  # fmt: skip
            else:
                level = curve.estimate(next(iter(curve.won))).value
                axes.axhline(level, ls="--", color=colour, label=curve.method)
        axes.set(xscale="log", xlabel="labels", ylabel="levels solved", title=difficulty)
        axes.set_ylim(0, 1)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)
