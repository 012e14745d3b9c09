"""The dynamics' objective: guess the hidden tokens of each frame (MaskGIT, paper section 2.1).

Shapes: B clips, T frames, M = T - 1 transitions, N tokens in a frame, K codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genie_env.world_model.dynamics import Dynamics


@dataclass(frozen=True)
class DynamicsLossConfig:
    mask_schedule: Literal["cosine", "uniform"] = "cosine"
    """How each frame's mask ratio is drawn: `cosine` as the sampler meets them, `uniform` between
    `min_mask` and 1 (the paper's, with 0.5)."""
    min_mask: float = 0.0
    corrupt_history: float = 0.1
    """In each clip a share of the history, uniform between 0 and this, is replaced by random
    codes, so that the model learns to mend its own slips instead of trusting them."""


def mask_ratios(config: DynamicsLossConfig, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A mask ratio per frame in [min_mask, 1]."""
    u = torch.rand(shape, device=device)
    if config.mask_schedule == "cosine":
        u = torch.cos(math.pi / 2 * u)
    return config.min_mask + (1 - config.min_mask) * u


def dynamics_loss(
    dynamics: Dynamics, tokens_BTN: Tensor, actions_BM: Tensor, config: DynamicsLossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy (nats) over the hidden tokens of frames 1..T-1, and metrics."""
    B, T, N = tokens_BTN.shape
    device = tokens_BTN.device
    # At least one token of every frame is hidden, or the frame would teach nothing.
    ratio_BT = mask_ratios(config, (B, T), device).clamp_min(1 / N)
    rank_BTN = torch.rand(B, T, N, device=device).argsort(-1)
    hidden_BTN = rank_BTN < (ratio_BT * N).ceil()[..., None]
    if dynamics.config.history == "masked":
        hidden_BTN[:, 0] = False

    rate_B11 = config.corrupt_history * torch.rand(B, 1, 1, device=device)
    corrupt_BTN = torch.rand(B, T, N, device=device) < rate_B11
    noise_BTN = torch.randint(dynamics.num_codes, (B, T, N), device=device)
    history_BTN = torch.where(corrupt_BTN, noise_BTN, tokens_BTN)
    # The visible part of the frame being decoded is the sampler's own work: mostly, not always,
    # right; it is corrupted alike.
    masked_BTN = history_BTN.masked_fill(hidden_BTN, dynamics.mask_token)

    logits_BMNK = dynamics(history_BTN, actions_BM, masked_BTN)
    hidden_BMN = hidden_BTN[:, 1:]
    target = tokens_BTN[:, 1:]
    loss_BMN = F.cross_entropy(
        logits_BMNK.float().flatten(0, 2), target.flatten(), reduction="none"
    ).view(target.shape)
    count = hidden_BMN.sum()
    loss = (loss_BMN * hidden_BMN).sum() / count
    with torch.no_grad():
        right = ((logits_BMNK.argmax(-1) == target) & hidden_BMN).sum() / count
    return loss, {"dynamics_loss": loss.detach(), "dynamics_accuracy": right}
