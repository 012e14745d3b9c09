"""Vector quantizers behind one call: `quantizer(latent) -> Quantized`.

Shapes: `...` any leading axes, E the quantizer's latent width, K codes.
VQ is van den Oord et al. (2017), with an EMA or a gradient codebook; FSQ is Mentzer et al. (2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class QuantizerConfig:
    kind: Literal["fsq", "vq_ema", "vq_gradient"] = "fsq"
    levels: tuple[int, ...] = (4, 4, 4, 4, 4)
    """FSQ only: levels of each latent dimension; their product is the number of codes."""
    num_codes: int = 1024
    """VQ only."""
    latent_dim: int = 32
    """VQ only: E."""
    normalize: bool = True
    """VQ only: latents and codes live on the unit sphere, so no code can run away."""
    commitment: float = 0.25
    """VQ only: weight of the pull of latents towards their code."""
    decay: float = 0.99
    """VQ with EMA only."""
    dead_below: float = 0.1
    """VQ only: a code used less than this share of the even share is seeded anew."""


class Quantized(NamedTuple):
    vectors: Tensor
    """(..., E): the chosen codes; gradients pass straight through to the latents."""
    codes: Tensor
    """(...) int64 in 0..K-1."""
    loss: Tensor
    """Scalar fp32: commitment and codebook loss (0 for FSQ)."""


def make_quantizer(config: QuantizerConfig) -> FiniteScalarQuantizer | VectorQuantizer:
    if config.kind == "fsq":
        return FiniteScalarQuantizer(config)
    if config.kind in ("vq_ema", "vq_gradient"):
        return VectorQuantizer(config)
    raise ValueError(f"unknown quantizer {config.kind!r}; known: fsq, vq_ema, vq_gradient")


class FiniteScalarQuantizer(nn.Module):
    """Each latent dimension is squashed to [-1, 1] and rounded to its few levels."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        if not config.levels or min(config.levels) < 2:
            raise ValueError(f"levels={config.levels}: FSQ needs at least 2 in every dimension")
        self.num_codes = math.prod(config.levels)
        self.latent_dim = len(config.levels)
        self.levels = config.levels
        self.strides = tuple(math.prod(config.levels[:i]) for i in range(len(config.levels)))
        # Left alone, latents grow to the flat ends of the tanh, and the levels between fall out
        # of use. Of latents with mean 0 and variance 1, tanh sends a fair share to every level.
        self.spread = nn.BatchNorm1d(self.latent_dim, affine=False, momentum=0.02)

    def forward(self, latent: Tensor) -> Quantized:
        steps = torch.tensor(self.levels, device=latent.device, dtype=torch.float32) - 1
        spread = self.spread(latent.to(self.spread.running_mean.dtype).flatten(0, -2))
        bounded = (torch.tanh(spread.view_as(latent).float()) + 1) / 2 * steps
        digits = bounded.round()
        vectors = (bounded + (digits - bounded).detach()) / steps * 2 - 1
        stride = torch.tensor(self.strides, device=latent.device)
        codes = (digits.long() * stride).sum(-1)
        return Quantized(vectors, codes, latent.new_zeros((), dtype=torch.float32))

    def lookup(self, codes: Tensor) -> Tensor:
        """int codes (...) to fp32 vectors (..., E) in [-1, 1]."""
        stride = torch.tensor(self.strides, device=codes.device)
        levels = torch.tensor(self.levels, device=codes.device)
        digits = codes[..., None] // stride % levels
        return digits / (levels - 1) * 2 - 1


class VectorQuantizer(nn.Module):
    """Nearest of K learned codes.

    A code that has fallen out of use is seeded anew from a latent of the batch, with jitter (two
    equal codes would split their users by chance for ever).
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.num_codes, self.latent_dim = config.num_codes, config.latent_dim
        codebook = self._on_sphere(torch.randn(self.num_codes, self.latent_dim))
        self.codebook_KE = nn.Parameter(codebook, requires_grad=config.kind == "vq_gradient")
        self.register_buffer("sum_KE", codebook.clone() / self.num_codes)
        # Nobody uses a random code: with no usage, every code is seeded at the first update.
        self.register_buffer("usage_K", torch.zeros(self.num_codes))

    def _on_sphere(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.normalize else vectors

    def forward(self, latent: Tensor) -> Quantized:
        latent = self._on_sphere(latent.float())
        # A copy: seeding a dead code writes to the codebook before the backward pass.
        codebook = self._on_sphere(self.codebook_KE.float().clone())
        flat_ME = latent.detach().reshape(-1, self.latent_dim)
        codes_M = torch.cdist(flat_ME, codebook.detach()).argmin(-1)
        codes = codes_M.view(latent.shape[:-1])
        chosen = codebook[codes]
        loss = self.config.commitment * F.mse_loss(latent, chosen.detach())
        if self.config.kind == "vq_gradient":
            loss = loss + F.mse_loss(chosen, latent.detach())
        if self.training and torch.is_grad_enabled():
            self._update(flat_ME, codes_M)
        return Quantized(latent + (chosen - latent).detach(), codes, loss * self.latent_dim)

    def distances(self, latent: Tensor) -> Tensor:
        """fp32 (..., K) of latents (..., E) to every code; gradients reach the latents."""
        codebook_KE = self._on_sphere(self.codebook_KE.detach().float())
        return torch.cdist(self._on_sphere(latent.float()), codebook_KE)

    def lookup(self, codes: Tensor) -> Tensor:
        """int codes (...) to fp32 vectors (..., E)."""
        return self._on_sphere(self.codebook_KE.float())[codes]

    @torch.compiler.disable
    @torch.no_grad()
    def _update(self, flat_ME: Tensor, codes_M: Tensor) -> None:
        count_K = torch.bincount(codes_M, minlength=self.num_codes).float()
        sum_KE = torch.zeros_like(self.sum_KE).index_add_(0, codes_M, flat_ME)
        total = count_K.sum()
        if dist.is_available() and dist.is_initialized():
            for stat in (count_K, sum_KE, total):
                dist.all_reduce(stat)
        keep = self.config.decay
        self.usage_K.mul_(keep).add_(count_K / total, alpha=1 - keep)
        self.sum_KE.mul_(keep).add_(sum_KE / total, alpha=1 - keep)
        if self.config.kind == "vq_ema":
            self.codebook_KE.copy_(
                self._on_sphere(self.sum_KE / self.usage_K.clamp_min(1e-6)[:, None])
            )
        dead_K = self.usage_K < self.config.dead_below / self.num_codes
        if dead_K.any():
            seed = self._far_latents(flat_ME, self.codebook_KE[~dead_K], int(dead_K.sum()))
            if dist.is_available() and dist.is_initialized():
                dist.broadcast(seed, 0)
            self.codebook_KE[dead_K] = seed
            # A full even share of usage gives the new code time to find its users.
            self.usage_K[dead_K] = 1 / self.num_codes
            self.sum_KE[dead_K] = seed / self.num_codes

    def _far_latents(self, flat_ME: Tensor, live_LE: Tensor, count: int) -> Tensor:
        """Latents drawn like the starts of k-means++: the farther from every code, the likelier."""
        far_M = torch.ones(len(flat_ME), device=flat_ME.device)
        if len(live_LE):
            far_M = torch.cdist(flat_ME, live_LE.float()).min(1).values.square()
        seeds = []
        for _ in range(count):
            pick = torch.multinomial(far_M + 1e-9, 1)
            jitter = 0.05 * flat_ME.std() * torch.randn_like(flat_ME[pick])
            seeds.append(self._on_sphere(flat_ME[pick] + jitter))
            far_M = torch.minimum(far_M, torch.cdist(flat_ME, seeds[-1])[:, 0].square())
        return torch.cat(seeds)


def perplexity(codes: Tensor, num_codes: int) -> float:
    """exp of the entropy of the use of the codes: 1 (collapsed) to K (all used alike)."""
    share_K = torch.bincount(codes.flatten(), minlength=num_codes).double()
    share_K = share_K / share_K.sum()
    return float(torch.exp(-(share_K * share_K.clamp_min(1e-12).log()).sum()))
