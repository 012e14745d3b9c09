"""What finds two players? Short runs that differ in one thing, on games of styles never trained on.

    python benchmarks/two_players.py --steps 600
    python benchmarks/two_players.py --seeds 0 1 2 3 4 --steps 2400 --recipes "as shipped" \\
        --out runs/two-players-2400

A recipe that is done is not trained again; a folder holds what was asked for alike. The table is
printed and kept in OUT/table.md.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from genie_env.world_model.two_player import PlayersNotSeenError
from training.data.duels import DuelConfig, record_duels
from training.evaluation.two_player.sections import codes_section, found_players
from training.evaluation.two_player.watch import (
    Watched,
    learn_actions,
    middles,
    watch,
    watch_trained_on,
)
from training.loop import LoopConfig
from training.penalized import PenalizedConfig, train_penalized
from training.presets import changed
from training.remember import remember
from training.run_two_player import TwoPlayerRun, train_two_player

VALIDATION = 600_000 << 32
"""Seed of games: neither trained on nor reported by `genie eval-two-player`."""
NEAR = 6.0
"""Pixels from the middle of a thing within which it was taken for a player."""
ROWS = {
    "NMI of a code and its player's action": "own",
    "NMI of a code and the other player's action": "other's",
    "NMI of a code and the ball's way left or right": "ball's",
    "actions told by one map for all games": "one map",
}
COLUMNS = ("found", *ROWS.values(), "on a paddle", "on a ball", "elsewhere", "minutes")

Recipe = tuple[str, ...] | PenalizedConfig
"""Changes to `TwoPlayerRun`, or the design that works by penalties."""
RECIPES: dict[str, Recipe] = {
    "as shipped": (),
    "one past frame": ("model.past_frames=1",),
    "two past frames": ("model.past_frames=2",),
    "codes from the first step": ("loss.foretell_first=0.0",),
    "no frames of its own": ("loss.own_frames=0",),
    "codes need not foretell together": ("loss.any_code=0.0",),
    "AdamW for all": ("loop.optimizer=adamw",),
    "nine codes a player": ("model.num_codes=9",),
    "penalties (the report's design)": PenalizedConfig(),
    "no penalties": PenalizedConfig(coverage=0.0, overlap=0.0, sensitivity=0.0),
    "penalties, masks see the next frame": PenalizedConfig(masks_see_next=True),
}


@dataclass(frozen=True)
class Options:
    steps: int = 600
    """The learning rate falls to its end within them."""
    recipes: tuple[str, ...] = ()
    """All if none is named."""
    seeds: tuple[int, ...] = (0,)
    data: tuple[Path, ...] = ()
    """Clip stores to train on; games of our own are recorded if none is given."""
    change: tuple[str, ...] = ()
    """Changes for all recipes but penalties: `model.width=8`."""
    num_games: int = 60
    out: Path = Path("runs/two-players")


def trained(options: Options, recipe: Recipe, seed: int, folder: Path) -> Any:
    """A model that says of games where players are and what they do."""
    data = options.data or (record_duels(DuelConfig("data/duels")),)
    if isinstance(recipe, PenalizedConfig):
        loop = LoopConfig(
            steps=options.steps, batch_size=32, clip_frames=2, optimizer="adamw", seed=seed
        )
        return train_penalized(recipe, loop, folder, list(data))
    config = changed(TwoPlayerRun(), [*options.change, *recipe])
    loop = replace(config.loop, steps=options.steps, seed=seed)
    return train_two_player(replace(config, loop=loop), folder, data, ()).eval()


def measure(options: Options, name: str, seed: int) -> dict[str, float]:
    """Train and evaluate one recipe; its numbers are kept in its folder."""
    folder = options.out / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}"
    done = folder / "numbers.json"
    remember(options, folder / "asked.json", apart=("recipes", "seeds", "out"))
    if done.exists():
        return json.loads(done.read_text())
    began = time.monotonic()
    model = trained(options, RECIPES[name], seed, folder)
    minutes = (time.monotonic() - began) / 60
    numbers = dict.fromkeys(COLUMNS, 0.0) | {"minutes": round(minutes, 1)}
    try:
        meaning_SK = learn_actions(watch_trained_on(model, 20))
        watched = watch(model, "duel", options.num_games, VALIDATION)
    except PlayersNotSeenError:
        pass  # In any game, and so nothing else.
    else:
        rows = {row.name: row.estimate.value for row in codes_section(watched, meaning_SK).rows}
        numbers |= {short: rows[row] for row, short in ROWS.items()}
        numbers |= {"found": found_players(watched).mean(), **taken_for_players(watched)}
    numbers = {column: round(float(number), 3) for column, number in numbers.items()}
    done.write_text(json.dumps(numbers, indent=2) + "\n")
    return numbers


def taken_for_players(watched: Watched) -> dict[str, float]:
    """What lies where the model has players: shares of players and moments."""

    def near(boxes_BMN4: np.ndarray) -> np.ndarray:
        off_BMSN2 = watched.places_BMS2[:, :, :, None] - middles(boxes_BMN4)[:, :, None]
        off = np.linalg.norm(off_BMSN2, axis=-1)
        return (np.nan_to_num(off, nan=np.inf) < NEAR).any(-1)

    paddle = near(watched.truth.players[:, watched.now])
    ball = near(watched.truth.balls[:, watched.now]) & ~paddle
    return {
        "on a paddle": paddle.mean(),
        "on a ball": ball.mean(),
        "elsewhere": 1 - paddle.mean() - ball.mean(),
    }


def main(options: Options) -> None:
    names = options.recipes or tuple(RECIPES)
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        raise ValueError(f"unknown recipes {unknown}; known: {', '.join(RECIPES)}")
    lines = ["| recipe | seed | " + " | ".join(COLUMNS) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for name in names:
        for seed in options.seeds:
            numbers = measure(options, name, seed)
            cells = " | ".join(f"{numbers[column]:g}" for column in COLUMNS)
            lines.append(f"| {name} | {seed} | {cells} |")
            print("\n".join((*lines[:2], lines[-1])), flush=True)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
