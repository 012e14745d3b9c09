"""Real actions to latent ones: a dream driven by the real game's buttons (Neural Atari's way).

Which latent action a button is depends on what is going on (in the air a jump is none), so it is
read off the last two frames as well.

Shapes: X labelled transitions, K latent actions, A = 6 real ones (`PLAIN_BUTTONS`), E latent width,
H W pixels, C = 3.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from agents.latent_bc.mapping import fit_linear, plain_button_index
from genie_env.envs.coinrun import NUM_ACTIONS, PLAIN_BUTTONS
from genie_env.envs.single import GenieEnv
from genie_env.world_model import WorldModel


@dataclass(frozen=True)
class Controller:
    """The latent action that a button stands for. weight_FK, bias_K: linear in what `features`
    says of the button and of the latent action before it."""

    weight_FK: np.ndarray
    bias_K: np.ndarray

    def codes(self, actions_X: np.ndarray, before_XE: np.ndarray) -> np.ndarray:
        """int64 (X,). actions_X: buttons, of the engine's 15. before_XE: the continuous latent
        action of the transition before; 0 at the start."""
        return (features(actions_X, before_XE) @ self.weight_FK + self.bias_K).argmax(-1)

    def save(self, path: Path) -> None:
        """To an .npz file."""
        np.savez(path, weight=self.weight_FK, bias=self.bias_K)

    @classmethod
    def load(cls, path: Path) -> Controller:
        """What `save` wrote. FileNotFoundError where nothing is."""
        with np.load(path) as saved:
            return cls(saved["weight"], saved["bias"])


def features(actions_X: np.ndarray, before_XE: np.ndarray) -> np.ndarray:
    """The button, what was done before it, and each for each, fp64 (X, F)."""
    button_XA = np.eye(len(PLAIN_BUTTONS))[plain_button_index(actions_X)]
    both = button_XA[:, :, None] * before_XE[:, None, :]
    return np.concatenate((4 * button_XA, before_XE, both.reshape(len(button_XA), -1)), 1)


def fit_controller(
    actions_X: np.ndarray, before_XE: np.ndarray, codes_X: np.ndarray, num_codes: int
) -> Controller:
    """From labelled transitions: their buttons, the latent actions before them, and their codes.

    Raises ValueError without labels.
    """
    if not len(actions_X):
        raise ValueError("no labelled transition; accepted: at least one")
    x = features(np.asarray(actions_X), np.asarray(before_XE))
    return Controller(*fit_linear(x, codes_X, num_codes, decay=5.0))


class RealActionWrapper(gym.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """`GenieEnv` played with the real game's buttons.

    env: of frames. controller: what they stand for. Actions are ints in [0, 15) as of
    `CoinRunVectorEnv`; `info["latent_action"]` says which latent action was taken.

    Raises TypeError for another environment, ValueError for one that observes latents.
    """

    def __init__(self, env: gym.Env[Any, Any], controller: Controller) -> None:
        super().__init__(env)
        inner = env.unwrapped
        if not isinstance(inner, GenieEnv):
            raise TypeError(f"{type(inner).__name__} is wrapped; accepted: GenieEnv")
        shape = env.observation_space.shape
        if shape is None or len(shape) != 3 or shape[-1] != 3:
            raise ValueError(f"observations of shape {shape}; accepted: frames (H, W, 3)")
        self.controller = controller
        self.action_space = gym.spaces.Discrete(NUM_ACTIONS)
        self._model: WorldModel = inner.model
        look_back = self._model.latent_actions.look_back
        self._frames: deque[np.ndarray] = deque(maxlen=look_back)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        self._frames.clear()
        self._frames.append(obs)
        return obs, info

    def step(self, action: int) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"action {action!r}; accepted: ints from 0 to {NUM_ACTIONS - 1}")
        before_1E = before(self._model, np.stack(self._frames)[None])
        code = int(self.controller.codes(np.array([action]), before_1E)[0])
        obs, reward, terminated, truncated, info = self.env.step(code)
        self._frames.append(obs)
        return obs, reward, terminated, truncated, {**info, "latent_action": code}


@torch.no_grad()
def before(model: WorldModel, frames_BTHWC: np.ndarray) -> np.ndarray:
    """The continuous latent action between the last two frames, fp32 (B, E); 0 for single ones."""
    width = model.latent_actions.quantizer.latent_dim
    if frames_BTHWC.shape[1] < 2:
        return np.zeros((len(frames_BTHWC), width), np.float32)
    frames = torch.from_numpy(frames_BTHWC).to(model.device)
    return model.latent_actions(frames).latents[:, -1].float().cpu().numpy()
