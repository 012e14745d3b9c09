"""What single and batched environments share: arguments checked once, starts drawn alike.

Shapes: T frames, H W pixels (H = W = the model's frame size), C = 3 channels (RGB).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from genie_env.envs.prompts import check_prompt, describe_prompt, draw_prompt, load_prompt
from genie_env.envs.rewards import Rewards
from genie_env.world_model import WorldModel
from genie_env.world_model.sampling import MAX_STEPS

MAX_MASKGIT_STEPS = MAX_STEPS


@dataclass(frozen=True)
class Start:
    """What one episode begins with."""

    frames_THWC: np.ndarray
    """uint8, T >= 1."""
    seed: int
    """Of the world's own randomness."""
    prompt: str
    """What the frames are of, one line."""


class DreamSettings:
    """A model, what to start from, what is rewarded and how to sample; see `GenieEnv`.

    Raises FileNotFoundError, TypeError, ValueError: a prompt, model or argument not
    accepted.
    """

    def __init__(
        self,
        prompt: Any,
        model: str | Path | WorldModel,
        reward: Any,
        temperature: float | None,
        maskgit_steps: int | None,
        device: str | None,
    ) -> None:
        _check_sampling(temperature, maskgit_steps)
        self.model = _load_model(model, device)
        self.rewards = Rewards(reward, self.model)
        self.sampling = self.model.config.sampling
        self.sample_with(temperature, maskgit_steps)
        check_prompt(prompt, len(self.model.prompts))
        self.prompt = prompt

    def sample_with(self, temperature: Any, maskgit_steps: Any) -> None:
        """How the steps to come are sampled; None leaves a value as it is. Raises TypeError,
        ValueError."""
        _check_sampling(temperature, maskgit_steps)
        given = {"temperature": temperature, "steps": maskgit_steps}
        self.sampling = replace(
            self.sampling, **{name: value for name, value in given.items() if value is not None}
        )

    def draw_start(self, rng: np.random.Generator, options: dict[str, Any]) -> Start:
        """The start of one episode, drawn with the world's own generator.

        options: those of a reset, `{"prompt": ...}` or empty. Raises ValueError for others, and as
        `genie_env.envs.prompts.load_prompt` does.
        """
        if unknown := sorted(options.keys() - {"prompt"}):
            raise ValueError(f"unknown reset options {unknown}; accepted: 'prompt'")
        config, shipped_PTHWC = self.model.config, self.model.prompts
        prompt = draw_prompt(options.get("prompt", self.prompt), rng, len(shipped_PTHWC))
        frames_THWC = load_prompt(
            prompt,
            config.frame_size,
            look=config.look,
            shipped_PTHWC=shipped_PTHWC,
            max_frames=config.context_frames,
        )
        return Start(frames_THWC, int(rng.integers(2**63)), describe_prompt(prompt))


def _check_sampling(temperature: Any, maskgit_steps: Any) -> None:
    if not isinstance(temperature, Real | None):
        raise TypeError(f"temperature is {temperature!r}; accepted: a number >= 0, or None")
    if not isinstance(maskgit_steps, Integral | None):
        raise TypeError(f"maskgit_steps is {maskgit_steps!r}; accepted: an integer, or None")


def latent_space(model: WorldModel) -> gym.spaces.Box:
    """Of `WorldModel.latents` of one world: fp32 (h, w, E) on the token grid."""
    grid = model.config.tokenizer.grid
    return gym.spaces.Box(-1, 1, (grid, grid, model.tokenizer.quantizer.latent_dim), np.float32)


def _load_model(model: Any, device: str | None) -> WorldModel:
    if isinstance(model, WorldModel):
        if device is not None:
            raise ValueError(
                f"device={device!r} with a loaded model: move it yourself with model.to(...); "
                "device is for models given by name"
            )
        return model
    if isinstance(model, str | Path):
        return WorldModel.from_pretrained(model, device=device)
    raise TypeError(
        f"model of type {type(model).__name__}; accepted: the name of a shipped checkpoint, a "
        "folder, a hub id, or a loaded WorldModel"
    )
