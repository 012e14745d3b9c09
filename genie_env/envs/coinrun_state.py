"""Read and edit what a saved CoinRun state holds: where the agent is; frames without a thing.

The layout is that of Procgen 0.10.x: the list of entities, 31 numbers of four bytes each, the agent
first; further on the grid of 64 x 64 cells.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

KINDS = ("agent", "coin", "saw", "enemy")
_ENTITY_TYPES = {"agent": (0,), "saw": (2, 3), "enemy": (5, 6, 7)}
_FIELDS, _TYPE, _ALPHA = 31, 6, 25
_COIN, _EMPTY = 1, 100
# Every agent's half width and half height, then its entity type.
_AGENT = struct.pack("<ffi", 0.5, 0.5787, 0)
_GRID = struct.pack("<3i", 64, 64, 64 * 64)


class Body(NamedTuple):
    """Of the agent."""

    x: float
    """Cells from the left."""
    y: float
    """Cells from the bottom."""
    speed_x: float
    """Cells for each step of the engine."""
    speed_y: float
    """The same, upward."""

    @property
    def stands(self) -> bool:
        """On the ground, that is: in a jump the speed is an odd multiple of 0.1."""
        return abs(self.speed_y) < 0.05


def erase(engine_state: bytes, kind: str) -> bytes | None:
    """The engine's state with everything of `kind` made invisible; None where it has none.

    Coins are taken out of the level. Agents, saws and enemies become transparent: they still move
    and kill, and the camera still follows the agent.

    Raises:
        ValueError: an unknown kind, or bytes of another layout.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    edited = bytearray(engine_state)
    if kind == "coin":
        start = engine_state.find(_GRID)
        if start < 0:
            raise ValueError("this is no CoinRun state of Procgen 0.10: its grid was not found")
        grid = np.frombuffer(edited, np.int32, 64 * 64, start + len(_GRID))
        chosen = grid == _COIN
        if not chosen.any():
            return None
        grid[chosen] = _EMPTY
        return bytes(edited)
    rows = _entities(edited)
    chosen = np.isin(rows[:, _TYPE], _ENTITY_TYPES[kind])
    if not chosen.any():
        return None
    rows.view(np.float32)[chosen, _ALPHA] = 0
    return bytes(edited)


def agent_body(engine_state: bytes) -> Body:
    """Where the agent is and how it moves. Raises as `erase`."""
    return Body(*_entities(bytearray(engine_state)).view(np.float32)[0, :4].tolist())


def _entities(engine_state: bytearray) -> np.ndarray:
    """int32 (entities, 31), a writable view into the bytes."""
    at = engine_state.find(_AGENT) - 16
    if at >= 4:
        (count,) = struct.unpack_from("<i", engine_state, at - 4)
        if 0 < count <= (len(engine_state) - at) // (4 * _FIELDS):
            rows = np.frombuffer(engine_state, np.int32, count * _FIELDS, at)
            return rows.reshape(count, _FIELDS)
    raise ValueError("this is no CoinRun state of Procgen 0.10: its entities were not found")
