"""Trained agents as players of a dream: what `genie play --agent` lets play.

Shapes: T frames, H W pixels, C = 3, h w the token grid, E latent width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.dream import read_about
from agents.networks import Past, Policy, draw
from genie_env.world_model import WorldModel


def load_player(
    path: Path, model: WorldModel, seed: int | None = None
) -> Callable[[np.ndarray], int]:
    """A function of the last frames of an episode, uint8 (T, H, W, 3), that names a latent action.

    path: folder of a `genie dream train` of latent actions, of a `genie bc clone`, or an SB3 PPO on
    single frames (.zip).
    The frames are seen as those of the real game are. seed: of what the agent draws.

    Raises FileNotFoundError where there is no agent; ValueError for one of real actions, of another
    number of them or of other observations than this model's.
    """
    config = model.config
    cloned = next((f for f in (path / "latent", path) if (f / "policy.json").exists()), None)
    if cloned is not None:
        return _clone_player(Policy.load(cloned), cloned, model, seed)
    if path.is_dir():
        trained = read_about(path)
        agent = PPO.load(path / "agent.zip", device="cpu")
        if trained.button_K is None:
            raise ValueError(f"the agent of {path} plays real actions, not latent ones")
        grid, width = config.tokenizer.grid, model.tokenizer.quantizer.latent_dim
        _check(agent, model, path, [(grid, grid, trained.config.frame_stack * width)])
        agent.set_random_seed(seed)
        return lambda frames_THWC: _choose(
            agent, _stacked_latents(model, frames_THWC, trained.config.frame_stack)
        )
    if not path.exists():
        raise FileNotFoundError(
            f"no agent {path}; accepted: a folder of `genie dream train` or `genie bc clone`, or a "
            ".zip"
        )
    agent = PPO.load(path, device="cpu")
    size = config.frame_size
    _check(agent, model, path, [(size, size, 3), (3, size, size)])
    agent.set_random_seed(seed)
    return lambda frames_THWC: _choose(agent, frames_THWC[-1])


def _clone_player(
    policy: Policy, path: Path, model: WorldModel, seed: int | None
) -> Callable[[np.ndarray], int]:
    config = model.config
    seen, shown = (
        (policy.num_actions, policy.frame_size),
        (config.num_actions, config.frame_size),
    )
    if seen != shown:
        raise ValueError(
            f"the policy of {path} has (actions, pixels a side) {seen}, this world {shown}"
        )
    rng = np.random.default_rng(seed)

    def play(frames_THWC: np.ndarray) -> int:
        # What was done at those frames may have been somebody else's doing: it is not told.
        first, *later = (frame[None] for frame in frames_THWC[-policy.config.num_frames :])
        past = Past.of(first, policy.config.num_frames)
        for frame_1HWC in later[:-1]:
            past = past.seen(frame_1HWC, None)
        logits_1K, _ = policy.logits((later or [first])[-1], past)
        return int(draw(logits_1K, rng)[0])

    return play


def _check(
    agent: BaseAlgorithm, model: WorldModel, path: Path, shapes: list[tuple[int, ...]]
) -> None:
    has = int(getattr(agent.action_space, "n", 0))
    if has != model.config.num_actions:
        raise ValueError(
            f"the agent {path} has the actions {agent.action_space}, this world "
            f"{model.config.num_actions} latent ones"
        )
    if agent.observation_space.shape not in shapes:
        raise ValueError(
            f"the agent {path} sees {agent.observation_space.shape}; accepted with this world: "
            f"{' or '.join(map(str, shapes))}"
        )


def _choose(agent: BaseAlgorithm, obs: np.ndarray) -> int:
    return int(agent.predict(obs)[0])


@torch.no_grad()
def _stacked_latents(model: WorldModel, frames_THWC: np.ndarray, stack: int) -> np.ndarray:
    """Latents of the last frames, fp32 (h, w, stack * E), as `VecFrameStack` stacks them."""
    frames = torch.from_numpy(frames_THWC)[None].to(model.device)
    tokens_TN = model.tokenizer.encode(frames)[0, -stack:]
    latents = list(model.token_latents(tokens_TN))
    blank = [np.zeros_like(latents[0])] * (stack - len(latents))
    return np.concatenate(blank + latents, -1)
