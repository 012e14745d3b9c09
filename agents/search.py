"""Ways through levels of the real game, found by trying again from a little earlier.

The engine's state can be saved and put back. So whoever plays need not be good: where an attempt
dies, the next one goes on from a state saved some steps before, with all that was done until there.
Attempts from the level's start would have to get everything before right once more.

Shapes: B worlds, A buttons, H W pixels, C = 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from tqdm import tqdm

from agents.config import SearchConfig
from agents.networks import draw
from agents.score import Levels
from genie_env.envs import coinrun
from genie_env.envs.coinrun import PLAIN_BUTTONS, CoinRunVectorEnv

Ways = list[np.ndarray | None]
"""Of each level the buttons that led to the coin; None where none were found."""


class Propose(Protocol):
    """Somebody who has an opinion of what to do."""

    def __call__(self, obs_BHWC: np.ndarray) -> np.ndarray:
        """Frames uint8 (B, H, W, C) to logits (B, A) of `PLAIN_BUTTONS`."""


@dataclass
class _Attempt:
    """Where the search of a level is."""

    level: int
    saved: list[bytes]
    """States after 0, `every`, 2 `every`, ... buttons."""
    reached: list[float] = field(default_factory=lambda: [0.0])
    """The farthest to the right that the agent had come by each of them, cells."""
    buttons: list[int] = field(default_factory=list)
    failed: int = 0
    ended: bool = False
    solved: bool = False

    def save(self, state: bytes, right: float, config: SearchConfig) -> bool:
        """Where it has come to; whether it may go on from there: it is not too long under way, and
        got farther to the right within `patience` saved states."""
        self.saved.append(state)
        self.reached.append(max(right, self.reached[-1]))
        before = self.reached[: -config.patience]
        stands = bool(before) and self.reached[-1] <= before[-1]
        return not stands and len(self.buttons) < config.max_steps

    def go_back(self, config: SearchConfig, rng: np.random.Generator) -> None:
        """To a state that was saved before: a little while ago if this attempt died or got no
        farther, anywhere on its way if it took too long."""
        self.failed += 1
        if len(self.buttons) >= config.max_steps:
            back = int(rng.integers(len(self.saved)))
        else:
            back = int(rng.exponential(1 + config.farther * self.failed))
            back += 0 if self.ended else config.patience
        keep = max(1, len(self.saved) - back)
        del self.saved[keep:], self.reached[keep:]
        del self.buttons[(keep - 1) * config.every :]
        self.ended = False


def find_ways(
    levels: Levels,
    frame_skip: int,
    propose: Propose,
    config: SearchConfig,
    seed: int | Sequence[int] = 0,
    what: str = "",
) -> Ways:
    """The buttons that lead to the coin of each level; None where none were found."""
    rng = np.random.default_rng(seed)
    ways: Ways = [None] * levels.count
    waiting = iter(range(levels.count))

    def begin() -> _Attempt | None:
        level = next(waiting, None)
        return None if level is None else _Attempt(level, [levels.states[level]])

    def worlds(states: list[bytes]) -> tuple[CoinRunVectorEnv, np.ndarray]:
        env = CoinRunVectorEnv(len(states), levels.look, levels.difficulty, frame_skip=frame_skip)
        return env, env.reset(options={"states": states})[0]

    attempts = [begin() for _ in range(min(config.at_once, levels.count))]
    env, obs = worlds([attempt.saved[0] for attempt in attempts if attempt])
    try:
        with tqdm(total=len(ways), desc=what, leave=False) as bar:
            while any(attempts):
                for _ in range(config.every):
                    obs = _press(env, obs, attempts, propose, config, rng)
                # Saving and putting back costs as much as a few steps, so all worlds do it at once.
                states = env.get_states()
                for b, attempt in enumerate(attempts):
                    if attempt is None:
                        continue
                    if not attempt.ended:
                        right, _ = env.agent_position(states[b])
                        if attempt.save(states[b], right, config):
                            continue
                    if attempt.solved or attempt.failed == config.max_attempts:
                        if attempt.solved:
                            ways[attempt.level] = np.array(attempt.buttons)
                        attempts[b] = attempt = begin()
                        bar.update()
                    else:
                        attempt.go_back(config, rng)
                    if attempt is not None:
                        states[b] = attempt.saved[-1]
                left = [b for b, attempt in enumerate(attempts) if attempt]
                if 0 < len(left) <= len(attempts) // 2:
                    # A few levels take many attempts: idle worlds would cost most of the time.
                    attempts = [attempts[b] for b in left]
                    env.close()
                    env, obs = worlds([states[b] for b in left])
                else:
                    obs, _ = env.set_states(states)
    finally:
        env.close()
    return ways


def _press(
    env: CoinRunVectorEnv,
    obs_BHWC: np.ndarray,
    attempts: list[_Attempt | None],
    propose: Propose,
    config: SearchConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """One step of the attempts still under way; the frames after it."""
    going = {b: attempt for b, attempt in enumerate(attempts) if attempt and not attempt.ended}
    pressed_B = np.full(env.num_envs, coinrun.NOOP)
    if going:
        failed = np.array([attempt.failed for attempt in going.values()])
        heat = np.minimum(config.temperature + config.warmer * failed, config.hottest)
        logits = propose(obs_BHWC[list(going)]) / heat[:, None]
        pressed_B[list(going)] = np.take(PLAIN_BUTTONS, draw(logits, rng))
    obs_BHWC, _, terminated_B, truncated_B, infos = env.step(pressed_B)
    for b, attempt in going.items():
        attempt.buttons.append(int(pressed_B[b]))
        if terminated_B[b] or truncated_B[b]:
            attempt.ended, attempt.solved = True, bool(infos["success"][b])
    return obs_BHWC
