"""Checkpoints on disk: found by name, checked, read and written.

A folder with `config.json`, weights as safetensors in bf16, and perhaps frames to start from.

Shapes: P starts, T frames, H W pixels, C = 3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import dacite
import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
FORMAT_VERSION = 1
PROMPTS = "prompts.png"
WORLD, TWO_PLAYERS = "world model", "two-player model"
"""Kinds of checkpoint; what does not say is a world model."""

Config = TypeVar("Config")
"""A dataclass."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded: damaged, incomplete, or of another version or kind."""


def shipped_checkpoints(kind: str = WORLD) -> list[str]:
    """Names that are known without a path."""
    return [
        path.parent.name
        for path in sorted(CHECKPOINTS.glob("*/config.json"))
        if json.loads(path.read_text()).get("kind", WORLD) == kind
    ]


def find_checkpoint(name: str | Path, hub_kwargs: dict[str, Any], kind: str = WORLD) -> Path:
    """The folder of a shipped name, a folder, or a Hub id. FileNotFoundError lists what is
    known."""
    known = shipped_checkpoints(kind)
    if str(name) in known:
        return CHECKPOINTS / str(name)
    if Path(name).is_dir():
        return Path(name)
    looks_like_id = (
        isinstance(name, str) and name.count("/") == 1 and not name.startswith((".", "/"))
    )
    if looks_like_id:
        try:
            return Path(snapshot_download(str(name), **hub_kwargs))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise FileNotFoundError(
                f"no checkpoint {str(name)!r}: neither a folder nor to be had from the Hub "
                f"({error}); shipped: {', '.join(known) or 'none'}"
            ) from error
    raise FileNotFoundError(
        f"no checkpoint {str(name)!r}; accepted: a shipped name ({', '.join(known) or 'none'}), a "
        "folder with config.json and model.safetensors, or a Hub id like 'user/name'"
    )


def kind_of(name: str | Path) -> str:
    """What a checkpoint holds. Raises as `find_checkpoint`; CheckpointError."""
    if str(name) in shipped_checkpoints(TWO_PLAYERS):
        return TWO_PLAYERS
    return _read_facts(find_checkpoint(name, {})).get("kind", WORLD)


def _read_facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / "config.json").read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {folder}: config.json is missing") from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint {folder}: config.json is damaged: {error}") from error
    version = facts.get("format_version") if isinstance(facts, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {folder} has format version {version}; this genie-env reads version "
            f"{FORMAT_VERSION}"
        )
    return facts


def read_config(folder: Path, config: type[Config], kind: str = WORLD) -> Config:
    """Raises CheckpointError."""
    values = _read_facts(folder)
    found = values.get("kind", WORLD)
    if found != kind:
        raise CheckpointError(f"checkpoint {folder} holds a {found}; a {kind} is needed here")
    try:
        return dacite.from_dict(config, values, dacite.Config(cast=[tuple], strict=True))
    except (dacite.DaciteError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder}: config.json: {error}") from error


def write_config(folder: Path, config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")


def read_weights(folder: Path, names: Sequence[str], model: nn.Module) -> None:
    """Into a model of the checkpoint's config. Raises CheckpointError."""
    weights: dict[str, Tensor] = {}
    try:
        for name in names:
            weights |= load_file(folder / name)
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {folder}: {name} is missing") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error
    wanted = model.state_dict()
    problems = [f"missing tensor {key}" for key in wanted.keys() - weights.keys()]
    problems += [f"unknown tensor {key}" for key in weights.keys() - wanted.keys()]
    problems += [
        f"{key} has shape {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted.keys() & weights.keys()
        if weights[key].shape != wanted[key].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise CheckpointError(
            f"checkpoint {folder} does not fit its config.json ({len(problems)} problems): {shown}"
        )
    model.load_state_dict(weights)


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """In bf16: what the models are trained and run in; half the size of fp32."""
    halves = {
        key: (value.bfloat16() if value.is_floating_point() else value).cpu().contiguous()
        for key, value in weights.items()
    }
    save_file(halves, path)


def read_prompts(folder: Path, size: int) -> np.ndarray:
    """Starting frames, uint8 (P, T, H, W, C): of a grid, a row a start, a column a frame; none
    where there is no such file."""
    path = folder / PROMPTS
    if not path.exists():
        return np.zeros((0, 1, size, size, 3), np.uint8)
    grid = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = grid.shape[0] // size, grid.shape[1] // size
    return np.ascontiguousarray(grid.reshape(rows, size, columns, size, 3).transpose(0, 2, 1, 3, 4))


def write_prompts(folder: Path, prompts_PTHWC: np.ndarray) -> None:
    if len(prompts_PTHWC):
        rows = prompts_PTHWC.transpose(0, 2, 1, 3, 4)
        P, H, T, W, C = rows.shape
        Image.fromarray(rows.reshape(P * H, T * W, C)).save(folder / PROMPTS, optimize=True)


def fast_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it fast, else fp32."""
    if device.type == "cpu" and not torch.cpu.get_capabilities().get("avx512_bf16"):
        return torch.float32
    return torch.bfloat16
