"""Which recipe? Short runs that differ in one thing, measured on validation levels.

    python benchmarks/recipes.py latent-actions --steps 400
    python benchmarks/recipes.py dynamics --steps 300

Every recipe of a family trains the same part from scratch for the same number of steps, beside the
other parts of one finished world model, and is measured by `genie eval` on levels 10,000-10,999. A
recipe that is done is not trained again. The table is printed and kept in OUT/table.md.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from training import run as stages
from training.evaluation.config import EvaluationConfig
from training.evaluation.evaluate import evaluate
from training.presets import load_preset


@dataclass(frozen=True)
class Family:
    """Recipes for one part of the world model."""

    loop: Literal["actions_loop", "world_loop"]
    """Of the stage that trains it."""
    changes: tuple[str, ...]
    """To the preset, for all recipes: nothing else learns."""
    sections: tuple[str, ...]
    columns: tuple[str, ...]
    """Rows of the evaluation."""
    recipes: dict[str, tuple[str, ...]]
    """name -> further changes. The first is what the others are compared with."""


FAMILIES = {
    "latent-actions": Family(
        loop="actions_loop",
        changes=('start_parts=["tokenizer", "dynamics"]', "world_loop.steps=0"),
        sections=("agreement",),
        columns=(
            "perplexity of the codes",
            "jump where possible",
            "direction on the ground",
            "direction in the air",
            "normalised mutual information of code and effect",
        ),
        recipes={
            "as shipped": (),
            "pixels in, pixels guessed (the paper)": ("latent_actions.reach=null",),
            "action from the first step": ("latent_actions_loss.forward_first=0.0",),
            "forward model first for 0.05": ("latent_actions_loss.forward_first=0.05",),
            "transitions weighed by their surprise": ("latent_actions_loss.focus=1.0",),
            "gradient codebook (the paper)": ("latent_actions.quantizer.kind=vq_gradient",),
            "FSQ of 4 x 2 levels": (
                "latent_actions.quantizer.kind=fsq",
                "latent_actions.quantizer.levels=[4, 2]",
            ),
            "encoder of 1 layer": ("latent_actions.encoder.num_layers=1",),
            "encoder of d192": (
                "latent_actions.encoder.width=192",
                "latent_actions.encoder.num_heads=6",
            ),
            "decoder of d192": (
                "latent_actions.decoder.width=192",
                "latent_actions.decoder.num_heads=6",
            ),
            "AdamW for all": ("actions_loop.optimizer=adamw",),
            "frame_skip 1": (
                "actions_data.0.frame_skip=1",
                "actions_data.0.num_frames=131072",
                "actions_data.0.out=data/recipe-skip1",
            ),
            "codes may depend on the past": ("latent_actions_loss.independence=0.0",),
            "behaviour: 70% of the buttons drawn anew": ("actions_data=[]",),
            "behaviour: jumps half of the time": (
                'actions_data.0.mix={"jumper": 0.9, "uniform": 0.1}',
                "actions_data.0.num_frames=131072",
                "actions_data.0.out=data/recipe-jumper",
            ),
            "behaviour: uniform (the paper)": (
                'actions_data.0.mix={"uniform": 1.0}',
                "actions_data.0.num_frames=131072",
                "actions_data.0.out=data/recipe-uniform",
            ),
        },
    ),
    "dynamics": Family(
        loop="world_loop",
        changes=('start_parts=["tokenizer", "latent_actions"]',),
        sections=("prediction", "retrieval"),
        columns=(
            "prediction PSNR, inferred actions, t = 1",
            "prediction PSNR, inferred actions, t = 4",
            "delta-PSNR, t = 4",
            "own future nearest, k = 4",
        ),
        recipes={
            "as shipped": (),
            "action prepended": ("dynamics.action=prepend",),
            "history masked (the paper)": ("dynamics.history=masked",),
            "history never corrupted": ("dynamics_loss.corrupt_history=0.0",),
            "history corrupted up to 0.3": ("dynamics_loss.corrupt_history=0.3",),
            "mask 0.5 to 1 (the paper)": (
                "dynamics_loss.mask_schedule=uniform",
                "dynamics_loss.min_mask=0.5",
            ),
            "2 layers": ("dynamics.transformer.num_layers=2",),
            "d256": ("dynamics.transformer.width=256", "dynamics.transformer.num_heads=8"),
            "AdamW for all": ("world_loop.optimizer=adamw",),
        },
    ),
}


@dataclass(frozen=True)
class Options:
    family: tyro.conf.Positional[Literal["latent-actions", "dynamics"]]
    model: str = "coinrun-plain"
    """World model whose other parts all recipes share."""
    preset: str = "coinrun-plain"
    steps: int = 400
    """The learning rate falls to its end within them."""
    recipes: tuple[str, ...] = ()
    """All of the family if none is named."""
    change: tuple[str, ...] = ()
    """Changes for all recipes, to measure at another size: `world_loop.batch_size=16`."""
    num_scenes: int = 64
    out: Path = Path("runs/recipes")


def measure(options: Options, family: Family, name: str) -> dict[str, float]:
    """Train and evaluate one recipe; its numbers are kept in its folder."""
    folder = options.out / options.family / "".join(c if c.isalnum() else "-" for c in name)
    done = folder / "numbers.json"
    if done.exists():
        return json.loads(done.read_text())
    experiment = load_preset(
        options.preset,
        [
            f"start_from={options.model}",
            f"{family.loop}.steps={options.steps}",
            f"{family.loop}.warmup_steps={options.steps // 10}",
            *family.changes,
            *options.change,
            *family.recipes[name],
        ],
    )
    data, validation = stages.collect_missing(experiment)
    began = time.monotonic()
    if family.loop == "actions_loop":
        alone = stages.collect_for_actions(experiment)
        stages.train_actions(experiment, folder, alone or data, validation)
    stages.train_world(experiment, folder, data, validation)
    minutes = (time.monotonic() - began) / 60
    sections = evaluate(
        str(folder / "model"),
        EvaluationConfig(
            levels="10000-10999", num_scenes=options.num_scenes, sections=family.sections
        ),
        folder / "eval",
    )
    measured = {row.name: row.estimate.value for section in sections for row in section.rows}
    numbers = {column: round(measured[column], 3) for column in family.columns}
    numbers["minutes"] = round(minutes, 1)
    done.write_text(json.dumps(numbers, indent=2) + "\n")
    return numbers


def main(options: Options) -> None:
    family = FAMILIES[options.family]
    names = options.recipes or tuple(family.recipes)
    unknown = sorted(set(names) - set(family.recipes))
    if unknown:
        raise ValueError(f"unknown recipes {unknown}; known: {', '.join(family.recipes)}")
    columns = (*family.columns, "minutes")
    lines = ["| recipe | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name in names:
        numbers = measure(options, family, name)
        lines.append(f"| {name} | " + " | ".join(f"{numbers[c]:g}" for c in columns) + " |")
        print("\n".join((*lines[:2], lines[-1])), flush=True)
    (options.out / options.family / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
