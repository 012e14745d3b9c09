"""What ends an episode, foretold from what the dynamics know of the newest frame.

A game need not show its end: CoinRun replaces the frame that touches the coin, or the saw, by the
next level's first. So the head says of each frame how likely the *next* step ends the episode; in
a dream the end is then drawn from those chances. As in DIAMOND (Alonso et al., 2024) reward and
end are a model of their own, which no gradient of leads back into the world model's.

Shapes: ... any leading axes, N tokens in a frame, D width of the dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

NOTHING, SUCCESS, DEATH = range(3)
OUTCOMES = ("nothing", "success", "death")


@dataclass(frozen=True)
class OutcomeConfig:
    token_width: int = 16
    width: int = 64
    dropout: float = 0.5
    """While it learns from few labels."""
    success_reward: float = 10.0
    """Paid for a success; CoinRun's own."""


class OutcomeHead(nn.Module):
    """features (..., N, D) of the newest frame -> logits (..., 3) of what the next step brings, an
    index into `OUTCOMES`."""

    def __init__(self, config: OutcomeConfig, num_tokens: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.squeeze = nn.Linear(width, config.token_width)
        self.forget = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(num_tokens * config.token_width, config.width)
        self.says = nn.Linear(config.width, len(OUTCOMES))

    def forward(self, features: Tensor) -> Tensor:
        # Every place has weights of its own: what matters is what lies where around the agent.
        token = nn.functional.gelu(self.squeeze(features)).flatten(-2)
        return self.says(nn.functional.gelu(self.hidden(self.forget(token)))).float()
