"""Record games of two players into a clip store: video, and the truth about it in files of its own.

Shapes: B games, P = 2 players, L balls, T frames of a game, N frames of a shard.
"""

from __future__ import annotations

import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from genie_env.envs import duel
from genie_env.envs.duel import Duel, Styles, draw_styles
from training.data.clip_store import ClipWriter, list_shards, read_meta, write_meta
from training.data.real_duels import MAX_BURN_IN, REAL_GAMES, Moment, scaled

AT_ONCE = 100
"""Games that are drawn together: styles follow from the seed of the first."""


@dataclass(frozen=True)
class DuelConfig:
    """Games to record."""

    out: str
    """Folder of the clip store; an interrupted recording of the same config goes on there."""
    game: Literal["duel", "cooperative_pong", "atari_pong"] = "duel"
    """`duel`: our own, no two alike. The others are real ones (`training.data.real_duels`)."""
    num_games: int = 20_000
    num_frames: int = 16
    """Of a game."""
    shard_games: int = 2_000
    first_shard: int = 0
    """Styles and play of a shard follow from its number alone; 1,000,000 and up are held out."""
    redraw: float = 0.8
    """Chance that a player who plays by chance does something else than before: what is kept up
    can be predicted, and what can be predicted is no action to a model."""
    reactive: float = 0.25
    """Share of players who follow a ball at every other step."""

    def __post_init__(self) -> None:
        if self.game not in ("duel", *REAL_GAMES):
            raise ValueError(f"unknown game {self.game!r}; known: duel, {', '.join(REAL_GAMES)}")
        for name in ("num_games", "num_frames", "shard_games"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("redraw", "reactive"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")


class Truth(NamedTuple):
    """What is true of the frames of one shard. Only evaluation may read it."""

    actions: np.ndarray
    """int8 (N, P): what the players do at each frame, leading to the next."""
    players: np.ndarray
    """fp32 (N, P, 4): left, top, right, bottom in pixels."""
    balls: np.ndarray
    """fp32 (N, L, 4), NaN where there is none."""
    score: np.ndarray
    """int8 (N, P)."""


class Players:
    """`count` times two who play by chance; some follow a ball when they feel like it."""

    def __init__(self, count: int, config: DuelConfig, rng: np.random.Generator) -> None:
        self._config, self._rng = config, rng
        self._last_BP = rng.integers(duel.NUM_ACTIONS, size=(count, 2))
        self._reactive_BP = rng.random((count, 2)) < config.reactive

    def act(self, off_BP: np.ndarray) -> np.ndarray:
        """Ints (B, P). off_BP: how much farther along than each paddle a ball is, pixels; NaN
        where there is none."""
        rng, shape = self._rng, self._last_BP.shape
        drawn_BP = rng.integers(duel.NUM_ACTIONS, size=shape)
        by_chance_BP = np.where(rng.random(shape) < self._config.redraw, drawn_BP, self._last_BP)
        follow_BP = np.where(off_BP > 2, duel.FORTH, np.where(off_BP < -2, duel.BACK, duel.STAY))
        follows_BP = self._reactive_BP & ~np.isnan(off_BP) & (rng.random(shape) < 0.5)
        self._last_BP = np.where(follows_BP, follow_BP, by_chance_BP)
        return self._last_BP


def play_games(
    count: int, num_frames: int, config: DuelConfig, seed: int
) -> tuple[np.ndarray, Truth]:
    """Frames uint8 (B, T, H, W, C) of so many games, and the truth with axes (B, T, ...)."""
    rng = np.random.default_rng(seed)
    if config.game == "duel":
        return play_duels(draw_styles(rng, count), num_frames, config, rng)
    return _play_real(count, num_frames, config, rng)


def play_duels(
    styles: Styles, num_frames: int, config: DuelConfig, rng: np.random.Generator
) -> tuple[np.ndarray, Truth]:
    """The same of games of our own, of these styles."""
    game = Duel(styles, rng)
    players = Players(game.num_games, config, rng)
    frames, truths = [], []
    for _ in range(num_frames):
        frames.append(game.render())
        boxes, balls = game.boxes()
        off_BP = np.where(game.present_BL[:, :1], game.ball[:, :1, 1] - game.paddle, np.nan)
        actions_BP = players.act(off_BP)
        truths.append((actions_BP.astype(np.int8), boxes, balls, game.score.astype(np.int8)))
        game.step(actions_BP)
    columns = (np.stack(column, 1) for column in zip(*truths, strict=True))
    return np.stack(frames, 1), Truth(*columns)


def _play_real(
    count: int, num_frames: int, config: DuelConfig, rng: np.random.Generator
) -> tuple[np.ndarray, Truth]:
    """Each game is cut out of a longer one, from anywhere in which it does not end."""
    real = REAL_GAMES[config.game]()
    games: list[list[tuple[Moment, np.ndarray]]] = []
    try:
        moment = scaled(real.reset(int(rng.integers(2**31))))
        while len(games) < count:
            players = Players(1, config, rng)
            seen: list[tuple[Moment, np.ndarray]] = []
            for _ in range(int(rng.integers(MAX_BURN_IN)) + num_frames):
                if moment.over:
                    moment = scaled(real.reset(int(rng.integers(2**31))))
                    break
                middle_P = (moment.players[:, 1] + moment.players[:, 3]) / 2
                off_P = (moment.ball[1] + moment.ball[3]) / 2 - middle_P
                actions_P = players.act(off_P[None])[0]
                seen.append((moment, actions_P))
                moment = scaled(real.step(actions_P))
            else:
                games.append(seen[-num_frames:])
    finally:
        real.close()
    balls = np.full((count, num_frames, duel.MAX_BALLS, 4), np.nan, np.float32)
    balls[:, :, 0] = [[moment.ball for moment, _ in game] for game in games]
    return np.array([[moment.frame for moment, _ in game] for game in games]), Truth(
        np.array([[actions_P for _, actions_P in game] for game in games], np.int8),
        np.array([[moment.players for moment, _ in game] for game in games], np.float32),
        balls,
        np.array([[moment.score for moment, _ in game] for game in games], np.int8),
    )


def record_duels(config: DuelConfig) -> Path:
    """Record what is not there yet; returns the folder. Raises ValueError for the folder of
    another config."""
    folder = Path(config.out)
    source = {"kind": "duel", **{k: v for k, v in asdict(config).items() if k != "out"}}
    if (folder / "meta.json").exists():
        found = read_meta(folder)["source"]
        if {**found, "num_games": 0} != {**source, "num_games": 0}:
            raise ValueError(f"{folder} holds games of another config: {found}, not {source}")
    write_meta(folder, frame_size=duel.SIZE, frame_skip=1, source=source)
    shards = range(math.ceil(config.num_games / config.shard_games))
    there = set(list_shards(folder))
    for shard in tqdm(shards, desc=str(folder), leave=False):
        if config.first_shard + shard not in there:
            _record_shard(folder, config.first_shard + shard, config)
    return folder


def _record_shard(folder: Path, shard: int, config: DuelConfig) -> None:
    truths: list[Truth] = []
    with ClipWriter(folder, shard, duel.SIZE, config.shard_games * config.num_frames) as writer:
        for first in range(0, config.shard_games, AT_ONCE):
            count = min(AT_ONCE, config.shard_games - first)
            frames, truth = play_games(count, config.num_frames, config, (shard << 32) + first)
            for frames_THWC in frames:
                writer.add(frames_THWC)
            truths.append(truth)
        buffer = io.BytesIO()
        columns = {
            name: np.concatenate(
                [getattr(t, name).reshape(-1, *getattr(t, name).shape[2:]) for t in truths]
            )
            for name in Truth._fields
        }
        np.savez(buffer, **columns)
        writer.add_file(truth_path(folder, shard), buffer.getvalue())


def truth_path(folder: Path, shard: int) -> Path:
    return folder / f"truth-{shard:05d}.npz"


def load_truth(folder: str | Path, shard: int) -> Truth:
    """Of one shard. Raises FileNotFoundError where none was recorded."""
    path = truth_path(Path(folder), shard)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: shard {shard} is video and nothing else")
    with np.load(path) as columns:
        return Truth(**{name: columns[name] for name in Truth._fields})
