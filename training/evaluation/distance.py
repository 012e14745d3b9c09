"""How far the distribution of dreams is from that of real videos: Frechet video distance.

Shapes: B scenes, N steps dreamt, H W pixels, C = 3, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.evaluation.dreams import PROMPT_FRAMES, Futures
from training.evaluation.fvd import frechet_distance, i3d_features
from training.evaluation.sections import Estimate, Row, Section, bootstrap
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
        target = features(futures.real)
        floor = frechet_distance(features(others_BNHWC), target)
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
        f"{count} real futures of {frames} frames against what is dreamt from the same "
        f"{PROMPT_FRAMES} frames, 64x64 as they are. The own network (training/evaluation/"
        "video_features.py) was trained on real CoinRun video of levels 0-9,999 and is no part of "
        "any world model. The distance grows with fewer samples: compare only with the floor "
        "beside it, the same between two sets of real clips of this size. Its interval is over "
        "scenes drawn again, each with its own dream.",
        rows,
    )


def _distance(dreamt_SF: np.ndarray, real_SF: np.ndarray) -> Estimate:
    both = np.stack((dreamt_SF, real_SF), 1)
    return bootstrap(both, lambda rows: frechet_distance(rows[:, 0], rows[:, 1]))
