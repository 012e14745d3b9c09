"""One training loop for every stage, on Hugging Face accelerate (CPU, one GPU, many processes).

What a batch holds depends on (seed, step) alone, so the step is the whole data position, and a
resumed run sees exactly the clips that an unbroken one would have seen.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm import tqdm

from genie_env.world_model.allocator import keep_freed_memory
from genie_env.world_model.transformer import STTransformer
from genie_env.world_model.two_player import Foresight, MatrixConv2d


@dataclass(frozen=True)
class LoopConfig:
    steps: int = 10_000
    batch_size: int = 8
    """Clips in a step, over all processes together."""
    clip_frames: int = 16
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    """Reached by a cosine at the last step."""
    warmup_steps: int = 200
    optimizer: Literal["muon", "adamw"] = "muon"
    """`muon`: Muon (Jordan et al., 2024) for the hidden matrices of transformers and of the network
    that foresees games of two, AdamW for the rest, at the same learning rate. `adamw`: AdamW
    for all."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's."""
    weight_decay: float = 1e-4
    """Applied to matrices only, and only where a gradient arrives: a frozen part stays as it is."""
    clip_norm: float = 1.0
    mixed_precision: Literal["bf16", "no"] = "bf16"
    compile: bool = False
    """torch.compile; needs a C++ compiler on CPU. 1.3-1.5 times faster there."""
    seed: int = 0
    log_every: int = 50
    validate_every: int = 500
    validation_batches: int = 4
    save_every_minutes: float = 5.0
    max_minutes: float | None = None
    """Save and stop after this long, to be resumed by the same command."""


class Clips(Protocol):
    """What can be trained on: a `ClipStore`, or one with more to say of its clips."""

    def __len__(self) -> int: ...

    def batch(self, indices_B: np.ndarray) -> tuple[np.ndarray, ...]:
        """What the stage is called with, stacked over clips; first of all the uint8 frames
        (B, T, H, W, C)."""


class Stage(Protocol):
    """What can be trained: a module that takes a batch of `Clips` and gives a loss."""

    def __call__(
        self, frames_BTHWC: Tensor, *more: Tensor, progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and detached metrics. `progress`: share of the run that is done, 0 to 1."""

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        """The metrics as numbers to log."""

    def parts_to_compile(self) -> list[nn.Module]:
        """Submodules worth a `torch.compile` (called as `part(...)` in every step)."""


class TrainingStopped(Exception):
    """The run saved its state before its last step (SIGTERM, Ctrl-C or `max_minutes`)."""


class _Progress:
    """The position in the data; accelerate saves and restores it with everything else."""

    def __init__(self) -> None:
        self.step = 0
        self.seconds = 0.0

    def state_dict(self) -> dict[str, float]:
        return {"step": self.step, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def processes() -> PartialState:
    """The processes of this run. Told when there is only a CPU: several processes on one would
    otherwise not know of each other before the first `Accelerator` is made."""
    return PartialState(cpu=not torch.accelerator.is_available())


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, then a cosine from `learning_rate` to `final_learning_rate`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    drop = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + drop * (1 + math.cos(math.pi * min(1.0, done))) / 2


def batch_indices(seed: int, step: int, batch_size: int, num_clips: int) -> np.ndarray:
    """The clips of one step: int64 (batch_size,), a function of its arguments alone."""
    return np.random.default_rng((seed, step)).integers(num_clips, size=batch_size)


def make_optimizers(stage: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the hidden matrices if so configured."""
    if config.optimizer not in ("muon", "adamw"):
        raise ValueError(f"unknown optimizer {config.optimizer!r}; known: muon, adamw")
    hidden = {
        id(layer.weight)
        for part in stage.modules()
        if isinstance(part, STTransformer | Foresight)
        for layer in part.modules()
        if isinstance(layer, nn.Linear | MatrixConv2d)
    }
    weights = [p for p in stage.parameters() if p.requires_grad]
    by_muon = [p for p in weights if config.optimizer == "muon" and id(p) in hidden]
    rest = [p for p in weights if config.optimizer != "muon" or id(p) not in hidden]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    if not by_muon:
        return [adamw]
    # With steps of AdamW's usual size, one learning rate serves both.
    muon = torch.optim.Muon(
        by_muon,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adamw, muon]


def train(
    stage: Any,
    config: LoopConfig,
    run_dir: str | Path,
    train_store: Clips,
    validation_store: Clips | None = None,
) -> None:
    """Train `stage`, a module that is a `Stage`, in place to `config.steps`.

    Resumes from `run_dir` where it left off there. Raises TrainingStopped (state saved) if it ended
    before the last step.
    """
    run_dir = Path(run_dir)
    keep_freed_memory()
    accelerator = Accelerator(
        cpu=processes().device.type == "cpu",
        mixed_precision=config.mixed_precision,
        log_with="tensorboard",
        project_dir=run_dir,
        # Parts may freeze along the way (the latent action model does).
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if config.batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size={config.batch_size} cannot be shared evenly by "
            f"{accelerator.num_processes} processes"
        )
    # Masks and corruption differ between processes, as their clips do.
    set_seed(config.seed, device_specific=True)
    accelerator.init_trackers("tensorboard")
    stage.to(accelerator.device)
    if config.compile:
        for part in stage.parts_to_compile():
            part.compile()
    model, *optimizers = accelerator.prepare(stage, *make_optimizers(stage, config))
    progress = _Progress()
    accelerator.register_for_checkpointing(progress)
    latest = latest_checkpoint(run_dir)
    if latest:
        accelerator.load_state(str(latest))
        accelerator.print(f"resumed from {latest} at step {progress.step}")

    started, last_save = time.monotonic(), time.monotonic()
    seconds_before = progress.seconds
    bar = tqdm(
        total=config.steps,
        initial=progress.step,
        desc=run_dir.name,
        disable=not accelerator.is_main_process,
        mininterval=5,
    )
    model.train()
    with _stop_signals() as stopped:
        while progress.step < config.steps:
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(config, progress.step)
            indices = batch_indices(config.seed, progress.step, config.batch_size, len(train_store))
            mine = indices[accelerator.process_index :: accelerator.num_processes]
            batch = _load(train_store, mine, accelerator)
            with accelerator.autocast():
                loss, metrics = model(*batch, progress=progress.step / config.steps)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            progress.step += 1
            progress.seconds = seconds_before + time.monotonic() - started
            bar.update()

            last = progress.step == config.steps
            if progress.step % config.log_every == 0 or last:
                values = stage.summarize(metrics) | {
                    "loss": float(loss.detach()),
                    "gradient_norm": float(norm),
                    "minutes": progress.seconds / 60,
                }
                _log(accelerator, run_dir, "train", values, progress.step)
                bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()})
            if validation_store is not None and (
                progress.step % config.validate_every == 0 or last
            ):
                values = validate(stage, config, validation_store, accelerator, progress.step)
                _log(accelerator, run_dir, "validation", values, progress.step)
            now = time.monotonic()
            out_of_time = config.max_minutes and now - started > 60 * config.max_minutes
            leave, due = _any_process(
                accelerator,
                bool(stopped or out_of_time),
                last or now - last_save > 60 * config.save_every_minutes,
            )
            if leave or due:
                if not math.isfinite(float(loss.detach()) + float(norm)):
                    raise FloatingPointError(
                        f"loss {float(loss)}, gradient norm {float(norm)} at step {progress.step} "
                        f"of {run_dir}; the last good state is {latest_checkpoint(run_dir)}"
                    )
                _save(accelerator, run_dir, progress.step)
                last_save = time.monotonic()
            if leave and not last:
                bar.close()
                why = f"max_minutes={config.max_minutes}" if out_of_time else "a signal"
                raise TrainingStopped(
                    f"stopped by {why} at step {progress.step} of {config.steps}; the same "
                    f"command resumes from {latest_checkpoint(run_dir)}"
                )
    bar.close()
    # Not end_training(): it would take down the process group that the next stage needs.
    for tracker in accelerator.trackers:
        tracker.finish()


@torch.no_grad()
def validate(
    stage: Any, config: LoopConfig, store: Clips, accelerator: Accelerator, step: int
) -> dict[str, float]:
    """Mean metrics over the same validation clips every time; the training random state is kept."""
    stage.eval()
    sums: dict[str, float] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in range(config.validation_batches):
            indices = batch_indices(123, batch, config.batch_size, len(store))
            with accelerator.autocast():
                loss, metrics = stage(
                    *_load(store, indices, accelerator), progress=step / config.steps
                )
            for key, value in (stage.summarize(metrics) | {"loss": float(loss)}).items():
                sums[key] = sums.get(key, 0.0) + value / config.validation_batches
    stage.train()
    return sums


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The newest complete state below `run_dir`, if any."""
    found = sorted((run_dir / "state").glob("step-*[0-9]"))
    return found[-1] if found else None


def _load(store: Clips, indices_B: np.ndarray, accelerator: Accelerator) -> list[Tensor]:
    return [
        torch.from_numpy(array).to(accelerator.device, non_blocking=True)
        for array in store.batch(indices_B)
    ]


def _any_process(accelerator: Accelerator, *wishes: bool) -> list[bool]:
    """What any of the processes wishes: all must save or leave in the same step."""
    if accelerator.num_processes == 1:
        return list(wishes)
    votes = torch.tensor(wishes, dtype=torch.int32, device=accelerator.device)
    return [bool(vote) for vote in accelerator.reduce(votes, "sum").tolist()]


def _save(accelerator: Accelerator, run_dir: Path, step: int) -> None:
    """A state counts only under its final name, so a kill while saving loses nothing."""
    final = run_dir / "state" / f"step-{step:08d}"
    partial = final.with_name(final.name + ".partial")
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in sorted(final.parent.glob("step-*[0-9]"))[:-2]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def _log(
    accelerator: Accelerator, run_dir: Path, split: str, values: dict[str, float], step: int
) -> None:
    accelerator.log({f"{split}/{key}": value for key, value in values.items()}, step=step)
    if accelerator.is_main_process:
        with (run_dir / "log.jsonl").open("a") as file:
            rounded = {key: round(value, 5) for key, value in values.items()}
            file.write(json.dumps({"step": step, "split": split, **rounded}) + "\n")


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM or SIGINT came."""
    received: list[int] = []
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        for s in handlers:
            signal.signal(s, lambda number, _: received.append(number))
        yield received
    finally:
        for s, handler in handlers.items():
            signal.signal(s, handler)
