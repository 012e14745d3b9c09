"""What frames say of each pixel without anything learned: how far it has moved, and may yet; and
what makes pictures crisper, wider and blurred.

Shapes: B frames, H W pixels, C = 3, floats from -1 to 1; D = (2 reach + 1)^2 places around a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NEARBY = 6
"""Pixels: how far from a pixel the fastest move is looked for. A paddle moves at its ends only."""
MATCH, FAINT_MOVE = 20.0, 0.05
"""Log odds of a move that fits against one that fits not at all; how much may differ by chance."""
FAINT_THING = 0.02
"""Change of colour, all channels together, by which things differ at least from what is around."""
ACROSS, ALONG = 6, 20
"""Pixels: how wide and how long things may be that stop at borders. What is wider is the gap
between two things."""
TOUCHES = 2.0
"""The border ends a thing that touches it as a change of colour of so much does."""


def moved(before_BCHW: Tensor, after_BCHW: Tensor, reach: int) -> Tensor:
    """How far what is at each pixel has come, right and down, in shares of the reach, fp32
    (B, 2, H, W). Matched around it, straight along either axis; 0 where no move fits better."""
    wide = F.pad(before_BCHW.float(), (reach,) * 4, mode="replicate")
    height, width = after_BCHW.shape[-2:]
    moves = [(0, 0)] + [m for d in range(1, reach + 1) for m in ((d, 0), (-d, 0), (0, d), (0, -d))]
    differ = torch.stack([
        (wide[..., reach - y : reach - y + height, reach - x : reach - x + width] - after_BCHW)
        .abs().sum(1)
        for x, y in moves
    ], 1)  # fmt: skip
    around = F.avg_pool2d(F.avg_pool2d(differ, (5, 1), 1, (2, 0)), (1, 5), 1, (0, 2))
    # A faint thing is matched as surely as a loud one.
    odds = -MATCH * around / (around.amax(1, keepdim=True) + FAINT_MOVE)
    share = torch.tensor(moves, dtype=odds.dtype, device=odds.device) / reach
    return torch.einsum("bmhw,mx->bxhw", odds.softmax(1), share)


def fastest(moves: Sequence[Tensor]) -> Tensor:
    """The fastest that anything nearby has moved, of what `moved` says: fp32 (B, 1, H, W)."""
    fastest_B1HW = torch.cat(tuple(moves), 1).abs().amax(1, keepdim=True)
    return F.max_pool2d(fastest_B1HW, 2 * NEARBY + 1, 1, NEARBY)


def room(frame_BCHW: Tensor, reach: int) -> Tensor:
    """How far the thing that each pixel belongs to may go up, down, left and right before it is at
    the border, at most `reach` pixels: fp32 (B, H, W, 4).

    A thing differs from what is on both sides of it and at its inner end, and where it ends near
    the border nothing changes on the way from the pixel to there. Networks learn this too slowly:
    how a paddle's inner end goes on depends on the other one, which is far away.
    """
    outward, across, along = [], [], []
    for axis in (1, 2):
        steps = frame_BCHW.float().diff(dim=axis + 1).abs().sum(1)
        way = F.pad(steps.cumsum(axis), (0, 0, 1, 0) if axis == 1 else (1, 0))
        across.append(_changes_beside(way, axis, ACROSS, TOUCHES))
        along.append(_changes_beside(way, axis, ALONG, 0.0))
        # What changes on the way out to k pixels from the border?
        last = way.shape[axis] - 1
        back, forth = (
            torch.stack([(sign * (way - way.narrow(axis, k, 1))).relu() for k in ks], -1)
            for sign, ks in ((1, range(reach)), (-1, range(last, last - reach, -1)))
        )
        outward += [back, forth]
    rooms = []
    for (before, after), inner, change in zip(
        # Beside what goes up or down is what is left and right of it.
        (across[1], across[1], across[0], across[0]),
        (along[0][1], along[0][0], along[1][1], along[1][0]),
        outward,
        strict=True,
    ):
        contrast = torch.minimum(before, after)[..., None] + FAINT_THING
        blocked = (1 - change / contrast).clamp_min(0).sum(-1)
        rooms.append(reach - blocked * before.tanh() * after.tanh() * inner.tanh())
    return torch.stack(rooms, -1)


def _changes_beside(way: Tensor, axis: int, within: int, border: float) -> tuple[Tensor, Tensor]:
    """How much the colour changes within so many pixels before each, and after it; `way`: from the
    border on."""
    size = way.shape[axis]
    first, last = way.narrow(axis, 0, 1) - border, way.narrow(axis, -1, 1) + border
    wide = torch.cat((*[first] * within, way, *[last] * within), axis)
    return way - wide.narrow(axis, 0, size), wide.narrow(axis, 2 * within, size) - way


def beyond(room_BHW4: Tensor, reach: int) -> Tensor:
    """By how much what came from each place around a pixel would have left its `room`, in 0..1:
    fp32 (B, H, W, D), row by row."""
    line = torch.arange(-reach, reach + 1, dtype=torch.float32, device=room_BHW4.device)
    up, down, left, right = room_BHW4[..., None].unbind(-2)
    # What comes from below goes up.
    rows, columns = (
        (line - before).clamp(0, 1) + (-line - after).clamp(0, 1)
        for before, after in ((up, down), (left, right))
    )
    return torch.maximum(rows[..., None], columns[..., None, :]).flatten(-2)


def crisper(frame_BCHW: Tensor, crisp_BHW: Tensor) -> Tensor:
    """The frame with what blurs edges taken back, never beyond the colours beside them: means of
    pixels, however chosen, blur a little more with every step."""
    mean = F.avg_pool2d(frame_BCHW, 3, 1, 1, count_include_pad=False)
    crisp = frame_BCHW + crisp_BHW[:, None] * (frame_BCHW - mean)
    least, most = -F.max_pool2d(-frame_BCHW, 3, 1, 1), F.max_pool2d(frame_BCHW, 3, 1, 1)
    return torch.minimum(torch.maximum(crisp, least), most)


def with_surroundings(frame_BCHW: Tensor, reach: int) -> Tensor:
    """The frame, and around it what is commonest at its border: who leaves the border leaves
    background behind, and not another part of itself."""
    sides = (frame_BCHW[..., 0, :], frame_BCHW[..., -1, :], frame_BCHW[..., 0], frame_BCHW[..., -1])
    beyond_BC11 = torch.cat(sides, -1).median(-1).values[..., None, None]
    return F.pad(frame_BCHW - beyond_BC11, (reach,) * 4) + beyond_BC11


def blur(map_BHW: Tensor, sigma: float) -> Tensor:
    """Gaussian; darkness beyond the border."""
    half = int(2 * sigma)
    line = torch.arange(-half, half + 1, dtype=map_BHW.dtype, device=map_BHW.device)
    weight = (-line.square() / (2 * sigma**2)).exp()
    weight = weight / weight.sum()
    x = F.conv2d(map_BHW.flatten(0, -3)[:, None], weight.view(1, 1, -1, 1), padding=(half, 0))
    return F.conv2d(x, weight.view(1, 1, 1, -1), padding=(0, half)).view_as(map_BHW)
