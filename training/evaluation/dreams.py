"""What every section does with a world model: reconstruct clips, dream on from starts.

Shapes: B scenes, T frames, M = T - 1 transitions, N steps dreamt, H W pixels, C = 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from genie_env.world_model import WorldModel

PROMPT_FRAMES = 4
"""Real frames that a dream starts from, so that it knows which way things move."""


class Dream(NamedTuple):
    frames_BNHWC: np.ndarray
    """uint8, after each step."""
    entropy_BN: np.ndarray
    """fp32, nats a token, of the drawn frame."""


class Futures(NamedTuple):
    """What follows the prompts of B scenes: really, decoded, and dreamt; uint8 (B, N, H, W, 3)."""

    real: np.ndarray
    decoded: np.ndarray
    """The real frames through the tokenizer: the ceiling."""
    dreamt: np.ndarray
    """Under the latent actions inferred from the real future."""
    at_random: np.ndarray
    """Under latent actions drawn by their frequency, without looking."""


def batched(
    function: Callable[[np.ndarray], np.ndarray], clips_B: np.ndarray, size: int = 16
) -> np.ndarray:
    return np.concatenate([function(clips_B[i : i + size]) for i in range(0, len(clips_B), size)])


@torch.no_grad()
def reconstruct(world: WorldModel, clips_BTHWC: np.ndarray) -> np.ndarray:
    """Clips through the tokenizer and back: uint8 (B, T, H, W, 3)."""

    def through(clips: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(np.ascontiguousarray(clips)).to(world.device)
        return world.tokenizer.decode(world.tokenizer.encode(frames)).cpu().numpy()

    return batched(through, clips_BTHWC)


def infer_actions(world: WorldModel, clips_BTHWC: np.ndarray) -> np.ndarray:
    """Latent actions of clips: int64 (B, M)."""
    return batched(world.infer_actions, clips_BTHWC)


def dream(
    world: WorldModel,
    starts_BTHWC: np.ndarray,
    actions_BN: np.ndarray,
    seeds: Sequence[int] | None = None,
    at_once: int = 64,
    what: str = "dream",
) -> Dream:
    """Dream on from real frames under latent actions (B, N). seeds: one a world, 0..B-1 if None."""
    num_steps = actions_BN.shape[1]
    seeds = seeds or range(len(starts_BTHWC))
    frames, entropies = [], []
    groups = range(0, len(starts_BTHWC), at_once)
    with tqdm(total=len(groups) * num_steps, desc=what, leave=False) as bar:
        for first in groups:
            some = slice(first, first + at_once)
            state = world.start(starts_BTHWC[some], seeds=seeds[some])
            shown, entropy = [], []
            for step in range(num_steps):
                world.step(state, actions_BN[some, step])
                shown.append(world.render(state))
                entropy.append(np.array(state.entropy_B))
                bar.update()
            frames.append(np.stack(shown, 1))
            entropies.append(np.stack(entropy, 1))
    return Dream(np.concatenate(frames), np.concatenate(entropies))


def futures(
    world: WorldModel, clips_BTHWC: np.ndarray, codes_BM: np.ndarray, random_BM: np.ndarray
) -> Futures:
    """Dream on from the first PROMPT_FRAMES of real clips to their end."""
    prompts = clips_BTHWC[:, :PROMPT_FRAMES]
    ahead = slice(PROMPT_FRAMES - 1, None)
    return Futures(
        clips_BTHWC[:, PROMPT_FRAMES:],
        reconstruct(world, clips_BTHWC)[:, PROMPT_FRAMES:],
        dream(world, prompts, codes_BM[:, ahead], what="futures").frames_BNHWC,
        dream(world, prompts, random_BM[:, ahead], what="random futures").frames_BNHWC,
    )
