"""Moving patches: every pixel comes from where the kernel points."""

import pytest
import torch

from genie_env.world_model.motion import MovedPatches, band


def pointing(down, right, reach=(5, 3)):
    """A layer whose every patch looks `down` and `right` pixels away."""
    moved = MovedPatches(width=8, patch_size=4, reach=reach)
    with torch.no_grad():
        moved.kernels.weight.zero_()
        moved.kernels.bias.fill_(-100.0)
        moved.kernels.bias[reach[0] + down] = 0
        moved.kernels.bias[2 * reach[0] + 1 + reach[1] + right] = 0
    return moved


@pytest.mark.parametrize(("down", "right"), [(0, 0), (5, -3), (-4, 2)])
@torch.no_grad()
def test_pixels_come_from_where_the_kernel_points(down, right):
    pixels = torch.rand(2, 16, 16, 3)
    moved = pointing(down, right)(pixels, torch.randn(2, 16, 8))
    row = (torch.arange(16) + down).clamp(0, 15)
    column = (torch.arange(16) + right).clamp(0, 15)
    torch.testing.assert_close(moved, pixels[:, row][:, :, column])


@torch.no_grad()
def test_each_patch_moves_by_its_own_features():
    moved = MovedPatches(width=8, patch_size=4, reach=(5, 3))
    pixels, x = torch.rand(1, 16, 16, 3), torch.randn(1, 16, 8)
    before = moved(pixels, x)
    x[0, 6] += 1  # row 1, column 2 of the 4 x 4 patches
    changed = (moved(pixels, x) - before).abs().amax((0, 3)) > 1e-6
    assert changed[4:8, 8:12].all()
    changed[4:8, 8:12] = False
    assert not changed.any()


def test_band():
    rows = band(torch.tensor([[[1.0, 2.0, 3.0]]]), 2)
    assert rows.tolist() == [[[[1, 2, 3, 0], [0, 1, 2, 3]]]]


def test_a_shift_is_learnt_from_pixels_alone():
    torch.manual_seed(0)
    moved = MovedPatches(width=8, patch_size=4, reach=(5, 3))
    pixels = torch.rand(4, 16, 16, 3)
    target = pixels.roll((-2, 1), (1, 2))
    x = torch.ones(4, 16, 8)
    optimizer = torch.optim.Adam(moved.parameters(), 0.1)
    errors = []
    for _ in range(60):
        # The rolled border is not in the frame.
        error = (moved(pixels, x) - target)[:, 3:-3, 3:-3].square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.01 * errors[0]
