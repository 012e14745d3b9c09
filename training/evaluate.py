"""Measure a world model on levels it never saw, against the real game's frames.

Shapes: B clips, T frames, M = T - 1 transitions, H W pixels, C = 3, K codes, S starts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from genie_env.world_model import WorldModel
from genie_env.world_model.quantize import perplexity
from training.data.clip_store import ClipStore
from training.data.collect import CollectConfig, collect
from training.metrics import coins_survived, psnr, scene_shift, worst_patches_psnr

ROLLOUT_STEPS = 64
SHARP_AT = (1, 16, 64)
PREDICT_AT = (1, 2, 4, 8)
PROMPT_FRAMES = 4
AHEAD = max(PREDICT_AT)
NUM_STARTS = 10
HELD_STEPS = 4
SAME_WAY = 0.5
"""Cosine from which two shifts count as the same way: within 60 degrees (1 in 3 by chance)."""
LEAST_SHIFT = 0.5
"""Pixels over the held steps from which a shift counts as one."""


@dataclass(frozen=True)
class Report:
    """Every number of one evaluation; PSNR in dB, shifts in pixels."""

    model: str
    protocol: str
    tokenizer_psnr: float
    worst_patches_psnr: float
    """Over the worst 1% of 8x8 squares."""
    coins_survived: int
    coins_visible: int
    code_perplexity: float
    """Of the latent actions inferred from the real clips, 1 to K."""
    prediction_psnr: dict[str, float]
    """Dreamt against real frame after t steps, with inferred latent actions."""
    copy_psnr: dict[str, float]
    """The floor: the last given frame, repeated."""
    decoded_psnr: dict[str, float]
    """The ceiling: the real frames through the tokenizer."""
    delta_psnr_4: float
    """The paper's: at t = 4, inferred minus random latent actions."""
    sharpness: dict[str, float]
    """PSNR of dreamt frames against themselves, encoded and decoded again, after t steps."""
    detail: dict[str, float]
    """Mean difference of neighbouring pixels in dreamt frames after t steps, over that of the
    decoded start: 1 keeps the detail. A smeared or empty frame is re-encoded well, too."""
    scene_shift_KS2: list[list[list[float]]]
    """Scene shift (dy, dx) over the held steps, per code and start."""
    same_way_K: list[int]
    """Per code: starts whose shift, less that start's mean over codes, points as the others' do."""
    same_way_median_K: list[int]
    """The same less the start's median over codes: a single code that works cannot lend its
    direction to all the others. Codes that do the same count each."""
    same_way_axes_K2: list[list[int]]
    """Per code, down-up and left-right apart: starts that move to the commoner side. A code may
    always go right while where a fall ends differs from start to start."""

    def consistent_codes(self, same_way_K: list[int]) -> int:
        """Codes that move the scene the same way from at least 8 of 10 starts."""
        return sum(count >= 0.8 * len(self.scene_shift_KS2[0]) for count in same_way_K)

    def table(self) -> str:
        coins = self.coins_survived / max(1, self.coins_visible)
        rows = [
            ("tokenizer PSNR", f"{self.tokenizer_psnr:.2f} dB"),
            ("PSNR of the worst 1% of 8x8 patches", f"{self.worst_patches_psnr:.2f} dB"),
            ("coins that survive the tokenizer", f"{coins:.2f} of {self.coins_visible} frames"),
            ("latent action perplexity", f"{self.code_perplexity:.2f}"),
            *(
                (
                    f"prediction PSNR, inferred actions, t = {t} (last frame repeated; tokenizer)",
                    f"{value:.2f} dB ({self.copy_psnr[t]:.2f}; {self.decoded_psnr[t]:.2f})",
                )
                for t, value in self.prediction_psnr.items()
            ),
            ("delta-PSNR, t = 4", f"{self.delta_psnr_4:.2f} dB"),
            *(
                (
                    f"rollout re-encoded against itself, step {t} (detail left)",
                    f"{value:.2f} dB ({self.detail[t]:.2f})",
                )
                for t, value in self.sharpness.items()
            ),
            (
                "codes that move the scene the same way from 8 of 10 starts, along one axis",
                f"{self.consistent_codes([max(axes) for axes in self.same_way_axes_K2])} of "
                f"{len(self.same_way_K)}",
            ),
            (
                "the same, both axes at once: within 60 degrees (less the start's median)",
                f"{self.consistent_codes(self.same_way_K)} of {len(self.same_way_K)} "
                f"({self.consistent_codes(self.same_way_median_K)})",
            ),
        ]
        lines = [f"| {self.model} | |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
        lines += [
            "",
            self.protocol,
            "",
            "Scene shift (down, right) in pixels, less the start's mean:",
        ]
        starts = len(self.scene_shift_KS2[0])
        names = [f"start {s}" for s in range(starts)]
        names += ["down-up", "left-right", "within 60 degrees"]
        lines += ["| code | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        shift_KS2 = np.array(self.scene_shift_KS2)
        shift_KS2 = shift_KS2 - shift_KS2.mean(0)
        for code, row in enumerate(shift_KS2):
            cells = [f"{dy:+.1f} {dx:+.1f}" for dy, dx in row]
            counts = [*self.same_way_axes_K2[code], self.same_way_K[code]]
            cells += [f"{count}/{starts}" for count in counts]
            lines.append(f"| {code} | " + " | ".join(cells) + " |")
        lines += [
            "",
            f"Shifts below {LEAST_SHIFT} pixels count for no side. By chance a code reaches 8 of "
            "10 along one of two axes with probability 0.2, within 60 degrees with 0.003.",
        ]
        return "\n".join(lines)


def parse_levels(levels: str) -> tuple[int, int]:
    """ "20000-20999" to (first level, number of levels)."""
    first, dash, last = levels.partition("-")
    if not (dash and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise ValueError(f"levels {levels!r}; accepted: FIRST-LAST, like 20000-20999")
    return int(first), int(last) - int(first) + 1


def evaluate(
    model: str | WorldModel,
    first_level: int,
    num_levels: int,
    out: str | Path,
    num_clips: int = 128,
    difficulty: str = "easy",
    seed: int = 0,
) -> Report:
    """Measure everything in `Report`; writes report.json, report.md and pictures into `out`.

    Real video of the given levels is collected into `out` with the default mix of policies, and the
    look and frame skip of the model.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    name = model if isinstance(model, str) else type(model).__name__
    world = WorldModel.from_pretrained(model) if isinstance(model, str) else model
    length = PROMPT_FRAMES + AHEAD + 1
    store = ClipStore(_real_video(world, first_level, num_levels, difficulty, out), length)
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.choice(len(store), size=min(num_clips, len(store)), replace=False))
    clips_BTHWC = store.clips(indices)

    decoded = _batched(lambda clips: _reconstruct(world, clips), clips_BTHWC)
    survived, visible = coins_survived(decoded, clips_BTHWC)
    codes_BM = _batched(world.infer_actions, clips_BTHWC)
    predicted, at_random, strip = _predict(world, clips_BTHWC, codes_BM, rng)
    future = clips_BTHWC[:, PROMPT_FRAMES:][:, :AHEAD]
    copy_T = psnr(clips_BTHWC[:, PROMPT_FRAMES - 1 : PROMPT_FRAMES], future).mean(0)
    decoded_T = psnr(decoded[:, PROMPT_FRAMES:][:, :AHEAD], future).mean(0)
    starts_STHWC = clips_BTHWC[:: max(1, len(clips_BTHWC) // NUM_STARTS)][
        :NUM_STARTS, :PROMPT_FRAMES
    ]
    sharpness, detail, rollout_STHWC = _rollout_sharpness(world, starts_STHWC, rng)
    shift_KS2, held_KSHWC = _held_codes(world, starts_STHWC)

    _save_strip(out / "tokenizer.png", np.concatenate((clips_BTHWC[:6], decoded[:6]), 1))
    _save_strip(out / "prediction.png", strip[:6])
    _save_strip(out / "rollout.png", rollout_STHWC[:, ::4])
    first_SHWC = rollout_STHWC[:, 0]
    _save_strip(
        out / "codes.png", np.concatenate((first_SHWC[:, None], held_KSHWC.swapaxes(0, 1)), 1)
    )
    report = Report(
        model=name,
        protocol=(
            f"{len(indices)} clips of {length} frames, {difficulty} levels {first_level} to "
            f"{first_level + num_levels - 1}, {world.config.look} look, frame_skip "
            f"{world.config.frame_skip}, the default mix of policies; predictions start from "
            f"{PROMPT_FRAMES} frames; "
            f"rollouts and held codes from {len(starts_STHWC)} starts, {world.config.sampling}; "
            f"seed {seed}."
        ),
        tokenizer_psnr=float(psnr(decoded, clips_BTHWC).mean()),
        worst_patches_psnr=worst_patches_psnr(decoded, clips_BTHWC),
        coins_survived=survived,
        coins_visible=visible,
        code_perplexity=perplexity(torch.from_numpy(codes_BM), world.config.num_actions),
        prediction_psnr={str(t): predicted[t] for t in PREDICT_AT},
        copy_psnr={str(t): float(copy_T[t - 1]) for t in PREDICT_AT},
        decoded_psnr={str(t): float(decoded_T[t - 1]) for t in PREDICT_AT},
        delta_psnr_4=predicted[4] - at_random[4],
        sharpness=sharpness,
        detail=detail,
        scene_shift_KS2=shift_KS2.round(2).tolist(),
        same_way_K=same_way(shift_KS2),
        same_way_median_K=same_way(shift_KS2, np.median),
        same_way_axes_K2=same_side(shift_KS2),
    )
    (out / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    (out / "report.md").write_text(report.table() + "\n")
    return report


def same_way(
    shift_KS2: np.ndarray, centre: Callable[[np.ndarray, int], np.ndarray] = np.mean
) -> list[int]:
    """Per code the starts whose shift points, within 60 degrees, as the other starts' mean does;
    each start's mean (or median) over the codes is taken off first: gravity, speed and camera."""
    if shift_KS2.shape[1] < 2:
        raise ValueError(f"{shift_KS2.shape[1]} start; at least 2 are needed to compare")
    own = shift_KS2 - centre(shift_KS2, 0)
    others = (own.sum(1, keepdims=True) - own) / (own.shape[1] - 1)
    length = np.linalg.norm(own, axis=-1) * np.linalg.norm(others, axis=-1)
    cosine = (own * others).sum(-1) / np.maximum(length, 1e-9)
    moved = np.linalg.norm(own, axis=-1) >= LEAST_SHIFT
    return [int(count) for count in ((cosine > SAME_WAY) & moved).sum(1)]


def same_side(shift_KS2: np.ndarray) -> list[list[int]]:
    """Per code and axis (down, right) the starts that shift to the side to which more of them do,
    each start's mean over the codes taken off first."""
    own = shift_KS2 - shift_KS2.mean(0)
    to_plus, to_minus = (own >= LEAST_SHIFT).sum(1), (own <= -LEAST_SHIFT).sum(1)
    return np.maximum(to_plus, to_minus).tolist()


def _real_video(
    world: WorldModel, first_level: int, num_levels: int, difficulty: str, out: Path
) -> Path:
    config = world.config
    if config.look not in ("plain", "full"):
        raise ValueError(
            f"the model was trained on look {config.look!r}; `genie eval` compares with the real "
            "CoinRun, whose looks are plain and full"
        )
    return collect(
        CollectConfig(
            out=str(
                out / f"video-{first_level}-{num_levels}-{difficulty}-{config.look}"
                f"-skip{config.frame_skip}"
            ),
            num_frames=16_384,
            shard_frames=16_384,
            look=config.look,
            difficulty=difficulty,
            start_level=first_level,
            num_levels=num_levels,
            frame_skip=config.frame_skip,
            seed=20_000,
        )
    )


def _batched(function, clips_BTHWC: np.ndarray, size: int = 16) -> np.ndarray:
    return np.concatenate(
        [function(clips_BTHWC[i : i + size]) for i in range(0, len(clips_BTHWC), size)]
    )


@torch.no_grad()
def _reconstruct(world: WorldModel, clips_BTHWC: np.ndarray) -> np.ndarray:
    frames = torch.from_numpy(clips_BTHWC).to(world.device)
    return world.tokenizer.decode(world.tokenizer.encode(frames)).cpu().numpy()


def _predict(
    world: WorldModel, clips_BTHWC: np.ndarray, codes_BM: np.ndarray, rng: np.random.Generator
) -> tuple[dict[int, float], dict[int, float], np.ndarray]:
    """Mean PSNR after t steps with inferred and with random actions, and strips: the real
    future above the dreamt one."""
    future = clips_BTHWC[:, PROMPT_FRAMES:][:, :AHEAD]
    means: list[dict[int, float]] = []
    dreams = []
    random_BM = rng.integers(world.config.num_actions, size=codes_BM.shape)
    for actions_BM in (codes_BM, random_BM):
        state = world.start(clips_BTHWC[:, :PROMPT_FRAMES], seeds=range(len(clips_BTHWC)))
        frames = []
        for t in tqdm(range(AHEAD), desc="prediction", leave=False):
            world.step(state, actions_BM[:, PROMPT_FRAMES - 1 + t])
            frames.append(world.render(state))
        dream_BTHWC = np.stack(frames, 1)
        similar_BT = psnr(dream_BTHWC, future)
        means.append({t + 1: float(similar_BT[:, t].mean()) for t in range(AHEAD)})
        dreams.append(dream_BTHWC)
    strip = np.concatenate((future, dreams[0]), 1)
    return means[0], means[1], strip


def _rollout_sharpness(
    world: WorldModel, starts_STHWC: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, float], np.ndarray]:
    """Sharpness, detail and the frames of rollouts under random latent actions, each held for a
    few steps."""
    num_starts = len(starts_STHWC)
    state = world.start(starts_STHWC, seeds=range(num_starts))
    frames = [world.render(state)]
    action_S = rng.integers(world.config.num_actions, size=num_starts)
    for _ in tqdm(range(ROLLOUT_STEPS), desc="rollout", leave=False):
        drawn_S = rng.integers(world.config.num_actions, size=num_starts)
        action_S = np.where(rng.random(num_starts) < 0.4, drawn_S, action_S)
        world.step(state, action_S)
        frames.append(world.render(state))
    rollout_STHWC = np.stack(frames, 1)
    again = _batched(lambda clips: _reconstruct(world, clips), rollout_STHWC, 2)
    mean_T = psnr(again, rollout_STHWC).mean(0)
    detail_T = np.abs(np.diff(rollout_STHWC.astype(np.float32), axis=3)).mean((0, 2, 3, 4))
    sharpness = {str(t): float(mean_T[t]) for t in SHARP_AT}
    detail = {str(t): float(detail_T[t] / max(detail_T[0], 1e-9)) for t in SHARP_AT}
    return sharpness, detail, rollout_STHWC


def _held_codes(world: WorldModel, starts_STHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every code held from every start: shifts (K, S, 2) and the last frames (K, S, H, W, 3)."""
    num_starts, num_codes = len(starts_STHWC), world.config.num_actions
    shift_KS2 = np.zeros((num_codes, num_starts, 2))
    lasts = []
    for code in range(num_codes):
        # The same seeds for every code: what differs is the action alone.
        state = world.start(starts_STHWC, seeds=range(num_starts))
        before_SHWC = world.render(state)
        for _ in range(HELD_STEPS):
            world.step(state, np.full(num_starts, code))
            after_SHWC = world.render(state)
            shift_KS2[code] += [
                scene_shift(a, b) for a, b in zip(before_SHWC, after_SHWC, strict=True)
            ]
            before_SHWC = after_SHWC
        lasts.append(before_SHWC)
    return shift_KS2, np.stack(lasts)


def _save_strip(path: Path, strips_BTHWC: np.ndarray, scale: int = 2) -> None:
    """A row a strip, a column a frame."""
    B, T, H, W, C = strips_BTHWC.shape
    picture = Image.fromarray(strips_BTHWC.transpose(0, 2, 1, 3, 4).reshape(B * H, T * W, C))
    picture.resize((T * W * scale, B * H * scale), Image.Resampling.NEAREST).save(path)
