"""What an evaluation consists of: sections of measured rows and figures, each with its protocol.

Shapes: S independent scenes (rows of whatever was measured on them).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

CONFIDENCE = 0.95
DRAWS = 1_000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval over scenes."""

    value: float
    low: float
    high: float
    count: int
    """Independent scenes it rests on."""

    @classmethod
    def of(cls, value: float, drawn: np.ndarray, count: int) -> Estimate:
        """The value with the percentile interval of the same statistic of scenes `drawn` again;
        nan where a draw held nothing to measure (no coin in any of its scenes)."""
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.nanpercentile(drawn, [tail, 100 - tail])
        return cls(value, float(low), float(high), count)


def bootstrap(
    rows_S: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean, seed: int = 0
) -> Estimate:
    """`statistic` of the rows, with the percentile interval over rows drawn again.

    rows_S: (S, ...), one row an independent scene; `statistic` takes (S, ...) and gives a number.
    Rows may be of one scene only if they are one row: frames of a clip are not independent.
    Raises ValueError without rows.
    """
    rows_S = np.asarray(rows_S)
    count = len(rows_S)
    if not count:
        raise ValueError("no scene to measure on")
    rng = np.random.default_rng(seed)
    drawn = [statistic(rows_S[rng.integers(count, size=count)]) for _ in range(DRAWS)]
    return Estimate.of(float(statistic(rows_S)), np.array(drawn), count)


def share(counts_S2: np.ndarray) -> float:
    """Of rows (hits, cases): all hits over all cases; nan without cases. For `bootstrap`."""
    hits, cases = counts_S2.sum(0)
    return float(hits / cases) if cases else float("nan")


@dataclass(frozen=True)
class Row:
    """One measured number."""

    name: str
    estimate: Estimate
    unit: str = ""
    """"dB", "px" and the like; empty for shares and counts."""
    beside: dict[str, float] = field(default_factory=dict)
    """What to read it against: base rate, floor, ceiling, chance."""


@dataclass(frozen=True)
class Figure:
    """A plot or film strips."""

    name: str
    """File name without suffix."""
    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """One group of measurements."""

    title: str
    protocol: str
    """How it was measured: what a reader needs to measure it again."""
    rows: list[Row]
    figures: list[Figure] = field(default_factory=list)


def strips_png(strips_BTHWC: np.ndarray, scale: int = 2) -> bytes:
    """Film strips of uint8 frames as PNG: a row a strip, a column a frame."""
    B, T, H, W, C = strips_BTHWC.shape
    picture = Image.fromarray(strips_BTHWC.transpose(0, 2, 1, 3, 4).reshape(B * H, T * W, C))
    picture = picture.resize((T * W * scale, B * H * scale), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()
