"""`genie ...`: parses, calls, prints. The only file that sees every package, each when needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from gymnasium.error import Error as GymnasiumError

from agents.config import CloningConfig, CloningScoreConfig, DreamConfig, ExpertConfig
from training.data.collect import CollectConfig
from training.data.duels import DuelConfig
from training.evaluation.config import EvaluationConfig


def collect(config: Annotated[CollectConfig, tyro.conf.arg(name="")]) -> None:
    """Play the real CoinRun and store its video (true actions apart, for evaluation only).

    The same command goes on where it was stopped.
    """
    from training.data.collect import collect as collect_frames

    collect_frames(config)


def collect_duels(config: Annotated[DuelConfig, tyro.conf.arg(name="")]) -> None:
    """Record pong-like games of two players, no two alike (the truth about them apart, for
    evaluation only).

    The same command goes on where it was stopped.
    """
    from training.data.duels import record_duels

    print(record_duels(config))


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
    stage: tyro.conf.Positional[
        Literal["tokenizer", "actions", "world", "decoder", "outcome", "controls", "all"]
    ],
    preset: str = "coinrun-plain",
    run: Path | None = None,
    data: tuple[Path, ...] = (),
    validation: tuple[Path, ...] = (),
    max_minutes: float | None = None,
    change: tuple[str, ...] = (),
) -> None:
    """Train a stage, or everything: data, tokenizer, latent actions and dynamics, and the
    tokenizer's decoder once more; where the data has labels a head that knows reward and end, and
    what the real game's buttons are called among the latent actions.

    The same command resumes; SIGTERM and Ctrl-C save first (but for `outcome`, of minutes).

    Args:
        stage: What to train. `world`, the dynamics, needs the tokenizer and latent actions of
            the same run; `decoder`, `outcome` and `controls` need its world, and where there is
            none `outcome` takes that of `start_from`.
        preset: coinrun-plain, coinrun, paper or debug.
        run: Folder of the run (default runs/PRESET); the bundle ends in RUN/model.
        data: Clip stores to train on; the preset's own are collected if none is given.
        validation: Clip stores to validate on.
        max_minutes: Save and stop a stage after this long.
        change: Fields of the preset to change: `world_loop.steps=300 start_from=coinrun-plain`.
    """
    from training import run as stages
    from training.data.clip_store import has_labels
    from training.loop import TrainingStopped
    from training.presets import load_preset

    experiment = load_preset(preset, change).paused_after(max_minutes)
    run = run or Path("runs") / preset
    stores, checks = list(data), list(validation)
    if not stores:
        stores, own = stages.collect_missing(experiment)
        checks = checks or own
    try:
        if stage in ("tokenizer", "all"):
            stages.train_tokenizer(experiment, run, stores, checks)
        if stage == "actions" or (stage == "all" and experiment.actions_loop):
            alone = [] if data else stages.collect_for_actions(experiment)
            stages.train_actions(experiment, run, alone or stores, checks)
        if stage in ("world", "all"):
            stages.train_world(experiment, run, stores, checks)
        if stage in ("decoder", "all"):
            stages.train_decoder(experiment, run, stores, checks)
        if stage == "outcome" or (stage == "all" and has_labels(stores)):
            stages.train_outcome(experiment, run, stores)
        elif stage == "all":
            print("no labels beside all of the video: this world knows neither reward nor end")
        if stage == "controls" or (stage == "all" and has_labels(stores)):
            stages.measure_world(experiment, run)
        if stage not in ("tokenizer", "actions"):
            print(f'done: gym.make("GenieEnv-v0", model="{run / "model"}")')
    except TrainingStopped as stopped:
        print(stopped)


def train_two_player(
    run: Path = Path("runs/duel"),
    data: tuple[Path, ...] = (),
    validation: tuple[Path, ...] = (),
    max_minutes: float | None = None,
    change: tuple[str, ...] = (),
) -> None:
    """Find the two players in video of games of two, and learn what each can do.

    The same command resumes; SIGTERM and Ctrl-C save first.

    Args:
        run: Folder of the run; the bundle ends in RUN/model.
        data: Clip stores to train on; games of our own are recorded if none is given.
        validation: Clip stores to validate on.
        max_minutes: Save and stop after this long.
        change: Other values than usual: `loop.steps=300 model.past_frames=1`.
    """
    from training.loop import TrainingStopped
    from training.presets import changed
    from training.run_two_player import TwoPlayerRun
    from training.run_two_player import train_two_player as find_players

    config = changed(TwoPlayerRun(), [*change, f"loop.max_minutes={max_minutes or 'null'}"])
    try:
        find_players(config, run, data, validation)
        print(f'done: genie_env.parallel_env(model="{run / "model"}")')
    except TrainingStopped as stopped:
        print(stopped)


def evaluate(
    config: Annotated[EvaluationConfig, tyro.conf.arg(name="")],
    model: str = "coinrun-plain",
    out: Path | None = None,
) -> None:
    """Measure a world model against the real game on levels it never saw.

    Args:
        config: What to measure.
        model: Name of a shipped checkpoint, a folder, or a hub id.
        out: Folder for report.html, report.json, report.md and pictures (default
            runs/eval/MODEL).
    """
    from training.evaluation.evaluate import evaluate as measure

    out = out or Path("runs/eval") / Path(model).name
    measure(model, config, out)
    print((out / "report.md").read_text())
    print(f"the whole report: {out / 'report.html'}")


def evaluate_two_player(
    model: tuple[str, ...] = ("duel",),
    games: tuple[Literal["duel", "cooperative_pong", "atari_pong"], ...] = (
        "duel",
        "cooperative_pong",
        "atari_pong",
    ),
    num_games: int = 200,
    num_driven: int = 40,
    num_varied: int = 40,
    beside: tuple[Path, ...] = (),
    out: Path = Path("runs/eval"),
) -> None:
    """Measure whether both latent actions of two-player models control the two players.

    Args:
        model: Names of shipped checkpoints, folders, or hub ids: several seeds of one recipe, say.
        games: `duel`: our own, of styles never trained on.
        num_games: Games of each.
        num_driven: Games that are also driven, in the model and in the real game.
        num_varied: Games of our own of each kind of variation: no ball, distractors ...
        beside: Folders of such reports, to be shown in the same table.
        out: For report.html, report.json, report.md and pictures in a folder for each model; what
            they reach of what they should is in two-players.md.
    """
    from training.evaluation.two_player.bars import bars_table
    from training.evaluation.two_player.evaluate import TwoPlayerEvaluation, read_two_player
    from training.evaluation.two_player.evaluate import evaluate_two_player as measure

    config = TwoPlayerEvaluation(games, num_games, num_driven, num_varied)
    found = {folder.name: read_two_player(folder) for folder in beside}
    out.mkdir(parents=True, exist_ok=True)
    table = out / "two-players.md"
    table.write_text(bars_table(found))
    for name in model:
        path = Path(name)
        folder = out / (path.parent.name if path.name == "model" else path.name)
        found[folder.name] = measure(name, config, folder)
        print(f"the whole report: {folder / 'report.html'}")
        # What is known is written, should the rest be cut off.
        table.write_text(bars_table(found))
    print(table.read_text())


def dream(
    what: tyro.conf.Positional[Literal["train", "eval"]],
    config: Annotated[DreamConfig, tyro.conf.arg(name="")],
    levels: str = "20000-20999",
    beside: tuple[Path, ...] = (),
) -> None:
    """Train an agent inside a world model's dreams, or see what it is worth in the real game.

    Args:
        what: `train`, resumed by the same command, or `eval`: one episode on each of fixed real
            levels.
        config: How to train; `eval` takes everything but `run` from the trained agent.
        levels: For `eval`: first and last level, both included.
        beside: For `eval`: runs of other agents of the same game, to compare with.
    """
    from agents import dream as dreams
    from agents.score import table

    if what == "train":
        dreams.train(config)
        print(f"{config.run / 'agent.zip'}; now: genie dream eval --run {config.run}")
        return
    scores = dreams.score((config.run, *beside), levels)
    (config.run / "score.md").write_text(table(scores))
    print(table(scores))
    for run in (config.run, *beside):
        if dreams.read_about(run).button_K is not None:
            print(f"dream and reality side by side: {dreams.film_side_by_side(run)}")


def behaviour(
    what: tyro.conf.Positional[Literal["expert", "clone", "eval"]],
    config: CloningConfig,
    expert: ExpertConfig,
    score: CloningScoreConfig,
) -> None:
    """Learn to act in the real game from videos without actions, and a few labels.

    Every step goes on where it stopped.

    Args:
        what: `expert`: record videos of an expert of the real game. `clone`: label videos with
            latent actions, clone a policy from them, and map those to real actions. `eval`: compare
            it, in the real game, with everything that it is not.
        config: What is learnt from, and how.
        expert: What is recorded.
        score: What is compared.
    """
    if what == "expert":
        from agents.expert import record_expert

        for difficulty, store in record_expert(expert).items():
            print(f"{difficulty}: {len(store.segments)} episodes in {store.paths[0]}")
    elif what == "clone":
        from agents.latent_bc.learn import learn

        learn(config)
        print(f"{config.run / 'policy'}; now: genie bc eval --config.run {config.run}")
    else:
        from agents.latent_bc.evaluate import evaluate as compare
        from agents.latent_bc.report import table

        print(table(compare(config, score)))
        print(f"the curves: {config.run / 'score.png'}")


def play(
    prompt: str | None = None,
    model: str = "coinrun-plain",
    agent: Path | None = None,
    speed: float | None = None,
    temperature: float | None = None,
    maskgit_steps: int | None = None,
    keymap: Path | None = None,
    out: Path = Path("played"),
    film: Literal["gif", "mp4"] = "gif",
    keep: Path | None = None,
    seed: int | None = None,
    device: str | None = None,
) -> None:
    """Step into a dreamed world: a window that answers the keys. The panel says which.

    Args:
        prompt: What to start from: an image, a video, coinrun:LEVEL (then the real game can be
            shown beside it); one of the model's own starts if not given.
        model: Name of a shipped checkpoint, a folder, or a hub id. One of two players (duel) is
            for two people on one keyboard; what follows and is not about films, speed, seed or
            device is not for it.
        agent: Who plays until a key is pressed: the folder of a `genie dream train` or a `genie bc
            clone`, or a saved SB3 policy on frames (.zip).
        speed: Steps a second to aim at; as fast as the model can if not given.
        temperature: Of the sampling; the model's own if not given.
        maskgit_steps: The same.
        keymap: JSON file {"key": "command"} of keys that shall mean something else; keys that are
            remapped in the window are written there.
        out: Folder of recorded films.
        film: What they are.
        keep: Clip store to keep episodes in, as training data.
        seed: Of all randomness.
        device: Where the model runs; the best there is if not given.
    """
    from concurrent.futures import ThreadPoolExecutor

    from genie_env.envs.single import GenieEnv
    from genie_env.play.controls import Controls
    from genie_env.play.game import SPEEDS, Game
    from genie_env.play.keymap import Keymap
    from genie_env.play.session import Session
    from genie_env.play.window import Window
    from genie_env.world_model.checkpoint import TWO_PLAYERS, kind_of

    if kind_of(model) == TWO_PLAYERS:
        not_for_two = {
            "--agent": agent, "--temperature": temperature, "--maskgit-steps": maskgit_steps,
            "--keymap": keymap, "--keep": keep,
        }  # fmt: skip
        given = [name for name, value in not_for_two.items() if value is not None]
        if given:
            raise ValueError(f"{', '.join(given)}: not for {model}, a model of two players")
        _play_for_two(prompt, model, speed, out, film, seed, device)
        return

    def make_session() -> Session:
        env = GenieEnv(
            prompt, model, temperature=temperature, maskgit_steps=maskgit_steps, device=device
        )
        policy = keeper = None
        if agent is not None:
            from agents.player import load_player

            policy = load_player(agent, env.model, seed)
        if keep is not None:
            from training.data.played import keeper_of

            keeper = keeper_of(keep, env.model.config)
        config = env.model.config
        controls = Controls.of(config.controls, config.num_actions)
        return Session(env, controls, policy, keeper)

    keys = Keymap.read(keymap) if keymap and keymap.exists() else Keymap()
    pace = SPEEDS[-1] if speed is None else speed
    worker = ThreadPoolExecutor(1)
    session = worker.submit(make_session).result()
    game = Game(session, keys, out, film, keymap, pace, seed, worker)
    Window(game, f"Genie: {Path(model).name}").run()


def _play_for_two(
    prompt: str | None,
    model: str,
    speed: float | None,
    out: Path,
    film: str,
    seed: int | None,
    device: str | None,
) -> None:
    from genie_env.envs.two_player import GenieParallelEnv
    from genie_env.play.duel import DuelGame, DuelWindow

    env = GenieParallelEnv(prompt, model, device=device)
    game = DuelGame(env, out, film, speed, seed)
    DuelWindow(game, f"Genie: {Path(model).name}").run()


COMMANDS: dict[str, Callable[..., None]] = {
    "collect": collect,
    "collect-duels": collect_duels,
    "import-videos": import_videos,
    "export-videos": export_videos,
    "train": train,
    "train-two-player": train_two_player,
    "eval": evaluate,
    "eval-two-player": evaluate_two_player,
    "dream": dream,
    "bc": behaviour,
    "play": play,
}


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, prog="genie", description=__doc__, args=arguments
        )
    except ImportError as error:
        sys.exit(f"genie: {error}; pip install 'genie-env[all]' brings every optional part")
    except (
        ValueError, TypeError, OSError, ArithmeticError, MemoryError, GymnasiumError
    ) as error:  # fmt: skip
        # What the user gave was not accepted: the message says what is, a traceback would hide it.
        sys.exit(f"genie: {error}")


if __name__ == "__main__":
    main()
