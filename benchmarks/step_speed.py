"""Frames a second of `env.step` on this machine, beside the paper's way of sampling.

    python benchmarks/step_speed.py [--model coinrun-plain] [--threads 2]

The paper's sampler (section 2.2) recomputes the whole window of frames for each of 25 MaskGIT
steps, and decodes the window again; ours keeps the history's keys and values. Both run here with
the same weights, alternately, and the ratio is of the medians.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import gymnasium as gym
import numpy as np
import torch
import tyro

import genie_env  # noqa: F401  (registers the environment)
from genie_env.world_model import WorldModel
from genie_env.world_model.sampling import SamplingConfig, decode_frame


@dataclass
class Arguments:
    model: str = "coinrun-plain"
    rounds: int = 5
    steps: int = 40
    """Of our sampler in each round."""
    paper_steps: int = 2
    """Of the paper's sampler in each round."""
    threads: int = 2


@torch.no_grad()
def paper_step(
    model: WorldModel, tokens_1TN: torch.Tensor, actions_1M: torch.Tensor, generator
) -> torch.Tensor:
    """One frame the paper's way: 25 passes over the whole window, then decode the window."""
    num_tokens, mask = model.dynamics.num_tokens, model.dynamics.mask_token

    def logits_of(tokens_1N: torch.Tensor) -> torch.Tensor:
        window = torch.cat((tokens_1TN, tokens_1N[:, None]), 1)
        return model.dynamics(window, actions_1M)[:, -1]

    frame, _ = decode_frame(
        logits_of, num_tokens, mask, [generator], SamplingConfig(steps=25, temperature=1.0)
    )
    model.tokenizer.decode(torch.cat((tokens_1TN, frame[:, None]), 1))
    return frame


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    model = WorldModel.from_pretrained(arguments.model)
    env = gym.make("GenieEnv-v0", model=model)
    env.reset(seed=0)
    context = model.config.context_frames
    tokens = torch.zeros(1, context - 1, model.dynamics.num_tokens, dtype=torch.int64)
    actions = torch.zeros(1, context - 1, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    codes = np.random.default_rng(0).integers(model.config.num_actions, size=10_000)
    for code in codes[: 2 * context]:
        env.step(code)
    paper_step(model, tokens, actions, generator)

    ours, paper = [], []
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        for code in codes[: arguments.steps]:
            env.step(code)
        ours.append((time.perf_counter() - started) / arguments.steps)
        started = time.perf_counter()
        for _ in range(arguments.paper_steps):
            paper_step(model, tokens, actions, generator)
        paper.append((time.perf_counter() - started) / arguments.paper_steps)
    sampling = model.config.sampling
    print(
        f"{arguments.model}, {arguments.threads} threads, {model.dynamics.place_ND.dtype}, "
        f"median of {arguments.rounds} rounds"
    )
    print(f"env.step, cached, {sampling.steps} MaskGIT steps: {1 / median(ours):8.1f} frames/s")
    print(f"paper: window recomputed, 25 steps:      {1 / median(paper):8.2f} frames/s")
    print(f"ratio: {median(paper) / median(ours):.1f}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
