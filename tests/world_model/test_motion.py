"""Where patches came from."""

import pytest
import torch

from genie_env.world_model.motion import match_patches, num_places

REACH = (12, 5)


def places(log_shares_FNS):
    """(F, N, S) to shares of shifts (F, 8, 8, down, right), and of nowhere (F, 8, 8)."""
    shares = log_shares_FNS.exp().unflatten(1, (8, 8))
    torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:3]))
    return shares[..., :-1].unflatten(-1, (13, 11)), shares[..., -1]


@pytest.mark.parametrize(("down", "right"), [(0, 0), (12, -5), (-6, 4)])
def test_a_moved_scene_is_found(down, right):
    before = torch.rand(2, 64, 64, 3) * 2 - 1
    after = before.roll((down, right), (1, 2))
    found = match_patches(before, after, 8, REACH)
    assert found.shape == (2, 64, num_places(REACH))
    shares, _ = places(found)
    # Moved down by so much, it came from as much further up.
    inner = shares[:, 2:-2, 1:-1, 6 - down // 2, 5 - right]
    assert (inner > 0.9).all()


def test_between_two_steps_both_have_a_share():
    # Bars 4 pixels wide; the second frame is the first, half a pixel further on.
    halves = 0.3 * (torch.arange(129) // 8 % 2).expand(1, 64, 129)
    before, after = (
        halves[..., i : i + 128].unflatten(-1, (64, 2)).mean(-1)[..., None].expand(-1, -1, -1, 3)
        for i in (0, 1)
    )
    shares, _ = places(match_patches(before, after, 8, REACH))
    right = shares[0, 4, 4].sum(0)
    torch.testing.assert_close(right[5], right[6])
    assert right[5] > 0.3


def test_where_all_looks_alike_shares_are_even():
    flat = torch.zeros(1, 64, 64, 3)
    shares, nowhere = places(match_patches(flat, flat, 8, REACH))
    torch.testing.assert_close(shares, torch.full_like(shares, float(shares.mean())))
    assert float(nowhere.max()) < float(shares.min())


def test_what_comes_into_view_came_from_nowhere():
    before = torch.zeros(1, 64, 64, 3)
    after = before.clone()
    after[:, 32:40, 32:40] = torch.rand(8, 8, 3) - 1
    _, nowhere = places(match_patches(before, after, 8, REACH))
    assert nowhere[0, 4, 4] > 0.9
    nowhere[0, 4, 4] = 0
    assert float(nowhere.max()) < 0.1


def test_mixed_precision_makes_no_difference():
    frames = torch.rand(2, 1, 64, 64, 3) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        mixed = match_patches(*frames, 8, REACH)
    torch.testing.assert_close(mixed, match_patches(*frames, 8, REACH))
