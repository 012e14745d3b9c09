"""Drift: what long dreams lose.

Shapes: S starts, T frames, N steps dreamt, H W pixels, C = 3.
"""

from __future__ import annotations

import numpy as np

from genie_env.world_model import WorldModel
from training.evaluation.dreams import PROMPT_FRAMES, dream, reconstruct
from training.evaluation.report import curve_png
from training.evaluation.sections import Figure, Row, Section, bootstrap, strips_png
from training.metrics import detail, psnr

STEPS = 256
LOOK_AT = (1, 16, 64, 256)
KEEP_CODE = 0.6
"""Chance that a world keeps its latent action from one step to the next."""
BINS = 8


def drift_section(
    world: WorldModel,
    starts_STHWC: np.ndarray,
    real_BTHWC: np.ndarray,
    codes_BM: np.ndarray,
    seed: int = 0,
) -> Section:
    """starts_STHWC: real frames to start from. real_BTHWC: other real clips, for the colours to be
    expected. codes_BM: latent actions of real clips, whose frequencies the dream's are drawn by."""
    rng = np.random.default_rng(seed)
    num_starts = len(starts_STHWC)
    drawn_SN = rng.choice(codes_BM.ravel(), size=(num_starts, STEPS))
    for step in range(1, STEPS):
        kept_S = rng.random(num_starts) < KEEP_CODE
        drawn_SN[kept_S, step] = drawn_SN[kept_S, step - 1]
    dreamt = dream(world, starts_STHWC[:, -PROMPT_FRAMES:], drawn_SN, what="drift")
    frames = dreamt.frames_BNHWC
    start_S = detail(reconstruct(world, starts_STHWC))[:, -1]
    detail_SN = detail(frames) / start_S.mean()
    again_SN = psnr(reconstruct(world, frames), frames)
    real_colour = colours(real_BTHWC.reshape(-1, *real_BTHWC.shape[2:])).mean(0)
    colour_SN = 0.5 * np.abs(
        np.array([colours(frames[:, n]) for n in range(STEPS)]) - real_colour
    ).sum(-1).swapaxes(0, 1)
    floor = 0.5 * np.abs(colours(starts_STHWC[:, -1]) - real_colour).sum(-1).mean()
    rows = []
    for t in LOOK_AT:
        rows += [
            Row(
                f"detail left, step {t}",
                bootstrap(detail_SN[:, t - 1]),
                beside={"decoded starts": 1.0},
            ),
            Row(f"dreamt frame re-encoded, step {t}", bootstrap(again_SN[:, t - 1]), "dB"),
            Row(f"token entropy, step {t}", bootstrap(dreamt.entropy_BN[:, t - 1]), "nats"),
            Row(
                f"colour distance, step {t}",
                bootstrap(colour_SN[:, t - 1]),
                beside={"real frames": float(floor)},
            ),
        ]
    steps = np.arange(1, STEPS + 1)
    return Section(
        "Drift",
        f"{num_starts} dreams of {STEPS} steps under latent actions drawn by their frequency in "
        f"real video, each kept with probability {KEEP_CODE}. Detail: mean difference of "
        "neighbouring pixels over that of the decoded starts. Re-encoded: PSNR of the dreamt "
        "frame against itself through the tokenizer (high for what the tokenizer knows, smeared "
        "frames too, hence the detail). Colour distance: half the summed difference of "
        f"{BINS}-bin histograms a channel to those of real frames, 0 to 1; beside it that of a "
        "single real frame.",
        rows,
        [
            Figure(
                "drift",
                "Detail left and colour distance by dreamt step.",
                curve_png(
                    {
                        "detail left": (steps, detail_SN.mean(0)),
                        "colour distance": (steps, colour_SN.mean(0)),
                    },
                    "dreamt steps",
                    "",
                ),
            ),
            Figure(
                "rollout",
                "Long dreams: steps 1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256.",
                strips_png(
                    frames[
                        :6,
                        [t - 1 for t in (1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256)],
                    ]
                ),
            ),
        ],
    )


def colours(frames_BHWC: np.ndarray) -> np.ndarray:
    """Histogram a channel, averaged over the channels' three: fp64 (B, 3 * BINS), sums to 1."""
    bins = frames_BHWC // (256 // BINS)
    return (
        np.stack([(bins == level).mean((1, 2)) for level in range(BINS)], -1).reshape(
            len(frames_BHWC), -1
        )
        / 3
    )
