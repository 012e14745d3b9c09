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
    """The moments of one episode by their numbers, 0 the start.

    Args:
        worlds: all that takes part: their states are kept together.
        play: (action, settings) -> None: plays one step of the worlds again.
        every: a state is kept at every so many steps: how many steps going back costs at most.
        most: so many states at most; what lies before the oldest cannot be returned to.
        longest: so many moments at most; the first are forgotten.
    """

    def __init__(
        self,
        worlds: Sequence[World],
        play: Callable[[Any, Any], None],
        every: int = 8,
        most: int = 128,
        longest: int = 30_000,
    ) -> None:
        self._worlds, self._play = list(worlds), play
        self._every, self._most, self._longest = every, most, longest
        self._moments: list[Moment] = []
        self._forgotten = 0
        self._states: dict[int, list[Any]] = {}

    @property
    def newest(self) -> int:
        """Number of the present moment."""
        return self._forgotten + len(self._moments) - 1

    @property
    def oldest(self) -> int:
        """Number of the first moment that can be returned to."""
        return max(min(self._states, default=0), self._forgotten)

    def __getitem__(self, number: int) -> Moment:
        """By number. IndexError for one that is not there, or no longer."""
        if not self._forgotten <= number <= self.newest:
            raise IndexError(f"moment {number}; to be had: {self._forgotten} to {self.newest}")
        return self._moments[number - self._forgotten]

    def last(self, count: int | None = None) -> list[Moment]:
        """The last `count` moments, or all that are not forgotten."""
        return self._moments[-count:] if count else list(self._moments)

    def add(self, moment: Moment) -> None:
        """The worlds have just made this step, or are at their start."""
        self._moments.append(moment)
        if self.newest % self._every == 0:
            self._states[self.newest] = [world.get_state() for world in self._worlds]
            if len(self._states) > self._most:
                del self._states[min(self._states)]
        if len(self._moments) > self._longest:
            # Some at a time: shifting a long list at every step would cost more than the step.
            too_many = self._longest // 8
            del self._moments[:too_many]
            self._forgotten += too_many
            self._states = {at: s for at, s in self._states.items() if at >= self._forgotten}

    def return_to(self, number: int) -> Moment:
        """Put the worlds back to a moment and forget what came after it.

        Raises IndexError for one that is not there, or lies before `oldest`.
        """
        if not self.oldest <= number <= self.newest:
            raise IndexError(f"moment {number}; to be had: {self.oldest} to {self.newest}")
        kept = number - number % self._every
        for world, state in zip(self._worlds, self._states[kept], strict=True):
            world.set_state(state)
        for again in range(kept + 1, number + 1):
            self._play(self[again].action, self[again].settings)
        del self._moments[number + 1 - self._forgotten :]
        self._states = {at: states for at, states in self._states.items() if at <= number}
        return self[number]
