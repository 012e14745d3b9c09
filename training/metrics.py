"""What is measured on frames: similarity, movement of the scene, small things.

Shapes: ... any leading axes, H W pixels, C = 3.
"""

from __future__ import annotations

import numpy as np


def psnr_of_mse(mse: np.ndarray) -> np.ndarray:
    """Mean squared errors of pixels 0..255 to dB; below a quarter of a grey level squared they
    count as that (54.15 dB), so that means stay finite."""
    return 10 * np.log10(255**2 / np.maximum(mse, 0.25))


def psnr(frames: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of uint8 frames (..., H, W, 3), one a frame: fp64 (...)."""
    error = (frames.astype(np.float64) - target.astype(np.float64)) ** 2
    return psnr_of_mse(error.mean((-3, -2, -1)))


def patch_mse(frames: np.ndarray, target: np.ndarray, patch: int = 8) -> np.ndarray:
    """Mean squared error of each patch x patch square: fp64 (..., H / patch, W / patch)."""
    error = ((frames.astype(np.float64) - target.astype(np.float64)) ** 2).mean(-1)
    *lead, H, W = error.shape
    return error.reshape(*lead, H // patch, patch, W // patch, patch).mean((-3, -1))


def detail(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of neighbouring pixels of uint8 (..., H, W, 3), grey levels."""
    return np.abs(np.diff(frames.astype(np.int16), axis=-2)).mean((-3, -2, -1))


def scene_shift(
    before_HWC: np.ndarray,
    after_HWC: np.ndarray,
    reach: tuple[int, int] = (24, 10),
    ignore_centre: int = 12,
) -> np.ndarray:
    """How far the scene moved between two uint8 frames: (dy, dx) in pixels, down and right
    positive, to a fraction of a pixel.

    The shift, within `reach` pixels each way, under which what both frames show differs least.
    (Phase correlation fails here: it locks on the still agent and on the walls' pattern.)
    The camera follows the agent, so a square in the middle, where it stands, is left out.
    """
    size = before_HWC.shape[0]
    before, after = (f.astype(np.float32).mean(-1) for f in (before_HWC, after_HWC))
    middle = slice((size - ignore_centre) // 2, (size + ignore_centre) // 2)
    weight = np.ones((size, size), np.float32)
    weight[middle, middle] = 0
    (rows, columns), cost = reach, {}
    for dy in range(-rows, rows + 1):
        here_y, there_y = _overlap(dy, size)
        for dx in range(-columns, columns + 1):
            here_x, there_x = _overlap(dx, size)
            seen = weight[here_y, here_x] * weight[there_y, there_x]
            differ = np.abs(after[here_y, here_x] - before[there_y, there_x]) * seen
            # A hundredth of a grey level a pixel: of shifts that fit alike, the smallest counts.
            cost[dy, dx] = float(differ.sum() / seen.sum()) + 0.01 * (abs(dy) + abs(dx))
    dy, dx = min(cost, key=cost.__getitem__)
    down = np.array([-cost.get((dy + i, dx), np.inf) for i in (-1, 0, 1)])
    right = np.array([-cost.get((dy, dx + i), np.inf) for i in (-1, 0, 1)])
    return np.array([dy + _parabola(down), dx + _parabola(right)])


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where the scene is after a shift, and where the same part was before it."""
    return slice(max(0, shift), size + min(0, shift)), slice(max(0, -shift), size + min(0, -shift))


def _parabola(three: np.ndarray) -> float:
    """Place (-0.5 to 0.5) of the top of the parabola through three values, the middle highest."""
    left, top, right = three
    bend = left - 2 * top + right
    return float(0.5 * (left - right) / bend) if np.isfinite(bend) and bend < 0 else 0.0


def mutual_information(count_XY: np.ndarray) -> float:
    """Of two labels, bits, from their joint counts (X, Y)."""
    x, y, both = _entropies(count_XY)
    return x + y - both


def normalized_mutual_information(count_XY: np.ndarray) -> float:
    """Mutual information of two labels from their joint counts (X, Y), over the mean of their
    entropies: 0 (independent) to 1 (each tells the other); nan where neither varies."""
    x, y, both = _entropies(count_XY)
    return 2 * (x + y - both) / (x + y) if x + y else float("nan")


def _entropies(count_XY: np.ndarray) -> tuple[float, float, float]:
    """Bits: of the first label, the second, and both together."""
    joint = count_XY / count_XY.sum()

    def entropy(p: np.ndarray) -> float:
        return float(-(p[p > 0] * np.log2(p[p > 0])).sum())

    return entropy(joint.sum(1)), entropy(joint.sum(0)), entropy(joint)
