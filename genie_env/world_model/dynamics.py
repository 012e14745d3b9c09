"""MaskGIT dynamics: the next frame's tokens from the past and a latent action (paper, section 2.1).

Shapes: B worlds, T frames, M = T - 1 transitions, N tokens in a frame, D width, K codes of the
tokenizer, A latent actions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from genie_env.world_model.transformer import (
    STTransformer,
    TemporalCache,
    TransformerConfig,
    causal_mask,
)

NO_ACTION = -1
"""What stands for the action before the first frame of a clip."""


@dataclass(frozen=True)
class DynamicsConfig:
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(width=192, num_layers=6, num_heads=6)
    )
    history: Literal["clean", "masked"] = "clean"
    """What a masked frame sees of the past in training. `clean`: whole frames, exactly as when
    sampling (each clip runs as two streams, clean and masked, at twice the cost).
    `masked`: the paper's single stream, whose past frames are masked too."""
    action: Literal["add", "prepend"] = "add"
    """`add`: an embedding on every token of the frame it led to (the paper's choice);
    `prepend`: one more token in that frame."""


class Dynamics(nn.Module):
    """tokens_BTN, actions_BM -> logits of every frame's tokens, given the frames before it."""

    def __init__(
        self, config: DynamicsConfig, num_tokens: int, num_codes: int, num_actions: int
    ) -> None:
        super().__init__()
        if config.history not in ("clean", "masked"):
            raise ValueError(f"unknown history {config.history!r}; known: clean, masked")
        if config.action not in ("add", "prepend"):
            raise ValueError(f"unknown action {config.action!r}; known: add, prepend")
        self.config = config
        self.num_tokens, self.num_codes, self.num_actions = num_tokens, num_codes, num_actions
        self.width = width = config.transformer.width
        self.mask_token = num_codes
        self.token = nn.Embedding(num_codes + 1, width)
        self.action = nn.Embedding(num_actions + 1, width)
        self.place_ND = nn.Parameter(0.02 * torch.randn(num_tokens, width))
        self.transformer = STTransformer(config.transformer)
        self.head = nn.Linear(width, num_codes)
        for embedding in (self.token, self.action):
            nn.init.normal_(embedding.weight, std=0.5)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(
        self, tokens_BTN: Tensor, actions_BM: Tensor, masked_BTN: Tensor | None = None
    ) -> Tensor:
        """Logits (B, M, N, K) for frames 1..T-1.

        tokens_BTN: int64 in 0..K-1: the history. actions_BM: int64 in 0..A-1; action m leads from
        frame m to frame m + 1. masked_BTN: frames 1..T-1 are to be guessed from this copy, in
        which the hidden tokens are `mask_token`; frame 0 of it is not used. With `history="masked"`
        (or None here) there is one stream, and `masked_BTN` itself is the history.
        """
        T, N = tokens_BTN.shape[1:]
        if masked_BTN is None or self.config.history == "masked":
            stream = tokens_BTN if masked_BTN is None else masked_BTN
            x = self.features(stream, actions_BM)[:, 1:]
        else:
            # Two streams side by side in time: clean frames 0..T-2, then masked frames 1..T-1,
            # each of which sees the clean frames before it and itself.
            actions_BT = nn.functional.pad(actions_BM, (1, 0), value=NO_ACTION)
            window, device = self.config.transformer.context_frames, tokens_BTN.device
            clean = causal_mask(T, window, device)[: T - 1, : T - 1]
            past = causal_mask(T, window, device)[1:, : T - 1]
            past = past & ~torch.eye(T, dtype=torch.bool, device=device)[1:, : T - 1]
            itself = torch.eye(T - 1, dtype=torch.bool, device=device)
            mask = torch.cat(
                (
                    torch.cat((clean, torch.zeros_like(clean)), 1),
                    torch.cat((past, itself), 1),
                )
            )
            time = torch.arange(T, device=device)
            both = torch.cat((tokens_BTN[:, :-1], masked_BTN[:, 1:]), 1)
            actions = torch.cat((actions_BT[:, :-1], actions_BT[:, 1:]), 1)
            times = torch.cat((time[:-1], time[1:]))
            x = self.transformer(self._embed(both, actions), times, mask)[:, T - 1 :]
        return self.head(x[:, :, -N:])

    def step(
        self,
        tokens_BN: Tensor,
        actions_B: Tensor,
        cache: TemporalCache,
        place_BS: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, S, K) of the tokens at some places (all if None) of the frame after those in
        the cache, from a partly masked copy of it.

        Writes that frame's keys and values to its slot of the cache; once it is decoded, `commit`
        the whole frame.
        """
        x = self.transformer.step(self._embed(tokens_BN, actions_B), cache)[:, -self.num_tokens :]
        if place_BS is not None:
            x = x.gather(1, place_BS[..., None].expand(-1, -1, x.shape[-1]))
        return self.head(x)

    def commit(self, tokens_BN: Tensor, actions_B: Tensor, cache: TemporalCache) -> Tensor:
        """A whole frame becomes history. actions_B: what led to it, NO_ACTION for the first.
        Returns its features, (B, N, D)."""
        x = self.transformer.step(self._embed(tokens_BN, actions_B), cache)
        cache.advance()
        return x[:, -self.num_tokens :]

    def features(self, tokens_BTN: Tensor, actions_BM: Tensor) -> Tensor:
        """What `commit` returns of every frame of whole clips, at once: (B, T, N, D)."""
        actions_BT = nn.functional.pad(actions_BM, (1, 0), value=NO_ACTION)
        return self.transformer(self._embed(tokens_BTN, actions_BT))[:, :, -self.num_tokens :]

    def new_cache(self, num_worlds: int) -> TemporalCache:
        extra = 1 if self.config.action == "prepend" else 0
        return self.transformer.new_cache(num_worlds, self.num_tokens + extra)

    def _embed(self, tokens: Tensor, actions: Tensor) -> Tensor:
        """tokens (..., N), actions (...) to (..., N, D), or N + 1 with a prepended action."""
        # Action embedding 0 is NO_ACTION.
        action = self.action(actions + 1)[..., None, :]
        x = self.token(tokens) + self.place_ND
        if self.config.action == "prepend":
            return torch.cat((action, x), -2)
        return x + action
