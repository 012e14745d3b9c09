"""Real games for two, played by chance: PettingZoo's cooperative pong and Atari's Pong.

Shapes: P = 2 players, L balls, T frames of a game, H W pixels, C = 3.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from genie_env.envs import duel

MAX_BURN_IN = 40
"""Steps played before a game is recorded are drawn below this: real games all begin alike."""


class Moment(NamedTuple):
    """What a game shows, and what is true of it."""

    frame: np.ndarray
    """uint8 (H, W, C), of the game's own size."""
    players: np.ndarray
    """fp32 (P, 4): left, top, right, bottom in its pixels; the left player first."""
    ball: np.ndarray
    """fp32 (4,); NaN where none is in play."""
    score: tuple[int, int]
    over: bool


class RealGame(Protocol):
    """A game of two whose paddles go up, down or nowhere."""

    def reset(self, seed: int) -> Moment: ...

    def step(self, actions_P: np.ndarray) -> Moment:
        """actions_P: `duel.STAY`, `duel.BACK` (up) or `duel.FORTH` (down) of each player."""

    def close(self) -> None: ...


class CooperativePong:
    """PettingZoo's `cooperative_pong_v6`: a ball to be kept in play, one paddle shaped like a cake.

    Raises ImportError without `pettingzoo[butterfly]`.
    """

    def __init__(self) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        try:
            from pettingzoo.butterfly import cooperative_pong_v6
        except ImportError as error:
            raise ImportError(f"{error}: pip install 'genie-env[two-player-games]'") from error
        # Without rgb_array its frames are all black.
        self._env = cooperative_pong_v6.parallel_env(render_mode="rgb_array")

    def reset(self, seed: int) -> Moment:
        obs, _ = self._env.reset(seed=seed)
        return self._moment(obs, False)

    def step(self, actions_P: np.ndarray) -> Moment:
        # Its own 1 goes up and its 2 down, as here.
        obs, _, ended, cut, _ = self._env.step(
            {f"paddle_{player}": int(action) for player, action in enumerate(actions_P)}
        )
        return self._moment(obs, any(ended.values()) or any(cut.values()))

    def _moment(self, obs: dict[str, np.ndarray], over: bool) -> Moment:
        game = self._env.unwrapped.env
        paddles = [
            (
                min(rect.left for rect in paddle.rects),
                min(rect.top for rect in paddle.rects),
                max(rect.right for rect in paddle.rects),
                max(rect.bottom for rect in paddle.rects),
            )
            for paddle in (game.p0, game.p1)
        ]
        ball = game.ball._rect
        return Moment(
            obs["paddle_0"],
            np.array(paddles, np.float32),
            np.array((ball.left, ball.top, ball.right, ball.bottom), np.float32),
            (0, 0),
            over,
        )

    def close(self) -> None:
        self._env.close()


class AtariPong:
    """Atari's Pong for two (`pong_v3` of PettingZoo), four frames a step. Paddles have inertia.

    Raises ImportError without `multi-agent-ale-py` and `ale-py`, which brings the game.
    """

    LEFT, RIGHT, BALL = (213, 130, 74), (92, 186, 92), (236, 236, 236)
    FIELD = slice(34, 194)
    """Rows between the walls; scores are above."""
    SKIP = 4
    BUTTONS = (1, 2, 3)
    """Its buttons for `duel.STAY`, `duel.BACK`, `duel.FORTH`; the first serves as well."""

    def __init__(self) -> None:
        try:
            import ale_py
            from pettingzoo.atari import pong_v3
        except ImportError as error:
            raise ImportError(f"{error}: pip install 'genie-env[two-player-games]'") from error
        roms = Path(ale_py.__file__).parent / "roms"
        self._env = pong_v3.parallel_env(auto_rom_install_path=str(roms))

    def reset(self, seed: int) -> Moment:
        obs, _ = self._env.reset(seed=seed)
        self._score = [0, 0]
        # Nothing is drawn at first.
        self._players = np.full((2, 4), np.nan, np.float32)
        while True:
            moment = self._moment(obs, False)
            if not np.isnan(moment.players).any():
                return moment
            obs, *_ = self._env.step(dict.fromkeys(self._env.agents, 0))

    def step(self, actions_P: np.ndarray) -> Moment:
        first, second = (self.BUTTONS[action] for action in actions_P)
        for _ in range(self.SKIP):
            # The one that it calls the first plays on the right.
            obs, rewards, ended, cut, _ = self._env.step({"first_0": second, "second_0": first})
            self._score[0] += int(rewards["second_0"] > 0)
            self._score[1] += int(rewards["first_0"] > 0)
            if over := any(ended.values()) or any(cut.values()):
                break
        return self._moment(obs, over)

    def _moment(self, obs: dict[str, np.ndarray], over: bool) -> Moment:
        frame = obs["first_0"]
        for player, colour in enumerate((self.LEFT, self.RIGHT)):
            box = _box_of(frame, colour, self.FIELD)
            if not np.isnan(box).any():  # behind the walls a paddle is not to be seen
                self._players[player] = box
        return Moment(
            frame,
            self._players.copy(),
            _box_of(frame, self.BALL, self.FIELD),
            (self._score[0], self._score[1]),
            over,
        )

    def close(self) -> None:
        self._env.close()


REAL_GAMES: dict[str, Callable[[], RealGame]] = {
    "cooperative_pong": CooperativePong,
    "atari_pong": AtariPong,
}


def _box_of(frame: np.ndarray, colour: tuple[int, int, int], rows: slice) -> np.ndarray:
    """Around all pixels of a colour: left, top, right, bottom; NaN where there is none."""
    y, x = np.nonzero((frame[rows] == colour).all(-1))
    if not len(x):
        return np.full(4, np.nan, np.float32)
    top = y.min() + rows.start
    return np.array((x.min(), top, x.max() + 1, y.max() + 1 + rows.start), np.float32)


def scaled(moment: Moment) -> Moment:
    """The same at `duel.SIZE` pixels a side."""
    height, width, _ = moment.frame.shape
    side = (duel.SIZE, duel.SIZE)
    frame = np.asarray(Image.fromarray(moment.frame).resize(side, Image.Resampling.BOX))
    scale = np.array((duel.SIZE / width, duel.SIZE / height) * 2, np.float32)
    return moment._replace(frame=frame, players=moment.players * scale, ball=moment.ball * scale)
