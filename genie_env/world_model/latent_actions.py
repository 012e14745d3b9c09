"""Latent action model: what was done between two frames, as one of few codes (paper, section 2.1).

Shapes: B clips, T frames, M = T - 1 transitions, H W pixels, C = 3, N tokens in a frame, D width,
E latent width, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from genie_env.world_model.quantize import Quantized, QuantizerConfig, make_quantizer
from genie_env.world_model.stems import (
    PixelsToTokens,
    StemConfig,
    TokensToPixels,
    check_frame_size,
)
from genie_env.world_model.tokenizer import to_float
from genie_env.world_model.transformer import STTransformer, TransformerConfig, rms_norm


@dataclass(frozen=True)
class LatentActionConfig:
    frame_size: int = 64
    encoder_stem: StemConfig = field(default_factory=lambda: StemConfig(channels=48, num_blocks=1))
    encoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(width=128, num_layers=3, num_heads=4)
    )
    decoder_stem: StemConfig = field(default_factory=lambda: StemConfig(channels=64, num_blocks=1))
    decoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(width=192, num_layers=3, num_heads=6)
    )
    quantizer: QuantizerConfig = field(
        default_factory=lambda: QuantizerConfig(kind="vq_ema", num_codes=8, latent_dim=32)
    )
    """Its number of codes is the number of actions of the environment."""


def frame_pairs(frames_BTHWC: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (B, T, H, W, 3) to floats (B, T, H, W, 6): each frame and its change from the one
    before (0 for the first), so that motion is visible before any attention."""
    pixels = to_float(frames_BTHWC)
    change = torch.cat((torch.zeros_like(pixels[:, :1]), pixels[:, 1:] - pixels[:, :-1]), 1)
    return torch.cat((pixels, change), -1).to(dtype)


class LatentActionEncoder(nn.Module):
    """frames_BTHWC -> actions_BM. Action m is read off frames 0..m+1, never later ones."""

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        check_frame_size(config.frame_size, config.encoder_stem)
        self.config = config
        width = config.encoder.width
        num_tokens = (config.frame_size // config.encoder_stem.patch_size) ** 2
        self.stem = PixelsToTokens(config.encoder_stem, 6, width)
        self.place_ND = nn.Parameter(0.02 * torch.randn(num_tokens, width))
        self.transformer = STTransformer(config.encoder)
        self.quantizer = make_quantizer(config.quantizer)
        self.num_codes = self.quantizer.num_codes
        self.to_latent = nn.Linear(width, self.quantizer.latent_dim)
        # What all transitions share says nothing of the action, and pulls every latent to one
        # code: centred and scaled, the latents spread over the codebook from the first step.
        self.spread = nn.BatchNorm1d(self.quantizer.latent_dim, affine=False)

    def latents(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to continuous latent actions (B, M, E), before the quantizer."""
        B, T = frames_BTHWC.shape[:2]
        if T < 2:
            raise ValueError(f"latent actions lie between frames: got {T} frame, at least 2 needed")
        pairs = frame_pairs(frames_BTHWC, self.to_latent.weight.dtype).flatten(0, 1)
        x = self.stem(pairs)
        x = self.transformer((x + self.place_ND.to(x.dtype)).unflatten(0, (B, T)))
        latent_BME = self.to_latent(rms_norm(x[:, 1:].mean(2))).to(self.spread.running_mean.dtype)
        return self.spread(latent_BME.flatten(0, 1)).view_as(latent_BME)

    def forward(self, frames_BTHWC: Tensor) -> Quantized:
        """uint8 (B, T, H, W, 3) to latent actions: vectors (B, M, E), codes (B, M) in 0..K-1."""
        return self.quantizer(self.latents(frames_BTHWC))


class LatentActionDecoder(nn.Module):
    """The forward model that gives the encoder its training signal, and is dropped afterwards:
    past frames and latent actions in, the next frame out."""

    def __init__(self, config: LatentActionConfig, latent_dim: int) -> None:
        super().__init__()
        width, stem = config.decoder.width, config.decoder_stem
        grid = config.frame_size // stem.patch_size
        self.stem = PixelsToTokens(stem, 6, width)
        self.place_ND = nn.Parameter(0.02 * torch.randn(grid**2, width))
        self.action = nn.Linear(latent_dim, width)
        self.transformer = STTransformer(config.decoder)
        self.head = TokensToPixels(stem, width, 3, grid)

    def forward(self, frames_BTHWC: Tensor, actions_BME: Tensor) -> Tensor:
        """uint8 frames 0..T-1 and latent action vectors; floats (B, M, H, W, 3), the guesses for
        frames 1..T-1, each from the frames and actions before it."""
        past = frames_BTHWC[:, :-1]
        B, M = past.shape[:2]
        dtype = self.action.weight.dtype
        x = self.stem(frame_pairs(past, dtype).flatten(0, 1))
        x = (x + self.place_ND.to(x.dtype)).unflatten(0, (B, M))
        x = self.transformer(x + self.action(actions_BME.to(dtype))[:, :, None])
        change = self.head(x.flatten(0, 1)).unflatten(0, (B, M))
        return to_float(past) + change.float()
