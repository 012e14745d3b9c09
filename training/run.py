"""From data to a bundle: the stages of an experiment, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from safetensors.torch import load_file, save_file

from genie_env.world_model import WorldModel
from genie_env.world_model.tokenizer import VideoTokenizer
from training.data.clip_store import ClipStore, EndsOften
from training.data.collect import collect
from training.latent_actions import LatentActionStage
from training.loop import processes, train
from training.outcome import labelled_episodes, train_head
from training.presets import Experiment
from training.remember import remember as write_config
from training.tokenizer import TokenizerStage
from training.world import WorldStage

PROMPT_FRAMES = 4
NUM_PROMPTS = 64


def collect_missing(experiment: Experiment) -> tuple[list[Path], list[Path]]:
    """The experiment's own training and validation data, collected where not there yet."""
    with processes().main_process_first():
        return (
            [collect(config) for config in experiment.data],
            [collect(config) for config in experiment.validation_data()],
        )


def collect_for_actions(experiment: Experiment) -> list[Path]:
    """The experiment's own video for the latent action model alone, collected where not there yet;
    empty where that learns from the same as the rest."""
    with processes().main_process_first():
        return [collect(config) for config in experiment.actions_data]


def remember(experiment: Experiment, run_dir: Path) -> None:
    """Write the experiment beside its run; a run goes on only with the experiment it began with.

    Raises ValueError for another one. `max_minutes` may differ: it only says when to pause.
    """
    with processes().main_process_first():
        write_config(experiment.paused_after(None), run_dir / "experiment.json")


def start_weights(experiment: Experiment, parts: dict[str, torch.nn.Module]) -> None:
    """Give those of `parts` that the experiment names the weights of its `start_from`."""
    unknown = sorted(set(experiment.start_parts) - set(Experiment.start_parts))
    if unknown:
        raise ValueError(f"start_parts has {unknown}; known: {', '.join(Experiment.start_parts)}")
    if experiment.start_from is None:
        return
    source = WorldModel.from_pretrained(experiment.start_from, device="cpu", dtype=torch.float32)
    for name in parts.keys() & set(experiment.start_parts):
        theirs, ours = getattr(source.config, name), getattr(experiment, name)
        if theirs != ours:
            raise ValueError(
                f"{experiment.start_from} has another {name} than this experiment: {theirs}, "
                f"not {ours}; leave it out of start_parts"
            )
        parts[name].load_state_dict(getattr(source, name).state_dict())


def train_tokenizer(
    experiment: Experiment, run_dir: Path, data: Sequence[Path], validation: Sequence[Path]
) -> None:
    """First; ends with `run_dir/tokenizer.safetensors`. Resumes where it left off."""
    remember(experiment, run_dir)
    frames = experiment.tokenizer_loop.clip_frames
    store, validation_store = _open_stores(data, validation, frames, experiment)
    # Before the weights are drawn, so that a run is a function of its config.
    set_seed(experiment.tokenizer_loop.seed)
    stage = TokenizerStage(experiment.tokenizer, experiment.tokenizer_loss)
    start_weights(experiment, {"tokenizer": stage.tokenizer})
    clips = EndsOften(store, experiment.tokenizer_ends)
    train(stage, experiment.tokenizer_loop, run_dir / "tokenizer", clips, validation_store)
    _save_weights(stage.tokenizer, run_dir / "tokenizer.safetensors")


def train_actions(
    experiment: Experiment, run_dir: Path, data: Sequence[Path], validation: Sequence[Path]
) -> None:
    """The latent action model by itself; ends with `run_dir/latent_actions.safetensors`.

    Raises ValueError for an experiment that trains it with the dynamics (no `actions_loop`).
    """
    if experiment.actions_loop is None:
        raise ValueError(
            "this preset trains latent actions together with the dynamics: `genie train world`"
        )
    remember(experiment, run_dir)
    stores = _open_stores(data, validation, experiment.actions_loop.clip_frames, experiment)
    set_seed(experiment.actions_loop.seed)
    stage = LatentActionStage(experiment.latent_actions, experiment.latent_actions_loss)
    start_weights(experiment, {"latent_actions": stage.encoder})
    train(stage, experiment.actions_loop, run_dir / "actions", *stores)
    _save_weights(stage.encoder, run_dir / "latent_actions.safetensors")


def train_world(
    experiment: Experiment, run_dir: Path, data: Sequence[Path], validation: Sequence[Path]
) -> WorldModel:
    """Dynamics, and the latent action model unless it is finished; on the weights of the stages
    before, or those of `start_from` where there was no such stage. Ends with the bundle in
    `run_dir/model`."""
    remember(experiment, run_dir)
    set_seed(experiment.world_loop.seed)
    stage = WorldStage(
        VideoTokenizer(experiment.tokenizer),
        experiment.latent_actions,
        experiment.latent_actions_loss,
        experiment.dynamics,
        experiment.dynamics_loss,
        experiment.world_loss,
    )
    parts = {
        "tokenizer": stage.tokenizer,
        "latent_actions": stage.actions.encoder,
        "dynamics": stage.dynamics,
    }
    finished = not experiment.world_loss.freeze_actions_at
    for name, before, needed in (
        ("tokenizer", "tokenizer", True),
        ("latent_actions", "actions", finished),
    ):
        weights = run_dir / f"{name}.safetensors"
        borrowed = experiment.start_from and name in experiment.start_parts
        if weights.exists():
            parts.pop(name).load_state_dict(load_file(weights))
        elif needed and not borrowed:
            raise FileNotFoundError(
                f"{weights} is missing: run `genie train {before}` with the same --run first"
            )
    start_weights(experiment, parts)
    frames = experiment.world_loop.clip_frames
    store, validation_store = _open_stores(data, validation, frames, experiment)
    train(stage, experiment.world_loop, run_dir / "world", store, validation_store)
    model = bundle(experiment, stage, store, validation_store or store)
    if processes().is_main_process:
        model.save_pretrained(run_dir / "model")
    return model


def train_decoder(
    experiment: Experiment, run_dir: Path, data: Sequence[Path], validation: Sequence[Path]
) -> WorldModel:
    """Last: the tokenizer's decoder goes on learning, in the bundle of `train_world`.

    The encoder is left alone, so that the tokens mean to the dynamics what they did.
    """
    remember(experiment, run_dir)
    model = _finished_world(run_dir).to("cpu", torch.float32)
    set_seed(experiment.decoder_loop.seed)
    stage = TokenizerStage(experiment.tokenizer, experiment.decoder_loss, decoder_only=True)
    stage.tokenizer.load_state_dict(model.tokenizer.state_dict())
    frames = experiment.decoder_loop.clip_frames
    store, validation_store = _open_stores(data, validation, frames, experiment)
    clips = EndsOften(store, experiment.tokenizer_ends)
    train(stage, experiment.decoder_loop, run_dir / "decoder", clips, validation_store)
    model.tokenizer.load_state_dict(_cpu_weights(stage.tokenizer))
    if processes().is_main_process:
        model.save_pretrained(run_dir / "model")
    return model


def train_outcome(experiment: Experiment, run_dir: Path, data: Sequence[Path]) -> None:
    """A head that knows reward and end, in the bundle of `train_world`, or in a copy of
    `start_from` where there was no such stage: the only stage that reads labels. Minutes; what was
    there of a head is replaced."""
    if processes().is_main_process:
        folder = run_dir / "model"
        if experiment.start_from is None or folder.exists():
            model = _finished_world(run_dir)
        else:
            model = WorldModel.from_pretrained(experiment.start_from)
        config = experiment.outcome_training
        episodes = labelled_episodes(data, config.episodes, config.seed)
        model.outcome_head = train_head(model, episodes, config, experiment.outcome)
        model.config = replace(model.config, outcome=experiment.outcome)
        model.save_pretrained(folder)
    processes().wait_for_everyone()


def measure_world(experiment: Experiment, run_dir: Path, num_scenes: int = 64) -> None:
    """What the latent actions of the finished world do, measured with the real game and kept in
    its config, for people who play."""
    # Training itself needs nothing of what the evaluation imports.
    from training.controls import measure_controls

    if processes().is_main_process:
        model = _finished_world(run_dir)
        # Harder levels have the same buttons.
        controls = measure_controls(model, experiment.data[-1].difficulty, num_scenes)
        model.config = replace(model.config, controls=controls)
        model.save_pretrained(run_dir / "model")
    processes().wait_for_everyone()


def bundle(
    experiment: Experiment, stage: WorldStage, store: ClipStore, prompts: ClipStore
) -> WorldModel:
    """The trained parts as a `WorldModel`, with starting frames drawn from `prompts`."""
    # Imported videos have neither.
    look, frame_skip = store.meta["look"] or "other", store.meta["frame_skip"] or 1
    config = experiment.world_model(look, frame_skip)
    model = WorldModel(config)
    model.tokenizer.load_state_dict(_cpu_weights(stage.tokenizer))
    model.latent_actions.load_state_dict(_cpu_weights(stage.actions.encoder))
    model.dynamics.load_state_dict(_cpu_weights(stage.dynamics))
    count = min(NUM_PROMPTS, len(prompts))
    indices = np.random.default_rng(0).choice(len(prompts), size=count, replace=False)
    model.prompts = prompts.clips(np.sort(indices))[:, :PROMPT_FRAMES]
    return model


def _finished_world(run_dir: Path) -> WorldModel:
    folder = run_dir / "model"
    if not folder.exists():
        raise FileNotFoundError(
            f"{folder} is missing: run `genie train world` with the same --run first"
        )
    return WorldModel.from_pretrained(folder)


def _open_store(folders: Sequence[Path], clip_frames: int, experiment: Experiment) -> ClipStore:
    store = ClipStore(folders, clip_frames)
    if store.frame_size != experiment.tokenizer.frame_size:
        raise ValueError(
            f"{folders[0]} has frames of {store.frame_size} pixels a side, this preset takes "
            f"{experiment.tokenizer.frame_size}: import them with --frame-size "
            f"{experiment.tokenizer.frame_size}"
        )
    return store


def _open_stores(
    data: Sequence[Path], validation: Sequence[Path], clip_frames: int, experiment: Experiment
) -> tuple[ClipStore, ClipStore | None]:
    return (
        _open_store(data, clip_frames, experiment),
        _open_store(validation, clip_frames, experiment) if validation else None,
    )


def _save_weights(module: torch.nn.Module, path: Path) -> None:
    """Under its final name only once it is whole."""
    with processes().main_process_first():
        if processes().is_main_process:
            partial = path.with_suffix(".partial")
            save_file(_cpu_weights(module), partial)
            partial.rename(path)


def _cpu_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
