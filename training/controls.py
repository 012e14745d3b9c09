"""What the latent actions of a finished world do, for people who press buttons.

Shapes: P buttons, K latent actions, X tries.
"""

from __future__ import annotations

import numpy as np

from genie_env.envs.coinrun import BUTTON_NAMES
from genie_env.world_model import WorldModel
from training.data.collect import VALIDATION_LEVELS
from training.evaluation.control import try_all
from training.evaluation.dreams import PROMPT_FRAMES
from training.evaluation.scenes import RealGame


def measure_controls(
    model: WorldModel, difficulty: str = "easy", num_scenes: int = 64, seed: int = 0
) -> dict[str, tuple[float, ...]]:
    """Every button tried in the real engine from frames of validation levels on which the agent
    stands: how often it is seen as each latent action (`WorldModelConfig.controls`).

    Raises ValueError for a model of other videos than CoinRun's, ImportError without Procgen.
    """
    config = model.config
    if config.look not in ("plain", "full"):
        raise ValueError(f"a world of look {config.look!r}: only CoinRun's buttons can be tried")
    game = RealGame(config.look, difficulty, *VALIDATION_LEVELS, config.frame_skip)
    try:
        scenes = game.scenes(num_scenes, PROMPT_FRAMES + 6, seed)
        tries = try_all(model, game, scenes, range(PROMPT_FRAMES + 1, PROMPT_FRAMES + 6, 2))
    finally:
        game.close()
    count_PK = np.zeros((len(BUTTON_NAMES), config.num_actions))
    # The evaluation's buttons begin with these six, in this order.
    mask_X = tries.grounded_X & (tries.plan_X < len(BUTTON_NAMES))
    np.add.at(count_PK, (tries.plan_X[mask_X], tries.code_X[mask_X]), 1)
    share_PK = count_PK / np.maximum(count_PK.sum(1, keepdims=True), 1)
    return {
        name: tuple(round(float(share), 3) for share in share_K)
        for name, share_K in zip(BUTTON_NAMES, share_PK, strict=True)
        if share_K.any()
    }
