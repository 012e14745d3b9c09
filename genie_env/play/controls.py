"""What latent actions do, as it was measured against the real game.

Shapes: P buttons, K latent actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEAST = 0.05
"""Sum over buttons below which nothing is said of a latent action: it belongs to the air."""
ALSO = 0.25
"""How likely a further button must be to be named beside the first."""


@dataclass(frozen=True)
class Controls:
    """Buttons of the real game and latent actions translated into each other."""

    num_actions: int
    codes: dict[str, int]
    """button -> the latent action that is seen most often when it is pressed."""
    names: dict[int, tuple[str, ...]]
    """Latent action -> the buttons it is seen for, the likeliest first, were all pressed alike;
    not every action has one."""
    shares: dict[int, float]
    """Latent action -> how likely it is the first of those."""

    @classmethod
    def of(cls, measured: Mapping[str, tuple[float, ...]], num_actions: int) -> Controls:
        """measured: button -> share (K,) of each latent action when it is pressed
        (`WorldModelConfig.controls`); empty where nothing was measured."""
        codes = {name: int(np.argmax(share_K)) for name, share_K in measured.items()}
        names, shares = {}, {}
        for code in range(num_actions):
            seen = {name: share_K[code] for name, share_K in measured.items()}
            total = sum(seen.values())
            if total >= LEAST:
                best = sorted(seen, key=lambda name: -seen[name])
                names[code] = tuple(
                    name for name in best if name == best[0] or seen[name] / total >= ALSO
                )
                shares[code] = seen[best[0]] / total
        return cls(num_actions, codes, names, shares)

    @property
    def idle(self) -> int:
        """The latent action of no button; the first where nothing was measured."""
        return self.codes.get("none", 0)

    def name(self, code: int) -> str:
        """What a latent action is called, "?" without a name."""
        return " / ".join(self.names.get(code, ("?",)))
