"""The outcome head against the real game: does it know when an episode ends, and how?

Shapes: E episodes, F frames of all episodes.
"""

from __future__ import annotations

import numpy as np
import torch

from genie_env.world_model import WorldModel
from genie_env.world_model.outcome import DEATH, OUTCOMES, SUCCESS
from training.evaluation.report import curve_png
from training.evaluation.scenes import RealGame
from training.evaluation.sections import Figure, Row, Section, bootstrap, share
from training.outcome import episode_features, next_outcomes

BINS = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0])


def outcome_section(world: WorldModel, game: RealGame, num_episodes: int, seed: int) -> Section:
    assert world.outcome_head is not None
    episodes = game.episodes(num_episodes, seed)
    with torch.no_grad():
        chances = [
            world.outcome_head(episode_features(world, episode.frames_THWC))
            .softmax(-1)
            .cpu()
            .numpy()
            for episode in episodes
        ]
    happened = [next_outcomes(episode) for episode in episodes]
    rows, curves = [], {}
    for end in (SUCCESS, DEATH):
        name = OUTCOMES[end]
        chance_E = [chances_FO[:, end] for chances_FO in chances]
        true_E = [outcome_F == end for outcome_F in happened]
        said_E = [chance_F > 0.5 for chance_F in chance_E]
        hits_E = np.array([(s & t).sum() for s, t in zip(said_E, true_E, strict=True)])
        ends_E, calls_E = (np.array([x.sum() for x in xs]) for xs in (true_E, said_E))
        expected_E = np.array([chance_F.sum() for chance_F in chance_E])
        base = ends_E.sum() / sum(map(len, true_E))
        rows += [
            Row(
                f"{name}: average precision",
                bootstrap(np.arange(len(episodes)), _AveragePrecision(chance_E, true_E)),
                beside={"base rate": float(base)},
            ),
            Row(f"{name}: precision", bootstrap(np.stack((hits_E, calls_E), 1), share)),
            Row(f"{name}: recall", bootstrap(np.stack((hits_E, ends_E), 1), share)),
            Row(
                f"{name}: expected over happened",
                bootstrap(np.stack((expected_E, ends_E), 1), share),
                beside={"calibrated": 1.0},
            ),
        ]
        chance_F, true_F = np.concatenate(chance_E), np.concatenate(true_E)
        bin_F = np.digitize(chance_F, BINS[1:-1])
        used = [b for b in range(len(BINS) - 1) if (bin_F == b).any()]
        curves[name] = (
            np.array([chance_F[bin_F == b].mean() for b in used]),
            np.array([true_F[bin_F == b].mean() for b in used]),
        )
    curves["calibrated"] = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    lengths = np.array([len(outcome_F) for outcome_F in happened])
    return Section(
        "Reward and end",
        f"{len(episodes)} whole episodes of the real game under the default mix of policies, the "
        f"first of each world, {lengths.mean():.0f} frames each on average. Of every frame the "
        "head says how likely the step from it brings a success or a death (the engine never "
        "shows the frame after it). Precision and recall: of the frames called likelier than not, "
        "exactly this frame, not one beside it. Expected over happened: the summed chances over "
        "the number of ends, so 1 where a dream would end as often as the game.",
        rows,
        [
            Figure(
                "outcome",
                "How often it happened, by how likely it was said to be.",
                curve_png(curves, "chance said", "share that happened"),
            )
        ],
    )


class _AveragePrecision:
    """Mean precision over the calls that reach each true end, of episodes drawn by number."""

    def __init__(self, chance_E: list[np.ndarray], true_E: list[np.ndarray]) -> None:
        self._chance_E, self._true_E = chance_E, true_E

    def __call__(self, drawn_E: np.ndarray) -> float:
        chance_F = np.concatenate([self._chance_E[e] for e in drawn_E])
        true_F = np.concatenate([self._true_E[e] for e in drawn_E])
        ranked_F = true_F[np.argsort(-chance_F, kind="stable")]
        if not ranked_F.any():
            return float("nan")
        precision_F = np.cumsum(ranked_F) / np.arange(1, len(ranked_F) + 1)
        return float(precision_F[ranked_F].mean())
