"""The spatiotemporal (ST) transformer that every model here is made of (paper, section 2).

Shapes: B worlds, T frames, N tokens in a frame, D width, H heads, E head width,
W frames of context, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TransformerConfig:
    """Size of one ST-transformer."""

    width: int = 192
    """D, a multiple of `num_heads`; width / num_heads must be even (rotary pairs)."""
    num_layers: int = 4
    num_heads: int = 6
    context_frames: int = 16
    """W: a frame attends to itself and the W - 1 frames before it."""
    ffn_ratio: int = 4

    def __post_init__(self) -> None:
        if self.width % (2 * self.num_heads):
            raise ValueError(
                f"width={self.width} with num_heads={self.num_heads}: "
                "width / num_heads must be an even whole number"
            )


def rms_norm(x: Tensor) -> Tensor:
    """RMS norm without weights (the next matrix absorbs them), computed in fp32."""
    return F.rms_norm(x, x.shape[-1:])


def causal_mask(num_frames: int, window: int, device: torch.device | None = None) -> Tensor:
    """Bool (T, T), true where frame t may look at frame s: t - window < s <= t."""
    time_T = torch.arange(num_frames, device=device)
    age_TT = time_T[:, None] - time_T[None, :]
    return (age_TT >= 0) & (age_TT < window)


def rotary_table(time: Tensor, head_width: int, dtype: torch.dtype) -> Tensor:
    """Rotary angles of absolute frame times, any shape (...): (2, ..., E / 2), cos and sin.

    Only differences of time enter an attention score, so the context slides for ever; float64
    keeps the angle of the millionth frame as exact as that of the first.
    """
    half = head_width // 2
    frequency = 10_000.0 ** (-torch.arange(half, device=time.device, dtype=torch.float64) / half)
    angle = time.to(torch.float64)[..., None] * frequency
    return torch.stack((angle.cos(), angle.sin())).to(dtype)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn the pairs of the last axis of x by a table of `rotary_table` (broadcast)."""
    cos, sin = table[0], table[1]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention over (..., T, E).

    Written out where the CPU has to differentiate it: the fused kernel's backward pass is about
    six times slower there at these lengths.
    """
    if q.is_cuda or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, mask)
    score = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if mask is not None:
        score = score.masked_fill(~mask, float("-inf"))
    return score.softmax(-1).to(v.dtype) @ v


class TemporalCache:
    """Keys and values of the last W frames of every temporal layer, for B worlds.

    A ring: frame t lives in slot t % W, so that writing the frame being decoded overwrites the
    one frame that just left its window. Writing again (the next MaskGIT step, or the commit with
    clean tokens) only replaces that slot; `advance` makes it history.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_worlds: int,
        num_tokens: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.window = config.context_frames
        self.head_width = config.width // config.num_heads
        shape = (config.num_layers, 2, num_worlds, num_tokens, config.num_heads)
        self.kv_L2BNHWE = torch.zeros(
            *shape, self.window, self.head_width, dtype=dtype, device=device
        )
        self.time_B = torch.zeros(num_worlds, dtype=torch.int64, device=device)
        self._prepare()

    def _prepare(self) -> None:
        """What depends on time alone: the slots, the mask, the rotary angles of the new frame."""
        self.world_B = torch.arange(len(self.time_B), device=self.time_B.device)
        self.slot_B = self.time_B % self.window
        slot_W = torch.arange(self.window, device=self.time_B.device)
        self.mask_B111W = (slot_W <= self.time_B[:, None])[:, None, None, None, :]
        self.full = bool(self.mask_B111W.all())
        self.table_2B11E = rotary_table(self.time_B, self.head_width, self.kv_L2BNHWE.dtype)[
            :, :, None, None, :
        ]

    def advance(self) -> None:
        self.time_B = self.time_B + 1
        self._prepare()

    def clone(self) -> TemporalCache:
        copy = object.__new__(TemporalCache)
        copy.__dict__.update(self.__dict__)
        copy.kv_L2BNHWE = self.kv_L2BNHWE.clone()
        return copy

    def select(self, world_B: Tensor) -> TemporalCache:
        """An independent cache of those worlds, int64 (B,), each as often as it is named."""
        copy = self.clone()
        copy.kv_L2BNHWE = self.kv_L2BNHWE[:, :, world_B]
        copy.time_B = self.time_B[world_B]
        copy._prepare()
        return copy

    def put(self, world_B: Tensor, other: TemporalCache) -> None:
        """Replace those worlds, int64 (B,), by the B worlds of another cache."""
        self.kv_L2BNHWE[:, :, world_B] = other.kv_L2BNHWE
        self.time_B = self.time_B.index_copy(0, world_B, other.time_B)
        self._prepare()


class Attention(nn.Module):
    """Projections and QK norm; which tokens attend to which is the subclass's affair."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.gain_H1E = nn.Parameter(
            torch.ones(config.num_heads, 1, config.width // config.num_heads)
        )

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., D) to queries, keys and values, each (..., H, E)."""
        qkv = self.qkv(rms_norm(x)).view(*x.shape[:-1], 3, self.num_heads, -1)
        q, k = rms_norm(qkv[..., :2, :, :]).unbind(-3)
        return q * self.gain_H1E[:, 0].to(q.dtype), k, qkv[..., 2, :, :]


class SpatialAttention(Attention):
    """Every token attends to all tokens of its own frame."""

    def forward(self, x_FND: Tensor) -> Tensor:
        """(F, N, D) to the same; F counts frames of whatever clips and worlds."""
        q, k, v = (a.transpose(1, 2) for a in self.heads(x_FND))  # F H N E
        return self.out(attend(q, k, v).transpose(1, 2).reshape(x_FND.shape))


class TemporalAttention(Attention):
    """Every token attends to the tokens at its own place in the frames before it."""

    def forward(self, x_BTND: Tensor, table_2TE: Tensor, mask_TT: Tensor) -> Tensor:
        q, k, v = (a.permute(0, 2, 3, 1, 4) for a in self.heads(x_BTND))  # B N H T E
        table = table_2TE.to(q.dtype)
        y = attend(rotate(q, table), rotate(k, table), v, mask_TT)
        return self.out(y.permute(0, 3, 1, 2, 4).reshape(x_BTND.shape))

    def step(self, x_BND: Tensor, cache: TemporalCache, layer: int) -> Tensor:
        """One new frame: its keys and values go to its slot, its tokens see the whole ring."""
        q, k, v = self.heads(x_BND)  # B N H E
        keys, values = cache.kv_L2BNHWE[layer]
        keys[cache.world_B, :, :, cache.slot_B] = rotate(k, cache.table_2B11E).to(keys.dtype)
        values[cache.world_B, :, :, cache.slot_B] = v.to(values.dtype)
        q = rotate(q, cache.table_2B11E).to(keys.dtype)
        score_BNHW = (q[..., None, :] @ keys.transpose(-1, -2))[..., 0, :].float()
        score_BNHW = score_BNHW * q.shape[-1] ** -0.5
        if not cache.full:
            score_BNHW = score_BNHW.masked_fill(~cache.mask_B111W[:, 0], float("-inf"))
        weight = score_BNHW.softmax(-1).to(values.dtype)
        y = (weight[..., None, :] @ values)[..., 0, :]
        return self.out(y.reshape(x_BND.shape).to(x_BND.dtype))


class STBlock(nn.Module):
    """Spatial attention, causal temporal attention, then one feed-forward layer for both."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        D = config.width
        self.spatial = SpatialAttention(config)
        self.temporal = TemporalAttention(config)
        self.up = nn.Linear(D, config.ffn_ratio * D, bias=False)
        self.down = nn.Linear(config.ffn_ratio * D, D, bias=False)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(rms_norm(x))))

    def forward(self, x_BTND: Tensor, table_2TE: Tensor, mask_TT: Tensor) -> Tensor:
        x = x_BTND + self.spatial(x_BTND.flatten(0, 1)).view_as(x_BTND)
        x = x + self.temporal(x, table_2TE, mask_TT)
        return x + self.feed_forward(x)

    def step(self, x_BND: Tensor, cache: TemporalCache, layer: int) -> Tensor:
        x = x_BND + self.spatial(x_BND)
        x = x + self.temporal.step(x, cache, layer)
        return x + self.feed_forward(x)


class STTransformer(nn.Module):
    """A stack of ST blocks over (B, T, N, D), or over one new frame with a cache."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(STBlock(config) for _ in range(config.num_layers))
        for name, weight in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                # Every block starts as the identity: deep stacks then train without care.
                nn.init.zeros_(weight)
            elif name.endswith(("qkv.weight", "up.weight")):
                nn.init.normal_(weight, std=config.width**-0.5)

    def forward(
        self, x_BTND: Tensor, time_T: Tensor | None = None, mask_TT: Tensor | None = None
    ) -> Tensor:
        """Whole clips. `time_T` (ints) and `mask_TT` (bool) default to frames 0, 1, ... T - 1,
        each looking at itself and the W - 1 before it. Returns (B, T, N, D), normed."""
        num_frames, device = x_BTND.shape[1], x_BTND.device
        if time_T is None:
            time_T = torch.arange(num_frames, device=device)
        if mask_TT is None:
            mask_TT = causal_mask(num_frames, self.config.context_frames, device)
        head_width = self.config.width // self.config.num_heads
        table_2TE = rotary_table(time_T, head_width, torch.float32)
        for block in self.blocks:
            x_BTND = block(x_BTND, table_2TE, mask_TT)
        return rms_norm(x_BTND)

    def step(self, x_BND: Tensor, cache: TemporalCache) -> Tensor:
        """One new frame (B, N, D) after those in the cache; equals `forward` on the whole."""
        for layer, block in enumerate(self.blocks):
            x_BND = block.step(x_BND, cache, layer)
        return rms_norm(x_BND)

    def new_cache(self, num_worlds: int, num_tokens: int) -> TemporalCache:
        # Not a matrix: those may have been quantized to something of another type.
        gain = self.blocks[0].temporal.gain_H1E
        return TemporalCache(self.config, num_worlds, num_tokens, gain.dtype, gain.device)
