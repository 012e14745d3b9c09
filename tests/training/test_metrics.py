import numpy as np
import pytest

from training.evaluate import parse_levels, same_side, same_way
from training.metrics import coins_survived, psnr, scene_shift, worst_patches_psnr


def scene(seed=0):
    """Blocks of a few grey levels, larger than a pixel, like a level."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)


def test_psnr_of_a_known_error():
    frame = np.full((2, 64, 64, 3), 100, np.uint8)
    np.testing.assert_allclose(psnr(frame + 10, frame), 20 * np.log10(255 / 10))
    assert np.isfinite(psnr(frame, frame)).all()


def test_worst_patches_find_what_the_mean_hides():
    frame = np.zeros((64, 64, 3), np.uint8)
    spoiled = frame.copy()
    spoiled[8:16, 8:16] = 255
    assert psnr(spoiled, frame) > 15
    assert worst_patches_psnr(spoiled, frame) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-7, 1), (0, 5), (17, -3)])
def test_scene_shift(shift):
    big = np.tile(scene(), (2, 2, 1))
    before = big[20:84, 20:84]
    after = big[20 - shift[0] : 84 - shift[0], 20 - shift[1] : 84 - shift[1]]
    np.testing.assert_allclose(scene_shift(before, after), shift, atol=0.4)


def test_scene_shift_of_an_empty_scene_is_nothing():
    black = np.zeros((64, 64, 3), np.uint8)
    assert (scene_shift(black, black) == 0).all()
    assert (scene_shift(np.full_like(black, 90), black) == 0).all()


def test_coins():
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    frames[:2, 10:13, 10:13] = (255, 204, 0)
    kept = frames.copy()
    kept[1] = 0
    assert coins_survived(frames, frames) == (2, 2)
    assert coins_survived(kept, frames) == (1, 2)


def test_same_way_counts_direction_and_takes_off_what_codes_share():
    rng = np.random.default_rng(0)
    starts = 10
    shift_KS2 = np.zeros((8, starts, 2))
    shift_KS2[0] = (0, 3)
    shift_KS2[1] = (0, -3)
    shift_KS2[2:] = 0.01 * rng.standard_normal((6, starts, 2))
    shift_KS2 += 5 * rng.standard_normal((1, starts, 2))  # a start's own speed says nothing
    counts = same_way(shift_KS2)
    assert counts[:2] == [10, 10]
    assert same_way(shift_KS2, np.median)[:2] == [10, 10]
    assert max(same_way(shift_KS2, np.median)[2:]) == 0
    assert same_way(rng.standard_normal((8, starts, 2))) != [10] * 8


def test_same_side_looks_at_each_axis_alone():
    shift_KS2 = np.zeros((4, 10, 2))
    shift_KS2[0, :, 1] = 4  # always right, up or down as it happens
    shift_KS2[0, :, 0] = [5, -5] * 5
    shift_KS2[1, :, 1] = -4
    assert same_side(shift_KS2)[:2] == [[5, 10], [5, 10]]


@pytest.mark.parametrize("levels", ["20000", "a-b", "5-4", ""])
def test_bad_levels(levels):
    with pytest.raises(ValueError, match="FIRST-LAST"):
        parse_levels(levels)


def test_levels_are_inclusive():
    assert parse_levels("20000-20999") == (20_000, 1_000)
