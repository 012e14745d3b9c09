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


def scene_shift(before_HWC: np.ndarray, after_HWC: np.ndarray, reach: int = 12) -> np.ndarray:
    """How far the scene moved between two uint8 frames: (dy, dx) in pixels, down and right
    positive, to a fraction of a pixel (phase correlation, within `reach` pixels each way)."""
    size = before_HWC.shape[0]
    window = np.outer(np.hanning(size), np.hanning(size))
    before, after = (f.mean(-1) - f.mean() for f in (before_HWC, after_HWC))
    if min(before.std(), after.std()) < 1:
        return np.zeros(2)  # a flat frame has no place to have moved from
    spectrum = np.fft.fft2(after * window) * np.conj(np.fft.fft2(before * window))
    # A half-whitened spectrum: full whitening would let the noise of flat frames decide.
    surface = np.fft.ifft2(spectrum / np.maximum(np.abs(spectrum), 1e-9) ** 0.5).real
    surface = np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    y, x = (int(i) for i in np.unravel_index(surface.argmax(), surface.shape))
    return np.array([_parabola(surface[:, x], y), _parabola(surface[y], x)]) - reach


def _parabola(line: np.ndarray, peak: int) -> float:
    """Place of the maximum of the parabola through a peak and its two neighbours."""
    if not 0 < peak < len(line) - 1:
        return float(peak)
    left, top, right = line[peak - 1 : peak + 2]
    bend = left - 2 * top + right
    return float(peak + (0.5 * (left - right) / bend if bend < 0 else 0.0))


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
