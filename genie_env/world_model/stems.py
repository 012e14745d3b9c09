"""Between pixels and token features: the paper's patch embedding, or a convolutional stem.

Shapes: F frames (of whatever clips), H W pixels, C channels, h w the token grid, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from genie_env.world_model.transformer import rms_norm


@dataclass(frozen=True)
class StemConfig:
    kind: Literal["conv", "patch"] = "conv"
    """`patch` is the paper's; `conv` sees across patch borders and learns several times faster."""
    patch_size: int = 8
    """Pixels a side that one token stands for (even for `conv`)."""
    channels: int = 96
    """`conv` only: width of the convolutions at half the patch size."""
    num_blocks: int = 2
    """`conv` only: residual blocks."""


def _check(config: StemConfig) -> None:
    if config.kind not in ("conv", "patch"):
        raise ValueError(f"unknown stem {config.kind!r}; known: conv, patch")
    if config.kind == "conv" and config.patch_size % 2:
        raise ValueError(f"patch_size={config.patch_size}: the conv stem needs an even one")


def check_frame_size(frame_size: int, config: StemConfig) -> None:
    if frame_size % config.patch_size:
        raise ValueError(
            f"frame_size={frame_size} is not a multiple of patch_size={config.patch_size}"
        )


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x_FCHW: Tensor) -> Tensor:
        y = self.first(F.silu(_norm_channels(x_FCHW)))
        return x_FCHW + self.second(F.silu(_norm_channels(y)))


def _norm_channels(x_FCHW: Tensor) -> Tensor:
    # Channels last in memory: the permutation is free, and so is the convolution's layout.
    return rms_norm(x_FCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PixelsToTokens(nn.Module):
    """(F, H, W, C) floats to (F, N, D)."""

    def __init__(self, config: StemConfig, in_channels: int, width: int) -> None:
        super().__init__()
        _check(config)
        if config.kind == "patch":
            self.layers = nn.Conv2d(in_channels, width, config.patch_size, config.patch_size)
        else:
            half = config.patch_size // 2
            self.layers = nn.Sequential(
                nn.Conv2d(in_channels, config.channels, half, half),
                *(ResidualBlock(config.channels) for _ in range(config.num_blocks)),
                nn.Conv2d(config.channels, width, 2, 2),
            )

    def forward(self, pixels_FHWC: Tensor) -> Tensor:
        x = self.layers(pixels_FHWC.permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).flatten(1, 2)


class TokensToPixels(nn.Module):
    """(F, N, D) to (F, H, W, C): the mirror of `PixelsToTokens`."""

    def __init__(self, config: StemConfig, width: int, out_channels: int, grid: int) -> None:
        super().__init__()
        _check(config)
        self.grid = grid
        if config.kind == "patch":
            self.layers = nn.ConvTranspose2d(
                width, out_channels, config.patch_size, config.patch_size
            )
        else:
            half = config.patch_size // 2
            self.layers = nn.Sequential(
                nn.ConvTranspose2d(width, config.channels, 2, 2),
                *(ResidualBlock(config.channels) for _ in range(config.num_blocks)),
                nn.ConvTranspose2d(config.channels, out_channels, half, half),
            )

    def forward(self, x_FND: Tensor) -> Tensor:
        x = x_FND.unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        return self.layers(x).permute(0, 2, 3, 1)
