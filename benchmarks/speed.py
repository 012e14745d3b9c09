"""Frames a second of dreamed worlds on this machine, one and many, beside two baselines in the same
run: as many single environments in one process, and the paper's way of sampling.

    python benchmarks/speed.py [--model coinrun-plain] [--worlds 1 4 16 64 256]

The paper's sampler (section 2.2) recomputes the whole window of frames for each of 25 MaskGIT
steps, and decodes the window again; ours keeps the history's keys and values. All run here with
the same weights, alternately, and every ratio is of medians. Operations are counted, not
estimated; the roofline is this machine's own rate for large matrix products of the same type.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

import genie_env  # noqa: F401  (registers the environment)
from genie_env.envs.vector import world_bytes
from genie_env.world_model import WorldModel
from genie_env.world_model.sampling import SamplingConfig, decode_frame


@dataclass
class Arguments:
    model: str = "coinrun-plain"
    worlds: tuple[int, ...] = (1, 4, 16, 64, 256)
    singles: int = 16
    """Up to so many worlds, as many single environments are timed beside the batch."""
    rounds: int = 5
    seconds: float = 2.0
    """Of each measurement in each round, at least one step."""
    threads: int = 2
    weights: tuple[str, ...] = ("bf16", "fp32", "int8")
    """Types to compare on one world and on the largest batch; int8 on a CPU only."""


@torch.no_grad()
def paper_step(
    model: WorldModel, tokens_1TN: torch.Tensor, actions_1M: torch.Tensor, generator
) -> None:
    """One frame the paper's way: 25 passes over the whole window, then decode the window."""
    num_tokens, mask = model.dynamics.num_tokens, model.dynamics.mask_token

    def logits_of(tokens_1N: torch.Tensor, places_1S: torch.Tensor) -> torch.Tensor:
        window = torch.cat((tokens_1TN, tokens_1N[:, None]), 1)
        return model.dynamics(window, actions_1M)[:, -1][:, places_1S[0]]

    frame, _ = decode_frame(
        logits_of, num_tokens, mask, [generator], SamplingConfig(steps=25, temperature=1.0)
    )
    model.tokenizer.decode(torch.cat((tokens_1TN, frame[:, None]), 1))


def seconds_a_call(call: Callable[[], object], at_least: float) -> float:
    calls, began = 0, time.perf_counter()
    while not calls or time.perf_counter() - began < at_least:
        call()
        calls += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / calls


class Paper:
    """A full window of one world."""

    def __init__(self, model: WorldModel) -> None:
        past = model.config.context_frames - 1
        self.model = model
        self.tokens = torch.zeros(1, past, model.dynamics.num_tokens, dtype=torch.int64)
        self.actions = torch.zeros(1, past, dtype=torch.int64)
        self.tokens, self.actions = self.tokens.to(model.device), self.actions.to(model.device)
        self.generator = torch.Generator(model.device).manual_seed(0)

    def step(self) -> None:
        paper_step(self.model, self.tokens, self.actions, self.generator)


class Batch:
    """B worlds in one environment, past their first window."""

    def __init__(self, model: WorldModel, num_worlds: int) -> None:
        self.model = model
        kwargs = {"num_envs": num_worlds, "model": model, "reward": "none"}
        self.env = gym.make_vec("GenieEnv-v0", **kwargs)
        self.blind = gym.make_vec("GenieEnv-v0", observation="latents", **kwargs)
        self.env.reset(seed=0)
        self.blind.reset(seed=0)
        self.codes = np.random.default_rng(0).integers(
            model.config.num_actions, size=(64, num_worlds)
        )
        self.count = 0
        for _ in range(model.config.context_frames):
            self.step()
            self.step_blind()

    def step(self) -> None:
        self.env.step(self.codes[self.count % len(self.codes)])
        self.count += 1

    def step_blind(self) -> None:
        """The same worlds for agents that see tokens: no pixel is decoded."""
        self.blind.step(self.codes[self.count % len(self.codes)])
        self.count += 1


class Singles:
    """As many environments of one world each."""

    def __init__(self, model: WorldModel, num_worlds: int) -> None:
        self.envs = [gym.make("GenieEnv-v0", model=model, reward="none") for _ in range(num_worlds)]
        for seed, env in enumerate(self.envs):
            env.reset(seed=seed)
            for _ in range(model.config.context_frames):
                env.step(0)

    def step(self) -> None:
        for env in self.envs:
            env.step(0)


def operations(model: WorldModel) -> tuple[float, float]:
    """Floating-point operations of one world's step without pixels, and of decoding its frame."""
    state = model.start(model.prompts[:1], [0])
    model.render(state)
    with FlopCounterMode(display=False) as tokens:
        model.step(state, [0])
    with FlopCounterMode(display=False) as pixels:
        model.render(state)
    return tokens.get_total_flops(), pixels.get_total_flops()


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Operations a second of a large matrix product."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    seconds_a_call(lambda: a @ b, 0.5)
    return 2 * size**3 / min(seconds_a_call(lambda: a @ b, 0.5) for _ in range(3))


def as_type(name: str, weights: str, device: torch.device) -> WorldModel:
    dtype = torch.bfloat16 if weights == "bf16" else torch.float32
    model = WorldModel.from_pretrained(name, device=device, dtype=dtype)
    if weights == "int8":
        torch.ao.quantization.quantize_dynamic(
            model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
        )
    return model


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    model = WorldModel.from_pretrained(arguments.model)
    dtype = model.dynamics.place_ND.dtype
    paper = Paper(model)
    batches = {count: Batch(model, count) for count in arguments.worlds}
    singles = {
        count: Singles(model, count) for count in arguments.worlds if count <= arguments.singles
    }
    paper.step()
    took: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds):
        took.setdefault(("paper", 1), []).append(seconds_a_call(paper.step, arguments.seconds))
        for count, batch in batches.items():
            for name, call in (("step", batch.step), ("tokens", batch.step_blind)):
                took.setdefault((name, count), []).append(seconds_a_call(call, arguments.seconds))
        for count, single in singles.items():
            took.setdefault(("singles", count), []).append(
                seconds_a_call(single.step, arguments.seconds)
            )
    middle = {key: median(values) for key, values in took.items()}
    paper_fps = 1 / middle["paper", 1]
    token_ops, pixel_ops = operations(model)
    rate = matrix_rate(dtype, model.device)
    print(
        f"{arguments.model}, {model.device}, {arguments.threads} threads, {dtype}, "
        f"{model.config.sampling.steps} MaskGIT steps; median of {arguments.rounds} rounds\n"
        f"a frame: {token_ops / 1e9:.2f} GFLOP of tokens, {pixel_ops / 1e9:.2f} of pixels; "
        f"a world: {world_bytes(model) / 2**20:.1f} MiB; matrix products here: "
        f"{rate / 1e12:.2f} TFLOP/s\n"
        f"the paper's sampler: {paper_fps:.2f} frames a second\n"
    )
    print(
        "| worlds | frames/s | times the paper's | times as many singles "
        "| without pixels, frames/s | share of pixels | of the matrix rate |\n"
        "|---|---|---|---|---|---|---|"
    )
    for count in arguments.worlds:
        step, tokens = middle["step", count], middle["tokens", count]
        beside = middle.get(("singles", count))
        used = count * (token_ops + pixel_ops) / step / rate
        print(
            f"| {count} | {count / step:.1f} | {count / step / paper_fps:.0f} "
            f"| {f'{beside / step:.2f}' if beside else ''} | {count / tokens:.1f} "
            f"| {1 - tokens / step:.2f} | {used:.2f} |"
        )
    print("\n| weights | worlds | frames/s | times the default |\n|---|---|---|---|")
    for weights in arguments.weights:
        if weights == "int8" and model.device.type != "cpu":
            continue
        other = as_type(arguments.model, weights, model.device)
        for count in sorted({min(arguments.worlds), max(arguments.worlds)}):
            pair: dict[str, list[float]] = {"ours": [], "default": []}
            batch = Batch(other, count)
            for _ in range(arguments.rounds):
                pair["ours"].append(seconds_a_call(batch.step, arguments.seconds))
                pair["default"].append(seconds_a_call(batches[count].step, arguments.seconds))
            took_ours, took_default = median(pair["ours"]), median(pair["default"])
            print(
                f"| {weights} | {count} | {count / took_ours:.1f} "
                f"| {took_default / took_ours:.2f} |"
            )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
