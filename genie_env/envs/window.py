"""The window of `render_mode="human"`: frames, as they come."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import DependencyNotInstalled

WINDOW_SIZE = 512
"""Pixels a side, about: a whole multiple of the frame size keeps the pixels square."""


class FrameWindow:
    """Opens with the first frame that is shown, and waits so that there are `fps` a second."""

    def __init__(self, title: str, fps: int) -> None:
        self._title, self._fps = title, fps
        self._window: Any = None
        self._clock: Any = None

    @staticmethod
    def check() -> None:
        """Raises DependencyNotInstalled without pygame."""
        _import_pygame()

    def show(self, frame_HWC: np.ndarray) -> None:
        """frame_HWC: uint8, square."""
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
