"""Where the patches of a frame came from: what optical flow calls a cost volume.

After FlowNet (Fischer et al., 2015, arXiv 1504.06852), but of pixels, and nothing in it is learned.
Most of what follows from an action is motion: shown where things came from, and asked where they
will have come from, a network has far less to learn than from pixels.

Shapes: F frames (of whatever clips), H W pixels, C = 3, N = g x g patches of P x P pixels,
S places: shifts within reach, and "nowhere".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 200.0
"""Log odds between two places for a difference of 1 in the mean squared error of grey levels from
-1 to 1: edges count, what little noise a video codec leaves does not."""
NOWHERE = 0.03
"""A patch that differs by more than this from all places has come into view."""


def num_places(reach: tuple[int, int]) -> int:
    """S, for patches that come from at most `reach` pixels up or down, left or right."""
    return (2 * (reach[0] // 2) + 1) * (2 * reach[1] + 1) + 1


@torch.no_grad()
def match_patches(
    before_FHWC: Tensor, after_FHWC: Tensor, patch_size: int, reach: tuple[int, int]
) -> Tensor:
    """Where each patch of the second frames was in the first: log shares (F, N, S), fp32.

    Pixels are floats in [-1, 1], `patch_size` is even. Compared are grey levels, in steps of 2
    pixels down and 1 to the right. Shares are even where all looks alike, and divided between two
    steps by a shift that lies between them, so that less than a step is still seen.
    """
    P, Q, up, left = patch_size // 2, patch_size, reach[0] // 2, reach[1]
    grey = torch.tensor([0.299, 0.587, 0.114], device=after_FHWC.device)
    # In fp32 always: differences this small would drown in the rounding of bf16.
    with torch.autocast(after_FHWC.device.type, enabled=False):
        before, after = (
            F.avg_pool2d((frames.float() @ grey)[:, None], (2, 1))
            for frames in (before_FHWC, after_FHWC)
        )
        grid = after.shape[3] // Q
        patch = F.unfold(after, (P, Q), stride=(P, Q)).unflatten(-1, (grid, grid))  # F E g g
        place = F.unfold(F.pad(before, (left, left, up, up), mode="replicate"), (P, Q))
        place = place.unflatten(-1, (before.shape[2] + 2 * up - P + 1, -1))  # F E rows columns
        size = place.square().sum(1)
        near = []
        for i in range(grid):
            # All places that this row of patches can come from; then, for each, those around it.
            rows = slice(i * P, i * P + 2 * up + 1)
            far = torch.baddbmm(
                size[:, rows].flatten(1)[:, None],
                patch[:, :, i].transpose(1, 2),
                place[:, :, rows].flatten(2),
                alpha=-2,
            ).unflatten(-1, (2 * up + 1, -1))
            near += [far[:, j, :, j * Q : j * Q + 2 * left + 1].flatten(1) for j in range(grid)]
        cost_FNS = torch.stack(near, 1) + patch.square().sum(1).flatten(1)[..., None]
        cost_FNS = F.pad(cost_FNS / (P * Q), (0, 1), value=NOWHERE)
        return (-SHARPNESS * cost_FNS).log_softmax(-1)
