"""The window of `render_mode="human"`: frames, as they come."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import DependencyNotInstalled, ResetNeeded

WINDOW_SIZE = 512
"""Pixels a side, about: a whole multiple of the frame size keeps the pixels square."""


RENDER_MODES = ["rgb_array", "human"]


class FrameWindow:
    """What an environment of one world does about its `render_mode`.

    A window opens with the first frame that is shown, and waits so that there are `fps` a second.

    Raises ValueError for an unknown mode; DependencyNotInstalled for "human" without pygame.
    """

    def __init__(self, title: str, fps: int, render_mode: str | None) -> None:
        if render_mode not in (None, *RENDER_MODES):
            raise ValueError(
                f"unknown render_mode {render_mode!r}; accepted: None, "
                f"{', '.join(map(repr, RENDER_MODES))}"
            )
        if render_mode == "human":
            _import_pygame()
        self._title, self._fps, self._mode = title, fps, render_mode
        self._window: Any = None
        self._clock: Any = None

    def follow(self, frame_HWC: np.ndarray) -> None:
        """A new frame, uint8, square: shown if somebody looks."""
        if self._mode == "human":
            self._show(frame_HWC)

    def render(self, frame_HWC: np.ndarray | None) -> np.ndarray | None:
        """What `Env.render` returns of the newest frame; in human mode shows it. ResetNeeded where
        there is none yet."""
        if self._mode is None:
            gym.logger.warn("render() without a render_mode: give render_mode='rgb_array'")
            return None
        if frame_HWC is None:
            raise ResetNeeded("render() before reset(): there is nothing to show yet")
        if self._mode == "human":
            self._show(frame_HWC)
            return None
        return frame_HWC.copy()

    def _show(self, frame_HWC: np.ndarray) -> None:
        pygame = _import_pygame()
        if self._window is None:
            # Not pygame.init(): it would open the sound device as well.
            pygame.display.init()
            pygame.display.set_caption(self._title)
            side = len(frame_HWC) * max(1, WINDOW_SIZE // len(frame_HWC))
            self._window = pygame.display.set_mode((side, side))
            self._clock = pygame.time.Clock()
        surface = pygame.surfarray.make_surface(frame_HWC.swapaxes(0, 1))
        # transform.scale takes the nearest pixel, so frames stay crisp.
        self._window.blit(pygame.transform.scale(surface, self._window.get_size()), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """May be called again."""
        if self._window is not None:
            _import_pygame().display.quit()
            self._window = None


def _import_pygame() -> Any:
    try:
        import pygame
    except ImportError as error:
        raise DependencyNotInstalled(
            "render_mode='human' needs pygame: pip install 'genie-env[play]'"
        ) from error
    return pygame
