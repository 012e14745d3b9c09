"""The table and the curves of cloned policies: levels solved by labels (paper, figure 15).

Shapes: D draws of the labelled set, L levels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import dacite
import numpy as np

from training.evaluation.sections import Estimate, bootstrap

ALL, NONE = "all", "0"
"""In place of a number of labels."""
EXPERT = "expert, looking ahead"
ORACLE, PLAIN, RIGHT_JUMP = (
    "videos with all true actions", "nothing but the labels", "always right+jump",
)  # fmt: skip
"""What the others are compared with."""


@dataclass(frozen=True)
class Score:
    """What a method does with so many labels."""

    method: str
    labels: str
    """How many; `ALL`, `NONE`."""
    solved: Estimate
    """Share of levels: the mean over labelled sets, with the interval over levels."""
    draws: tuple[float, ...] = ()
    """Of each labelled set; empty where that is not on record."""
    more: dict[str, Estimate] = field(default_factory=dict)
    """Than another method solves of the same levels with as many labels, paired level by level."""


Found = Mapping[str, Sequence[Score]]
"""By difficulty."""


def compare(won: Mapping[tuple[str, str], np.ndarray]) -> list[Score]:
    """Scores from plays: (method, labels) to which levels were solved, bool (D, L)."""
    scores = []
    for (method, labels), won_DL in won.items():
        more = {}
        for other in (ORACLE, PLAIN, RIGHT_JUMP):
            sizes = {k: other_DL for (name, k), other_DL in won.items() if name == other}
            # With as many labels, or with what the other has.
            other_DL = sizes.get(labels, next(iter(sizes.values())) if len(sizes) == 1 else None)
            if other_DL is not None and other != method:
                more[other] = bootstrap(won_DL.mean(0) - other_DL.mean(0))
        draws = tuple(won_DL.mean(1).tolist())
        scores.append(Score(method, labels, bootstrap(won_DL.mean(0)), draws, more))
    return scores


def with_others(found: Found, others: Sequence[Found]) -> dict[str, list[Score]]:
    """With the rows of other reports that are missing in this one; first come, first served."""
    merged: dict[str, dict[tuple[str, str], Score]] = {}
    for one in (found, *others):
        for difficulty, scores in one.items():
            rows = merged.setdefault(difficulty, {})
            for score in scores:
                rows.setdefault((score.method, score.labels), score)
    return {difficulty: list(rows.values()) for difficulty, rows in merged.items()}


def write_report(folder: Path, found: Found) -> None:
    """`score.json`, `score.md` and `score.png`."""
    facts = {
        difficulty: [asdict(score) for score in scores] for difficulty, scores in found.items()
    }
    (folder / "score.json").write_text(json.dumps(facts, indent=2) + "\n")
    (folder / "score.md").write_text(table(found))
    plot(folder / "score.png", found)


def read_scores(path: Path) -> dict[str, list[Score]]:
    """What `write_report` wrote to `score.json`. FileNotFoundError, ValueError for another file."""
    strict = dacite.Config(cast=[tuple], strict=True)
    try:
        return {
            difficulty: [dacite.from_dict(Score, score, strict) for score in scores]
            for difficulty, scores in json.loads(path.read_text()).items()
        }
    except (dacite.DaciteError, AttributeError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no score.json of `genie bc eval`: {error}") from error


def table(found: Found) -> str:
    """Markdown: the share of levels solved, and how much more than others solve of the same levels;
    95% intervals over levels."""
    others = (ORACLE, PLAIN, RIGHT_JUMP)
    titles = ["method", "labels", "draws", "levels solved", "worst to best draw"]
    titles += [f"more than {other}" for other in others]
    parts = []
    for difficulty, scores in found.items():
        parts += [f"### {difficulty}", "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for score in scores:
            draws = score.draws
            spread = f"{min(draws):.3f} to {max(draws):.3f}" if len(draws) > 1 else ""
            cells = [score.method, score.labels, str(len(draws) or ""), _text(score.solved), spread]
            cells += [_text(score.more[o], "+") if o in score.more else "" for o in others]
            parts.append(f"| {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def _text(e: Estimate, sign: str = "") -> str:
    return f"{e.value:{sign}.3f} [{e.low:{sign}.3f}, {e.high:{sign}.3f}]"


def plot(path: Path, found: Found) -> None:
    """Levels solved by labels, all methods. Those that need no labels, or all, are level lines;
    what others make of all labels stands at the right end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    everything = [score for scores in found.values() for score in scores]
    methods = list(dict.fromkeys(score.method for score in everything))
    sizes = sorted({int(s.labels) for s in everything if s.labels not in (ALL, NONE)})
    place = {str(size): size for size in sizes} | {ALL: 10 * max(sizes, default=1)}
    figure = Figure(figsize=(5 * len(found) + 3.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    named = {}
    panels = np.ravel(figure.subplots(1, len(found), sharex=True, sharey=True))
    for axes, (difficulty, scores) in zip(panels, found.items(), strict=True):
        for number, method in enumerate(methods):
            known = {score.labels: score.solved for score in scores if score.method == method}
            colour = (*(f"C{k}" for k in range(10)), "black")[number % 11]
            marker = "osD^v<>Pp*X"[number % 11]
            curve = sorted((place[labels], e) for labels, e in known.items() if labels in place)
            if len(known) == 1 and not {ALL, NONE}.isdisjoint(known):
                (level,) = known.values()
                named[method] = axes.axhline(level.value, ls="--", color=colour)
            elif curve:
                x, estimates = zip(*curve, strict=True)
                value, low, high = np.array([(e.value, e.low, e.high) for e in estimates]).T
                (named[method],) = axes.plot(x, value, color=colour, marker=marker, ms=5)
                bars = np.stack((value - low, high - value))
                axes.errorbar(x, value, bars, fmt="none", color=colour)
        axes.set(xscale="log", xlabel="labels", title=difficulty, ylim=(0, 1))
        axes.set_xticks(list(place.values()), list(place))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("levels solved")
    order = [method for method in methods if method in named]
    figure.legend(
        [named[method] for method in order], order, loc="outside right center", fontsize=8
    )
    figure.savefig(path, dpi=120)
