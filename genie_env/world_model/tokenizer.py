"""Video tokenizer: ST-ViViT, a causal video autoencoder with discrete codes (paper, section 2.1).

Shapes: B worlds, T frames, H W pixels, C = 3, N tokens in a frame, D width, E latent width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from genie_env.world_model.quantize import Quantized, QuantizerConfig, make_quantizer
from genie_env.world_model.stems import (
    PixelsToTokens,
    StemConfig,
    TokensToPixels,
    check_frame_size,
)
from genie_env.world_model.transformer import STTransformer, TemporalCache, TransformerConfig


@dataclass(frozen=True)
class TokenizerConfig:
    frame_size: int = 64
    stem: StemConfig = field(default_factory=StemConfig)
    encoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(num_layers=1, context_frames=8)
    )
    decoder: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(num_layers=2, context_frames=8)
    )
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)

    @property
    def grid(self) -> int:
        return self.frame_size // self.stem.patch_size

    @property
    def num_tokens(self) -> int:
        """N, tokens in a frame."""
        return self.grid**2


def to_float(frames: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 0..255 to floats in -1..1."""
    return (frames.float() / 127.5 - 1).to(dtype)


def to_uint8(pixels: Tensor) -> Tensor:
    """Floats in -1..1 to uint8 0..255, rounded and clipped."""
    return ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_frames(frames_BTHWC: np.ndarray | Tensor, size: int, least: int = 1) -> Tensor:
    """The frames as a tensor. Raises TypeError, ValueError for other than uint8 (B, T, size, size,
    3) with B >= 1 and T >= least."""
    frames = torch.as_tensor(frames_BTHWC)
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames of dtype {frames.dtype}; accepted: uint8, 0 to 255")
    fits = frames.ndim == 5 and frames.shape[2:] == (size, size, 3) and 0 not in frames.shape
    if not fits or frames.shape[1] < least:
        raise ValueError(
            f"frames of shape {tuple(frames.shape)}; accepted: (B, T, {size}, {size}, 3) with "
            f"B >= 1, T >= {least}"
        )
    return frames


class VideoTokenizer(nn.Module):
    """frames_BTHWC -> tokens_BTN -> frames_BTHWC, causal in time both ways.

    Encoding a stream frame by frame with `encode_step` gives the tokens of encoding it at once.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        check_frame_size(config.frame_size, config.stem)
        self.config = config
        E_width, D_width = config.encoder.width, config.decoder.width
        self.quantizer = make_quantizer(config.quantizer)
        self.num_codes = self.quantizer.num_codes
        self.stem = PixelsToTokens(config.stem, 3, E_width)
        self.encoder_place_ND = nn.Parameter(0.02 * torch.randn(config.num_tokens, E_width))
        self.encoder = STTransformer(config.encoder)
        self.to_latent = nn.Linear(E_width, self.quantizer.latent_dim)
        self.from_latent = nn.Linear(self.quantizer.latent_dim, D_width)
        self.decoder_place_ND = nn.Parameter(0.02 * torch.randn(config.num_tokens, D_width))
        self.decoder = STTransformer(config.decoder)
        self.head = TokensToPixels(config.stem, D_width, 3, config.grid)

    def forward(self, frames_BTHWC: Tensor) -> tuple[Tensor, Quantized]:
        """uint8 (B, T, H, W, 3) to reconstructed pixels (same shape, floats around -1..1) and
        the quantizer's answer."""
        quantized = self.quantizer(self._latents(frames_BTHWC))
        return self._decode_vectors(quantized.vectors), quantized

    def encode(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 (B, T, H, W, 3) to int64 tokens (B, T, N)."""
        return self.quantizer(self._latents(frames_BTHWC)).codes

    def decode(self, tokens_BTN: Tensor) -> Tensor:
        """int64 tokens (B, T, N) to uint8 frames (B, T, H, W, 3)."""
        return to_uint8(self._decode_vectors(self.quantizer.lookup(tokens_BTN)))

    def encode_step(self, frames_BHWC: Tensor, cache: TemporalCache) -> Tensor:
        """The next frame of a stream; call `cache.advance()` after it. Returns tokens (B, N)."""
        x = self.stem(to_float(frames_BHWC, self.stem_dtype)) + self.encoder_place_ND
        return self.quantizer(self.to_latent(self.encoder.step(x, cache))).codes

    def decode_step(self, tokens_BN: Tensor, cache: TemporalCache) -> Tensor:
        """The next frame of a stream; call `cache.advance()` after it. Returns uint8 frames."""
        vectors = self.quantizer.lookup(tokens_BN).to(self.stem_dtype)
        x = self.from_latent(vectors) + self.decoder_place_ND
        return to_uint8(self.head(self.decoder.step(x, cache)))

    def new_encoder_cache(self, num_worlds: int) -> TemporalCache:
        return self.encoder.new_cache(num_worlds, self.config.num_tokens)

    def new_decoder_cache(self, num_worlds: int) -> TemporalCache:
        return self.decoder.new_cache(num_worlds, self.config.num_tokens)

    def encoder_parts(self) -> list[nn.Module | nn.Parameter]:
        """All that decides the tokens; the rest is the decoder."""
        return [self.stem, self.encoder_place_ND, self.encoder, self.to_latent, self.quantizer]

    @property
    def stem_dtype(self) -> torch.dtype:
        return self.encoder_place_ND.dtype

    def _latents(self, frames_BTHWC: Tensor) -> Tensor:
        B, T = frames_BTHWC.shape[:2]
        x = self.stem(to_float(frames_BTHWC, self.stem_dtype).flatten(0, 1))
        x = x + self.encoder_place_ND.to(x.dtype)
        return self.to_latent(self.encoder(x.unflatten(0, (B, T))))

    def _decode_vectors(self, vectors_BTNE: Tensor) -> Tensor:
        B, T = vectors_BTNE.shape[:2]
        x = self.from_latent(vectors_BTNE.to(self.stem_dtype))
        x = self.decoder(x + self.decoder_place_ND.to(x.dtype))
        return self.head(x.flatten(0, 1)).unflatten(0, (B, T))
