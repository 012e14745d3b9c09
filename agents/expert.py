"""Videos of an expert of the real game.

The expert looks ahead (`agents.plan`), and takes over now and then where somebody else has pressed
a few buttons by chance: who clones it makes mistakes, and must have seen what to do after them.

Shapes: B worlds, T frames, H W pixels, C = 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from agents.config import ExpertConfig, remember
from agents.plan import Try, Ways, carry_out, plan_ways
from agents.score import Levels
from genie_env.envs import coinrun
from genie_env.envs.coinrun import NOOP, PLAIN_BUTTONS, CoinRunVectorEnv
from training.data.clip_store import SUCCESS, ClipStore, ClipWriter, list_shards, write_meta
from training.data.collect import VALIDATION_LEVELS

AT_ONCE = 256


def record_expert(config: ExpertConfig) -> dict[str, ClipStore]:
    """One clip store a difficulty, in `config.out`: episodes that end at the coin, the buttons in
    their labels. The same command goes on where it stopped.

    Raises ValueError for a folder of another config or levels that are not for training,
    ImportError without the engine.
    """
    first, _ = VALIDATION_LEVELS
    if config.first_level + config.num_levels > first:
        raise ValueError(
            f"levels {config.first_level} to {config.first_level + config.num_levels - 1}; "
            f"accepted: training levels, below {first:,}"
        )
    remember(config, config.out / "expert.json", apart=("out", "num_levels"))
    return {difficulty: _record(config, difficulty) for difficulty in config.difficulties}


def _record(config: ExpertConfig, difficulty: str) -> ClipStore:
    folder = config.out / difficulty
    write_meta(
        folder,
        frame_size=coinrun.FRAME_SIZE,
        frame_skip=config.frame_skip,
        fps=coinrun.ENGINE_FPS / config.frame_skip,
        look=config.look,
        source={"kind": "expert", "difficulty": difficulty},
    )
    there = set(list_shards(folder))
    for shard, skipped in enumerate(range(0, config.num_levels, config.shard_levels)):
        if shard not in there:
            count = min(config.shard_levels, config.num_levels - skipped)
            levels = Levels(config.look, difficulty, config.first_level + skipped, count)
            _record_shard(config, folder, shard, levels)
    return ClipStore(folder, 1)


def _record_shard(config: ExpertConfig, folder: Path, shard: int, levels: Levels) -> None:
    rng = np.random.default_rng((config.seed, levels.first))

    def plan(starts: Sequence[bytes], what: str) -> Ways:
        what = f"{folder}, shard {shard}, {what}"
        return plan_ways(
            starts, levels.look, levels.difficulty, config.frame_skip, config.plan, what
        )

    starts, numbers = list(levels.states), list(range(levels.count))
    ways = plan(starts, "levels")
    known = [(n, way) for n, way in enumerate(ways) if way is not None]
    for _ in range(config.handovers):
        befores = [_meddled(way, rng) for _, way in known]
        states = reach([starts[n] for n, _ in known], befores, levels, config.frame_skip)
        reached = [
            (n, state) for (n, _), state in zip(known, states, strict=True) if state is not None
        ]
        ways += plan([state for _, state in reached], "handed over")
        numbers += [n for n, _ in reached]
        starts += [state for _, state in reached]
    found = [
        (n, start, way) for n, start, way in zip(numbers, starts, ways, strict=True)
        if way is not None
    ]  # fmt: skip
    with ClipWriter(folder, shard, coinrun.FRAME_SIZE) as writer:
        seen = walk([s for _, s, _ in found], [w for *_, w in found], levels, config.frame_skip)
        for (number, _, way), frames_THWC in zip(found, seen, strict=True):
            labels = {
                "actions": way,
                "rewards": np.r_[np.zeros(len(way) - 1), 10.0],
                "level_seeds": np.full(len(way), levels.first + number),
            }
            writer.add(frames_THWC, labels, SUCCESS)


def _meddled(way: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Somewhere on a way, somebody presses a button or two by chance."""
    until = int(rng.integers(len(way)))
    by_chance = np.repeat(rng.choice(PLAIN_BUTTONS, 2), rng.integers(1, 4, 2))
    return np.r_[way[:until], by_chance]


def _worlds(count: int, levels: Levels, frame_skip: int) -> CoinRunVectorEnv:
    count = max(1, min(AT_ONCE, count))
    env = CoinRunVectorEnv(count, levels.look, levels.difficulty, frame_skip=frame_skip)
    env.reset()
    return env


def reach(
    starts: Sequence[bytes], befores: Sequence[np.ndarray], levels: Levels, frame_skip: int
) -> list[bytes | None]:
    """The states to which buttons lead; None where the level ends before."""
    states: list[bytes | None] = []
    env = _worlds(len(starts), levels, frame_skip)
    try:
        for first in range(0, len(starts), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            tries = [
                Try(start, [0.0], before)
                for start, before in zip(starts[some], befores[some], strict=True)
            ]
            carry_out(env, tries, every=1)
            states += [one.states[-1] if one.ended is None else None for one in tries]
    finally:
        env.close()
    return states


def walk(
    starts: Sequence[bytes], ways: Sequence[np.ndarray], levels: Levels, frame_skip: int
) -> Iterator[np.ndarray]:
    """What is seen on ways, frames uint8 (T, H, W, 3) of each, one before each button. The engine
    repeats itself exactly."""
    env = _worlds(len(starts), levels, frame_skip)
    try:
        for first in range(0, len(ways), AT_ONCE):
            some = ways[first : first + AT_ONCE]
            begin = [*starts[first : first + AT_ONCE]]
            obs, _ = env.set_states(begin + [begin[0]] * (env.num_envs - len(begin)))
            seen = []
            for step in range(max(len(way) for way in some)):
                seen.append(obs[: len(some)])
                pressed_B = np.full(env.num_envs, NOOP)
                pressed_B[: len(some)] = [way[step] if step < len(way) else NOOP for way in some]
                obs, *_ = env.step(pressed_B)
            for b, way in enumerate(some):
                yield np.stack([frames[b] for frames in seen[: len(way)]])
    finally:
        env.close()
