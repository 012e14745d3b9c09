"""Read and edit what a saved CoinRun state holds: where the agent is; frames without a thing.

The layout is that of Procgen 0.10.x: the list of entities, 31 numbers of four bytes each, the agent
first; further on the grid of 64 x 64 cells.
"""

from __future__ import annotations

import struct

import numpy as np

KINDS = ("agent", "coin", "saw", "enemy")
_ENTITY_TYPES = {"agent": (0,), "saw": (2, 3), "enemy": (5, 6, 7)}
_FIELDS, _TYPE, _ALPHA = 31, 6, 25
_COIN, _EMPTY = 1, 100
# Every agent's half width and half height, then its entity type.
_AGENT = struct.pack("<ffi", 0.5, 0.5787, 0)
_GRID = struct.pack("<3i", 64, 64, 64 * 64)


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


def agent_position(engine_state: bytes) -> tuple[float, float]:
    """Where the agent is: cells from the left and from the bottom. Raises as `erase`."""
    x, y = _entities(bytearray(engine_state)).view(np.float32)[0, :2]
    return float(x), float(y)


def _entities(engine_state: bytearray) -> np.ndarray:
    """int32 (entities, 31), a writable view into the bytes."""
    at = engine_state.find(_AGENT) - 16
    if at >= 4:
        (count,) = struct.unpack_from("<i", engine_state, at - 4)
        if 0 < count <= (len(engine_state) - at) // (4 * _FIELDS):
            rows = np.frombuffer(engine_state, np.int32, count * _FIELDS, at)
            return rows.reshape(count, _FIELDS)
    raise ValueError("this is no CoinRun state of Procgen 0.10: its entities were not found")
