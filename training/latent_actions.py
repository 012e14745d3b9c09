"""The latent action model's objective: codes that help most to predict the next frame.

Shapes: B clips, T frames, M = T - 1 transitions, H W pixels, C = 3, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genie_env.world_model.latent_actions import (
    LatentActionConfig,
    LatentActionDecoder,
    LatentActionEncoder,
)
from genie_env.world_model.quantize import Quantized
from genie_env.world_model.tokenizer import to_float


@dataclass(frozen=True)
class LatentActionLossConfig:
    forward_first: float = 0.05
    """Share of the run in which the decoder learns to predict without any action: what it can
    predict by itself is not an action."""
    relative: bool = True
    """Measure each transition's error against that of copying the previous frame, so that a small
    step counts like a long jump. False: plain mean squared error, as in the paper."""
    still_weight: float = 0.2
    """With `relative`: this share of the mean copying error is added to every transition's, so
    that a frame in which nothing moved does not count for ever."""


class LatentActionStage(nn.Module):
    """Encoder, quantizer and forward model with their own losses; see `training.world`."""

    def __init__(self, config: LatentActionConfig, loss: LatentActionLossConfig) -> None:
        super().__init__()
        self.encoder = LatentActionEncoder(config)
        self.decoder = LatentActionDecoder(config, self.encoder.quantizer.latent_dim)
        self.loss = loss

    def forward(
        self, frames_BTHWC: Tensor, progress: float
    ) -> tuple[Tensor, Quantized, dict[str, Tensor]]:
        """Loss, latent actions (vectors (B, M, E), codes (B, M)) and metrics."""
        quantized = self.encoder(frames_BTHWC)
        vectors, quantizer_loss = quantized.vectors, quantized.loss
        if self.training and progress < self.loss.forward_first:
            # Multiplied, so that every weight still takes part in the step (DDP wants it so).
            vectors, quantizer_loss = vectors * 0, quantizer_loss * 0
        guess = self.decoder(frames_BTHWC, vectors)
        target = to_float(frames_BTHWC)
        error_BM = (guess - target[:, 1:]).square().mean((2, 3, 4))
        copy_BM = (target[:, 1:] - target[:, :-1]).square().mean((2, 3, 4))
        # The bound is a tenth of a grey level: a batch in which nothing moves teaches nothing.
        scale_BM = (copy_BM + self.loss.still_weight * copy_BM.mean()).clamp_min(1e-6)
        relative = (error_BM / scale_BM).mean()
        metrics = {
            "lam_relative_error": relative.detach(),
            "lam_psnr": 10 * torch.log10(4 / error_BM.detach().mean()),
            "lam_copy_psnr": 10 * torch.log10(4 / copy_BM.mean()),
            "lam_codes": quantized.codes.detach(),
        }
        loss = relative if self.loss.relative else error_BM.mean()
        return loss + quantizer_loss, quantized, metrics
