"""What a policy cloned from videos is worth in the real game, beside everything that it is not.

Every policy plays the same fixed levels, one episode on each, so that differences are paired.

Shapes: L levels, D draws of the labelled set, X labelled transitions, N frames of a shard.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from agents.config import CloningConfig, CloningScoreConfig, PlanConfig
from agents.latent_bc.clone import DecidedClips, clone, fast, logits_of, trained, true_buttons
from agents.latent_bc.learn import NUM_BUTTONS, Footage, LabelledSet, Lesson
from agents.latent_bc.mapping import MAP_KINDS, fit_map
from agents.latent_bc.policy import RealPolicy
from agents.networks import NOT_KNOWN, NetworkConfig, Policy
from agents.plan import plan_ways
from agents.score import Levels, frames_env, score_buttons, solved
from training.evaluation.config import parse_levels
from training.evaluation.sections import Estimate, bootstrap

ALL = "all"
FEW_STEPS = 400
"""Of training on nothing but a small labelled set."""
EXPERT = "expert, looking ahead"
ORACLE, PLAIN, RIGHT_JUMP = (
    "videos with all true actions", "nothing but the labels", "always right+jump",
)  # fmt: skip
"""What the others are compared with."""


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
        """Which levels a policy solves, bool (L,)."""
        make_env = partial(frames_env, self.levels, self.frame_skip)
        return self.kept(
            f"{name}-{policy.fingerprint()}",
            lambda: solved(policy.player(), make_env, self.levels, what=name),
        )


def evaluate(config: CloningConfig, score: CloningScoreConfig) -> dict[str, list[Curve]]:
    """The curves of every difficulty, written to `run/score.json`, `.md` and `.png`.

    Raises as `Lesson`; ImportError without the engine.
    """
    lesson = Lesson(config)
    policies = list(_policies(lesson, score))
    found = {}
    for difficulty in score.difficulties:
        levels = Levels(lesson.model.config.look, difficulty, *parse_levels(score.levels))
        scores = Scores(
            config.run / f"scores-{difficulty}-{score.levels}", levels,
            lesson.model.config.frame_skip or 1,
        )  # fmt: skip
        curves = {curve.method: curve for curve in _buttons(scores)}
        if score.expert:
            won_L = scores.kept("expert", partial(_expert, scores))
            curves[EXPERT] = Curve(EXPERT, {ALL: won_L[None]})
        for method, labels, draws in policies:
            curve = curves.setdefault(method, Curve(method))
            curve.won[labels] = np.array([scores.of(name, policy) for name, policy in draws])
        found[difficulty] = list(curves.values())
        # What is known is written, should the rest be cut off.
        _write(config.run, found)
    return found


def _buttons(scores: Scores) -> Iterator[Curve]:
    """Those that look at nothing."""
    path = scores.folder / "buttons.json"
    if not path.exists():
        won = {name: won_L.tolist() for name, won_L in score_buttons(scores.levels).items()}
        path.write_text(json.dumps(won))
    for name, won in json.loads(path.read_text()).items():
        yield Curve(name, {"0": np.array([won])})


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
    latent = lesson.latent_policy()
    sizes: list[int | None] = [*score.labels, None]
    for size in sizes:
        draws: dict[str, Draws] = {kind: [] for kind in MAP_KINDS}
        for seed in range(1 if size is None else score.draws):
            some = lesson.draw_labelled(size, seed)
            clips = lesson.labelled_clips(some, latent.config.num_frames)
            logits_XK = logits_of(latent, clips)
            for kind in MAP_KINDS:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message="no label among")
                    action_map = fit_map(kind, some.codes_X, some.actions_X, logits_XK)
                # One seed: draws that teach the same map are one policy, and played once.
                draws[kind].append(("latent", RealPolicy(latent, action_map, seed=0)))
        for kind in MAP_KINDS:
            yield f"latent policy, {kind}", ALL if size is None else str(size), draws[kind]
    for size in score.labels:
        yield PLAIN, str(size), _trained_draws(lesson, labels_alone, size, score.draws)
    for method, train in (
        ("videos relabelled by decoded latents", Lesson.relabelled),
        ("videos labelled by inverse dynamics", inverse_dynamics),
    ):
        for size in score.retrained_labels:
            yield method, str(size), _trained_draws(lesson, train, size, score.retrained_draws)


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
    """Markdown: the share of levels solved, and how much more than others solve of the same
    levels; 95% intervals over levels."""
    others = (ORACLE, PLAIN, RIGHT_JUMP)
    parts = []
    for difficulty, curves in found.items():
        named = {curve.method: curve for curve in curves}
        parts += [f"### {difficulty}", ""]
        parts += [
            "| method | labels | draws | levels solved | worst to best draw | "
            + " | ".join(f"more than {other}" for other in others) + " |"
        ]  # fmt: skip
        parts += ["|---" * (5 + len(others)) + "|"]
        for curve in curves:
            for labels, won_DL in curve.won.items():
                each_D = won_DL.mean(1)
                spread = f"{each_D.min():.3f} to {each_D.max():.3f}" if len(each_D) > 1 else ""
                differences = [
                    _more(won_DL, named[other].won, labels)
                    if other in named and other != curve.method else ""
                    for other in others
                ]  # fmt: skip
                cells = [curve.method, labels, str(len(won_DL)), _text(curve.estimate(labels))]
                parts.append("| " + " | ".join([*cells, spread, *differences]) + " |")
        parts.append("")
    return "\n".join(parts)


def _more(won_DL: np.ndarray, other: dict[str, np.ndarray], labels: str) -> str:
    """Paired, level by level: with as many labels, or with what the other has."""
    other_DL = other.get(labels, next(iter(other.values())) if len(other) == 1 else None)
    if other_DL is None:
        return ""
    return _text(bootstrap(won_DL.mean(0) - other_DL.mean(0)), "+")


def _text(e: Estimate, sign: str = "") -> str:
    return f"{e.value:{sign}.3f} [{e.low:{sign}.3f}, {e.high:{sign}.3f}]"


def plot(path: Path, found: dict[str, list[Curve]]) -> None:
    """Figure 15 of the paper, with all methods: levels solved by labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(found) + 3, 4.8), layout="constrained")
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
    # The methods are the same on all.
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=120)
