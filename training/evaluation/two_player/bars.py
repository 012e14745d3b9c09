"""What a two-player model should reach, and how many training runs reach it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from training.evaluation.sections import Row, Section


class Bar(NamedTuple):
    """A value to reach: at least, or at most. `of_ceiling`: a share of the row's ceiling."""

    value: float
    at_most: bool = False
    of_ceiling: bool = False

    def met(self, row: Row) -> bool:
        bar = self.value * (row.beside[CEILING] if self.of_ceiling else 1)
        found = row.estimate.value
        return found <= bar if self.at_most else found >= bar

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        return f"{sign} {self.value:g}" + (" of the ceiling" if self.of_ceiling else "")


CEILING = "true displacement"
FOUND, OWN = "both within 4 px, each on its side", "NMI of a code and its player's action"
DRIVEN = "paddle error, mean of all steps"


def _bars(
    found: float, own: Bar, told: float, place: float, change: tuple[float, ...], driven: float
) -> dict[str, Bar]:
    shares = ("own paddle", "other paddle", "ball", "rest")
    return {
        FOUND: Bar(found),
        OWN: own,
        "NMI of a code and the other player's action": Bar(told, at_most=True),
        "NMI of a code and the ball's way left or right": Bar(told, at_most=True),
        "NMI of a code and the ball's way up or down": Bar(told, at_most=True),
        "NMI of a code and a point": Bar(told, at_most=True),
        "more told by a map for each place": Bar(place, at_most=True),
        **{
            f"share in: {name}": Bar(share, at_most=name != "own paddle")
            for name, share in zip(shares, change, strict=True)
        },
        DRIVEN: Bar(driven, at_most=True),
    }


BARS: dict[str, dict[str, Bar]] = {
    "duel": _bars(0.95, Bar(0.85), 0.02, 0.05, (0.93, 0.01, 0.02, 0.04), 2.0)
    | {
        "as in the game: one player": Bar(0.95),
        "as in the game: both": Bar(0.95),
        "as in the game: swapped": Bar(0.95),
        "information that something foretellable costs": Bar(0.05, at_most=True),
    },
    "cooperative_pong": _bars(0.99, Bar(0.9), 0.02, 0.05, (0.93, 0.01, 0.02, 0.04), 2.0),
    "atari_pong": _bars(0.9, Bar(0.8, of_ceiling=True), 0.03, 0.08, (0.85, 0.02, 0.05, 0.08), 4.0),
}
"""Of each game, by the names of rows."""


def bars_table(found: Mapping[str, Mapping[str, list[Section]]]) -> str:
    """Markdown: every bar, what each model (name -> game -> its sections) has, and how many meet
    it."""
    lines = [
        "| game | | to reach | " + " | ".join(found) + " | met by |",
        "|---" * (4 + len(found)) + "|",
    ]
    for game, bars in BARS.items():
        for name, bar in bars.items():
            rows = [_row(sections.get(game, []), name) for sections in found.values()]
            if all(row is None for row in rows):
                continue
            met = [row is not None and bar.met(row) for row in rows]
            cells = [
                "-" if row is None else f"{row.estimate.value:.3f}{'' if good else ' (not)'}"
                for row, good in zip(rows, met, strict=True)
            ]
            reached = f"{sum(met)} of {len(met)}"
            lines.append(f"| {game} | {name} | {bar} | {' | '.join(cells)} | {reached} |")
            # Floors and ceilings.
            for beside in next(row for row in rows if row is not None).beside:
                cells = [
                    f"{row.beside[beside]:.3f}" if row and beside in row.beside else "-"
                    for row in rows
                ]
                lines.append(f"| {game} | the same of {beside} |  | {' | '.join(cells)} | |")
    return "\n".join(lines) + "\n"


def _row(sections: list[Section], name: str) -> Row | None:
    return next((row for section in sections for row in section.rows if row.name == name), None)
