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
        palette: name -> colour; the first is what a cleared canvas is filled with.
    """

    def __init__(
        self, frame_HWC: np.ndarray, palette: dict[str, tuple[int, int, int]] | None = None
    ) -> None:
        self.frame_HWC = np.array(frame_HWC)
        self.palette = dict(palette or PALETTE)
        *_, self.colour = list(self.palette)[:2]

    def clear(self) -> None:
        self.frame_HWC[:] = next(iter(self.palette.values()))

    def paint(self, x: float, y: float, since: tuple[float, float] | None = None) -> None:
        """A block of the chosen colour where x and y, 0 to 1, point, and on the way there from
        `since`; beside the frame nothing."""
        from_x, from_y = since or (x, y)
        size = len(self.frame_HWC)
        steps = 1 + int(size / BLOCK * 2 * max(abs(x - from_x), abs(y - from_y)))
        for share in np.linspace(0, 1, steps + 1)[1:]:
            at = self._pixel(from_x + share * (x - from_x), from_y + share * (y - from_y))
            if at is not None:
                top, left = (place - place % BLOCK for place in at)
                block = self.frame_HWC[top : top + BLOCK, left : left + BLOCK]
                block[:] = self.palette[self.colour]

    def pick(self, x: float, y: float) -> None:
        """Takes the colour that is there as the brush's."""
        at = self._pixel(x, y)
        if at is not None:
            red, green, blue = (int(value) for value in self.frame_HWC[at])
            self.palette["picked"] = (red, green, blue)
            self.colour = "picked"

    def _pixel(self, x: float, y: float) -> tuple[int, int] | None:
        if not (0 <= x < 1 and 0 <= y < 1):
            return None
        height, width = self.frame_HWC.shape[:2]
        return int(y * height), int(x * width)
