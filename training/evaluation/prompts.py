"""Prompts unlike anything the model was trained on (the paper's figure 10): sketches, photographs,
frames of other games. Do latent actions still move them, and does the world stay in one piece?

Shapes: S prompts, R = 2 seeds, K codes, T frames, H W pixels, C = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from PIL import Image, ImageDraw

from genie_env.envs.coinrun import engine_class
from genie_env.envs.prompts import load_prompt
from genie_env.world_model import WorldModel
from training.evaluation.dreams import dream, reconstruct
from training.evaluation.sections import (
    DRAWS,
    Estimate,
    Figure,
    Row,
    Section,
    bootstrap,
    share,
    strips_png,
)
from training.metrics import detail, psnr, scene_shift

HELD_STEPS = 4
LONG_STEPS = 16
REDRAWN = 0.4
"""Share of the steps of a long rollout at which another random code is drawn."""
FAMILIAR = "in-distribution"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
"""Names in `skimage.data` whose files are part of the package: nothing is downloaded."""
GAMES = ("ninja", "climber", "jumper", "bossfight")

SKETCH_SIZE = 256
SKETCH_COLOURS = (
    # paper, ground, ledges, figure
    ("#f7f4ea", "#b9b4a6", "#3a3a3a", "#222222"),
    ("#12233b", "#5f7d8c", "#e8b04a", "#f4f1e8"),
    ("#a8d8f0", "#5aa03c", "#8a5a2b", "#d43a2f"),
)


def prompt_section(world: WorldModel, in_distribution_STHWC: np.ndarray, seed: int = 0) -> Section:
    """Measures the model on prompts unlike its training data, in-distribution starts beside them.

    in_distribution_STHWC: uint8; only the last frame of each start is given to the model.
    Raises TypeError or ValueError for starts that the model does not take, ImportError where the
    engine of the real game or scikit-image is not installed.
    """
    if in_distribution_STHWC.ndim != 5 or 0 in in_distribution_STHWC.shape:
        raise ValueError(
            f"in-distribution starts of shape {in_distribution_STHWC.shape}; accepted: "
            "(S, T, H, W, 3) with S, T >= 1"
        )
    size = world.config.frame_size
    kinds = {
        # One frame, as the others have: several would lend these starts their motion.
        FAMILIAR: in_distribution_STHWC[:, -1],
        "sketches": _frames(sketches(seed), size),
        "photographs": _frames(photographs(), size),
        "other games": _frames(other_games(seed), size),
    }
    measured = {kind: _measure(world, starts, seed) for kind, starts in kinds.items()}
    num_codes = world.config.num_actions
    return Section(
        title="Prompts of another kind",
        protocol=(
            f"The paper's figure 10. One frame a prompt: {len(SKETCH_COLOURS)} drawn sketches, "
            f"{len(PHOTOGRAPHS)} photographs ({', '.join(PHOTOGRAPHS)}, from scikit-image), the "
            f"first frame of {len(GAMES)} other Procgen games ({', '.join(GAMES)}; easy, level "
            f"{seed}); beside them the last frame of {len(in_distribution_STHWC)} in-distribution "
            f"starts. Every one of the {num_codes} codes is held for {HELD_STEPS} steps under two "
            "seeds a prompt, the same two for every code. Difference: mean absolute difference of "
            "two frames in grey levels, over pairs of codes under the same seed; its noise floor "
            "is the same between the two seeds under the same code. Where codes differ no more "
            "than seeds do, actions do nothing. Grey levels grow with the contrast of a prompt; "
            "the ratio to the floor does not. Scene shift: length of the sum of the shifts "
            "between neighbouring frames, the middle left out; it counts what falls or drifts "
            "under every code, too, which the distance between codes does not. Where the picture "
            "dissolves instead of moving, a shift means little: look at the strips. None of this "
            "says that the prompt lives on: a code may lead to the model's own kind of scene from "
            "everywhere. Detail: mean "
            f"difference of neighbouring pixels after {LONG_STEPS} steps of random codes (another "
            f"drawn at {REDRAWN:.0%} of the steps) over that of the decoded prompt. Intervals are "
            "over prompts; of three or four prompts they show the spread, no more, and are rather "
            f"too narrow. {world.config.sampling}; seed {seed}."
        ),
        rows=_rows(measured),
        figures=_figures(world, measured, seed),
    )


def sketches(seed: int = 0) -> list[Image.Image]:
    """Drawings of a level by an unsteady hand: ground, wall, ledges, somebody in the middle."""
    rng = np.random.default_rng(seed)
    return [_sketch(rng, *colours) for colours in SKETCH_COLOURS]


def photographs() -> list[np.ndarray]:
    """Real photographs, uint8 (H, W, 3) each. Raises ImportError without scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError(
            f"photographs as prompts come with scikit-image, which is not installed ({error}). "
            "Install it with: pip install scikit-image"
        ) from error
    return [getattr(data, name)() for name in PHOTOGRAPHS]


def other_games(level: int = 0) -> list[np.ndarray]:
    """The first frame of a level of each of `GAMES`, uint8 (H, W, 3) each. Raises ImportError
    without the engine."""
    make_engine = engine_class()
    frames = []
    for game in GAMES:
        engine = make_engine(
            num=1,
            env_name=game,
            distribution_mode="easy",
            start_level=level,
            num_levels=1,
            rand_seed=level,
            num_threads=0,
        )
        frames.append(engine.observe()[1]["rgb"][0].copy())
        engine.close()
    return frames


def _sketch(
    rng: np.random.Generator, paper: str, ground: str, ledge: str, figure: str
) -> Image.Image:
    size = SKETCH_SIZE
    image = Image.new("RGB", (size, size), paper)
    draw = ImageDraw.Draw(image)

    def line(points: Sequence[tuple[float, float]], colour: str, width: int) -> None:
        shaken = np.asarray(points) + rng.normal(0, 1.2, (len(points), 2))
        draw.line([(x, y) for x, y in shaken], colour, width, joint="curve")

    floor = 0.56 * size
    wall = rng.uniform(0.05, 0.2) * size
    step, height = rng.uniform(0.65, 0.75) * size, rng.uniform(0.08, 0.15) * size
    draw.rectangle((0, 0, wall, size), ground)
    draw.rectangle((0, floor, size, size), ground)
    draw.rectangle((step, floor - height, size, size), ground)
    line([(wall, 0), (wall, floor), (step, floor)], ledge, 5)
    line([(step, floor), (step, floor - height), (size, floor - height)], ledge, 5)
    for left, top in ((0.25, 0.3), (0.6, 0.2)):
        x, y = size * (np.array([left, top]) + rng.uniform(-0.05, 0.05, 2))
        line([(x, y), (x + 0.1 * size, y), (x + 0.2 * size, y)], ledge, 9)

    middle = size / 2
    head, hip = floor - 34, floor - 14
    draw.ellipse((middle - 8, head - 8, middle + 8, head + 8), figure)
    line([(middle, head), (middle, hip)], figure, 5)
    line([(middle - 11, head + 17), (middle, head + 11), (middle + 11, head + 17)], figure, 4)
    line([(middle - 8, floor - 2), (middle, hip), (middle + 8, floor - 2)], figure, 4)
    return image


def _frames(images: Sequence[Image.Image | np.ndarray], size: int) -> np.ndarray:
    return np.concatenate([load_prompt(image, size) for image in images])


@dataclass(frozen=True)
class _Measured:
    """What was seen on the S prompts of one kind; a number a prompt."""

    starts_SHWC: np.ndarray
    decoded_SHWC: np.ndarray
    held_SKHWC: np.ndarray
    shift_SRK2: np.ndarray
    differ_S: np.ndarray
    """Grey levels between the frames of two codes,"""
    noise_S: np.ndarray
    """and of two seeds."""
    shift_differ_S: np.ndarray
    shift_noise_S: np.ndarray
    detail_S2: np.ndarray
    """After the long rollout, and of the decoded prompt."""


def _measure(world: WorldModel, starts_SHWC: np.ndarray, seed: int) -> _Measured:
    S, K, R = len(starts_SHWC), world.config.num_actions, 2
    rng = np.random.default_rng(seed)
    seeds_SR = rng.integers(2**31, size=(S, R))
    codes_N = np.tile(np.arange(K), S * R)
    held = _rollout(
        world,
        starts_SHWC.repeat(R * K, 0),
        codes_N[:, None].repeat(HELD_STEPS, 1),
        seeds_SR.ravel().repeat(K),
    )
    held_SRKTHWC = held.reshape(S, R, K, *held.shape[1:])
    shift_SRK2 = np.zeros((S, R, K, 2))
    for s, r, k in np.ndindex(S, R, K):
        frames = held_SRKTHWC[s, r, k]
        # Step by step: the whole way is further than `scene_shift` looks.
        shift_SRK2[s, r, k] = sum(map(scene_shift, frames[:-1], frames[1:]))
    differ_S, noise_S = _apart(
        held_SRKTHWC[..., -1, :, :, :].astype(np.float32),
        lambda difference: np.abs(difference).mean((-3, -2, -1)),
    )
    shift_differ_S, shift_noise_S = _apart(
        shift_SRK2, lambda difference: np.linalg.norm(difference, axis=-1)
    )

    actions_ST = rng.integers(K, size=(S, LONG_STEPS))
    for t in range(1, LONG_STEPS):
        kept_S = rng.random(S) >= REDRAWN
        actions_ST[kept_S, t] = actions_ST[kept_S, t - 1]
    long_STHWC = _rollout(world, starts_SHWC, actions_ST, seeds_SR[:, 0])
    return _Measured(
        starts_SHWC=starts_SHWC,
        decoded_SHWC=long_STHWC[:, 0],
        held_SKHWC=held_SRKTHWC[:, 0, :, -1],
        shift_SRK2=shift_SRK2,
        differ_S=differ_S,
        noise_S=noise_S,
        shift_differ_S=shift_differ_S,
        shift_noise_S=shift_noise_S,
        detail_S2=np.stack((detail(long_STHWC[:, -1]), detail(long_STHWC[:, 0])), 1),
    )


def _rollout(
    world: WorldModel, starts_SHWC: np.ndarray, actions_ST: np.ndarray, seeds_S: np.ndarray
) -> np.ndarray:
    """The prompts as the tokenizer sees them, then a frame an action: uint8 (S, T + 1, H, W, 3)."""
    starts_S1HWC = starts_SHWC[:, None]
    dreamt = dream(world, starts_S1HWC, actions_ST, seeds_S.tolist(), what="prompts")
    return np.concatenate((reconstruct(world, starts_S1HWC), dreamt.frames_BNHWC), 1)


def _apart(
    seen_SRK: np.ndarray, size: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean `size` of the difference between two codes under the same seed, and between the two
    seeds under the same code: (S,) each."""
    pairs = combinations(range(seen_SRK.shape[2]), 2)
    codes = [size(seen_SRK[:, :, i] - seen_SRK[:, :, j]).mean(1) for i, j in pairs]
    return np.mean(codes, 0), size(seen_SRK[:, 0] - seen_SRK[:, 1]).mean(1)


def _ratio(rows_S: np.ndarray, reference_S: np.ndarray, seed: int = 0) -> Estimate:
    """Mean over mean, both drawn again for the interval."""
    rng = np.random.default_rng(seed)

    def again(rows: np.ndarray) -> np.ndarray:
        return rows[rng.integers(len(rows), size=(DRAWS, len(rows)))].mean(1)

    with np.errstate(divide="ignore", invalid="ignore"):
        value = rows_S.mean() / reference_S.mean()
        drawn = again(rows_S) / again(reference_S)
    return Estimate.of(float(value), drawn, len(rows_S))


def _rows(measured: dict[str, _Measured]) -> list[Row]:
    familiar = measured[FAMILIAR]
    rows = []

    def group(
        name: str,
        unit: str,
        of: Callable[[_Measured], np.ndarray],
        statistic: Callable[[np.ndarray], float] = np.mean,
        beside: Callable[[_Measured], dict[str, float]] = lambda _: {},
    ) -> None:
        for kind, found in measured.items():
            others = beside(found)
            if found is not familiar:
                others[FAMILIAR] = float(statistic(of(familiar)))
            rows.append(Row(f"{name}: {kind}", bootstrap(of(found), statistic), unit, others))

    group(
        f"difference between codes after {HELD_STEPS} steps",
        "grey levels",
        lambda m: m.differ_S,
        beside=lambda m: {"two seeds of a code": float(m.noise_S.mean())},
    )
    group(
        "difference between codes over that between seeds",
        "x",
        lambda m: np.stack((m.differ_S, m.noise_S), 1),
        share,
        lambda _: {"actions do nothing": 1.0},
    )
    rows += [
        Row(
            f"difference between codes over in-distribution: {kind}",
            _ratio(found.differ_S, familiar.differ_S),
            "x",
            {FAMILIAR: 1.0},
        )
        for kind, found in measured.items()
        if found is not familiar
    ]
    group(
        f"scene shift over {HELD_STEPS} steps",
        "px",
        lambda m: np.linalg.norm(m.shift_SRK2, axis=-1).mean((1, 2)),
    )
    group(
        "distance between the scene shifts of two codes",
        "px",
        lambda m: m.shift_differ_S,
        beside=lambda m: {"two seeds of a code": float(m.shift_noise_S.mean())},
    )
    group(f"detail kept after {LONG_STEPS} steps", "", lambda m: m.detail_S2, share)
    group(
        "prompt through the tokenizer, PSNR",
        "dB",
        lambda m: psnr(m.decoded_SHWC, m.starts_SHWC),
    )
    return rows


def _figures(world: WorldModel, measured: dict[str, _Measured], seed: int) -> list[Figure]:
    # Two familiar prompts at the end, to compare with.
    shown = [(found, len(found.starts_SHWC)) for k, found in measured.items() if k != FAMILIAR]
    shown.append((measured[FAMILIAR], 2))
    prompts_SHWC = np.concatenate([found.starts_SHWC[:count] for found, count in shown])
    strips_STHWC = np.concatenate(
        [
            np.concatenate(
                (found.starts_SHWC[:, None], found.decoded_SHWC[:, None], found.held_SKHWC), 1
            )[:count]
            for found, count in shown
        ]
    )
    # Levels go on to the right: a run there, the scene moving left, has most to show.
    code = int(measured[FAMILIAR].shift_SRK2[..., 1].mean((0, 1)).argmin())
    walk_STHWC = _rollout(
        world,
        prompts_SHWC,
        np.full((len(prompts_SHWC), LONG_STEPS), code),
        np.random.default_rng(seed).integers(2**31, size=len(prompts_SHWC)),
    )
    order = (
        f"Rows: {len(SKETCH_COLOURS)} sketches, {', '.join(PHOTOGRAPHS)}, {', '.join(GAMES)}, then "
        "in-distribution starts."
    )
    last = world.config.num_actions - 1
    return [
        Figure(
            "prompts-codes",
            "The prompt as given, as the tokenizer sees it, then the frame after "
            f"{HELD_STEPS} steps of each code, 0 to {last}. {order}",
            strips_png(strips_STHWC),
        ),
        Figure(
            "prompts-walk",
            f"{LONG_STEPS} steps of code {code} (of all codes it moves in-distribution scenes "
            f"furthest to the left), every 2nd frame from the decoded prompt on. {order}",
            strips_png(walk_STHWC[:, ::2]),
        ),
    ]
