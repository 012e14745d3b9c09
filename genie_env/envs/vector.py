"""GenieVectorEnv: many dreamed worlds, one model, one batched forward a step.

Shapes: B worlds, T frames, H W pixels (H = W = the model's frame size), C = 3 channels (RGB),
h w the token grid, E latent width.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from genie_env.envs.settings import DreamSettings, Start, latent_space
from genie_env.world_model import WorldModel
from genie_env.world_model.world_model import WorldState


class GenieVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """B worlds dreamed together by one `WorldModel`: `gym.make_vec("GenieEnv-v0", num_envs=B)`.

    A world's randomness is its own, so its frames depend on its seed and actions alone, not on its
    neighbours: the same as those of a `GenieEnv`, up to the rounding of batched arithmetic.

    Args:
        num_envs: worlds, B >= 1.
        prompt, model, reward, temperature, maskgit_steps, device: as for `GenieEnv`. Each world
            draws its own start from the prompt at each of its resets.
        max_episode_steps: steps after which an episode is truncated; never if None.
        autoreset_mode: `AutoresetMode.NEXT_STEP` (the step after an episode's end ignores that
            world's action and starts it anew), `SAME_STEP` (starts it anew at once; its last
            observation and info are in `info["final_obs"]` and `info["final_info"]`) or
            `DISABLED` (reset it yourself: `reset(options={"reset_mask": ...})`).
        observation: "frames", uint8 (H, W, 3), or "latents", fp32 (h, w, E): what the newest
            frame's tokens stand for. With latents and no `render_mode` no pixel is ever decoded.
        render_mode: None or "rgb_array".

    `info` holds `token_entropy` (nats a token, (B,)), `step_ms` (wall time of the whole step, the
    same for all worlds), and for worlds that began an episode `prompt`, each with its mask.

    Raises:
        FileNotFoundError, TypeError, ValueError: an argument that is not accepted.
        MemoryError: the worlds' caches would not fit into the memory that is free.
    """

    def __init__(
        self,
        num_envs: int = 1,
        prompt: Any = None,
        model: str | Path | WorldModel = "coinrun-plain",
        reward: Any = None,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        observation: Literal["frames", "latents"] = "frames",
        render_mode: str | None = None,
        temperature: float | None = None,
        maskgit_steps: int | None = None,
        device: str | None = None,
    ) -> None:
        for name, count in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps or 1)):
            if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
                raise ValueError(f"{name}={count!r}; accepted: an integer >= 1")
        if observation not in ("frames", "latents"):
            raise ValueError(f"unknown observation {observation!r}; accepted: frames, latents")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"unknown render_mode {render_mode!r}; accepted: None, 'rgb_array'")
        self._settings = DreamSettings(prompt, model, reward, temperature, maskgit_steps, device)
        self.model = self._settings.model
        self.num_envs = int(num_envs)
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.observation = observation
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": 15,
            "autoreset_mode": self.autoreset_mode,
        }
        config = self.model.config
        if observation == "frames":
            shape = (config.frame_size, config.frame_size, 3)
            self.single_observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        else:
            self.single_observation_space = latent_space(self.model)
        self.single_action_space = gym.spaces.Discrete(config.num_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        seen = observation == "frames" or render_mode is not None
        self._decode = seen or self._settings.rewards.needs_frames
        _check_memory(self.model, self.num_envs, self._decode)

        # One generator a world, as single environments have: the same seeds draw the same starts.
        self._rng_B = [seeding.np_random()[0] for _ in range(self.num_envs)]
        self._worlds: WorldState | None = None
        self._ended_B = np.zeros(self.num_envs, bool)
        self._elapsed_B = np.zeros(self.num_envs, np.int64)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start every world anew, or some.

        Args:
            seed: an int (world b gets seed + b), one a world (None goes on with what there is), or
                None for all.
            options: `prompt` for these episodes; `reset_mask`, bool (B,), the worlds to start.

        Returns:
            Observations of all worlds, and infos of those started.

        Raises:
            TypeError, ValueError: other options, a wrong number of seeds, a mask of another kind;
                else as `GenieEnv.reset`.
        """
        self._check_open()
        options = dict(options or {})
        mask_B = options.pop("reset_mask", None)
        mask_B = np.ones(self.num_envs, bool) if mask_B is None else self._check_mask(mask_B)
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + b for b in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} worlds; one each is needed")
        for b in np.flatnonzero(mask_B):
            if seeds[b] is not None:
                self._rng_B[b] = seeding.np_random(seeds[b])[0]
        began = time.perf_counter()
        infos = self._begin(np.flatnonzero(mask_B), options)
        return self._observe(), self._measured(infos, mask_B, began)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance every world by one frame.

        Args:
            actions: latent actions, ints (B,) from 0 to num_actions - 1.

        Returns:
            observations, rewards fp64 (B,), terminated bool (B,), truncated bool (B,), infos.

        Raises:
            ResetNeeded: before the first `reset`; with autoreset disabled, for worlds at their end.
            ValueError: actions of another shape, kind or range.
        """
        actions_B = self._check_actions(actions)
        worlds = self._world_state()
        began = time.perf_counter()
        fresh_B = self._ended_B.copy()
        if self.autoreset_mode == AutoresetMode.DISABLED and fresh_B.any():
            raise ResetNeeded(
                f"worlds {np.flatnonzero(fresh_B).tolist()} are at their end: "
                "reset(options={'reset_mask': ...}) starts them anew"
            )
        infos: dict[str, Any] = {}
        reward_B, terminated_B = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        truncated_B = terminated_B.copy()
        going_B = ~fresh_B
        if going_B.any():
            # Worlds about to start anew take the step along: cheaper than gathering the others.
            self.model.step(
                worlds,
                np.where(going_B, actions_B, 0),
                temperature=self._settings.sampling.temperature,
                steps=self._settings.sampling.steps,
            )
            self._elapsed_B += 1
            found_B, over_B = self._settings.rewards.of(worlds)
            reward_B[going_B], terminated_B[going_B] = found_B[going_B], over_B[going_B]
            if self.max_episode_steps is not None:
                truncated_B = going_B & ~terminated_B & (self._elapsed_B >= self.max_episode_steps)
        if fresh_B.any():
            infos = self._begin(np.flatnonzero(fresh_B), {})
        self._ended_B = terminated_B | truncated_B
        infos = self._measured(infos, np.ones(self.num_envs, bool), began)
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended_B.any():
            infos = self._start_over(infos)
        return self._observe(), reward_B, terminated_B, truncated_B, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The newest frame of every world, B arrays uint8 (H, W, 3); None without render_mode."""
        if self.render_mode is None:
            return None
        return tuple(self.model.render(self._world_state()))

    def close_extras(self, **kwargs: Any) -> None:
        """Drop the worlds."""
        self._worlds = None

    def _begin(self, worlds: np.ndarray, options: dict[str, Any]) -> dict[str, Any]:
        """Start the episodes of some worlds; their infos."""
        starts = {int(b): self._settings.draw_start(self._rng_B[b], options) for b in worlds}
        by_length: dict[int, list[int]] = defaultdict(list)
        for b, start in starts.items():
            by_length[len(start.frames_THWC)].append(b)
        if self._worlds is not None and self._decode:
            # Only worlds whose frames are decoded can be put in one another's places.
            self.model.render(self._worlds)
        for group in by_length.values():
            begun = self._start([starts[b] for b in group])
            if self._worlds is None:
                # Every world begins as a copy of the first, until its own group's turn.
                self._worlds = begun.select(np.zeros(self.num_envs, np.int64))
            self._worlds.put(group, begun)
        self._elapsed_B[worlds] = 0
        self._ended_B[worlds] = False
        infos: dict[str, Any] = {}
        for b, start in starts.items():
            infos = self._add_info(infos, {"prompt": start.prompt}, b)
        return infos

    def _start(self, starts: list[Start]) -> WorldState:
        frames_BTHWC = np.stack([start.frames_THWC for start in starts])
        begun = self.model.start(
            frames_BTHWC, seeds=[start.seed for start in starts], decode=self._decode
        )
        if self._decode:
            self.model.render(begun)
        return begun

    def _start_over(self, infos: dict[str, Any]) -> dict[str, Any]:
        """SAME_STEP: the last observations and infos set aside, the next episodes begun."""
        ended = np.flatnonzero(self._ended_B)
        last = self._observe()
        entropy_B = self._world_state().entropy_B
        new = self._begin(ended, {})
        for b in ended:
            final = {"token_entropy": float(entropy_B[b]), "step_ms": float(infos["step_ms"][b])}
            infos = self._add_info(infos, {"final_obs": last[b], "final_info": final}, int(b))
            infos["token_entropy"][b] = self._world_state().entropy_B[b]
        return infos | new

    def _observe(self) -> np.ndarray:
        worlds = self._world_state()
        if self.observation == "frames":
            return self.model.render(worlds)
        return self.model.latents(worlds)

    def _measured(self, infos: dict[str, Any], mask_B: np.ndarray, began: float) -> dict[str, Any]:
        step_ms = (time.perf_counter() - began) * 1000
        infos["token_entropy"] = np.where(mask_B, self._world_state().entropy_B, 0.0)
        infos["step_ms"] = np.where(mask_B, step_ms, 0.0)
        infos["_token_entropy"] = infos["_step_ms"] = mask_B.copy()
        return infos

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("this GenieVectorEnv is closed")

    def _world_state(self) -> WorldState:
        self._check_open()
        if self._worlds is None:
            raise ResetNeeded("reset() first: there are no worlds yet")
        return self._worlds

    def _check_mask(self, mask: Any) -> np.ndarray:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask is {mask!r}; accepted: a NumPy array of bool")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask of shape {mask.shape} with {int(mask.sum())} True; accepted: shape "
                f"({self.num_envs},), at least one True"
            )
        if self._worlds is None and not mask.all():
            raise ResetNeeded("reset() all worlds first: there are none yet")
        return mask

    def _check_actions(self, actions: Any) -> np.ndarray:
        actions_B = np.asarray(actions)
        num_actions = self.model.config.num_actions
        if actions_B.shape != (self.num_envs,) or not np.issubdtype(actions_B.dtype, np.integer):
            raise ValueError(
                f"actions of shape {actions_B.shape} and dtype {actions_B.dtype}; accepted: "
                f"integers of shape ({self.num_envs},)"
            )
        if actions_B.min() < 0 or actions_B.max() >= num_actions:
            raise ValueError(
                f"actions from {actions_B.min()} to {actions_B.max()}; accepted: 0 to "
                f"{num_actions - 1}"
            )
        return actions_B


def _check_memory(model: WorldModel, num_envs: int, decode: bool) -> None:
    """The caches of keys and values are nearly all that a world costs."""
    needed = num_envs * world_bytes(model, decode)
    if model.device.type == "cuda":
        import torch

        free = torch.cuda.mem_get_info(model.device)[0]
    elif (table := Path("/proc/meminfo")).exists():
        lines = dict(line.split(":") for line in table.read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    else:
        return
    if needed > free:
        raise MemoryError(
            f"{num_envs} worlds need {needed / 2**30:.1f} GiB for their caches, "
            f"{free / 2**30:.1f} GiB are free: at most "
            f"{free // world_bytes(model, decode)} worlds fit"
        )


def world_bytes(model: WorldModel, decode: bool = True) -> int:
    """Memory of one world's caches, in bytes."""
    one = model.dynamics.new_cache(1).kv_L2BNHWE
    total = one.numel() * one.element_size()
    if decode:
        one = model.tokenizer.new_decoder_cache(1).kv_L2BNHWE
        total += one.numel() * one.element_size()
    return total
