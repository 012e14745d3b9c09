"""Videos of an expert of the real game.

The expert looks ahead (`agents.plan`), and takes over now and then where somebody else has played:
by chance, or a novice who is about to fail. Who clones it makes mistakes, and must have seen what
to do before and after them (Ross et al., 2011; Kelly et al., 2019).

Shapes: B worlds, T frames, H W pixels, C = 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agents.config import ExpertConfig
from agents.latent_bc.clone import fast
from agents.latent_bc.policy import RealPolicy
from agents.networks import Policy, fingerprint
from agents.plan import Try, carry_out, plan_ways
from agents.score import Levels
from genie_env.envs import coinrun
from genie_env.envs.coinrun import NOOP, PLAIN_BUTTONS, CoinRunVectorEnv
from training.data.clip_store import SUCCESS, ClipStore, ClipWriter, list_shards, write_meta
from training.data.collect import VALIDATION_LEVELS
from training.remember import remember

AT_ONCE = 256
MAX_STEPS = 100
"""After which a novice has failed."""
BEFORE_THE_END = (2, 3, 4, 6, 8, 12)
"""Steps before a novice fails at which the expert may take over."""


class Episode(NamedTuple):
    """Of the expert."""

    level: int
    """Its number among those of a shard."""
    start: bytes
    """The state in which the expert begins."""
    way: np.ndarray
    """The buttons it presses, int64 (T,)."""


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
    novice = {} if config.novice is None else {"weights": fingerprint(Policy.load(config.novice))}
    apart = ("out", "num_levels", "difficulties")
    remember(config, config.out / "expert.json", apart, **novice)
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
    episodes: list[Episode] = []

    def play(numbers: Sequence[int], starts: Sequence[bytes], what: str) -> list[Episode]:
        ways = plan_ways(
            starts, levels.look, levels.difficulty, config.frame_skip, config.plan,
            f"{folder}, shard {shard}, {what}",
        )  # fmt: skip
        found = zip(numbers, starts, ways, strict=True)
        return [Episode(n, start, way) for n, start, way in found if way is not None]

    def take_over(numbers: Sequence[int], befores: Sequence[np.ndarray]) -> list[Episode]:
        starts = [levels.states[n] for n in numbers]
        states = reach(starts, befores, levels, config.frame_skip)
        reached = {n: state for n, state in zip(numbers, states, strict=True) if state is not None}
        return play(list(reached), list(reached.values()), "taken over")

    if config.novice is not None:
        novice = RealPolicy(fast(Policy.load(config.novice)), seed=int(rng.integers(2**31)))
        failed = mistakes(novice, levels, config.frame_skip)
        # As late as it still can: by then what it takes over for is to be seen.
        for back in BEFORE_THE_END:
            befores = [pressed[: max(0, len(pressed) - back)] for pressed in failed.values()]
            episodes += take_over(list(failed), befores)
            mended = {episode.level for episode in episodes}
            failed = {n: pressed for n, pressed in failed.items() if n not in mended}
    else:
        whole = play(range(levels.count), levels.states, "levels")
        episodes += whole
        for _ in range(config.handovers):
            befores = [_meddled(episode.way, rng) for episode in whole]
            episodes += take_over([episode.level for episode in whole], befores)
    if not episodes:
        return  # a novice who fails nothing has nothing to see
    with ClipWriter(folder, shard, coinrun.FRAME_SIZE) as writer:
        starts, ways = [e.start for e in episodes], [e.way for e in episodes]
        seen = walk(starts, ways, levels, config.frame_skip)
        for episode, frames_THWC in zip(episodes, seen, strict=True):
            length = len(episode.way)
            labels = {
                "actions": episode.way,
                "rewards": np.r_[np.zeros(length - 1), 10.0],
                "level_seeds": np.full(length, levels.first + episode.level),
            }
            writer.add(frames_THWC, labels, SUCCESS)


def _meddled(way: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Somewhere on a way, somebody presses a button or two by chance."""
    until = int(rng.integers(len(way)))
    by_chance = np.repeat(rng.choice(PLAIN_BUTTONS, 2), rng.integers(1, 4, 2))
    return np.r_[way[:until], by_chance]


def mistakes(novice: RealPolicy, levels: Levels, frame_skip: int) -> dict[int, np.ndarray]:
    """Of each level that a policy fails, what it pressed until then."""
    failed: dict[int, np.ndarray] = {}
    env = _worlds(levels.count, levels, frame_skip)
    try:
        for first in range(0, levels.count, AT_ONCE):
            some = levels.states[first : first + AT_ONCE]
            obs, _ = env.set_states(some + [some[0]] * (env.num_envs - len(some)))
            going_B = np.arange(env.num_envs) < len(some)
            past, pressed = None, []
            for _ in range(MAX_STEPS):
                buttons_B, past = novice.predict(obs, past)
                pressed.append(buttons_B)
                obs, _, terminated_B, truncated_B, infos = env.step(buttons_B)
                for b in np.flatnonzero((terminated_B | truncated_B) & going_B):
                    going_B[b] = False
                    if not infos["success"][b]:
                        failed[first + b] = np.array([buttons_B[b] for buttons_B in pressed])
                if not going_B.any():
                    break
            for b in np.flatnonzero(going_B):
                failed[first + b] = np.array([buttons_B[b] for buttons_B in pressed])
    finally:
        env.close()
    return failed


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
                Try(start, [], before)
                for start, before in zip(starts[some], befores[some], strict=True)
            ]
            carry_out(env, tries, every=1)
            states += [[one.start, *one.states][-1] if one.ended is None else None for one in tries]
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
