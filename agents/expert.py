"""An expert of the real game, and its videos.

The engine's state can be put back, so the expert need not be found by reward alone: ways through
levels are searched (`agents.search`), a network learns to walk them, and the next search tries what
the network would do. So its mistakes are mended where it makes them. A round of that costs
minutes where PPO takes hours.

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
from agents.latent_bc.clone import DecidedClips, clone, fast, trained, true_buttons
from agents.networks import Policy, fingerprint
from agents.score import Levels
from agents.search import Ways, find_ways
from genie_env.envs import coinrun
from genie_env.envs.coinrun import PLAIN_BUTTONS, CoinRunVectorEnv
from training.data.clip_store import (
    SUCCESS,
    ClipStore,
    ClipWriter,
    list_shards,
    write_json,
    write_meta,
)
from training.data.collect import VALIDATION_LEVELS

RUNNER = np.array((0.03, 0.01, 0.52, 0.01, 0.01, 0.42))
"""How often somebody presses each button who knows only that coins are on the right."""
AT_ONCE = 256
SHARD_EPISODES = 1_000


def runner(obs_BHWC: np.ndarray) -> np.ndarray:
    """Who plays before there is a policy: the same logits (B, A) whatever is seen."""
    return np.tile(np.log(RUNNER), (len(obs_BHWC), 1))


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
    return Levels(config.look, difficulty, config.first_level, config.num_levels)


def _read_ways(path: Path) -> Ways:
    return [None if way is None else np.array(way) for way in json.loads(path.read_text())]


def train_expert(config: ExpertConfig) -> Policy:
    """Search and cloning in turn; ends with the policy in `config.run`. The same command goes on
    where it stopped.

    Raises ValueError for a run of another config or with more rounds than levels, ImportError
    without the engine.
    """
    if not 1 <= config.rounds <= config.num_levels:
        raise ValueError(f"rounds={config.rounds}; accepted: 1 to num_levels={config.num_levels}")
    remember(config, config.run / "expert.json", apart=("run",))
    levels = {difficulty: _levels(config, difficulty) for difficulty in config.difficulties}
    policy: Policy | None = None
    stores: list[Path] = []
    for number in range(config.rounds):
        folder = config.run / f"round-{number}"
        shares = [_share(some, number, config.rounds) for some in levels.values()]
        found = [_find(config, folder, share, policy, number) for share in shares]
        # The runner's ways teach the first network only: all others know better.
        stores = found if number < 2 else stores + found
        policy = _learn(config, folder, stores, policy)
    assert policy is not None
    policy.save(config.run, {"frame_skip": config.frame_skip, "look": config.look})
    return policy


def _share(levels: Levels, number: int, of: int) -> Levels:
    first, end = (levels.count * n // of for n in (number, number + 1))
    return replace(levels, first=levels.first + first, count=end - first)


def _find(
    config: ExpertConfig, folder: Path, levels: Levels, policy: Policy | None, seed: int
) -> Path:
    """A clip store of the ways through some levels."""
    path = folder / f"ways-{levels.difficulty}.json"
    if not path.exists():
        propose = runner if policy is None else partial(_opinion, policy)
        what = f"{folder.name}, {levels.difficulty}"
        seeds = (config.seed, seed)
        ways = find_ways(levels, config.frame_skip, propose, config.search, seeds, what)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, [None if way is None else way.tolist() for way in ways])
    ways = _read_ways(path)
    lengths = [len(way) for way in ways if way is not None]
    print(
        f"{path}: ways through {len(lengths)} of {len(ways)} levels, {np.mean(lengths):.1f} steps "
        "long"
    )
    source = {"run": config.run.name, "part": folder.name}
    return record(folder / levels.difficulty, levels, config.frame_skip, ways, source).paths[0]


def _opinion(policy: Policy, obs_BHWC: np.ndarray) -> np.ndarray:
    return policy.logits(obs_BHWC)[0]


def _learn(
    config: ExpertConfig, folder: Path, stores: Sequence[Path], before: Policy | None
) -> Policy:
    def train(run: Path) -> Policy:
        store = ClipStore(list(stores), 1)
        clips = DecidedClips(store, true_buttons(store))
        return clone(config.clone, len(PLAIN_BUTTONS), clips, run, start_from=before)

    return trained(folder, train)


def record_expert(run: Path, out: Path) -> dict[str, ClipStore]:
    """Videos of the trained expert on its levels: what it does, and where that ends badly what the
    search found instead. One clip store a difficulty."""
    config = read_config(run)
    policy = fast(Policy.load(run))
    remember(config, out / "expert.json", apart=("run",), weights=fingerprint(policy))
    stores = {}
    for difficulty in config.difficulties:
        path = _find(config, out, _levels(config, difficulty), policy, config.rounds)
        stores[difficulty] = ClipStore(path, 1)
    return stores


def read_config(run: Path) -> ExpertConfig:
    """Of an expert's run. FileNotFoundError where there is none."""
    path = run / "expert.json"
    if not path.exists():
        raise FileNotFoundError(f"no expert in {run} (expected {path.name}): genie bc expert")
    config = dacite.Config(cast=[tuple, Path], strict=True)
    return dacite.from_dict(ExpertConfig, {**json.loads(path.read_text()), "run": run}, config)
