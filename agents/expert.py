"""An expert of the real game, and its videos.

The engine can be put back to where a level began, so the expert need not be found by reward alone:
many ways through each level are tried, the shortest that reaches the coin is kept, a network learns
to walk those, and its own attempts are the next ones tried. A round of that costs minutes where PPO
takes hours.

Shapes: B worlds, L levels, T frames, H W pixels, C = 3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import dacite
import numpy as np

from agents.config import ExpertConfig, remember
from agents.latent_bc.clone import DecidedClips, clone, fast, network_of, true_buttons
from agents.latent_bc.policy import RealPolicy
from agents.networks import Policy
from agents.score import Act, Levels, Ways, frames_env, play
from genie_env.envs import coinrun
from genie_env.envs.coinrun import PLAIN_BUTTONS, CoinRunVectorEnv
from training.data.clip_store import (
    SUCCESS,
    ClipStore,
    ClipWriter,
    list_shards,
    write_meta,
)
from training.data.collect import VALIDATION_LEVELS

RUNNER = np.array((0.04, 0.02, 0.30, 0.08, 0.04, 0.52))
"""How often somebody presses each button who knows only that coins are on the right."""
KEEP_PRESSED = 0.65
AT_ONCE = 256
GIVE_UP = 0.04
"""A group of attempts ends when so few are still under way: those are no short ways."""
SHARD_EPISODES = 1_000


def runner(rng: np.random.Generator) -> Act:
    """Who tries levels before there is a policy."""
    held_B = np.zeros(AT_ONCE, np.int64)

    def act(obs: np.ndarray, worlds: np.ndarray, begin: bool) -> np.ndarray:
        drawn = rng.choice(PLAIN_BUTTONS, size=len(worlds), p=RUNNER)
        keep = (rng.random(len(worlds)) < KEEP_PRESSED) & (not begin)
        held_B[worlds] = np.where(keep, held_B[worlds], drawn)
        return held_B[worlds]

    return act


def attempt(levels: Levels, frame_skip: int, act: Act, max_steps: int, what: str) -> Ways:
    """One try at each level: the buttons that reached the coin."""
    make_env = partial(frames_env, levels, frame_skip)
    return play(act, make_env, levels, AT_ONCE, what, max_steps, GIVE_UP)


def shorter(ways: Ways, others: Ways) -> Ways:
    """The shorter way through each level."""
    return [
        b if a is None or (b is not None and len(b) < len(a)) else a
        for a, b in zip(ways, others, strict=True)
    ]


def walk(levels: Levels, frame_skip: int, ways: Ways) -> Iterator[tuple[int, np.ndarray]]:
    """What is seen on the known ways: index of the level, frames uint8 (T, H, W, 3), one before
    each button. The engine repeats itself exactly."""
    known = {level: way for level, way in enumerate(ways) if way is not None}
    env = CoinRunVectorEnv(
        min(AT_ONCE, len(known)), levels.look, levels.difficulty, frame_skip=frame_skip
    )
    try:
        for first in range(0, len(known), env.num_envs):
            some = list(known)[first : first + env.num_envs]
            filled = some + [some[0]] * (env.num_envs - len(some))
            buttons = [known[level] for level in filled]
            obs, _ = env.reset(options={"states": [levels.states[level] for level in filled]})
            seen = []
            for step in range(max(len(b) for b in buttons)):
                seen.append(obs)
                obs, *_ = env.step(
                    np.array([b[step] if step < len(b) else coinrun.NOOP for b in buttons])
                )
            for b, level in enumerate(some):
                yield level, np.stack([frames[b] for frames in seen[: len(buttons[b])]])
    finally:
        env.close()


def record(
    out: Path, levels: Levels, frame_skip: int, ways: Ways, source: Mapping[str, object]
) -> ClipStore:
    """The known ways as video in a clip store, the buttons in its labels. One that is there is
    taken as it is."""
    shards = -(-len([way for way in ways if way is not None]) // SHARD_EPISODES)
    if len(list_shards(out)) < shards:
        write_meta(
            out,
            frame_size=coinrun.FRAME_SIZE,
            frame_skip=frame_skip,
            fps=coinrun.ENGINE_FPS / frame_skip,
            look=levels.look,
            source={"kind": "expert", "difficulty": levels.difficulty, **source},
        )
        episodes = walk(levels, frame_skip, ways)
        for shard in range(shards):
            with ClipWriter(out, shard, coinrun.FRAME_SIZE) as writer:
                for _, (level, frames_THWC) in zip(range(SHARD_EPISODES), episodes, strict=False):
                    length = len(frames_THWC)
                    labels = {
                        "actions": ways[level],
                        "rewards": np.r_[np.zeros(length - 1), 10.0],
                        "level_seeds": np.full(length, levels.first + level),
                    }
                    writer.add(frames_THWC, labels, SUCCESS)
    return ClipStore(out, 1)


def _levels(config: ExpertConfig, difficulty: str) -> Levels:
    first, _ = VALIDATION_LEVELS
    if config.first_level + config.num_levels > first:
        raise ValueError(
            f"levels {config.first_level} to {config.first_level + config.num_levels - 1}; "
            f"accepted: training levels, below {first:,}"
        )
    return Levels.of(config.look, difficulty, config.first_level, config.num_levels)


def _write_ways(path: Path, ways: Ways) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([None if way is None else way.tolist() for way in ways]))
    partial.rename(path)


def _read_ways(path: Path) -> Ways:
    return [None if way is None else np.array(way) for way in json.loads(path.read_text())]


def train_expert(config: ExpertConfig) -> Policy:
    """Search and cloning in turn; ends with the policy in `config.run`. The same command goes on
    where it stopped.

    Raises ValueError for a run of another config, ImportError without the engine.
    """
    remember(config, config.run / "expert.json", apart=("run", "rounds"))
    levels = {difficulty: _levels(config, difficulty) for difficulty in config.difficulties}
    policy: Policy | None = None
    for number in range(config.rounds):
        folder = config.run / f"round-{number}"
        folder.mkdir(exist_ok=True)
        stores = []
        for difficulty, some in levels.items():
            ways = _search(config, folder, some, policy, number)
            lengths = [len(way) for way in ways if way is not None]
            print(
                f"round {number}, {difficulty}: ways through {len(lengths)} of {len(ways)} levels, "
                f"{np.mean(lengths):.1f} steps long"
            )
            source = {"round": number}
            store = folder / difficulty
            stores.append(record(store, some, config.frame_skip, ways, source).paths[0])
        policy = _learn(config, folder, stores, policy)
    assert policy is not None
    policy.save(config.run, {"frame_skip": config.frame_skip, "look": config.look})
    return policy


def _search(
    config: ExpertConfig, folder: Path, levels: Levels, policy: Policy | None, number: int
) -> Ways:
    """The shortest ways so far: those of earlier rounds and of new attempts."""
    path = folder / f"ways-{levels.difficulty}.json"
    if path.exists():
        return _read_ways(path)
    before = folder.with_name(f"round-{number - 1}") / path.name
    ways: Ways = _read_ways(before) if before.exists() else [None] * len(levels.states)
    rng = np.random.default_rng((config.seed, number))
    tries = config.first_attempts if policy is None else config.attempts
    for turn in range(tries):
        act = runner(rng) if policy is None else RealPolicy(policy, seed=turn).player()
        found = attempt(
            levels, config.frame_skip, act, config.max_steps, f"{levels.difficulty} {turn + 1}"
        )
        ways = shorter(ways, found)
    _write_ways(path, ways)
    return ways


def _learn(
    config: ExpertConfig, folder: Path, stores: Sequence[Path], before: Policy | None
) -> Policy:
    if (folder / "policy.json").exists():
        return fast(Policy.load(folder))
    store = ClipStore(list(stores), network_of(config.clone).num_frames)
    clips = DecidedClips(store, true_buttons(store))
    policy = clone(config.clone, len(PLAIN_BUTTONS), clips, folder / "clone", start_from=before)
    policy.save(folder)
    return fast(policy)


def record_expert(run: Path, out: Path, attempts: int = 4) -> dict[str, ClipStore]:
    """Videos of the trained expert: of each of its levels the first of some attempts that reaches
    the coin. One clip store a difficulty."""
    config = read_config(run)
    policy = fast(Policy.load(run))
    player = RealPolicy(policy, seed=config.seed).player()
    stores = {}
    for difficulty in config.difficulties:
        levels = _levels(config, difficulty)
        folder = out / difficulty
        path = run / f"demonstrations-{difficulty}.json"
        if not path.exists():
            ways: Ways = [None] * len(levels.states)
            for turn in range(attempts):
                left = [level for level, way in enumerate(ways) if way is None]
                if not left:
                    break
                rest = replace(levels, states=[levels.states[level] for level in left])
                found = attempt(
                    rest, config.frame_skip, player, config.max_steps,
                    f"{difficulty} {turn + 1}",
                )  # fmt: skip
                for level, way in zip(left, found, strict=True):
                    ways[level] = way
            _write_ways(path, ways)
        ways = _read_ways(path)
        stores[difficulty] = record(folder, levels, config.frame_skip, ways, {"run": run.name})
        episodes = sum(way is not None for way in ways)
        print(f"{folder}: {episodes} episodes, {stores[difficulty].num_frames} frames")
    return stores


def read_config(run: Path) -> ExpertConfig:
    """Of an expert's run. FileNotFoundError where there is none."""
    path = run / "expert.json"
    if not path.exists():
        raise FileNotFoundError(f"no expert in {run} (expected {path.name}): genie bc expert")
    config = dacite.Config(cast=[tuple, Path], strict=True)
    return dacite.from_dict(ExpertConfig, {**json.loads(path.read_text()), "run": run}, config)
