"""What `genie eval` measures, and on how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SECTIONS = (
    "tokenizer",
    "prediction",
    "agreement",
    "retrieval",
    "consistency",
    "distance",
    "drift",
    "prompts",
    "outcome",
)


@dataclass(frozen=True)
class EvaluationConfig:
    """What to measure, and on how much."""

    levels: str = "20000-20999"
    """First and last level, both included. Nothing may be trained or tuned on 20,000 and above."""
    difficulty: str = "easy"
    num_scenes: int = 128
    """Clips of the real game."""
    num_starts: int = 16
    """Of them those that held codes and long dreams start from."""
    sections: tuple[str, ...] = SECTIONS
    """`outcome` is left out for a model that has learned neither reward nor end."""
    i3d: Path | None = None
    """The standard i3d_torchscript.pt, for a Frechet video distance that others report too."""
    seed: int = 20_000


def parse_levels(levels: str) -> tuple[int, int]:
    """ "20000-20999" to (first level, number of levels)."""
    first, dash, last = levels.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise ValueError(f"levels {levels!r}; accepted: FIRST-LAST, like 20000-20999")
    return int(first), int(last) - int(first) + 1
