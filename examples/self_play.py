"""Self-play in a dream of two: one network plays both sides of a pursuit.

player_0 wants the two paddles level, player_1 wants them far apart; PPO learns both.

python examples/self_play.py --steps 20000
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import supersuit
import tyro
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper
from stable_baselines3 import PPO
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecMonitor

import genie_env

SIDE = 16
"""Pixels a side of what the agents see."""


@dataclass
class Options:
    out: Path = Path("self_play.zip")
    model: str = "duel"
    """Name of a shipped checkpoint, a folder, or a hub id."""
    prompt: str | None = None
    """A video to start from, or a start of the model's own (shipped:3); drawn each time if not
    given."""
    steps: int = 20_000
    """Of both players together."""
    worlds: int = 4
    """Dreams at once."""
    cycles: int = 32
    """Steps of an episode."""
    batch: int = 256
    episodes: int = 20
    """To measure with, on other starts than those of the training."""
    seed: int = 0


class Pursuit(BaseParallelWrapper):
    """player_0 pays for every pixel that the two are not level, and player_1 earns it."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        obs, infos = self.env.reset(seed, options)
        # Paddles move across the line between them.
        self.along = 1 - int(np.abs(self._apart(infos)).argmax())
        return obs, infos

    def step(self, actions: dict[str, int]) -> Any:
        obs, _, ended, cut, infos = self.env.step(actions)
        distance = float(abs(self._apart(infos)[self.along]))
        return obs, {"player_0": -distance / 10, "player_1": distance / 10}, ended, cut, infos

    @staticmethod
    def _apart(infos: dict[str, dict[str, Any]]) -> np.ndarray:
        return np.subtract(infos["player_1"]["position"], infos["player_0"]["position"])


def make_env(options: Options) -> ParallelEnv:
    env = genie_env.parallel_env(
        prompt=options.prompt, model=options.model, max_cycles=options.cycles
    )
    env = supersuit.resize_v1(Pursuit(env), SIDE, SIDE)
    env = supersuit.normalize_obs_v0(supersuit.dtype_v0(env, np.float32))
    # Both are one network, which has to know for whom it plays.
    return supersuit.agent_indicator_v0(supersuit.flatten_v0(env))


def distance(env: ParallelEnv, learned: dict[str, PPO], options: Options) -> float:
    """Mean pixels that the two are not level; who has learned nothing plays by chance."""
    rng = np.random.default_rng(options.seed)
    found = []
    for episode in range(options.episodes):
        obs, _ = env.reset(seed=options.seed + 1_000_000 + episode)
        while env.agents:
            actions = {
                agent: int(learned[agent].predict(obs[agent])[0])
                if agent in learned
                else int(rng.integers(env.action_space(agent).n))
                for agent in env.agents
            }
            obs, rewards, *_ = env.step(actions)
            found.append(10 * rewards["player_1"])
    return float(np.mean(found))


def main(options: Options) -> None:
    # Not PPO's own seed: SuperSuit's worlds take none.
    set_random_seed(options.seed)
    env = make_env(options)
    worlds = supersuit.pettingzoo_env_to_vec_env_v1(env)
    worlds = supersuit.concat_vec_envs_v1(worlds, options.worlds, base_class="stable_baselines3")
    agent = PPO(
        "MlpPolicy",
        VecMonitor(worlds),
        n_steps=max(2, 2 * options.batch // worlds.num_envs),
        batch_size=options.batch,
        gamma=0.9,
        ent_coef=0.01,
        device="cpu",
    )
    agent.learn(options.steps)
    agent.save(options.out)
    for who, learned in {
        "both by chance": {},
        "player_0 learned to be level": {"player_0": agent},
        "player_1 learned to get away": {"player_1": agent},
        "both learned": {"player_0": agent, "player_1": agent},
    }.items():
        print(f"{who}: {distance(env, learned, options):.1f} pixels from level")
    env.close()


if __name__ == "__main__":
    main(tyro.cli(Options))
