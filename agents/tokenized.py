"""The real CoinRun as an agent of the dream knows it: tokens to see, latent actions to play.

Shapes: B worlds, H W pixels, C = 3, h w the token grid, E latent width, K latent actions.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from genie_env.envs.coinrun import CoinRunVectorEnv
from genie_env.envs.settings import latent_space
from genie_env.world_model import WorldModel


class TokenizedCoinRun(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`CoinRunVectorEnv` with the observations of `GenieVectorEnv(observation="latents")`, fp32
    (B, h, w, E), and if so wished its actions.

    Args:
        model: whose tokenizer the frames are seen through.
        button_K: real action of each latent one, int (K,) (`learn_dictionary`); None keeps the
            real actions.
        env: keywords of `CoinRunVectorEnv`; look and frame_skip are the model's.

    Autoreset and infos are those of `CoinRunVectorEnv`; `final_obs` are the latents of the last
    frame that was seen. Raises as it does, and ValueError for a dictionary of another size.
    """

    def __init__(self, model: WorldModel, button_K: np.ndarray | None = None, **env: Any) -> None:
        config = model.config
        if button_K is not None and np.shape(button_K) != (config.num_actions,):
            raise ValueError(
                f"a dictionary of shape {np.shape(button_K)}; accepted: ({config.num_actions},), "
                "a real action for each latent one"
            )
        self.model = model
        self.real = CoinRunVectorEnv(look=config.look, frame_skip=config.frame_skip, **env)
        self._button_K = None if button_K is None else np.asarray(button_K)
        self.num_envs, self.metadata = self.real.num_envs, self.real.metadata
        self.render_mode = self.real.render_mode
        self.single_observation_space = latent_space(model)
        self.single_action_space = (
            self.real.single_action_space
            if button_K is None
            else gym.spaces.Discrete(config.num_actions)
        )
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As `CoinRunVectorEnv.reset`."""
        frames_BHWC, infos = self.real.reset(seed=seed, options=options)
        self._cache = self.model.tokenizer.new_encoder_cache(self.num_envs)
        return self._see(frames_BHWC), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As `CoinRunVectorEnv.step`; ValueError for latent actions out of range."""
        buttons_B = np.asarray(actions)
        if self._button_K is not None:
            if buttons_B.min() < 0 or buttons_B.max() >= len(self._button_K):
                raise ValueError(
                    f"latent actions from {buttons_B.min()} to {buttons_B.max()}; accepted: 0 to "
                    f"{len(self._button_K) - 1}"
                )
            buttons_B = self._button_K[buttons_B]
        frames_BHWC, reward_B, terminated_B, truncated_B, infos = self.real.step(buttons_B)
        ended = np.flatnonzero(terminated_B | truncated_B)
        if len(ended):
            for b in ended:
                infos["final_obs"][b] = self._latents[b]
            # The next level's first frame has nothing to do with the last one's.
            world_B = torch.as_tensor(ended, device=self.model.device)
            self._cache.put(world_B, self.model.tokenizer.new_encoder_cache(len(ended)))
        return self._see(frames_BHWC), reward_B, terminated_B, truncated_B, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The real frames."""
        return self.real.render()

    def close_extras(self, **kwargs: Any) -> None:
        self.real.close()

    @torch.no_grad()
    def _see(self, frames_BHWC: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(frames_BHWC).to(self.model.device)
        tokens_BN = self.model.tokenizer.encode_step(frames, self._cache)
        self._cache.advance()
        self._latents = self.model.token_latents(tokens_BN)
        return self._latents
