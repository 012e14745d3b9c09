"""Fidelity: how near decoded and dreamt frames are to the real ones, and what becomes of small
things.

Shapes: B scenes, T frames, N steps dreamt, H W pixels, C = 3.
"""

from __future__ import annotations

import numpy as np
from skimage.feature import match_template
from skimage.metrics import structural_similarity

from genie_env.envs.coinrun_state import KINDS
from genie_env.world_model import WorldModel
from training.evaluation.dreams import PROMPT_FRAMES, Futures, reconstruct
from training.evaluation.report import curve_png
from training.evaluation.scenes import RealGame, Scenes
from training.evaluation.sections import Figure, Row, Section, bootstrap, share, strips_png
from training.metrics import patch_mse, psnr, psnr_of_mse

PREDICT_AT = (1, 2, 4, 8, 15)
LEAST_PIXELS = 6
"""Pixels that a thing must change to count as visible."""
KEPT = 0.5
"""Share of its contrast from which a thing counts as kept."""
FOUND = 0.7
"""Correlation from which a thing counts as found again in a dream."""
SEARCH = 8
"""Pixels by which it may have moved."""


def tokenizer_section(world: WorldModel, game: RealGame, scenes: Scenes) -> Section:
    real = scenes.frames_BTHWC
    decoded = reconstruct(world, real)
    patches_BX = patch_mse(decoded, real).reshape(len(real), -1)
    rows = [
        Row("PSNR", bootstrap(psnr(decoded, real).mean(1)), "dB"),
        Row("SSIM", bootstrap(ssim(decoded, real).mean(1))),
        Row(
            "PSNR of the worst 1% of 8x8 patches",
            bootstrap(patches_BX, lambda mse_BX: float(psnr_of_mse(_worst(mse_BX).mean()))),
            "dB",
        ),
    ]
    for kind in KINDS:
        contrast = _contrasts(game, scenes, kind, range(0, real.shape[1], 3))
        counts_B2 = np.zeros((len(real), 2))
        for b, t, there in contrast:
            kept = _kept(decoded[b, t], real[b, t], there)
            counts_B2[b] += (kept >= KEPT, 1)
        if counts_B2[:, 1].any():
            rows.append(
                Row(
                    f"{kind} kept",
                    bootstrap(counts_B2, share),
                    beside={"frames with one": float(counts_B2[:, 1].sum())},
                )
            )
    strips = np.concatenate((real[:6, :12], decoded[:6, :12]), 1)
    return Section(
        "Tokenizer",
        f"{len(real)} clips of {real.shape[1]} frames, encoded and decoded. PSNR and SSIM are "
        "means over frames, the worst patches those of all clips together. Small things: the "
        "engine renders the same frame without the thing; where the two differ by more than "
        f"rounding the thing is (visible from {LEAST_PIXELS} pixels on), and it is kept if the "
        f"decoded frame has at least {KEPT:.0%} of its contrast there (projection on the "
        "difference).",
        rows,
        [Figure("tokenizer", "Real frames, and beside them the same decoded.", strips_png(strips))],
    )


def prediction_section(game: RealGame, scenes: Scenes, futures: Futures) -> Section:
    real = scenes.frames_BTHWC
    prompt = real[:, :PROMPT_FRAMES]
    future, decoded, dreamt, at_random = futures
    ahead = future.shape[1]
    near_BN, random_BN = psnr(dreamt, future), psnr(at_random, future)
    copy_BN, ceiling_BN = psnr(prompt[:, -1:], future), psnr(decoded, future)
    rows = [
        Row(
            f"prediction PSNR, inferred actions, t = {t}",
            bootstrap(near_BN[:, t - 1]),
            "dB",
            {
                "last frame repeated": float(copy_BN[:, t - 1].mean()),
                "tokenizer alone": float(ceiling_BN[:, t - 1].mean()),
            },
        )
        for t in PREDICT_AT
    ]
    rows.append(
        Row(
            "prediction SSIM, t = 4",
            bootstrap(ssim(dreamt[:, 3], future[:, 3])),
            beside={"tokenizer alone": float(ssim(decoded[:, 3], future[:, 3]).mean())},
        )
    )
    rows.append(
        Row("delta-PSNR, t = 4", bootstrap(near_BN[:, 3] - random_BN[:, 3]), "dB", {"paper": 1.91})
    )
    last = max(PREDICT_AT)
    for kind in KINDS:
        hits_B2, floor_B2 = np.zeros((len(real), 2)), np.zeros((len(real), 2))
        for b, t, there in _contrasts(game, scenes, kind, [PROMPT_FRAMES + last - 1]):
            bare = real[b, t].astype(np.float32) - there
            hits_B2[b] += (_found(dreamt[b, last - 1], real[b, t], there), 1)
            floor_B2[b] += (_found(bare.round().astype(np.uint8), real[b, t], there), 1)
        if hits_B2[:, 1].any():
            rows.append(
                Row(
                    f"{kind} found after {last} dreamt steps",
                    bootstrap(hits_B2, share),
                    beside={
                        "in the real frame without it": share(floor_B2),
                        "frames with one": float(hits_B2[:, 1].sum()),
                    },
                )
            )
    steps = np.arange(1, ahead + 1)
    curve = curve_png(
        {
            "tokenizer alone": (steps, ceiling_BN.mean(0)),
            "inferred actions": (steps, near_BN.mean(0)),
            "random actions": (steps, random_BN.mean(0)),
            "last frame repeated": (steps, copy_BN.mean(0)),
        },
        "dreamt steps",
        "PSNR (dB)",
    )
    strips = np.stack((future[:5], dreamt[:5]), 1).reshape(-1, *future.shape[1:])
    return Section(
        "Prediction",
        f"{len(real)} clips; the dream starts from {PROMPT_FRAMES} real frames and goes on under "
        "the latent actions inferred from the real future; delta-PSNR (paper, section 3) takes off "
        "what actions drawn from the codes' own frequencies give. Means over clips of each frame's "
        f"PSNR. Found: the thing's pixels correlate by at least {FOUND} with the dreamt frame "
        f"within {SEARCH} pixels of where it really is.",
        rows,
        [
            Figure("prediction-curve", "Mean PSNR by dreamt step.", curve),
            Figure(
                "prediction", "Real futures, and below each the dreamt one.", strips_png(strips)
            ),
        ],
    )


def ssim(frames: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Structural similarity (Gaussian window, sigma 1.5) of uint8 (..., H, W, 3): fp64 (...)."""
    lead = frames.shape[:-3]
    pairs = zip(
        frames.reshape(-1, *frames.shape[-3:]), target.reshape(-1, *target.shape[-3:]), strict=True
    )
    values = [
        structural_similarity(
            a, b, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False
        )
        for a, b in pairs
    ]
    return np.array(values).reshape(lead)


def _worst(mse_BX: np.ndarray) -> np.ndarray:
    flat = mse_BX.ravel()
    count = max(1, round(0.01 * flat.size))
    return np.partition(flat, -count)[-count:]


def _contrasts(game: RealGame, scenes: Scenes, kind: str, times) -> list[tuple]:
    """(scene, frame, real frame less the one without the thing) wherever it is visible."""
    found = []
    for t in times:
        bare = game.without([states[t] for states in scenes.states], kind)
        for b, frame in enumerate(bare):
            if frame is None:
                continue
            there = scenes.frames_BTHWC[b, t].astype(np.float32) - frame
            if (np.abs(there).max(-1) > 2).sum() >= LEAST_PIXELS:
                found.append((b, t, there))
    return found


def _kept(decoded: np.ndarray, real: np.ndarray, there: np.ndarray) -> float:
    """Share of the thing's contrast that the decoded frame has: 1 as in reality, 0 none."""
    bare = real.astype(np.float32) - there
    return float(((decoded - bare) * there).sum() / (there**2).sum())


def _found(dreamt: np.ndarray, real: np.ndarray, there: np.ndarray) -> bool:
    """Does the thing, with a pixel around it, show near its place in the dreamt frame?"""
    ys, xs = np.nonzero(np.abs(there).max(-1) > 2)
    size = real.shape[0]
    top, bottom = max(0, ys.min() - 1), min(size, ys.max() + 2)
    left, right = max(0, xs.min() - 1), min(size, xs.max() + 2)
    thing = real[top:bottom, left:right].astype(np.float64)
    around = dreamt[
        max(0, top - SEARCH) : bottom + SEARCH, max(0, left - SEARCH) : right + SEARCH
    ].astype(np.float64)
    return bool(match_template(around, thing).max() >= FOUND)
