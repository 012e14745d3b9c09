"""What latent actions do, as it was measured against the real game.

Shapes: K latent actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Controls:
    """Buttons of the real game and latent actions translated into each other."""

    num_actions: int
    codes: dict[str, int]
    """button -> the latent action that is seen most often when it is pressed."""
    names: dict[int, str]
    """Latent action -> the button that it is the commonest for; not every action has one."""
    shares: dict[int, float]
    """Latent action -> how often that button is seen as it."""

    @classmethod
    def of(cls, measured: Mapping[str, tuple[float, ...]], num_actions: int) -> Controls:
        """measured: button -> share (K,) of each latent action when it is pressed
        (`WorldModelConfig.controls`); empty where nothing was measured."""
        codes = {name: int(np.argmax(share_K)) for name, share_K in measured.items()}
        names, shares = {}, {}
        for code in range(num_actions):
            share, name = max(((s[code], n) for n, s in measured.items()), default=(0.0, ""))
            if share > 0:
                names[code], shares[code] = name, share
        return cls(num_actions, codes, names, shares)

    @property
    def idle(self) -> int:
        """The latent action of no button; the first where nothing was measured."""
        return self.codes.get("none", 0)
