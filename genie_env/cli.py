"""`genie ...`: parses, calls, prints. The only file that sees every package, each when needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from training.data.collect import CollectConfig


def collect(config: Annotated[CollectConfig, tyro.conf.arg(name="")]) -> None:
    """Play the real CoinRun and store its video (true actions apart, for evaluation only).

    The same command goes on where it was stopped.
    """
    from training.data.collect import collect as collect_frames

    collect_frames(config)


def import_videos(videos: Path, out: Path, fps: float | None = None, frame_size: int = 64) -> None:
    """Turn a folder of ordinary videos into a clip store to train on.

    Args:
        videos: Folder, searched with its subfolders.
        out: Folder of the clip store.
        fps: Frames a second to keep; all of them if not given.
        frame_size: Pixels a side.
    """
    from training.data.videos import import_videos as import_folder

    report = import_folder(videos, out, frame_size=frame_size, fps=fps)
    frames = sum(report.imported.values())
    print(
        f"{report.store}: {len(report.imported)} videos with {frames:,} frames imported, "
        f"{len(report.already)} were there already, {len(report.skipped)} skipped"
    )
    for name, reason in report.skipped.items():
        print(f"skipped {name}: {reason}")


def export_videos(store: Path, out: Path) -> None:
    """Write a clip store as lossless videos, one for each unbroken segment."""
    from training.data.videos import export_store

    print(f"{out}: {len(export_store(store, out))} videos written")


def train(
    stage: tyro.conf.Positional[Literal["tokenizer", "world", "all"]],
    preset: str = "coinrun-plain",
    run: Path | None = None,
    data: Path | None = None,
    validation: Path | None = None,
    max_minutes: float | None = None,
) -> None:
    """Train a stage, or everything: data, tokenizer, then latent actions and dynamics.

    The same command resumes; SIGTERM and Ctrl-C save first.

    Args:
        stage: What to train; `world` needs the tokenizer of the same run.
        preset: coinrun-plain, coinrun, paper or debug.
        run: Folder of the run (default runs/PRESET); the bundle ends in RUN/model.
        data: Clip store to train on; the preset's own is collected if not given.
        validation: Clip store to validate on.
        max_minutes: Save and stop a stage after this long.
    """
    from dataclasses import replace

    from training import run as stages
    from training.loop import TrainingStopped
    from training.presets import load_preset

    experiment = load_preset(preset)
    experiment = replace(
        experiment,
        tokenizer_loop=replace(experiment.tokenizer_loop, max_minutes=max_minutes),
        world_loop=replace(experiment.world_loop, max_minutes=max_minutes),
    )
    run = run or Path("runs") / preset
    run.mkdir(parents=True, exist_ok=True)
    if data is None:
        data, own = stages.collect_missing(experiment)
        validation = validation or own
    try:
        if stage in ("tokenizer", "all"):
            stages.train_tokenizer(experiment, run, data, validation)
        if stage in ("world", "all"):
            stages.train_world(experiment, run, data, validation)
            print(f'done: gym.make("GenieEnv-v0", model="{run / "model"}")')
    except TrainingStopped as stopped:
        print(stopped)


def evaluate(
    model: str = "coinrun-plain",
    levels: str = "20000-20999",
    out: Path | None = None,
    difficulty: Literal["easy", "hard"] = "easy",
) -> None:
    """Measure a world model against the real game on levels it never saw.

    Args:
        model: Name of a shipped checkpoint, a folder, or a hub id.
        levels: First and last level, both included.
        out: Folder for report.json, report.md and film strips (default runs/eval/MODEL).
        difficulty: Of the levels.
    """
    from training.evaluate import evaluate as measure
    from training.evaluate import parse_levels

    first, count = parse_levels(levels)
    out = out or Path("runs/eval") / Path(model).name
    print(measure(model, first, count, out, difficulty=difficulty).table())


COMMANDS: dict[str, Callable[..., None]] = {
    "collect": collect,
    "import-videos": import_videos,
    "export-videos": export_videos,
    "train": train,
    "eval": evaluate,
}


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="genie", description=__doc__, args=arguments
        )
    except ImportError as error:
        sys.exit(f"genie: {error}; pip install 'genie-env[all]' brings every optional part")
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        # What the user gave was not accepted: the message says what is, a traceback would hide it.
        sys.exit(f"genie: {error}")


if __name__ == "__main__":
    main()
