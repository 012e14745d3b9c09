"""The latent action model's objective: codes that help most to predict the next frame.

Shapes: B clips, T frames, M = T - 1 transitions, H W pixels, C = 3, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from genie_env.world_model.latent_actions import (
    LatentActionConfig,
    LatentActionDecoder,
    LatentActionEncoder,
    LatentActions,
)
from genie_env.world_model.quantize import perplexity
from genie_env.world_model.tokenizer import to_float


@dataclass(frozen=True)
class LatentActionLossConfig:
    forward_first: float = 0.25
    """Share of the stage in which the decoder learns to predict without any action: what it can
    predict by itself is not an action."""
    measure: Literal["root", "relative", "squared"] = "root"
    """How a transition's mean squared error counts. `relative`: over that of copying the previous
    frame, so that a small step counts like a long jump. `root`: the root of that, so that what is
    nearly right still asks to be told apart. `squared`: as it is, as in the paper."""
    still_weight: float = 0.2
    """But with `squared`: this share of the mean copying error is added to every transition's, so
    that a frame in which nothing moved does not count for ever."""
    border: int = 8
    """Pixels along the frame's edges that do not count: what comes into view there is news, not
    something that an action decided."""


class LatentActionStage(nn.Module):
    """Encoder, quantizer and forward model with their own losses: a stage of `training.loop`, and
    a part of `training.world` where both learn together."""

    def __init__(self, config: LatentActionConfig, loss: LatentActionLossConfig) -> None:
        super().__init__()
        if loss.measure not in ("root", "relative", "squared"):
            raise ValueError(f"unknown measure {loss.measure!r}; known: root, relative, squared")
        self.encoder = LatentActionEncoder(config)
        self.decoder = LatentActionDecoder(config, self.encoder.quantizer.latent_dim)
        self.loss = loss

    def forward(self, frames_BTHWC: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _, metrics = self.infer(frames_BTHWC, progress)
        return loss, metrics

    def infer(
        self, frames_BTHWC: Tensor, progress: float
    ) -> tuple[Tensor, LatentActions, dict[str, Tensor]]:
        """Loss, latent actions and metrics."""
        actions = self.encoder(frames_BTHWC)
        vectors, quantizer_loss = actions.vectors, actions.loss
        if self.training and progress < self.loss.forward_first:
            # Multiplied, so that every weight still takes part in the step (DDP wants it so).
            vectors, quantizer_loss = vectors * 0, quantizer_loss * 0
        guess = self.decoder(frames_BTHWC, vectors, actions.features)
        target = to_float(frames_BTHWC)
        edge = self.loss.border
        seen = slice(edge, -edge or None)
        error_BM, copy_BM = (
            (before - target[:, 1:])[:, :, seen, seen].square().mean((2, 3, 4))
            for before in (guess, target[:, :-1])
        )
        # The bound is a tenth of a grey level: a batch in which nothing moves teaches nothing.
        scale_BM = (copy_BM + self.loss.still_weight * copy_BM.mean()).clamp_min(1e-6)
        relative_BM = error_BM / scale_BM
        metrics = {
            "lam_relative_error": relative_BM.detach().mean(),
            "lam_psnr": 10 * torch.log10(4 / error_BM.detach().mean()),
            "lam_copy_psnr": 10 * torch.log10(4 / copy_BM.mean()),
            "lam_codes": actions.codes.detach(),
        }
        if self.loss.measure == "squared":
            loss = error_BM.mean()
        elif self.loss.measure == "relative":
            loss = relative_BM.mean()
        else:
            # The slope of a root has no bound at 0.
            loss = (relative_BM + 1e-3).sqrt().mean()
        return loss + quantizer_loss, actions, metrics

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        values = {key: float(value) for key, value in metrics.items() if value.ndim == 0}
        return values | {"lam_perplexity": perplexity(metrics["lam_codes"], self.encoder.num_codes)}

    def parts_to_compile(self) -> list[nn.Module]:
        return [self.encoder, self.decoder]
