import numpy as np
import pytest

from training.metrics import normalized_mutual_information, patch_mse, psnr, scene_shift


def scene(seed=0):
    """Blocks of a few grey levels, larger than a pixel, like a level."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return coarse.repeat(4, 0).repeat(4, 1)


def test_psnr_of_a_known_error():
    frame = np.full((2, 64, 64, 3), 100, np.uint8)
    np.testing.assert_allclose(psnr(frame + 10, frame), 20 * np.log10(255 / 10))
    assert np.isfinite(psnr(frame, frame)).all()


def test_patches_show_what_the_mean_hides():
    frame = np.zeros((64, 64, 3), np.uint8)
    spoiled = frame.copy()
    spoiled[8:16, 8:16] = 255
    assert psnr(spoiled, frame) > 15
    errors = patch_mse(spoiled, frame)
    assert errors.shape == (8, 8) and errors[1, 1] == 255**2 and errors.sum() == 255**2


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


def test_normalized_mutual_information():
    assert normalized_mutual_information(np.eye(4)) == pytest.approx(1)
    assert normalized_mutual_information(np.ones((3, 8))) == pytest.approx(0, abs=1e-12)
    half = normalized_mutual_information(np.array([[1, 0], [1, 0], [0, 1], [0, 1]]))
    assert half == pytest.approx(2 * np.log(2) / (np.log(4) + np.log(2)))
    assert np.isnan(normalized_mutual_information(np.array([[5.0]])))
