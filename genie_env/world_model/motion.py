"""Moving the pixels of a frame: each patch chooses, softly, where its pixels come from.

After the convolutional dynamic neural advection of Finn et al. (2016), arXiv 1605.07157, with
separable kernels. Most of what follows from an action is motion; a network that points at the
pixels has less to learn than one that draws them anew.

Shapes: F frames (of whatever clips), H W pixels, C = 3, N = g x g patches of P x P pixels, D width,
S = 2 * reach + 1 shifts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def band(kernel_FNS: Tensor, size: int) -> Tensor:
    """(F, N, S) to (F, N, size, size + S - 1): row i holds the kernel from column i on, so that
    the matrix times a window of pixels is the kernel's correlation with it."""
    num_shifts = kernel_FNS.shape[-1]
    # Rows one shorter than the padded kernel: each begins one element further to the right.
    rows = F.pad(kernel_FNS, (0, size)).repeat(1, 1, size)
    length = size + num_shifts - 1
    return rows[..., : size * length].unflatten(-1, (size, length))


class MovedPatches(nn.Module):
    """pixels (F, H, W, 3) and features of their patches (F, N, D) to moved pixels (F, H, W, 3)."""

    def __init__(self, width: int, patch_size: int, reach: tuple[int, int]) -> None:
        super().__init__()
        self.patch_size, self.reach = patch_size, reach
        self.num_shifts = tuple(2 * r + 1 for r in reach)
        self.kernels = nn.Linear(width, sum(self.num_shifts))
        with torch.no_grad():
            # Mostly still at first.
            self.kernels.bias.zero_()
            self.kernels.bias[[reach[0], self.num_shifts[0] + reach[1]]] = 4.0

    def forward(self, pixels_FHWC: Tensor, x_FND: Tensor) -> Tensor:
        P, (up, left), C = self.patch_size, self.reach, pixels_FHWC.shape[-1]
        grid = pixels_FHWC.shape[1] // P
        down_FNS, right_FNS = (
            band(logits.float().softmax(-1).to(x_FND.dtype), P)
            for logits in self.kernels(x_FND).split(self.num_shifts, -1)
        )
        padded = F.pad(pixels_FHWC.permute(0, 3, 1, 2), (left, left, up, up), mode="replicate").to(
            x_FND.dtype
        )
        windows = padded.unfold(2, P + 2 * up, P).unfold(3, P + 2 * left, P)
        x = down_FNS @ windows.permute(0, 2, 3, 4, 1, 5).flatten(4).flatten(1, 2)
        x = x.unflatten(-1, (C, -1)).flatten(2, 3) @ right_FNS.transpose(-1, -2)
        x = x.unflatten(1, (grid, grid)).unflatten(3, (P, C))  # F g g P C P
        return x.permute(0, 1, 3, 2, 5, 4).flatten(3, 4).flatten(1, 2)
