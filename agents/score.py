"""What a policy is worth: the share of fixed real levels that it solves, one episode on each.

One episode a level: the first episodes to end in a parallel batch would be the short ones.

Shapes: B worlds, L levels, T steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from agents.sb3 import SB3VecEnv
from genie_env.envs import coinrun
from genie_env.envs.coinrun import CoinRunVectorEnv, level_starts
from training.evaluation.sections import Estimate, bootstrap


class Act(Protocol):
    """Somebody who plays many worlds at once."""

    def __call__(self, obs: Any, worlds: np.ndarray, begin: bool) -> np.ndarray:
        """Observations (B, ...) of the worlds still under way, which worlds those are, int64 (B,),
        and whether all of them begin their level now, to actions (B,)."""


@dataclass(frozen=True)
class Levels:
    """Levels of the real game."""

    look: str
    difficulty: str
    first: int
    count: int

    @cached_property
    def states(self) -> list[bytes]:
        """The state that each begins with, made when first asked for: 10,000 take 20 seconds."""
        return level_starts(self.look, self.difficulty, self.first, self.count)


def solved(
    act: Act, make_env: Callable[[int], VecEnv], levels: Levels, at_once: int = 250, what: str = ""
) -> np.ndarray:
    """Whether each level's coin is reached in one episode, bool (L,).

    make_env: number of worlds to a VecEnv of the real game, of the levels' look and difficulty,
    whose infos hold `success` at an episode's end.
    """
    won: list[bool] = []
    with tqdm(total=levels.count, desc=what, leave=False) as bar:
        while len(won) < levels.count:
            some = levels.states[len(won) : len(won) + at_once]
            won += _solved_together(act, make_env, some, bar)
    return np.array(won)


def _solved_together(
    act: Act, make_env: Callable[[int], VecEnv], states: list[bytes], bar: tqdm
) -> list[bool]:
    won = np.zeros(len(states), bool)
    level_B = np.arange(len(states))
    going_B = np.ones(len(states), bool)
    env, obs = _worlds(make_env, states)
    begin = True
    try:
        while going_B.any():
            rows = np.flatnonzero(going_B)
            actions_B = np.zeros(len(going_B), np.int64)
            actions_B[rows] = act(obs[rows], level_B[rows], begin)
            obs, _, done_B, infos = env.step(actions_B)
            for b in rows[done_B[rows]]:
                won[level_B[b]] = infos[b]["success"]
                bar.update()
            going_B &= ~done_B
            begin = False
            # Who stands before a wall stands there for long, and idle worlds cost as much. (What
            # wraps the game may remember what it saw, so such worlds stay.)
            game_alone = isinstance(env, SB3VecEnv) and isinstance(env.env, CoinRunVectorEnv)
            if game_alone and 0 < going_B.sum() <= len(going_B) // 2:
                rows = np.flatnonzero(going_B)
                kept = env.env_method("get_states")[0]
                env.close()
                env, obs = _worlds(make_env, [kept[b] for b in rows])
                level_B, going_B = level_B[rows], going_B[rows]
    finally:
        env.close()
    return won.tolist()


def _worlds(make_env: Callable[[int], VecEnv], states: list[bytes]) -> tuple[VecEnv, Any]:
    env = make_env(len(states))
    env.set_options({"states": states})
    return env, env.reset()


def button_policies(seed: int = 0) -> dict[str, tuple[int, Act]]:
    """What needs no learning: name -> (engine steps that a button is held, policy)."""
    rng = np.random.default_rng(seed)

    def uniform(obs: np.ndarray, worlds: np.ndarray, begin: bool) -> np.ndarray:
        return rng.integers(coinrun.NUM_ACTIONS, size=len(worlds))

    def right_jump(obs: np.ndarray, worlds: np.ndarray, begin: bool) -> np.ndarray:
        return np.full(len(worlds), coinrun.RIGHT_JUMP)

    return {
        "uniform random": (1, uniform),
        "uniform random, each held for 3 steps": (3, uniform),
        "always right+jump": (1, right_jump),
    }


def score_buttons(levels: Levels, seed: int = 0) -> dict[str, np.ndarray]:
    """`solved` of all `button_policies`."""
    return {
        name: solved(
            act,
            partial(frames_env, levels, held),
            levels,
            what=name,
        )
        for name, (held, act) in button_policies(seed).items()
    }


def frames_env(levels: Levels, frame_skip: int, num_envs: int) -> VecEnv:
    """The real game, seen as frames."""
    return SB3VecEnv(
        CoinRunVectorEnv(num_envs, levels.look, levels.difficulty, frame_skip=frame_skip)
    )


def table(scores: dict[str, np.ndarray]) -> str:
    """Markdown: the share of levels solved, with its 95% interval over levels."""
    lines = ["| policy | levels solved | levels |", "|---|---|---|"]
    for name, won_L in scores.items():
        share: Estimate = bootstrap(won_L.astype(float))
        lines.append(
            f"| {name} | {share.value:.3f} [{share.low:.3f}, {share.high:.3f}] | {share.count} |"
        )
    return "\n".join(lines) + "\n"
