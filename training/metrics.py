"""What is measured on frames: similarity, movement of the scene, small things.

Shapes: ... any leading axes, H W pixels, C = 3.
"""

from __future__ import annotations

import numpy as np


def psnr(frames: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of uint8 frames (..., H, W, 3), one a frame: fp64 (...).

    Equal frames count as half a grey level of error apart (54.15 dB), so that means stay finite.
    """
    error = (frames.astype(np.float64) - target.astype(np.float64)) ** 2
    return 10 * np.log10(255**2 / np.maximum(error.mean((-3, -2, -1)), 0.25))


def worst_patches_psnr(
    frames: np.ndarray, target: np.ndarray, patch: int = 8, share: float = 0.01
) -> float:
    """PSNR in dB over the worst `share` of all patch x patch squares of uint8 frames."""
    error = ((frames.astype(np.float64) - target.astype(np.float64)) ** 2).mean(-1)
    *lead, H, W = error.shape
    squares = error.reshape(*lead, H // patch, patch, W // patch, patch).mean((-3, -1)).ravel()
    worst = np.sort(squares)[-max(1, round(share * squares.size)) :]
    return float(10 * np.log10(255**2 / max(worst.mean(), 0.25)))


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


def coin_pixels(frames: np.ndarray) -> np.ndarray:
    """Where CoinRun's coin shows: bool (..., H, W) of saturated yellow pixels.

    Exact for the plain look, in which nothing else is yellow; in the full look some backgrounds
    and crates have such pixels too.
    """
    r, g, b = (frames[..., c].astype(np.int16) for c in range(3))
    return (r > 180) & (g > 140) & (b < 90) & (np.abs(r - g) < 90)


def coins_survived(frames: np.ndarray, target: np.ndarray, least: int = 6) -> tuple[int, int]:
    """(survived, visible) coins: of the target frames that show at least `least` coin pixels, in
    how many do at least half of these pixels still look like a coin?"""
    truth, seen = coin_pixels(target), coin_pixels(frames)
    visible = truth.sum((-2, -1)) >= least
    kept = (truth & seen).sum((-2, -1)) >= 0.5 * truth.sum((-2, -1))
    return int((visible & kept).sum()), int(visible.sum())
