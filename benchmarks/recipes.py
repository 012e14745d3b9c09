"""Which recipe? Short runs that differ in one thing, measured on validation levels.

    python benchmarks/recipes.py --tokenizer coinrun-plain --steps 400

Every recipe trains latent actions and dynamics from scratch on the same tokenizer for the same
number of steps, and is measured by `genie eval` on levels 10,000-10,999. A recipe that is done is
not trained again. The table is printed and kept in OUT/table.md.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from training import run as stages
from training.evaluation.config import EvaluationConfig
from training.evaluation.evaluate import evaluate
from training.presets import load_preset

RECIPES: dict[str, tuple[str, ...]] = {
    "as shipped": (),
    "AdamW for all": ("world_loop.optimizer=adamw",),
    "action prepended": ("dynamics.action=prepend",),
    "history masked (the paper)": ("dynamics.history=masked",),
    "history never corrupted": ("dynamics_loss.corrupt_history=0.0",),
    "history corrupted up to 0.3": ("dynamics_loss.corrupt_history=0.3",),
    "mask 0.5 to 1 (the paper)": (
        "dynamics_loss.mask_schedule=uniform",
        "dynamics_loss.min_mask=0.5",
    ),
    "action from the first step": ("latent_actions_loss.forward_first=0.0",),
    "forward model first, for longer": ("latent_actions_loss.forward_first=0.15",),
    "plain squared error (the paper)": ("latent_actions_loss.relative=false",),
    "gradient codebook (the paper)": ("latent_actions.quantizer.kind=vq_gradient",),
    "never frozen (the paper)": ("world_loss.freeze_actions_at=1.0",),
    "dynamics of 2 layers": ("dynamics.transformer.num_layers=2",),
    "dynamics of d256": ("dynamics.transformer.width=256", "dynamics.transformer.num_heads=8"),
    "latent actions of d192": (
        "latent_actions.encoder.width=192",
        "latent_actions.encoder.num_heads=6",
    ),
    "frame_skip 1": ("data.0.frame_skip=1", "data.0.out=data/recipe-skip1"),
    "behaviour: jumps half of the time": (
        'data.0.mix={"jumper": 0.7, "runner": 0.2, "uniform": 0.1}',
        "data.0.out=data/recipe-jumper",
    ),
    "behaviour: uniform (the paper)": (
        'data.0.mix={"uniform": 1.0}',
        "data.0.out=data/recipe-uniform",
    ),
}
"""name -> changes to the preset. The first is what the others are compared with."""

COLUMNS = (
    "prediction PSNR, inferred actions, t = 1",
    "prediction PSNR, inferred actions, t = 4",
    "delta-PSNR, t = 4",
    "perplexity of the codes",
    "jump where possible",
    "direction on the ground",
    "direction in the air",
    "own future nearest, k = 4",
)


@dataclass(frozen=True)
class Options:
    tokenizer: str = "coinrun-plain"
    """World model whose tokenizer all recipes share."""
    preset: str = "coinrun-plain"
    steps: int = 400
    """Of latent actions and dynamics together; the rate falls to its end within them."""
    recipes: tuple[str, ...] = tuple(RECIPES)
    change: tuple[str, ...] = ()
    """Changes for all recipes, to measure at another size: `world_loop.batch_size=16`."""
    num_scenes: int = 64
    out: Path = Path("runs/recipes")


def measure(options: Options, name: str) -> dict[str, float]:
    """Train and evaluate one recipe; its numbers are kept in its folder."""
    folder = options.out / "".join(c if c.isalnum() else "-" for c in name)
    done = folder / "numbers.json"
    if done.exists():
        return json.loads(done.read_text())
    experiment = load_preset(
        options.preset,
        [
            f"start_from={options.tokenizer}",
            'start_parts=["tokenizer"]',
            f"world_loop.steps={options.steps}",
            *options.change,
            *RECIPES[name],
        ],
    )
    data, validation = stages.collect_missing(experiment)
    began = time.monotonic()
    stages.train_world(experiment, folder, data, validation)
    minutes = (time.monotonic() - began) / 60
    sections = evaluate(
        str(folder / "model"),
        EvaluationConfig(
            levels="10000-10999",
            num_scenes=options.num_scenes,
            sections=("prediction", "agreement", "retrieval"),
        ),
        folder / "eval",
    )
    numbers = {row.name: row.estimate.value for section in sections for row in section.rows}
    numbers = {column: round(numbers[column], 3) for column in COLUMNS} | {
        "minutes": round(minutes, 1)
    }
    done.write_text(json.dumps(numbers, indent=2) + "\n")
    return numbers


def main(options: Options) -> None:
    unknown = sorted(set(options.recipes) - set(RECIPES))
    if unknown:
        raise ValueError(f"unknown recipes {unknown}; known: {', '.join(RECIPES)}")
    columns = (*COLUMNS, "minutes")
    lines = ["| recipe | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name in options.recipes:
        numbers = measure(options, name)
        lines.append(f"| {name} | " + " | ".join(f"{numbers[c]:g}" for c in columns) + " |")
        print("\n".join((*lines[:2], lines[-1])), flush=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
