"""The distance is the formula's, and the shipped features see damage of pixels and of motion."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from training.evaluation import video_features as vf
from training.evaluation.fvd import (
    draw_clips,
    frechet_distance,
    fvd,
    i3d_features,
)


def normed(S, F, seed=0):
    """Samples (S, F) whose mean is exactly 0 and whose covariance is exactly 1."""
    x = np.random.default_rng(seed).normal(size=(S, F))
    x -= x.mean(0)
    return x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T


def test_diagonal_gaussians_have_their_closed_form():
    x, y = normed(50, 3), normed(80, 3, seed=1)
    a = x * [1, 2, 3] + [0, 1, 0]
    b = y * [2, 2, 0.5] + [0, 1, -4]
    assert frechet_distance(a, b) == pytest.approx(16 + 1 + 0 + 6.25)


def test_covariances_that_do_not_commute_have_their_closed_form():
    a = normed(50, 2) @ np.array([[2.0, 1.0], [0.0, 1.0]])
    b = normed(50, 2, seed=1) @ np.array([[1.0, -0.5], [0.3, 3.0]])
    A, B = np.cov(a.T), np.cov(b.T)
    # Of a 2x2 matrix: tr(sqrt(M))^2 = tr(M) + 2 sqrt(det(M)).
    root = np.sqrt(np.trace(A @ B) + 2 * np.sqrt(np.linalg.det(A @ B)))
    assert frechet_distance(a, b) == pytest.approx(np.trace(A) + np.trace(B) - 2 * root)


def test_fewer_samples_than_features():
    """Two points span a line: covariances u u' and v v', whose root has the trace |u.v|."""
    u, v = np.array([1.0, 2.0, 0.0, 1.0]), np.array([0.5, 0.0, 3.0, -2.0])
    a, b = (np.stack((w, -w)) / np.sqrt(2) for w in (u, v))
    assert frechet_distance(a, b) == pytest.approx(u @ u + v @ v - 2 * abs(u @ v))


@pytest.mark.parametrize("S", [5, 300])
def test_zero_from_itself_and_symmetric(S):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(S, 40)), rng.normal(1, 2, size=(S, 40))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, rng.permutation(a)) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_fewer_samples_lie_further_apart():
    """The bias that the floor is for."""
    rng = np.random.default_rng(0)
    few, many = (
        frechet_distance(rng.normal(size=(S, 32)), rng.normal(size=(S, 32))) for S in (40, 400)
    )
    assert few > 4 * many > 0


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (np.zeros((1, 4)), np.zeros((3, 4)), r"\(S >= 2, F\), got \(1, 4\)"),
        (np.zeros(4), np.zeros(4), r"\(S >= 2, F\), got \(4,\)"),
        (np.zeros((3, 4)), np.zeros((3, 5)), "differ in F: 4 and 5"),
        (np.full((3, 4), np.nan), np.zeros((3, 4)), "finite"),
    ],
)
def test_bad_features_are_named(a, b, says):
    with pytest.raises(ValueError, match=says):
        frechet_distance(a, b)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pytest.importorskip("procgen", reason='needs the real game: pip install "genie-env[procgen]"')
    from training.data.clip_store import ClipStore
    from training.data.collect import CollectConfig, collect

    folder = collect(
        CollectConfig(
            out=str(tmp_path_factory.mktemp("real")),
            num_frames=80 * 24,
            num_envs=80,
            look="plain",
            start_level=10_000,
            num_levels=1_000,
            num_threads=0,
        ),
        progress=False,
    )
    return ClipStore(folder, clip_frames=16)


@pytest.fixture(scope="module")
def real(store):
    """Two sets of 24 real clips, all of different episodes."""
    return np.split(draw_clips(store, 48), 2)


def blurred(clips, size):
    side = clips.shape[2]
    pixels = torch.from_numpy(clips).flatten(0, 1).permute(0, 3, 1, 2).float()
    small = F.interpolate(pixels, size=size, mode="area")
    back = F.interpolate(small, size=side, mode="bilinear").round().byte()
    return back.permute(0, 2, 3, 1).reshape(clips.shape).numpy()


def noised(clips, sigma):
    noise = np.random.default_rng(0).normal(size=clips.shape) * sigma
    return (clips + noise).round().clip(0, 255).astype(np.uint8)


def frozen(clips, at):
    return clips[:, np.minimum(np.arange(clips.shape[1]), at)]


@pytest.mark.parametrize(
    ("function", "little", "much"), [(blurred, 40, 20), (noised, 8, 24), (frozen, 8, 1)]
)
def test_distance_grows_with_damage(real, function, little, much):
    """Against the same clips undamaged: with so few, another draw would hide a little noise."""
    first, _ = real
    assert 0 < 1.1 * fvd(first, function(first, little)) < fvd(first, function(first, much))


@pytest.mark.parametrize("kind", ["blurred", "frozen", "reversed", "shuffled", "cut"])
def test_damage_of_pixels_and_of_motion_lies_above_the_floor(real, kind):
    first, second = real
    assert fvd(first, vf.damage(second, kind)) > 1.3 * fvd(first, second) > 0


def test_distance_of_a_set_from_itself_is_zero(real):
    assert fvd(real[0], real[0]) == pytest.approx(0, abs=1e-6)


def test_features_do_not_depend_on_the_batch(real):
    clips = real[0][:5]
    together = vf.video_features(clips, batch_size=5)
    assert together.shape == (5, vf.NUM_FEATURES) and together.dtype == np.float32
    one_by_one = vf.video_features(clips, batch_size=1)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(vf.video_features(clips[3:4])[0], together[3], rtol=1e-4, atol=1e-5)


def test_any_even_length_from_8_to_16(real):
    for T in (8, 10, 12, 14, 16):
        assert vf.video_features(real[0][:1, :T]).shape == (1, vf.NUM_FEATURES)


def test_clips_are_of_different_episodes(store):
    clips = draw_clips(store, 20)
    assert clips.shape == (20, 16, 64, 64, 3)
    assert len({clip.tobytes() for clip in clips}) == 20
    np.testing.assert_array_equal(clips, draw_clips(store, 20))
    with pytest.raises(ValueError, match="1000 clips of different episodes asked for"):
        draw_clips(store, 1_000)


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "says"),
    [
        ((2, 9, 64, 64, 3), np.uint8, ValueError, "even number of frames from 8 to 16, got 9"),
        ((2, 6, 64, 64, 3), np.uint8, ValueError, "got 6"),
        ((2, 18, 64, 64, 3), np.uint8, ValueError, "got 18"),
        ((2, 8, 32, 32, 3), np.uint8, ValueError, r"\(S >= 1, T, 64, 64, 3\), got"),
        ((8, 64, 64, 3), np.uint8, ValueError, "clips must be"),
        ((0, 8, 64, 64, 3), np.uint8, ValueError, "S >= 1"),
        ((2, 8, 64, 64, 3), np.float32, TypeError, "uint8, got float32"),
    ],
)
def test_bad_clips_are_named(shape, dtype, error, says):
    clips = np.zeros(shape, dtype)
    with pytest.raises(error, match=says):
        fvd(clips, clips)


def test_sets_of_different_sizes_are_refused():
    clips = np.zeros((4, 8, 64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="one shape.*number of clips"):
        fvd(clips, clips[:3])


def test_an_unknown_damage_is_refused():
    with pytest.raises(ValueError, match="unknown damage 'dim'; known: none, blurred"):
        vf.damage(np.zeros((2, 8, 64, 64, 3), np.uint8), "dim")


def test_the_shipped_weights_are_small_and_others_refused(tmp_path):
    assert vf.WEIGHTS.stat().st_size < 1.5e6
    with pytest.raises(FileNotFoundError, match="trains it"):
        vf.load_video_features(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="other weights than those of VideoFeatures"):
        vf.load_video_features(other)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="other weights"):
        vf.load_video_features(damaged)


class TinyI3D(torch.nn.Module):
    """Called as the real file is."""

    def __init__(self, num_features: int = 400) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(
        self,
        x: torch.Tensor,
        rescale: bool = False,
        resize: bool = False,
        return_features: bool = False,
    ) -> torch.Tensor:
        assert x.dim() == 5 and x.size(1) == 3 and rescale and resize and return_features
        return x.mean((3, 4)).flatten(1).repeat(1, 100)[:, : self.num_features]


def saved(module, path):
    torch.jit.script(module).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_i3d_is_called_as_the_standard_file_is(tmp_path):
    features = i3d_features(saved(TinyI3D(), tmp_path / "i3d_torchscript.pt"), batch_size=2)
    clips = np.random.default_rng(0).integers(0, 256, (5, 10, 64, 64, 3), np.uint8)
    found = features(clips)
    assert found.shape == (5, 400)
    # Pixels reach it as 0 to 255, the channels first.
    np.testing.assert_allclose(found[:, :10], clips[..., 0].mean((2, 3)), rtol=1e-4)
    assert fvd(clips, clips, features) == pytest.approx(0, abs=1e-6)
    assert fvd(clips, clips // 2, features) > 1
    with pytest.raises(ValueError, match="T >= 9"):
        features(clips[:, :8])
    with pytest.raises(TypeError, match="uint8, got float64"):
        features(clips / 255)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_i3d_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing is downloaded.*i3d_torchscript\.pt"):
        i3d_features(tmp_path / "i3d_torchscript.pt")
    text = tmp_path / "text.pt"
    text.write_text("weights")
    with pytest.raises(ValueError, match=r"not TorchScript.*i3d_torchscript\.pt"):
        i3d_features(text)
    with pytest.raises(ValueError, match="cannot be called.*return_features=True"):
        i3d_features(saved(torch.nn.Linear(3, 400), tmp_path / "linear.pt"))
    with pytest.raises(ValueError, match=r"features \(1, 10\) for one clip"):
        i3d_features(saved(TinyI3D(10), tmp_path / "small.pt"))
