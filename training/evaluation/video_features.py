"""Features of short videos, for the Frechet video distance: a small 3D-convolutional network.

It is trained on the real game alone, to tell which button was pressed at each transition and in
which way a clip was damaged; no world model had a part in it. The weights beside this file come
from

    python -m training.evaluation.video_features

Shapes: B clips of a batch, S clips in all, T frames, M = T - 1 transitions, H W pixels, C = 3,
F features.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genie_env.envs import coinrun
from training.data.clip_store import ClipLabels, ClipStore
from training.data.collect import CollectConfig, collect

WEIGHTS = Path(__file__).with_suffix(".safetensors")
NUM_FEATURES = 128
MIN_FRAMES, MAX_FRAMES = 8, 16
TRAINING_LEVELS = (0, 10_000)
HELD_OUT_LEVELS = (10_000, 1_000)
"""First level and number of levels."""


def check_clips(frames: np.ndarray | Tensor) -> None:
    """Raises TypeError or ValueError unless uint8 (S >= 1, T, 64, 64, 3), T even, 8 to 16."""
    if frames.dtype not in (np.uint8, torch.uint8):
        raise TypeError(f"clips must be uint8, got {frames.dtype}")
    size = coinrun.FRAME_SIZE
    shape = tuple(frames.shape)
    if len(shape) != 5 or shape[0] < 1 or shape[2:] != (size, size, 3):
        raise ValueError(f"clips must be (S >= 1, T, {size}, {size}, 3), got {shape}")
    if shape[1] % 2 or not MIN_FRAMES <= shape[1] <= MAX_FRAMES:
        raise ValueError(
            f"clips must have an even number of frames from {MIN_FRAMES} to {MAX_FRAMES}, "
            f"got {shape[1]}"
        )


class VideoFeatures(nn.Module):
    """uint8 clips (B, T, 64, 64, 3) to fp32 features (B, F), F = 128, each >= 0.

    T is even, 8 to 16. Nothing in it depends on the other clips of a batch. Raises as
    `check_clips` says.
    """

    def __init__(self) -> None:
        super().__init__()
        # Strides of 4 first, for the CPU's sake; a feature sees 11 frames.
        self.layers = nn.Sequential(
            *_conv(3, 48, (3, 6, 6), (1, 4, 4)),
            *_conv(48, 96, (3, 3, 3), (2, 2, 2)),
            *_conv(96, NUM_FEATURES, (3, 3, 3), (1, 2, 2)),
            *_conv(NUM_FEATURES, NUM_FEATURES, (3, 1, 1), (1, 1, 1)),
        )

    def over_time(self, frames_BTHWC: Tensor) -> Tensor:
        """Features pooled over space alone, one for every two frames: (B, T / 2, F)."""
        check_clips(frames_BTHWC)
        pixels = frames_BTHWC.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        return self.layers(pixels).mean((3, 4)).transpose(1, 2)

    def forward(self, frames_BTHWC: Tensor) -> Tensor:
        return self.over_time(frames_BTHWC).mean(1)


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]
) -> list[nn.Module]:
    padding = [(side - 1) // 2 for side in kernel]
    conv = nn.Conv3d(inputs, outputs, kernel, stride, padding)
    # PyTorch's default lets the signal fade from layer to layer.
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return [conv, nn.ReLU()]


@functools.cache
def load_video_features(path: str | Path = WEIGHTS) -> VideoFeatures:
    """The trained network, on the CPU in fp32; one object a path, so do not change it.

    Raises FileNotFoundError without the file, ValueError for a file of something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; `python -m training.evaluation.video_features --out {path}` "
            "trains it"
        )
    network = VideoFeatures().to(memory_format=torch.channels_last_3d)
    try:
        network.load_state_dict({name: w.float() for name, w in load_file(path).items()})
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} holds other weights than those of VideoFeatures: {error}"
        ) from error
    return network.eval().requires_grad_(False)


def video_features(frames_STHWC: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """Features of the shipped network: uint8 (S, T, 64, 64, 3), T even, 8 to 16, to fp32 (S, F)."""
    check_clips(frames_STHWC)
    network = load_video_features()
    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(np.ascontiguousarray(frames_STHWC[i : i + batch_size])))
            for i in range(0, len(frames_STHWC), batch_size)
        ]
    return torch.cat(parts).numpy()


Damage = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _shuffled(clip_THWC: np.ndarray, other_THWC: np.ndarray, rng: np.random.Generator):
    return clip_THWC[rng.permutation(len(clip_THWC))]


def _frozen(clip_THWC: np.ndarray, other_THWC: np.ndarray, rng: np.random.Generator):
    T = len(clip_THWC)
    return clip_THWC[np.minimum(np.arange(T), rng.integers(0, T // 2 + 1))]


def _cut(clip_THWC: np.ndarray, other_THWC: np.ndarray, rng: np.random.Generator):
    T = len(clip_THWC)
    at = rng.integers(T // 4, T - T // 4 + 1)
    return np.concatenate((clip_THWC[:at], other_THWC[at:]))


def _spliced(clip_THWC: np.ndarray, other_THWC: np.ndarray, rng: np.random.Generator):
    size = clip_THWC.shape[1]
    height, width = rng.integers(12, 33, 2)
    y, x = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    spliced = clip_THWC.copy()
    spliced[:, y : y + height, x : x + width] = other_THWC[:, y : y + height, x : x + width]
    return spliced


def _blurred(clip_THWC: np.ndarray, other_THWC: np.ndarray, rng: np.random.Generator):
    size = clip_THWC.shape[1]
    pixels = torch.from_numpy(np.ascontiguousarray(clip_THWC)).permute(0, 3, 1, 2).float()
    small = F.interpolate(pixels, size=int(rng.integers(size // 4, size * 3 // 4)), mode="area")
    back = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return back.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def _noised(clip_THWC: np.ndarray, other_THWC: np.ndarray, rng: np.random.Generator):
    noise = rng.standard_normal(clip_THWC.shape, np.float32) * rng.uniform(4, 24)
    return (clip_THWC + noise).round().clip(0, 255).astype(np.uint8)


DAMAGES: dict[str, Damage] = {
    "none": lambda clip_THWC, other_THWC, rng: clip_THWC,
    "blurred": _blurred,
    "noised": _noised,
    "spliced": _spliced,
    "reversed": lambda clip_THWC, other_THWC, rng: clip_THWC[::-1],
    "shuffled": _shuffled,
    "frozen": _frozen,
    "cut": _cut,
}
"""name -> (clip uint8 (T, H, W, 3), another one of the same kind, rng) -> damaged clip.
"spliced": a rectangle of the other clip; "frozen": one frame of the first half to the end;
"cut": goes on as the other clip."""
MOVES_AS_BEFORE = ("none", "blurred", "noised", "spliced")
"""Damages after which the buttons can still be told."""


def damage(clips_BTHWC: np.ndarray, kind: str, seed: int = 0) -> np.ndarray:
    """All clips damaged in the way `DAMAGES` names; the other clip is the batch's next one."""
    if kind not in DAMAGES:
        raise ValueError(f"unknown damage {kind!r}; known: {', '.join(DAMAGES)}")
    rng = np.random.default_rng(seed)
    others = np.roll(clips_BTHWC, -1, 0)
    return np.stack([DAMAGES[kind](a, b, rng) for a, b in zip(clips_BTHWC, others, strict=True)])


def collect_sources(
    folder: str | Path, levels: tuple[int, int], frames_each: int, seed: int
) -> list[Path]:
    """Real video of both looks, both difficulties, frame skip 3 and 1: eight stores, collected
    where not there yet."""
    return [
        collect(
            CollectConfig(
                out=str(Path(folder) / f"{levels[0]}-{look}-{difficulty}-skip{frame_skip}"),
                num_frames=frames_each,
                shard_frames=frames_each,
                look=look,
                difficulty=difficulty,
                start_level=levels[0],
                num_levels=levels[1],
                frame_skip=frame_skip,
                seed=seed,
            ),
            progress=False,
        )
        for look, difficulty, frame_skip in product(coinrun.LOOKS, coinrun.DIFFICULTIES, (3, 1))
    ]


@dataclass(frozen=True)
class FeatureTrainingConfig:
    """How the feature network is trained."""

    out: str = str(WEIGHTS)
    """File for the weights (safetensors, fp16)."""
    videos: str = "data/video-features"
    """Folder for the clip stores that are trained on."""
    frames_each: int = 8_192
    """Frames collected of each of the eight kinds of video."""
    steps: int = 1_400
    clips_each: int = 4
    """Clips of each kind of video in a batch."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    seed: int = 0
    log_every: int = 250


class _Batches:
    """Draws clips with their targets, as many of each source."""

    def __init__(self, folders: Sequence[Path], clips_each: int, seed: int) -> None:
        self._stores = [ClipStore(folder, MAX_FRAMES) for folder in folders]
        self._labels = [ClipLabels(store) for store in self._stores]
        self._clips_each = clips_each
        self._rng = np.random.default_rng(seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Clips uint8 (B, T, H, W, 3), T = 8 or 16; kind of damage (B,); buttons (B, M), -100
        where the damage hides them."""
        rng = self._rng
        T = int(rng.choice((MIN_FRAMES, MAX_FRAMES)))
        names = list(DAMAGES)
        clips, kinds, buttons = [], [], []
        for store, labels in zip(self._stores, self._labels, strict=True):
            indices = rng.integers(len(store), size=self._clips_each)
            real = store.clips(indices)[:, :T]
            pressed_BM = coinrun.EFFECTIVE_ACTION[labels.actions(indices)[:, : T - 1]]
            for b, pressed_M in enumerate(pressed_BM):
                kind = int(rng.integers(len(names)))
                other = real[(b + 1) % len(real)]
                clips.append(DAMAGES[names[kind]](real[b], other, rng))
                kinds.append(kind)
                visible = names[kind] in MOVES_AS_BEFORE
                buttons.append(pressed_M if visible else np.full(T - 1, -100))
        return (
            torch.from_numpy(np.stack(clips)),
            torch.tensor(kinds),
            torch.from_numpy(np.stack(buttons)),
        )


class _Heads(nn.Module):
    """What the features must tell."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = nn.Linear(NUM_FEATURES, len(DAMAGES))
        self.buttons = nn.Linear(NUM_FEATURES, 2 * len(coinrun.DISTINCT_ACTIONS))

    def forward(self, features_BtF: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T / 2, F) to logits of the damage (B, kinds) and the buttons (B, M, 9)."""
        B, half, _ = features_BtF.shape
        # The last of T transitions leads out of the clip.
        buttons = self.buttons(features_BtF).view(B, 2 * half, -1)[:, :-1]
        return self.kind(features_BtF.mean(1)), buttons


def train(config: FeatureTrainingConfig) -> None:
    """Collect what is missing, train, write the weights, and print how well both targets are told
    on held-out levels."""
    videos = Path(config.videos)
    folders = collect_sources(videos, TRAINING_LEVELS, config.frames_each, config.seed)
    batches = _Batches(folders, config.clips_each, config.seed)
    torch.manual_seed(config.seed)
    network, heads = VideoFeatures().to(memory_format=torch.channels_last_3d), _Heads()
    weights = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(
        weights, config.learning_rate, weight_decay=config.weight_decay, foreach=True
    )
    started, mean = time.process_time(), np.zeros(2)
    for step in range(config.steps):
        warm = min(1.0, (step + 1) / config.warmup_steps)
        for group in optimizer.param_groups:
            fall = 0.5 * (1 + math.cos(math.pi * step / config.steps))
            group["lr"] = config.learning_rate * warm * fall
        clips, kinds, buttons = batches.draw()
        # bf16 halves the time on the CPU.
        with torch.autocast("cpu", torch.bfloat16):
            features = network.over_time(clips)
        of_kind, of_buttons = (logits.float() for logits in heads(features.float()))
        losses = (
            F.cross_entropy(of_kind, kinds),
            F.cross_entropy(of_buttons.flatten(0, 1), buttons.flatten()),
        )
        optimizer.zero_grad()
        (losses[0] + losses[1]).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        mean += [float(loss.detach()) / config.log_every for loss in losses]
        if (step + 1) % config.log_every == 0:
            seconds = time.process_time() - started
            print(
                f"step {step + 1}: damage {mean[0]:.3f}, buttons {mean[1]:.3f} nats, "
                f"{seconds:.0f} s of CPU",
                flush=True,
            )
            mean[:] = 0
    state = {name: w.detach().half().contiguous() for name, w in network.named_parameters()}
    recipe = {name: v for name, v in asdict(config).items() if name not in ("out", "videos")}
    save_file(state, config.out, metadata={"training": json.dumps(recipe)})

    held_out = collect_sources(videos, HELD_OUT_LEVELS, frames_each=2_048, seed=config.seed + 1)
    network.load_state_dict({name: weight.float() for name, weight in state.items()})
    print(_held_out_table(network, heads, _Batches(held_out, config.clips_each, config.seed)))


@torch.inference_mode()
def _held_out_table(network: VideoFeatures, heads: _Heads, batches: _Batches) -> str:
    right, cases = np.zeros(len(DAMAGES)), np.zeros(len(DAMAGES))
    buttons_right = right_pressed = buttons_seen = 0
    for _ in range(40):
        clips, kinds, buttons = batches.draw()
        of_kind, of_buttons = heads(network.over_time(clips))
        np.add.at(right, kinds.numpy(), (of_kind.argmax(-1) == kinds).numpy())
        np.add.at(cases, kinds.numpy(), 1)
        seen = buttons >= 0
        buttons_right += int((of_buttons.argmax(-1) == buttons)[seen].sum())
        right_pressed += int((buttons == coinrun.RIGHT).sum())
        buttons_seen += int(seen.sum())
    told = ", ".join(f"{n} {r / c:.2f}" for n, r, c in zip(DAMAGES, right, cases, strict=True))
    return (
        f"held-out levels, {int(cases.sum())} clips: damage told {right.sum() / cases.sum():.2f} "
        f"({told}; by chance {1 / len(DAMAGES):.2f}); buttons told "
        f"{buttons_right / buttons_seen:.2f} (always RIGHT: {right_pressed / buttons_seen:.2f})"
    )


if __name__ == "__main__":
    train(tyro.cli(FeatureTrainingConfig))
