"""Frechet video distance (Unterthiner et al., 2018): how far dreamt video is from real video.

Clips become features, each set of features a Gaussian, and the distance is that of the two
Gaussians. Its size depends on three things, which belong beside every number:

* the features. The default network was trained on CoinRun by this repository
  (`training.evaluation.video_features`): its numbers compare with one another and with no
  published FVD. Published ones use I3D: `i3d_features`.
* the number of clips S. Fewer clips give larger distances, also between two sets of the same
  video. So compare only at equal S, and beside the floor: real clips against as many other real
  ones.
* what the clips show. One clip an episode (`draw_clips`), the same look, difficulty, frame skip,
  length and, for a model that is prompted, the same behaviour on both sides.

What it sees and what it misses is measured on held-out levels with

    python -m training.evaluation.fvd --look full

The shipped features see blur, order and direction of time, frozen frames, cuts and wrong speed far
above the floor; noise of up to 24 grey levels a pixel hardly at all. Broken order outweighs all
else by far: read such a distance as "motion is wrong", not as a multiple of another.

Shapes: S clips, T frames, H W pixels, C = 3, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from training.data.clip_store import ClipStore
from training.data.collect import CollectConfig, collect
from training.evaluation.video_features import (
    DAMAGES,
    HELD_OUT_LEVELS,
    MAX_FRAMES,
    damage,
    video_features,
)

Features = Callable[[np.ndarray], np.ndarray]
"""uint8 clips (S, T, H, W, 3) to features (S, F)."""

I3D_FEATURES = 400
I3D_MIN_FRAMES = 9


def frechet_distance(features_a_SF: np.ndarray, features_b_SF: np.ndarray) -> float:
    """Squared Frechet distance between Gaussians fitted to two sets of features, in fp64:

        |mean_a - mean_b|^2 + tr(cov_a) + tr(cov_b) - 2 tr((cov_a cov_b)^(1/2))

    with unbiased covariances. Exact, also for fewer samples than features: the last trace is the
    sum of the singular values of Xa Xb', X the centred features over sqrt(S - 1), so that neither
    a matrix square root nor a ridge is needed. The two sets may differ in S.

    Raises ValueError unless both are (S >= 2, F) with one F, and finite.
    """
    roots, means = [], []
    for features_SF in (features_a_SF, features_b_SF):
        x_SF = np.asarray(features_SF, np.float64)
        if x_SF.ndim != 2 or len(x_SF) < 2:
            raise ValueError(f"features must be (S >= 2, F), got {x_SF.shape}")
        if not np.isfinite(x_SF).all():
            raise ValueError("features must be finite, got nan or infinity")
        means.append(x_SF.mean(0))
        # R'R is the covariance, and R has at most F rows.
        root = np.linalg.qr((x_SF - means[-1]) / np.sqrt(len(x_SF) - 1), mode="r")
        roots.append(np.asarray(root))
    (mean_a, mean_b), (root_a, root_b) = means, roots
    if len(mean_a) != len(mean_b):
        raise ValueError(f"features differ in F: {len(mean_a)} and {len(mean_b)}")
    shared = np.linalg.norm(root_a @ root_b.T, "nuc")
    spread = (root_a**2).sum() + (root_b**2).sum() - 2 * shared
    return float(((mean_a - mean_b) ** 2).sum() + max(spread, 0.0))


def fvd(
    real_STHWC: np.ndarray, dreamt_STHWC: np.ndarray, features: Features = video_features
) -> float:
    """Frechet video distance between as many real and dreamt clips, uint8 (S, T, H, W, 3).

    Give it with its floor, that of as many other real clips: it is above 0 for two sets of the
    same video, the more so the fewer clips there are. Raises ValueError for sets of different
    shapes, and what `features` raises.
    """
    _check_alike(real_STHWC, dreamt_STHWC)
    return frechet_distance(features(real_STHWC), features(dreamt_STHWC))


def _check_alike(*sets_STHWC: np.ndarray) -> None:
    shapes = [clips.shape for clips in sets_STHWC]
    if len(set(shapes)) > 1:
        raise ValueError(
            "sets of clips must have one shape (the distance depends on the number of clips), "
            f"got {' and '.join(map(str, shapes))}"
        )


def draw_clips(store: ClipStore, num_clips: int, seed: int = 0) -> np.ndarray:
    """Clips of different episodes, each from a random start: uint8 (S, T, H, W, 3), T that of the
    store.

    Raises ValueError where the store has too few episodes of T frames.
    """
    rng = np.random.default_rng(seed)
    T = store.clip_frames
    rows = np.flatnonzero(store.segments[:, 2] >= T)
    if len(rows) < num_clips:
        raise ValueError(
            f"{num_clips} clips of different episodes asked for; {len(rows)} have {T} frames"
        )
    clips = []
    for row in rng.permutation(rows)[:num_clips]:
        frames = store.segment(row)
        start = rng.integers(len(frames) - T + 1)
        clips.append(frames[start : start + T])
    return np.stack(clips)


def i3d_features(path: str | Path, device: str = "cpu", batch_size: int = 8) -> Features:
    """The features of published FVDs: I3D trained on Kinetics-400, 400 features a clip.

    Takes the TorchScript file `i3d_torchscript.pt` that StyleGAN-V's evaluation uses; nothing is
    downloaded. A TorchScript file is a program: load none that you do not trust. The features
    take uint8 clips (S, T, H, W, 3) of any size, T >= 9; the file itself resizes to 224 x 224.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TorchScript, or called as that file is, it does not give 400 features.
    """
    path = Path(path)
    accepted = (
        "accepted: the TorchScript file i3d_torchscript.pt (StyleGAN-V, fvd-comparison), called as "
        f"model(x, rescale=True, resize=True, return_features=True) with (B, 3, T, H, W) to "
        f"(B, {I3D_FEATURES})"
    )
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there, and nothing is downloaded; {accepted}")
    try:
        model = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is not TorchScript; {accepted}: {error}") from error

    def run(clips_BTHWC: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(np.ascontiguousarray(clips_BTHWC)).to(device)
        pixels = pixels.permute(0, 4, 1, 2, 3).float()
        with torch.inference_mode():
            return model(pixels, rescale=True, resize=True, return_features=True).cpu().numpy()

    def features(clips_STHWC: np.ndarray) -> np.ndarray:
        if clips_STHWC.dtype != np.uint8:
            raise TypeError(f"clips must be uint8, got {clips_STHWC.dtype}")
        shape = clips_STHWC.shape
        if len(shape) != 5 or shape[0] < 1 or shape[1] < I3D_MIN_FRAMES or shape[4] != 3:
            raise ValueError(
                f"clips must be (S >= 1, T >= {I3D_MIN_FRAMES}, H, W, 3) for I3D, got {shape}"
            )
        starts = range(0, len(clips_STHWC), batch_size)
        return np.concatenate([run(clips_STHWC[i : i + batch_size]) for i in starts])

    try:
        found = run(np.zeros((1, MAX_FRAMES, 64, 64, 3), np.uint8)).shape
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be called; {accepted}: {error}") from error
    if found != (1, I3D_FEATURES):
        raise ValueError(f"{path} gives features {found} for one clip; {accepted}")
    return features


def _pixelated(clips_STHWC: np.ndarray, side: int = 4) -> np.ndarray:
    S, T, H, W, C = clips_STHWC.shape
    squares = clips_STHWC.reshape(S, T, H // side, side, W // side, side, C)
    return squares.mean((3, 5)).round().astype(np.uint8).repeat(side, 2).repeat(side, 3)


UNSEEN_DAMAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pixelated": _pixelated,
    "half speed": lambda clips_STHWC: clips_STHWC[:, : clips_STHWC.shape[1] // 2].repeat(2, 1),
    "darker": lambda clips_STHWC: (0.8 * clips_STHWC).astype(np.uint8),
}
"""Damages of whole batches on which the shipped network was not trained."""


@dataclass(frozen=True)
class SensitivityConfig:
    """What the distance sees, on real clips that are damaged on purpose."""

    videos: str = "data/fvd"
    """Folder for the clips, collected where not there yet."""
    look: str = "full"
    difficulty: str = "easy"
    frame_skip: int = 3
    num_clips: int = 128
    num_frames: int = 16
    seed: int = 0
    i3d: str | None = None
    """i3d_torchscript.pt, to measure with I3D instead of the shipped network."""


def sensitivity(config: SensitivityConfig) -> dict[str, float]:
    """FVD between real clips of held-out levels and other such clips, damaged in each way.

    "none" is the floor: the same other clips as they are.
    """
    name = f"{HELD_OUT_LEVELS[0]}-{config.look}-{config.difficulty}-skip{config.frame_skip}"
    folder = collect(
        CollectConfig(
            out=str(Path(config.videos) / name),
            num_frames=32_768,
            shard_frames=32_768,
            num_envs=256,
            look=config.look,
            difficulty=config.difficulty,
            frame_skip=config.frame_skip,
            start_level=HELD_OUT_LEVELS[0],
            num_levels=HELD_OUT_LEVELS[1],
            seed=config.seed,
        ),
        progress=False,
    )
    clips = draw_clips(ClipStore(folder, config.num_frames), 2 * config.num_clips, config.seed)
    real, other = np.split(clips, 2)
    features = i3d_features(config.i3d) if config.i3d else video_features
    damaged = {name: damage(other, name, config.seed) for name in DAMAGES}
    damaged |= {name: function(other) for name, function in UNSEEN_DAMAGES.items()}
    real_SF = features(real)
    return {name: frechet_distance(real_SF, features(clips)) for name, clips in damaged.items()}


def main(config: SensitivityConfig) -> None:
    """Print `sensitivity` as a table."""
    distances = sensitivity(config)
    print(
        f"FVD of {config.num_clips} real clips of {config.num_frames} frames against as many "
        f"others, {config.look} look, {config.difficulty} levels {HELD_OUT_LEVELS[0]} to "
        f"{sum(HELD_OUT_LEVELS) - 1}, frame_skip {config.frame_skip}, seed {config.seed}, "
        f"features {config.i3d or 'shipped'}\n\n| damage of the others | FVD | over the floor |"
        "\n|---|---|---|"
    )
    for name, distance in distances.items():
        seen = " (not trained on)" if name in UNSEEN_DAMAGES else ""
        print(f"| {name}{seen} | {distance:.2f} | {distance / distances['none']:.1f} |")


if __name__ == "__main__":
    main(tyro.cli(SensitivityConfig))
