"""What was played so far, and the way back into it.

Every step keeps its frame; the worlds themselves are kept every few steps only (megabytes each) and
the steps after one are played again, which gives the same world: a world's luck is part of its
state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class World(Protocol):
    """What can be stepped, left and returned to."""

    def get_state(self) -> Any: ...

    def set_state(self, saved: Any) -> Any: ...


@dataclass(frozen=True)
class Moment:
    """One step of what was played."""

    frame_HWC: np.ndarray
    """uint8: what was seen after it."""
    action: Any
    """That led to it; None for the start."""
    shown: Any = None
    """Whatever else was shown with it."""
    settings: Any = None
    """Under which it was played."""


class Timeline:
    """The moments of one episode, the present one last.

    Args:
        worlds: all that takes part: their states are kept together.
        play: (action, settings) -> None: plays one step of the worlds again.
        every: a state is kept at every so many steps: how many steps going back costs at most.
        most: so many states at most; what lies before the oldest cannot be returned to.
    """

    def __init__(
        self,
        worlds: Sequence[World],
        play: Callable[[Any, Any], None],
        every: int = 8,
        most: int = 128,
    ) -> None:
        self._worlds, self._play = list(worlds), play
        self._every, self._most = every, most
        self.moments: list[Moment] = []
        self._states: dict[int, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def oldest(self) -> int:
        """The first moment that can be returned to."""
        return min(self._states, default=0)

    def begin(self, moment: Moment) -> None:
        """A new episode."""
        self.moments, self._states = [], {}
        self.add(moment)

    def add(self, moment: Moment) -> None:
        """The worlds have just made this step."""
        if len(self.moments) % self._every == 0:
            self._states[len(self.moments)] = [world.get_state() for world in self._worlds]
            if len(self._states) > self._most:
                del self._states[self.oldest]
        self.moments.append(moment)

    def return_to(self, index: int) -> Moment:
        """Put the worlds back to a moment and forget what came after it.

        Raises IndexError for one that is not there, or lies before `oldest`.
        """
        if not self.oldest <= index < len(self):
            raise IndexError(f"moment {index}; to be had: {self.oldest} to {len(self) - 1}")
        kept = index - index % self._every
        for world, state in zip(self._worlds, self._states[kept], strict=True):
            world.set_state(state)
        for moment in self.moments[kept + 1 : index + 1]:
            self._play(moment.action, moment.settings)
        del self.moments[index + 1 :]
        self._states = {at: states for at, states in self._states.items() if at <= index}
        return self.moments[-1]
