"""Latent action model: what was done between two frames, as one of few codes (paper, section 2.1).

Shapes: B clips, T frames, M = T - 1 transitions, H W pixels, C = 3, N tokens in a frame, D width,
E latent width, K codes, S places that a patch may come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genie_env.world_model.motion import match_patches, num_places
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
    reach: tuple[int, int] | None = (24, 8)
    """How many pixels up or down, left or right, patches are followed from frame to frame. Encoder
    and decoder are then shown where each came from, and what the decoder guesses is where those of
    the next frame will have come from. None, as in the paper: both see pixels only, and the decoder
    draws the next frame."""
    quantizer: QuantizerConfig = field(
        default_factory=lambda: QuantizerConfig(kind="vq_ema", num_codes=8, latent_dim=32)
    )
    """Its number of codes is the number of actions of the environment."""

    def __post_init__(self) -> None:
        sizes = self.encoder_stem.patch_size, self.decoder_stem.patch_size
        if self.reach and (sizes[0] != sizes[1] or sizes[0] % 2):
            raise ValueError(
                f"patches of {sizes[0]} (encoder) and {sizes[1]} (decoder) pixels: to be followed "
                "they need one even size"
            )


class FramePairs(nn.Module):
    """uint8 (B, T, H, W, 3) to tokens (B, T, N, D): each frame, its change from the one before (0
    for the first) and where its patches came from, so that motion is visible before any
    attention."""

    def __init__(self, config: LatentActionConfig, stem: StemConfig, width: int) -> None:
        super().__init__()
        check_frame_size(config.frame_size, stem)
        self.stem = PixelsToTokens(stem, 6, width)
        num_tokens = (config.frame_size // stem.patch_size) ** 2
        self.place_ND = nn.Parameter(0.02 * torch.randn(num_tokens, width))
        if config.reach:
            self.came_from = nn.Linear(num_places(config.reach), width)

    def forward(self, frames_BTHWC: Tensor, came_from_BTNS: Tensor | None) -> Tensor:
        pixels, dtype = to_float(frames_BTHWC), self.place_ND.dtype
        change = pixels - previous(pixels)
        x = self.stem(torch.cat((pixels, change), -1).flatten(0, 1).to(dtype))
        x = (x + self.place_ND.to(x.dtype)).unflatten(0, frames_BTHWC.shape[:2])
        if came_from_BTNS is not None:
            x = x + self.came_from(came_from_BTNS.exp().to(dtype))
        return x


def previous(x_BT: Tensor) -> Tensor:
    """The frame before each; before the first, itself."""
    return torch.cat((x_BT[:, :1], x_BT[:, :-1]), 1)


class LatentActions(NamedTuple):
    vectors: Tensor
    """(B, M, E): the chosen codes; gradients pass straight through to the latents."""
    codes: Tensor
    """(B, M) int64 in 0..K-1."""
    loss: Tensor
    """Scalar fp32: the quantizer's own."""
    latents: Tensor
    """(B, M, E): what the codes were chosen by."""
    features: Tensor
    """(B, M, D): what the encoder saw of each transition, before it was reduced to a latent."""
    came_from: Tensor | None
    """(B, T, N, S) log shares: where each patch was a frame before (`match_patches`)."""


class LatentActionEncoder(nn.Module):
    """frames_BTHWC -> actions_BM. Action m is read off frames 0..m+1, never later ones."""

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.pairs = FramePairs(config, config.encoder_stem, width)
        self.transformer = STTransformer(config.encoder)
        self.quantizer = make_quantizer(config.quantizer)
        self.num_codes = self.quantizer.num_codes
        self.to_latent = nn.Linear(width, self.quantizer.latent_dim)
        # What all transitions share says nothing of the action, and pulls every latent to one
        # code: centred and scaled, the latents spread over the codebook from the first step.
        self.spread = nn.BatchNorm1d(self.quantizer.latent_dim, affine=False)

    @property
    def look_back(self) -> int:
        """Frames that a latent action is read from: the two it lies between, and those before."""
        transformer = self.config.encoder
        return transformer.num_layers * (transformer.context_frames - 1) + 2

    def came_from(self, frames_BTHWC: Tensor) -> Tensor | None:
        """Where each patch was a frame before: (B, T, N, S) log shares, or None without reach."""
        if self.config.reach is None:
            return None
        pixels = to_float(frames_BTHWC)
        return match_patches(
            previous(pixels).flatten(0, 1),
            pixels.flatten(0, 1),
            self.config.encoder_stem.patch_size,
            self.config.reach,
        ).unflatten(0, frames_BTHWC.shape[:2])

    def features(self, frames_BTHWC: Tensor, came_from_BTNS: Tensor | None) -> Tensor:
        """What is seen of each transition, (B, M, D)."""
        x = self.transformer(self.pairs(frames_BTHWC, came_from_BTNS))
        return rms_norm(x[:, 1:].mean(2))

    def latents(self, features_BMD: Tensor) -> Tensor:
        """Features to continuous latent actions (B, M, E), before the quantizer."""
        latent_BME = self.to_latent(features_BMD).to(self.spread.running_mean.dtype)
        return self.spread(latent_BME.flatten(0, 1)).view_as(latent_BME)

    def forward(self, frames_BTHWC: Tensor) -> LatentActions:
        """The latent actions of uint8 frames (B, T, H, W, 3), T at least 2."""
        if frames_BTHWC.shape[1] < 2:
            raise ValueError(
                f"latent actions lie between frames: got {frames_BTHWC.shape[1]} frame, at least 2 "
                "needed"
            )
        came_from_BTNS = self.came_from(frames_BTHWC)
        features_BMD = self.features(frames_BTHWC, came_from_BTNS)
        latents_BME = self.latents(features_BMD)
        quantized = self.quantizer(latents_BME)
        return LatentActions(
            quantized.vectors,
            quantized.codes,
            quantized.loss,
            latents_BME,
            features_BMD,
            came_from_BTNS,
        )


class LatentActionDecoder(nn.Module):
    """The forward model that gives the encoder its training signal, and is dropped afterwards:
    past frames and latent actions in, a guess of the next frame out.

    It is also told what the encoder saw of the transitions *before*: how fast things already move
    is then known, and a code need only say what was done. Without it codes become bins of how far
    the scene moved.
    """

    def __init__(self, config: LatentActionConfig, latent_dim: int) -> None:
        super().__init__()
        width, stem = config.decoder.width, config.decoder_stem
        self.pairs = FramePairs(config, stem, width)
        self.action = nn.Linear(latent_dim, width)
        self.motion = nn.Linear(config.encoder.width, width)
        self.transformer = STTransformer(config.decoder)
        self.guess: nn.Module = (
            nn.Linear(width, num_places(config.reach))
            if config.reach
            else TokensToPixels(stem, width, 3, config.frame_size // stem.patch_size)
        )

    def forward(self, frames_BTHWC: Tensor, actions: LatentActions) -> Tensor:
        """Frames 0..T-1 (uint8) and what `LatentActionEncoder` says of them; guesses for frames
        1..T-1, each from the frames before it, the actions up to it and the features of the
        transitions before it: logits (B, M, N, S) of where each patch will have come from, or
        floats (B, M, H, W, 3) without reach."""
        dtype = self.action.weight.dtype
        seen_BMD = nn.functional.pad(actions.features[:, :-1], (0, 0, 1, 0)).to(dtype)
        told_BMD = self.action(actions.vectors.to(dtype)) + self.motion(seen_BMD)
        past_BTNS = None if actions.came_from is None else actions.came_from[:, :-1]
        x = self.transformer(self.pairs(frames_BTHWC[:, :-1], past_BTNS) + told_BMD[:, :, None])
        return self.guess(x.flatten(0, 1)).unflatten(0, x.shape[:2])
