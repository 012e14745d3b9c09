"""Collect video of the real CoinRun into a clip store.

Shape legend: B worlds, T frames, H W C pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from genie_env.envs import coinrun
from genie_env.envs.coinrun import CoinRunVectorEnv
from training.data import clip_store
from training.data.clip_store import ClipWriter

VALIDATION_LEVELS = (10_000, 1_000)
"""First level and number of levels; training has 0-9,999, reports 20,000 and above."""


@dataclass(frozen=True)
class CollectConfig:
    """What to collect, and where to."""

    out: str
    """Folder of the clip store; an interrupted collection of the same config goes on there."""
    num_frames: int = 1_000_000
    """Frames to store, rounded up to a multiple of `num_envs` in each shard."""
    look: str = "full"
    """"full", or "plain": no backgrounds, one theme."""
    difficulty: str = "easy"
    """"easy" or "hard", the engine's distribution mode."""
    start_level: int = 0
    """First level. Training uses 0-9,999, validation 10,000-10,999, reports 20,000 and above."""
    num_levels: int = 10_000
    """Levels are drawn from [start_level, start_level + num_levels)."""
    frame_skip: int = 3
    """Engine steps for which each action is held; one frame is stored after each hold."""
    seed: int = 0
    """Levels and policies of shard k follow from (seed, k) alone."""
    num_envs: int = 64
    """Worlds played side by side."""
    shard_frames: int = 65_536
    """Frames in a shard (805 MB at 64x64): what a killed collection loses at most."""
    mix: Mapping[str, float] = field(
        default_factory=lambda: {"walker": 0.75, "runner": 0.15, "uniform": 0.1}
    )
    """Weights of the policies in `POLICIES`; each world draws one at the start of each episode.
    {"uniform": 1} is the paper's random policy."""
    redraw: float = 0.7
    """Chance that the policies "walker" and "jumper" draw a new action at a decision."""
    num_threads: int | None = None
    """Threads of the engine; None takes the cores this process may use."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "frame_skip", "num_envs", "shard_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 < self.redraw <= 1:
            raise ValueError(f"redraw must lie in (0, 1], got {self.redraw}")
        unknown = sorted(set(self.mix) - set(POLICIES))
        if unknown or not self.mix:
            raise ValueError(f"mix must name policies among {sorted(POLICIES)}, got {self.mix}")
        if min(self.mix.values()) < 0 or sum(self.mix.values()) <= 0:
            raise ValueError(f"mix must hold weights >= 0 with a positive sum, got {self.mix}")


Policy = Callable[[np.random.Generator, np.ndarray, np.ndarray, float], np.ndarray]


def _uniform(rng: np.random.Generator, last_B: np.ndarray, fresh_B: np.ndarray, redraw: float):
    return rng.integers(coinrun.NUM_ACTIONS, size=len(last_B))


def _redraws(percent: list[int]) -> Policy:
    """Keeps its last action with probability 1 - redraw. `percent`: how often each of the nine
    distinct buttons is drawn, in engine order: left+down, left, left+jump, down, no-op, jump,
    right+down, right, right+jump. Right-biased, so that the agent sees more than the first
    screen, with enough of every other button that each one's effect is in the data: what is rare
    there shares a latent action with something common."""
    weights = np.array(percent, np.float64) / sum(percent)

    def policy(rng: np.random.Generator, last_B: np.ndarray, fresh_B: np.ndarray, redraw: float):
        drawn_B = rng.choice(len(weights), size=len(last_B), p=weights)
        return np.where(fresh_B | (rng.random(len(last_B)) < redraw), drawn_B, last_B)

    return policy


def _runner(rng: np.random.Generator, last_B: np.ndarray, fresh_B: np.ndarray, redraw: float):
    # Held for 4 decisions on average: long enough to clear walls and gaps.
    choices = np.array([coinrun.RIGHT_JUMP, coinrun.RIGHT, coinrun.LEFT_JUMP, coinrun.NOOP])
    drawn_B = rng.choice(choices, size=len(last_B), p=[0.72, 0.2, 0.05, 0.03])
    return np.where(fresh_B | (rng.random(len(last_B)) < 0.25), drawn_B, last_B)


# A jump lasts about five holds: one press in eight leaves the agent on the ground for more than
# half of the time, one in two for a tenth of it.
POLICIES: dict[str, Policy] = {
    "uniform": _uniform,
    "walker": _redraws([2, 24, 5, 2, 22, 5, 2, 33, 5]),
    "jumper": _redraws([2, 12, 10, 3, 8, 12, 3, 22, 28]),
    "runner": _runner,
}
"""name -> (rng, last actions (B,), fresh episode (B,), redraw) -> actions (B,):
"uniform" draws from the 15 buttons at each decision, "walker" draws often and seldom jumps,
"jumper" draws often and jumps at half of its decisions, "runner" runs to the right and jumps."""


class MixedPolicy:
    """Draws one policy of `mix` a world and episode, and acts with it."""

    def __init__(
        self, mix: Mapping[str, float], redraw: float, num_envs: int, rng: np.random.Generator
    ) -> None:
        self._names = sorted(mix)
        weights = np.array([mix[name] for name in self._names], np.float64)
        self._weights = weights / weights.sum()
        self._redraw = redraw
        self._rng = rng
        self._policy_B = np.zeros(num_envs, np.int64)
        self._action_B = np.full(num_envs, coinrun.NOOP, np.int64)

    def act(self, fresh_B: np.ndarray) -> np.ndarray:
        """Next actions, int64 (B,). `fresh_B` bool (B,): worlds that begin an episode."""
        drawn_B = self._rng.choice(len(self._names), size=len(fresh_B), p=self._weights)
        self._policy_B = np.where(fresh_B, drawn_B, self._policy_B)
        action_B = self._action_B
        for number, name in enumerate(self._names):
            # Every policy draws for every world, so that one world's luck moves no other's.
            chosen_B = POLICIES[name](self._rng, self._action_B, fresh_B, self._redraw)
            action_B = np.where(self._policy_B == number, chosen_B, action_B)
        self._action_B = action_B
        return action_B


def collect(config: CollectConfig, progress: bool = True) -> Path:
    """Play CoinRun as `config` says and store frames, and labels apart from them.

    Complete shards that are there already are kept, so a killed collection goes on where it was,
    and ends with the same bytes as one that was never stopped. A larger `num_frames` extends it.
    Prints the number of frames and frames a second at the end.

    A segment is one episode's consecutive frames. Its last frame is the last one before the
    engine's reset; where a level ends in the middle of a hold, the frame after the last full hold.

    Returns:
        The store's folder.

    Raises:
        ValueError: the folder holds a collection of another config, or the environment refuses
            the config's look, difficulty or levels.
        StoreFullError: the disk is full; complete shards stay.
        ImportError: the engine is not installed.
    """
    _make_env(config, 0).close()  # bad arguments are refused before anything is written
    out = Path(config.out)
    recorded = {
        name: value
        for name, value in asdict(config).items()
        if name not in ("out", "num_frames", "num_threads")
    }
    recorded["mix"] = dict(config.mix)
    source = {"kind": "coinrun", **recorded}
    if (out / "meta.json").exists():
        found = clip_store.read_meta(out)["source"]
        if found != source:
            differing = {
                name: (found.get(name), source.get(name))
                for name in found.keys() | source.keys()
                if found.get(name) != source.get(name)
            }
            raise ValueError(
                f"{out} holds a collection of another config (there, asked): {differing}; "
                "choose another folder"
            )
    else:
        clip_store.write_meta(
            out,
            frame_size=coinrun.FRAME_SIZE,
            frame_skip=config.frame_skip,
            fps=coinrun.ENGINE_FPS / config.frame_skip,
            look=config.look,
            source=source,
        )

    num_shards = math.ceil(config.num_frames / config.shard_frames)
    collected, started = 0, time.perf_counter()
    with tqdm(total=config.num_frames, unit="frame", unit_scale=True, disable=not progress) as bar:
        for shard in range(num_shards):
            asked = min(config.shard_frames, config.num_frames - shard * config.shard_frames)
            steps = math.ceil(asked / config.num_envs)
            if _frames_there(out, shard) >= steps * config.num_envs:
                bar.update(asked)
                continue
            _collect_shard(config, out, shard, steps, bar)
            collected += steps * config.num_envs
    seconds = time.perf_counter() - started
    print(
        f"{out}: {collected:,} frames collected in {seconds:.1f} s "
        f"({collected / seconds:,.0f} frames/s), {num_shards} shards in all"
    )
    return out


def _frames_there(out: Path, shard: int) -> int:
    path = clip_store.frames_path(out, shard)
    return len(np.load(path, mmap_mode="r")) if path.exists() else 0


def _make_env(config: CollectConfig, engine_seed: int) -> CoinRunVectorEnv:
    return CoinRunVectorEnv(
        config.num_envs,
        look=config.look,
        difficulty=config.difficulty,
        start_level=config.start_level,
        num_levels=config.num_levels,
        seed=engine_seed,
        frame_skip=config.frame_skip,
        num_threads=config.num_threads,
    )


def _collect_shard(config: CollectConfig, out: Path, shard: int, steps: int, bar: Any) -> None:
    engine_seed, policy_seed = np.random.SeedSequence([config.seed, shard]).generate_state(2)
    num_envs, size = config.num_envs, coinrun.FRAME_SIZE
    env = _make_env(config, int(engine_seed) % (2**31 - 1))
    policy = MixedPolicy(
        config.mix, config.redraw, num_envs, np.random.default_rng(int(policy_seed))
    )
    # One open episode a world, written out when it ends. World first: a segment is contiguous.
    longest = min(steps, coinrun.MAX_ENGINE_STEPS // config.frame_skip + 1)
    frames_BTHWC = np.empty((num_envs, longest, size, size, 3), np.uint8)
    actions_BT = np.full((num_envs, longest), -1, np.int8)
    rewards_BT = np.zeros((num_envs, longest), np.float32)
    level_B = np.zeros(num_envs, np.int32)
    length_B = np.zeros(num_envs, np.int64)
    worlds_B = np.arange(num_envs)

    def write_segment(b: int, outcome: int) -> None:
        length = length_B[b]
        labels = {
            "actions": actions_BT[b, :length],
            "rewards": rewards_BT[b, :length],
            "level_seeds": np.full(length, level_B[b]),
        }
        writer.add(frames_BTHWC[b, :length], labels, outcome)
        length_B[b] = 0

    with ClipWriter(out, shard, size, expected_frames=steps * num_envs) as writer:
        obs_BHWC, infos = env.reset()
        fresh_B = np.ones(num_envs, bool)
        for step in range(steps):
            level_B[:] = infos["level_seed"]
            for b in range(num_envs):
                frames_BTHWC[b, length_B[b]] = obs_BHWC[b]
            # Not known, unless a step from here follows below.
            actions_BT[worlds_B, length_B] = -1
            rewards_BT[worlds_B, length_B] = 0
            length_B += 1
            bar.update(num_envs)
            if step == steps - 1:
                break
            action_B = policy.act(fresh_B)
            obs_BHWC, reward_B, terminated_B, truncated_B, infos = env.step(action_B)
            fresh_B = terminated_B | truncated_B
            actions_BT[worlds_B, length_B - 1] = action_B
            rewards_BT[worlds_B, length_B - 1] = reward_B
            for b in np.flatnonzero(fresh_B):
                if infos["success"][b]:
                    outcome = clip_store.SUCCESS
                else:
                    outcome = clip_store.TRUNCATION if truncated_B[b] else clip_store.DEATH
                write_segment(b, outcome)
        for b in range(num_envs):
            write_segment(b, clip_store.CUT)
    env.close()
