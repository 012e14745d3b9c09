"""The tokenizer's objective: reconstruct the clip, and do not forget small things.

Shapes: B clips, T frames, H W pixels, C = 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genie_env.world_model.quantize import perplexity
from genie_env.world_model.tokenizer import TokenizerConfig, VideoTokenizer, to_float


@dataclass(frozen=True)
class TokenizerLossConfig:
    patch: int = 8
    """Side in pixels of the patches that are weighed against each other."""
    focus: float = 1.0
    """A patch weighs as much as its own error over the mean error, to this power (0: plain MSE).
    A coin is 1% of the frame: plain MSE is content to lose it."""
    max_weight: float = 30.0
    """At most this."""


def patch_errors(pixels_BTHWC: Tensor, target_BTHWC: Tensor, patch: int) -> Tensor:
    """Mean squared error (fp32) of each patch x patch square: (B, T, H / patch, W / patch)."""
    square = (pixels_BTHWC.float() - target_BTHWC.float()).square().mean(-1)
    B, T, H, W = square.shape
    return square.view(B, T, H // patch, patch, W // patch, patch).mean((3, 5))


class TokenizerStage(nn.Module):
    """What `training.loop` trains in the first stage: uint8 clips in, loss and metrics out.

    decoder_only: the encoder and what its tokens mean stay as they are.
    """

    def __init__(
        self, config: TokenizerConfig, loss: TokenizerLossConfig, decoder_only: bool = False
    ) -> None:
        super().__init__()
        self.tokenizer = VideoTokenizer(config)
        self.loss = loss
        self.decoder_only = decoder_only
        if decoder_only:
            for part in self.tokenizer.encoder_parts():
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> TokenizerStage:
        super().train(mode)
        if self.decoder_only:
            self.tokenizer.quantizer.eval()
        return self

    def forward(self, frames_BTHWC: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        pixels, quantized = self.tokenizer(frames_BTHWC)
        error = patch_errors(pixels, to_float(frames_BTHWC), self.loss.patch)
        mean = error.detach().mean()
        loss = error
        if self.loss.focus:
            weight = (error.detach() / mean) ** self.loss.focus
            loss = error * weight.clamp(max=self.loss.max_weight)
        loss = loss.mean() + quantized.loss
        # Pixels span 2 here, so that 10 log10(4 / mse) is the PSNR.
        return loss, {"psnr": 10 * torch.log10(4 / mean), "codes": quantized.codes.detach()}

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        return {
            "psnr": float(metrics["psnr"]),
            "perplexity": perplexity(metrics["codes"], self.tokenizer.num_codes),
        }

    def parts_to_compile(self) -> list[nn.Module]:
        return [self.tokenizer]
