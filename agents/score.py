"""What a policy is worth: the share of fixed real levels that it solves, one episode on each.

One episode a level: the first episodes to end in a parallel batch would be the short ones.

Shapes: B worlds, L levels, T steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    """Levels of the real game, each in the state that it begins with."""

    look: str
    difficulty: str
    first: int
    states: list[bytes]

    @classmethod
    def of(cls, look: str, difficulty: str, first: int, count: int) -> Levels:
        return cls(look, difficulty, first, level_starts(look, difficulty, first, count))


def solved(
    act: Act, make_env: Callable[[int], VecEnv], levels: Levels, at_once: int = 250, what: str = ""
) -> np.ndarray:
    """Whether each level's coin is reached in one episode, bool (L,).

    make_env: number of worlds to a VecEnv of the real game, of the levels' look and difficulty,
    whose infos hold `success` at an episode's end.
    """
    at_once = min(at_once, len(levels.states))
    env = make_env(at_once)
    won: list[bool] = []
    try:
        with tqdm(total=len(levels.states), desc=what, leave=False) as bar:
            while len(won) < len(levels.states):
                some = levels.states[len(won) : len(won) + at_once]
                # A short last group is filled up with a level that does not count.
                env.set_options({"states": some + [some[0]] * (at_once - len(some))})
                obs: Any = env.reset()
                going_B = np.arange(at_once) < len(some)
                won_B = np.zeros(at_once, bool)
                begin = True
                while going_B.any():
                    worlds = np.flatnonzero(going_B)
                    actions_B = np.zeros(at_once, np.int64)
                    actions_B[worlds] = act(obs[worlds], worlds, begin)
                    obs, _, done_B, infos = env.step(actions_B)
                    for b in np.flatnonzero(done_B & going_B):
                        won_B[b] = infos[b]["success"]
                    going_B &= ~done_B
                    begin = False
                    bar.update(len(won) + len(some) - int(going_B.sum()) - bar.n)
                won += won_B[: len(some)].tolist()
    finally:
        env.close()
    return np.array(won)


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
