"""MaskGIT decoding of one frame in a few parallel steps (Chang et al. 2022; paper, section 2.2).

Shapes: B worlds, N tokens in a frame, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MAX_STEPS = 25


@dataclass(frozen=True)
class SamplingConfig:
    steps: int = 2
    """MaskGIT steps a frame, 1 to 25 (the paper's 25)."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest code. Dreams for training want at least 1."""
    order: Literal["random", "confidence"] = "random"
    """Which tokens are settled first. `confidence` tends to copy the previous frame."""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"MaskGIT steps={self.steps}; accepted: 1 to {MAX_STEPS}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature={self.temperature}; accepted: finite and >= 0")
        if self.order not in ("random", "confidence"):
            raise ValueError(f"unknown order {self.order!r}; known: random, confidence")


def num_masked_after(step: int, steps: int, num_tokens: int) -> int:
    """Tokens still masked after step 0..steps-1: the cosine schedule, 0 after the last. Every
    step settles at least one token as long as there is one."""
    if step + 1 >= steps:
        return 0
    still = math.floor(num_tokens * math.cos(math.pi / 2 * (step + 1) / steps))
    return min(still, max(0, num_tokens - step - 1))


def uniform(generators: Sequence[torch.Generator], *shape: int) -> Tensor:
    """fp32 (B, *shape) in [0, 1): one generator a world, so no world's luck moves another's."""
    return torch.stack([torch.rand(shape, generator=g, device=g.device) for g in generators])


def gumbel(noise: Tensor) -> Tensor:
    """Uniform noise in [0, 1) to standard Gumbel noise, finite everywhere."""
    return -(-noise.clamp(1e-20, 1 - 1e-7).log()).log()


def draw(logits: Tensor, temperature: float, luck: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int64 (...) from fp32 logits (..., K), and how unsure those were: the entropy (...) of
    their softmax, nats.

    luck: uniform in [0, 1), (...): where in the cumulative chances the code lies. One number a
    token instead of the K of Gumbel noise: on a CPU that noise cost more than a layer.
    """
    shifted = logits - logits.amax(-1, keepdim=True)
    weight = shifted.exp()
    total = weight.sum(-1)
    entropy = total.log() - (weight * shifted).sum(-1) / total
    if temperature == 0:
        return logits.argmax(-1), entropy
    if temperature != 1:
        weight = (shifted / temperature).exp()
    reached = weight.cumsum(-1)
    # The last code takes what rounding leaves above the sum.
    drawn = torch.searchsorted(reached, (luck * reached[..., -1])[..., None], right=True)[..., 0]
    return drawn.clamp_max(logits.shape[-1] - 1), entropy


@torch.no_grad()
def decode_frame(
    logits_of: Callable[[Tensor, Tensor], Tensor],
    num_tokens: int,
    mask_token: int,
    generators: Sequence[torch.Generator],
    config: SamplingConfig,
) -> tuple[Tensor, Tensor]:
    """Decode one frame from all masked.

    logits_of: int64 (B, N) with `mask_token` where hidden, and places int64 (B, S) -> logits
    (B, S, K) of the tokens there.
    Returns int64 tokens (B, N) and the entropy, fp32 (B, N) in nats, that each token had when it
    was settled.
    """
    num_worlds = len(generators)
    device = generators[0].device
    tokens = torch.full((num_worlds, num_tokens), mask_token, dtype=torch.int64, device=device)
    entropy_BN = torch.zeros(num_worlds, num_tokens, device=device)
    # Places by the turn in which they are settled; `confidence` puts them in its own order.
    order_BN = uniform(generators, num_tokens).argsort(-1)
    settled = 0
    for step in range(config.steps):
        end = num_tokens - num_masked_after(step, config.steps, num_tokens)
        # With a fixed order only what is settled now is guessed: half of the work for two steps.
        place_BS = order_BN[:, settled : end if config.order == "random" else None]
        logits = logits_of(tokens, place_BS).float()
        drawn, entropy = draw(logits, config.temperature, uniform(generators, place_BS.shape[1]))
        if config.order == "confidence":
            chosen = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
            noise = gumbel(uniform(generators, place_BS.shape[1]))
            best = (chosen + config.temperature * noise).argsort(-1, descending=True)
            place_BS, drawn, entropy = (x.gather(1, best) for x in (place_BS, drawn, entropy))
            order_BN = torch.cat((order_BN[:, :settled], place_BS), 1)
        now = end - settled
        tokens = tokens.scatter(1, place_BS[:, :now], drawn[:, :now])
        entropy_BN = entropy_BN.scatter(1, place_BS[:, :now], entropy[:, :now])
        settled = end
    return tokens, entropy_BN
