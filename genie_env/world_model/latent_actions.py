"""Latent action model: what was done between two frames, as one of few codes (paper, section 2.1).

Shapes: B clips, T frames, M = T - 1 transitions, H W pixels, C = 3, N tokens in a frame, D width,
E latent width, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genie_env.world_model.motion import MovedPatches
from genie_env.world_model.quantize import QuantizerConfig, make_quantizer
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
    encoder_stem: StemConfig = field(default_factory=lambda: StemConfig(channels=32, num_blocks=1))
    encoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            width=128, num_layers=2, num_heads=4, context_frames=4
        )
    )
    decoder_stem: StemConfig = field(default_factory=lambda: StemConfig(channels=32, num_blocks=1))
    decoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            width=128, num_layers=2, num_heads=4, context_frames=8
        )
    )
    decoder_reach: tuple[int, int] | None = (24, 8)
    """How many pixels down and right (or up and left) the decoder can move what it saw, beside
    drawing anew. None: it only draws, as in the paper."""
    quantizer: QuantizerConfig = field(
        default_factory=lambda: QuantizerConfig(
            kind="vq_ema", num_codes=8, latent_dim=32, dead_below=0.4
        )
    )
    """Its number of codes is the number of actions of the environment."""


def frame_pairs(frames_BTHWC: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (B, T, H, W, 3) to floats (B, T, H, W, 6): each frame and its change from the one
    before (0 for the first), so that motion is visible before any attention."""
    pixels = to_float(frames_BTHWC)
    change = torch.cat((torch.zeros_like(pixels[:, :1]), pixels[:, 1:] - pixels[:, :-1]), 1)
    return torch.cat((pixels, change), -1).to(dtype)


class LatentActions(NamedTuple):
    vectors: Tensor
    """(B, M, E): the chosen codes; gradients pass straight through to the latents."""
    codes: Tensor
    """(B, M) int64 in 0..K-1."""
    loss: Tensor
    """Scalar fp32: the quantizer's own."""
    features: Tensor
    """(B, M, D): what the encoder saw of each transition, before it was reduced to a code."""


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

    def features(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to what is seen of each transition, (B, M, D)."""
        B, T = frames_BTHWC.shape[:2]
        if T < 2:
            raise ValueError(f"latent actions lie between frames: got {T} frame, at least 2 needed")
        pairs = frame_pairs(frames_BTHWC, self.to_latent.weight.dtype).flatten(0, 1)
        x = self.stem(pairs)
        x = self.transformer((x + self.place_ND.to(x.dtype)).unflatten(0, (B, T)))
        return rms_norm(x[:, 1:].mean(2))

    def latents(self, features_BMD: Tensor) -> Tensor:
        """Features to continuous latent actions (B, M, E), before the quantizer."""
        latent_BME = self.to_latent(features_BMD).to(self.spread.running_mean.dtype)
        return self.spread(latent_BME.flatten(0, 1)).view_as(latent_BME)

    def forward(self, frames_BTHWC: Tensor) -> LatentActions:
        """The latent actions of uint8 frames (B, T, H, W, 3)."""
        features_BMD = self.features(frames_BTHWC)
        quantized = self.quantizer(self.latents(features_BMD))
        return LatentActions(quantized.vectors, quantized.codes, quantized.loss, features_BMD)


class LatentActionDecoder(nn.Module):
    """The forward model that gives the encoder its training signal, and is dropped afterwards:
    past frames and latent actions in, the next frame out.

    It is also told what the encoder saw of the transitions *before*: how fast things already move
    is then known, and a code need only say what was done. Without it codes become bins of how far
    the scene moved.
    """

    def __init__(self, config: LatentActionConfig, latent_dim: int) -> None:
        super().__init__()
        width, stem = config.decoder.width, config.decoder_stem
        grid = config.frame_size // stem.patch_size
        self.stem = PixelsToTokens(stem, 6, width)
        self.place_ND = nn.Parameter(0.02 * torch.randn(grid**2, width))
        self.action = nn.Linear(latent_dim, width)
        self.motion = nn.Linear(config.encoder.width, width)
        self.transformer = STTransformer(config.decoder)
        self.moved = (
            MovedPatches(width, stem.patch_size, config.decoder_reach)
            if config.decoder_reach
            else None
        )
        self.head = TokensToPixels(stem, width, 3, grid)

    def forward(self, frames_BTHWC: Tensor, actions_BME: Tensor, features_BMD: Tensor) -> Tensor:
        """uint8 frames 0..T-1, latent action vectors and the encoder's features; floats
        (B, M, H, W, 3), the guesses for frames 1..T-1, each from the frames before it, the actions
        up to it and the features of the transitions before it."""
        past = frames_BTHWC[:, :-1]
        B, M = past.shape[:2]
        dtype = self.action.weight.dtype
        x = self.stem(frame_pairs(past, dtype).flatten(0, 1))
        x = (x + self.place_ND.to(x.dtype)).unflatten(0, (B, M))
        seen_BMD = nn.functional.pad(features_BMD[:, :-1], (0, 0, 1, 0)).to(dtype)
        told_BMD = self.action(actions_BME.to(dtype)) + self.motion(seen_BMD)
        x = self.transformer(x + told_BMD[:, :, None])
        pixels, x = to_float(past).flatten(0, 1), x.flatten(0, 1)
        if self.moved is not None:
            pixels = self.moved(pixels, x)
        return (pixels.float() + self.head(x).float()).unflatten(0, (B, M))
