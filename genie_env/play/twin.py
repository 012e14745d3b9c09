"""The real game beside its dream: the same level, the same buttons."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from genie_env.envs.coinrun import BUTTON_NAMES, PLAIN_BUTTONS, CoinRunVectorEnv
from genie_env.play.keymap import Press

BUTTONS = dict(zip(BUTTON_NAMES, PLAIN_BUTTONS, strict=True))


class RealTwin:
    """A level of the real CoinRun, stepped by what is pressed in a dream.

    Args:
        level, look, frame_skip: of `CoinRunVectorEnv`; easy levels, as prompts are.
        names: the button that each latent action is called by, of `BUTTONS`, for codes that were
            pressed as such; those without a name do nothing here.

    Raises as `CoinRunVectorEnv`.
    """

    def __init__(self, level: int, look: str, frame_skip: int, names: Mapping[int, str]) -> None:
        self.level = level
        self._names = names
        self._env = CoinRunVectorEnv(
            1, look, start_level=level, num_levels=1, frame_skip=frame_skip
        )
        self.frame_HWC = self._env.reset()[0][0]
        """uint8: the last that was seen; at the end of an episode it stays."""
        self.ended: str | None = None
        """How the episode ended."""

    def step(self, press: Press) -> None:
        if self.ended:
            return
        button = BUTTONS[press.button or self._names.get(press.code, "none")]
        frames, reward, terminated, truncated, _ = self._env.step(np.array([button]))
        if terminated[0] or truncated[0]:
            # The engine has already begun the next episode, so there is nothing new to see.
            self.ended = "coin" if reward[0] > 0 else "death" if terminated[0] else "time"
        else:
            self.frame_HWC = frames[0]

    def get_state(self) -> tuple[bytes, np.ndarray, str | None]:
        return self._env.get_states()[0], self.frame_HWC, self.ended

    def set_state(self, saved: tuple[bytes, np.ndarray, str | None]) -> None:
        state, self.frame_HWC, self.ended = saved
        self._env.set_states([state])

    def close(self) -> None:
        self._env.close()
