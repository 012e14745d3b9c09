"""Stable-Baselines3 over a Gymnasium `VectorEnv`: the dream and the real game alike.

Shapes: B worlds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn


class SB3VecEnv(VecEnv):
    """A Gymnasium VectorEnv as an SB3 `VecEnv`.

    What SB3 wants to know at an episode's end goes into the infos: `terminal_observation`, and
    `TimeLimit.truncated`, by which it bootstraps the value of an episode that was merely cut.

    Args:
        env: a VectorEnv with autoreset SAME_STEP, like `GenieVectorEnv(..., autoreset_mode=
            AutoresetMode.SAME_STEP)` or `CoinRunVectorEnv`.

    Raises:
        TypeError: no VectorEnv.
        ValueError: another autoreset mode.

    Example:
        >>> import gymnasium as gym, genie_env
        >>> from gymnasium.vector import AutoresetMode
        >>> from stable_baselines3 import PPO
        >>> worlds = gym.make_vec(
        ...     "GenieEnv-v0", num_envs=64, max_episode_steps=64, temperature=1.0,
        ...     autoreset_mode=AutoresetMode.SAME_STEP,
        ... )  # doctest: +SKIP
        >>> PPO("CnnPolicy", SB3VecEnv(worlds)).learn(100_000)  # doctest: +SKIP
    """

    def __init__(self, env: VectorEnv) -> None:
        if not isinstance(env, VectorEnv):
            raise TypeError(f"env is a {type(env).__name__}; accepted: a gymnasium VectorEnv")
        mode = env.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode is {mode}; accepted: AutoresetMode.SAME_STEP (SB3 takes the next "
                "episode's first observation with the last one's end)"
            )
        self.env = env
        self._actions_B: np.ndarray | None = None
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self.metadata |= {"render_fps": env.metadata.get("render_fps", 15)}

    def reset(self) -> np.ndarray:
        """Observations (B, ...); the infos are in `reset_infos`. Takes the seeds and options that
        were set by `seed` and `set_options`, once."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError("options differ between worlds; set_options takes one dict for all")
        seeds = self._seeds
        unset = all(seed is None for seed in seeds)
        # Not every VectorEnv takes a list of seeds; the first tells them all.
        obs, infos = self.env.reset(seed=None if unset else seeds[0], options=options or None)
        self.reset_infos = _per_world(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions_B = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        assert self._actions_B is not None, "step_async first"
        obs, reward_B, terminated_B, truncated_B, infos = self.env.step(self._actions_B)
        per_world = _per_world(infos, self.num_envs)
        for b in np.flatnonzero(terminated_B | truncated_B):
            final = per_world[b].pop("final_info", {})
            # What the next episode begins with is news of the next episode.
            last = per_world[b].pop("final_obs")
            self.reset_infos[b] = per_world[b]
            per_world[b] = (
                per_world[b]
                | final
                | {
                    "terminal_observation": last,
                    "TimeLimit.truncated": bool(truncated_B[b] and not terminated_B[b]),
                }
            )
        done_B = terminated_B | truncated_B
        return obs, reward_B.astype(np.float32), done_B, per_world

    def close(self) -> None:
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        frames: Any = self.env.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self.env, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        self._all_or_error(indices, f"set {attr_name}")
        setattr(self.env, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        chosen = self._all_or_error(indices, f"call {method_name}")
        return [getattr(self.env, method_name)(*method_args, **method_kwargs)] * len(chosen)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        return [False] * len(self._chosen(indices))

    def _chosen(self, indices: VecEnvIndices) -> list[int]:
        return list(self._get_indices(indices))

    def _all_or_error(self, indices: VecEnvIndices, what: str) -> list[int]:
        chosen = self._chosen(indices)
        if sorted(chosen) != list(range(self.num_envs)):
            raise ValueError(f"cannot {what} for worlds {chosen} alone: they are one environment")
        return chosen


def _per_world(infos: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """Gymnasium's dict of arrays with masks to SB3's list of dicts."""
    listed: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        mask_B = infos.get(f"_{key}", np.ones(num_envs, bool))
        if isinstance(values, dict):
            inner = _per_world(values, num_envs)
            for b in np.flatnonzero(mask_B):
                listed[b][key] = inner[b]
            continue
        for b in np.flatnonzero(mask_B):
            listed[b][key] = values[b]
    return listed
