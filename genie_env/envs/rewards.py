"""Where reward and end come from: what the world model learned of them, a user's own function of
the frames, or nothing (the paper's world, which has only video and actions).

Shapes: B worlds, H W pixels, C = 3 channels (RGB).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from genie_env.world_model import WorldModel
from genie_env.world_model.world_model import WorldState

RewardFunction = Callable[[np.ndarray], Any]
"""The newest frames, uint8 (B, H, W, 3), to rewards (B,) or to (rewards (B,), terminated (B,))."""

ACCEPTED = (
    "None (the model's own reward and end, where it has learned them), 'learned' (the same, and "
    "an error where it has not), 'none', or a function of the frames, uint8 (B, H, W, 3), that "
    "returns rewards (B,) or (rewards (B,), terminated (B,))"
)


class Rewards:
    """Rewards and ends of worlds, from one of `ACCEPTED`.

    Raises:
        TypeError, ValueError: anything else; 'learned' of a model without an outcome head.
    """

    def __init__(
        self, reward: Literal["learned", "none"] | RewardFunction | None, model: WorldModel
    ) -> None:
        if isinstance(reward, str) and reward not in ("learned", "none"):
            raise ValueError(f"unknown reward {reward!r}; accepted: {ACCEPTED}")
        if not (reward is None or isinstance(reward, str) or callable(reward)):
            raise TypeError(f"reward of type {type(reward).__name__}; accepted: {ACCEPTED}")
        if reward == "learned" and model.config.outcome is None:
            raise ValueError(
                "reward='learned', but this model has no outcome head: train one (`genie train "
                "outcome --run RUN --change start_from=MODEL`), or give a function of the frames"
            )
        self._model = model
        self._function = reward if callable(reward) else None
        self._none = reward == "none"

    @property
    def needs_frames(self) -> bool:
        return self._function is not None

    def of(self, worlds: WorldState) -> tuple[np.ndarray, np.ndarray]:
        """Rewards fp64 (B,) and terminated bool (B,) of the newest step.

        Raises ValueError where a user's function returns other shapes, or a number not finite.
        """
        count = len(worlds)
        if self._none:
            return np.zeros(count), np.zeros(count, bool)
        if self._function is None:
            reward_B, terminated_B = self._model.outcome(worlds)
            return reward_B.astype(np.float64), terminated_B
        found = self._function(self._model.render(worlds))
        given = found if isinstance(found, tuple) else (found, np.zeros(count, bool))
        if len(given) != 2:
            raise ValueError(f"the reward function returned {len(given)} things; {ACCEPTED}")
        reward_B, terminated_B = (np.asarray(values) for values in given)
        for name, values_B in (("rewards", reward_B), ("terminated", terminated_B)):
            if values_B.shape != (count,):
                raise ValueError(
                    f"the reward function returned {name} of shape {values_B.shape}; accepted: "
                    f"({count},), one a world"
                )
        if not np.issubdtype(reward_B.dtype, np.number) or not np.isfinite(reward_B).all():
            raise ValueError(
                f"the reward function returned {reward_B.tolist()}; accepted: finite numbers"
            )
        if terminated_B.dtype != np.bool_:
            raise ValueError(
                f"the reward function returned terminated of dtype {terminated_B.dtype}; "
                "accepted: bool"
            )
        return reward_B.astype(np.float64), terminated_B
