"""A start painted by hand: blocks of colour on a frame."""

from __future__ import annotations

import numpy as np

BLOCK = 4
"""Pixels a side of what one touch of the brush paints."""

PALETTE: dict[str, tuple[int, int, int]] = {
    "air": (0, 0, 0),
    "ground": (187, 203, 204),
    "crate": (197, 143, 92),
    "coin": (255, 215, 60),
    "saw": (120, 120, 130),
    "agent": (230, 120, 60),
}
"""Roughly the colours of the plain look."""


class Canvas:
    """A frame to paint on.

    Args:
        frame_HWC: uint8, what it begins with; copied.
        palette: name -> colour.
    """

    def __init__(
        self, frame_HWC: np.ndarray, palette: dict[str, tuple[int, int, int]] | None = None
    ) -> None:
        self.frame_HWC = np.array(frame_HWC)
        self.palette = dict(palette or PALETTE)
        *_, self.colour = list(self.palette)[:2]

    def clear(self) -> None:
        self.frame_HWC[:] = next(iter(self.palette.values()))

    def paint(self, x: float, y: float) -> None:
        """A block of the chosen colour where x and y, 0 to 1, point; beside the frame nothing."""
        row, column = self._pixel(y, 0), self._pixel(x, 1)
        if row is not None and column is not None:
            top, left = row - row % BLOCK, column - column % BLOCK
            self.frame_HWC[top : top + BLOCK, left : left + BLOCK] = self.palette[self.colour]

    def pick(self, x: float, y: float) -> None:
        """Takes the colour that is there as the brush's."""
        row, column = self._pixel(y, 0), self._pixel(x, 1)
        if row is not None and column is not None:
            red, green, blue = (int(value) for value in self.frame_HWC[row, column])
            self.palette["picked"] = (red, green, blue)
            self.colour = "picked"

    def _pixel(self, share: float, axis: int) -> int | None:
        return int(share * self.frame_HWC.shape[axis]) if 0 <= share < 1 else None
