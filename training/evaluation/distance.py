"""How far the distribution of dreams is from that of real videos: Frechet video distance.

Shapes: B scenes, N steps dreamt, H W pixels, C = 3, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.evaluation.dreams import PROMPT_FRAMES, Futures
from training.evaluation.fvd import frechet_distance, i3d_features
from training.evaluation.sections import Estimate, Row, Section
from training.evaluation.video_features import video_features


def distance_section(
    futures: Futures, others_BNHWC: np.ndarray, i3d: Path | None = None
) -> Section:
    """others_BNHWC: as many other real videos, for what two sets of real video differ by."""
    count, frames = futures.real.shape[:2]
    videos = {
        "dreams, inferred actions": futures.dreamt,
        "dreams, random actions": futures.at_random,
        "tokenizer alone": futures.decoded,
    }
    networks: dict[str, Callable[[np.ndarray], np.ndarray]] = {"own": video_features}
    if i3d is not None:
        networks["I3D"] = i3d_features(i3d)
    rows = []
    for network, features in networks.items():
        # Against other scenes: the dreams share their prompts with the real futures.
        target = features(others_BNHWC)
        floor = frechet_distance(features(futures.real), target)
        for name, video in videos.items():
            rows.append(
                Row(
                    f"FVD ({network} network), {name}",
                    _distance(features(video), target),
                    beside={"other real video": floor},
                )
            )
    return Section(
        "Frechet video distance",
        f"{count} videos of {frames} frames, dreamt from {PROMPT_FRAMES} real ones, against as "
        "many real videos of other scenes, 64x64 as they are. The own network "
        "(training/evaluation/video_features.py) was trained on real CoinRun video of levels "
        "0-9,999 and is no part of any world model. The distance grows with fewer samples: "
        "compare only with the floor beside it, the real futures of the dreams' own scenes "
        "against those others. The interval is over scenes drawn again; drawing some twice "
        "makes the distance larger, by a mean that is taken off.",
        rows,
    )


def _distance(dreamt_SF: np.ndarray, real_SF: np.ndarray, draws: int = 200) -> Estimate:
    rng = np.random.default_rng(0)
    count = len(dreamt_SF)
    value = frechet_distance(dreamt_SF, real_SF)
    drawn = np.array(
        [
            frechet_distance(
                dreamt_SF[rng.integers(count, size=count)], real_SF[rng.integers(count, size=count)]
            )
            for _ in range(draws)
        ]
    )
    return Estimate.of(value, drawn + value - drawn.mean(), count)
