"""The loop and the stages on real video: resumed = never stopped, frozen = untouched."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from genie_env.world_model import WorldModel
from genie_env.world_model.tokenizer import VideoTokenizer
from genie_env.world_model.two_player import TwoPlayerConfig
from training import run as stages
from training.data.clip_store import ClipStore
from training.latent_actions import LatentActionLossConfig, LatentActionStage, surprise
from training.loop import (
    LoopConfig,
    TrainingStopped,
    batch_indices,
    latest_checkpoint,
    learning_rate,
    make_optimizers,
    train,
)
from training.presets import PRESETS, load_preset
from training.tokenizer import TokenizerLossConfig, TokenizerStage, patch_errors
from training.two_player import TwoPlayerLossConfig, TwoPlayerStage
from training.world import WorldLossConfig, WorldStage


@pytest.fixture
def store(experiment):
    return ClipStore(experiment.data[0].out, 6)


def world_stage(experiment, **loss):
    torch.manual_seed(0)
    return WorldStage(
        VideoTokenizer(experiment.tokenizer),
        experiment.latent_actions,
        experiment.latent_actions_loss,
        experiment.dynamics,
        experiment.dynamics_loss,
        WorldLossConfig(**loss),
    )


def learn_by_heart(stage, frames, steps):
    """Loss and metrics of each step on the same clips."""
    optimizer = torch.optim.AdamW(stage.parameters(), lr=3e-3)
    for _ in range(steps):
        loss, metrics = stage(frames, 0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield float(loss.detach()), metrics


@pytest.mark.parametrize("kind", ["tokenizer", "world"])
def test_resumed_equals_never_stopped(experiment, store, tmp_path, kind):
    def stage():
        torch.manual_seed(0)
        if kind == "tokenizer":
            return TokenizerStage(experiment.tokenizer, TokenizerLossConfig())
        return world_stage(experiment)

    config = LoopConfig(steps=7, batch_size=2, clip_frames=6, warmup_steps=2, log_every=1)
    unbroken = stage()
    train(unbroken, config, tmp_path / "unbroken", store)
    # A limit of no time at all stops (and saves) after every single step.
    sittings = 0
    while True:
        resumed = stage()
        sittings += 1
        try:
            train(resumed, replace(config, max_minutes=1e-9), tmp_path / "resumed", store)
            break
        except TrainingStopped:
            continue
    assert sittings == 7
    for key, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_stage_learns(experiment, store, tmp_path):
    """One clip is learned by heart; the loss of the first steps is left far behind."""
    torch.manual_seed(0)
    stage = TokenizerStage(experiment.tokenizer, TokenizerLossConfig())
    frames = torch.from_numpy(store.clips([0]))
    losses = [loss for loss, _ in learn_by_heart(stage, frames, steps=150)]
    assert losses[-1] < 0.25 * losses[0]


def test_the_world_stage_learns_and_leaves_the_tokenizer_alone(experiment, store, tmp_path):
    stage = world_stage(experiment)
    before = {k: v.clone() for k, v in stage.tokenizer.state_dict().items()}
    config = LoopConfig(
        steps=80,
        batch_size=2,
        clip_frames=6,
        learning_rate=3e-3,
        warmup_steps=2,
        log_every=1,
        weight_decay=0.1,
    )
    train(stage, config, tmp_path / "run", store)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    assert lines[-1]["dynamics_loss"] < 0.8 * lines[0]["dynamics_loss"]
    for key, value in stage.tokenizer.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_frozen_actions_do_not_change_by_decay_statistics_or_momentum(experiment, store, tmp_path):
    stage = world_stage(experiment, freeze_actions_at=0.0)
    before = {k: v.clone() for k, v in stage.actions.state_dict().items()}
    config = LoopConfig(steps=3, batch_size=2, clip_frames=6, warmup_steps=1, weight_decay=0.5)
    train(stage, config, tmp_path / "run", store)
    for key, value in stage.actions.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_no_gradient_of_the_dynamics_reaches_the_action_model(experiment, store):
    stage = world_stage(experiment).train()
    frames = torch.from_numpy(store.clips([0, 5]))
    tokens = stage.tokenizer.encode(frames)
    codes = stage.actions.encoder(frames).codes
    from training.dynamics import dynamics_loss

    loss, _ = dynamics_loss(stage.dynamics, tokens, codes, experiment.dynamics_loss)
    loss.backward()
    assert all(p.grad is None for p in stage.actions.parameters())
    assert stage.dynamics.action.weight.grad.abs().sum() > 0


def test_every_weight_of_the_action_model_learns(experiment, store):
    stage = world_stage(experiment).train()
    for weight in stage.actions.parameters():
        if weight.requires_grad and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    # After the steps without a code, before the freeze.
    loss, _ = stage(torch.from_numpy(store.clips([0, 5])), 0.4)
    loss.backward()
    silent = [
        name
        for name, p in stage.actions.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert silent == []


def test_sigterm_saves_and_the_same_command_goes_on(experiment, tmp_path):
    code = f"""
from dataclasses import replace
from training.data.clip_store import ClipStore
from training.loop import LoopConfig, train
from training.presets import load_preset
from training.tokenizer import TokenizerLossConfig, TokenizerStage
stage = TokenizerStage(load_preset("debug").tokenizer, TokenizerLossConfig())
config = LoopConfig(steps=100_000, batch_size=2, clip_frames=6, log_every=1)
train(stage, config, {str(tmp_path)!r}, ClipStore({experiment.data[0].out!r}, 6))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )
    log = tmp_path / "log.jsonl"
    while not log.exists() and process.poll() is None:
        pass
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert "TrainingStopped: stopped by a signal at step" in errors
    saved = latest_checkpoint(tmp_path)
    assert saved is not None
    assert int(saved.name.removeprefix("step-")) >= 1


def test_data_position_is_the_step():
    assert (batch_indices(0, 7, 16, 1000) == batch_indices(0, 7, 16, 1000)).all()
    assert (batch_indices(0, 7, 16, 1000) != batch_indices(0, 8, 16, 1000)).any()
    assert (batch_indices(1, 7, 16, 1000) != batch_indices(0, 7, 16, 1000)).any()


def test_learning_rate_warms_up_and_falls():
    config = LoopConfig(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[9] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)


def test_patch_errors_are_means_of_squares():
    target = torch.zeros(1, 1, 16, 16, 3)
    pixels = target.clone()
    pixels[0, 0, 8:, :8] = 2.0
    expected = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    assert torch.equal(patch_errors(pixels, target, 8)[0, 0], expected)


def test_the_whole_way_from_the_game_to_a_world(experiment, tmp_path):
    data, validation = stages.collect_missing(experiment)
    stages.train_tokenizer(experiment, tmp_path, data, validation)
    stages.train_actions(experiment, tmp_path, data, validation)
    model = stages.train_world(experiment, tmp_path, data, validation)
    loaded = WorldModel.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert loaded.config.look == "plain"
    assert loaded.config.frame_skip == 3
    assert loaded.prompts.shape[1:] == (4, 64, 64, 3)
    for part in ("tokenizer", "latent_actions"):
        weights = load_file(tmp_path / f"{part}.safetensors")
        assert torch.equal(getattr(model, part).to_latent.weight, weights["to_latent.weight"])
    state = loaded.start(loaded.prompts[:2], [0, 1])
    loaded.step(state, [0, 7])
    assert loaded.render(state).shape == (2, 64, 64, 3)


def test_a_run_goes_on_only_with_its_own_experiment(experiment, tmp_path):
    stages.remember(experiment, tmp_path)
    paused = replace(experiment, world_loop=replace(experiment.world_loop, max_minutes=1.0))
    stages.remember(paused, tmp_path)
    with pytest.raises(ValueError, match="begun with another config"):
        stages.remember(load_preset("paper"), tmp_path)


def test_a_still_video_does_no_harm(experiment):
    stage = world_stage(experiment).train()
    loss, _ = stage(torch.full((2, 6, 64, 64, 3), 90, dtype=torch.uint8), 0.2)
    loss.backward()
    assert torch.isfinite(loss)


def test_two_processes_train_with_the_same_command(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"]
    command += ["genie_env.cli", "train", "all", "--preset", "debug"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    state = latest_checkpoint(tmp_path / "runs" / "debug" / "world")
    # Each process keeps a random state of its own.
    assert {path.name for path in state.glob("random_states_*")} == {
        "random_states_0.pkl",
        "random_states_1.pkl",
    }
    assert WorldModel.from_pretrained(tmp_path / "runs" / "debug" / "model").config.num_actions == 8


def test_latent_actions_can_learn_with_the_dynamics(experiment, tmp_path):
    together = replace(experiment, actions_loop=None, world_loss=WorldLossConfig())
    data, validation = stages.collect_missing(together)
    stages.train_tokenizer(together, tmp_path, data, validation)
    with pytest.raises(ValueError, match="together with the dynamics: `genie train world`"):
        stages.train_actions(together, tmp_path, data, validation)
    stages.train_world(together, tmp_path, data, validation)
    logged = [json.loads(line) for line in (tmp_path / "world" / "log.jsonl").open()]
    assert {"lam_surprise", "dynamics_loss"} < logged[0].keys()


def test_world_needs_the_stages_before_it(experiment, tmp_path):
    data = [experiment.data[0].out]
    with pytest.raises(FileNotFoundError, match="`genie train tokenizer`"):
        stages.train_world(experiment, tmp_path, data, [])
    stages.train_tokenizer(experiment, tmp_path, data, [])
    with pytest.raises(FileNotFoundError, match="`genie train actions`"):
        stages.train_world(experiment, tmp_path, data, [])


@pytest.mark.parametrize("reach", [None, (24, 8)])
def test_latent_actions_learn_one_clip(experiment, store, reach):
    torch.manual_seed(0)
    config = replace(experiment.latent_actions, reach=reach)
    stage = LatentActionStage(config, LatentActionLossConfig(forward_first=0.0))
    frames = torch.from_numpy(store.clips([0]))
    losses = [loss for loss, _ in learn_by_heart(stage, frames, steps=60)]
    assert losses[-1] < 0.6 * losses[0]


def test_codes_that_the_past_foretells_are_noticed(experiment, store):
    torch.manual_seed(0)
    loss = LatentActionLossConfig(forward_first=0.0, independence=1.0, independent_from=0.0)
    stage = LatentActionStage(experiment.latent_actions, loss).train()
    frames = torch.from_numpy(store.clips([0, 5, 9]))
    actions = stage.encoder(frames)
    past_BMD = actions.features[:, :-1].detach()
    # As if three features gave the code away.
    bits_BM3 = past_BMD[..., :3] > past_BMD[..., :3].flatten(0, 1).median(0).values
    codes_BM = (bits_BM3 * torch.tensor([1, 2, 4])).sum(-1)
    codebook_KE = stage.encoder.quantizer.lookup(torch.arange(8))
    given_away = actions._replace(
        codes=torch.nn.functional.pad(codes_BM, (1, 0)),
        latents=torch.nn.functional.pad(codebook_KE[codes_BM], (0, 0, 1, 0)),
    )
    optimizer = torch.optim.Adam(stage.foretell.parameters(), lr=1e-2)
    for step in range(200):
        missed, known = stage._foretold(given_away)
        optimizer.zero_grad()
        missed.backward()
        optimizer.step()
        if step == 0:
            first = float(known)
    assert float(missed) < 0.2 and float(known) > 0.5 > abs(first)


def test_independence_moves_the_encoder_only_from_its_time_on(experiment, store):
    torch.manual_seed(0)
    frames = torch.from_numpy(store.clips([0, 5, 9]))

    def gradients(progress, weight):
        torch.manual_seed(0)
        loss = LatentActionLossConfig(forward_first=0.0, independence=weight, independent_from=0.5)
        stage = LatentActionStage(experiment.latent_actions, loss).train()
        stage(frames, progress)[0].backward()
        return stage.encoder.to_latent.weight.grad

    torch.testing.assert_close(gradients(0.4, 1.0), gradients(0.4, 9.0))
    assert not torch.allclose(gradients(0.6, 1.0), gradients(0.6, 9.0))


def test_an_encoder_waits_for_its_forward_model(experiment, store):
    frames = torch.from_numpy(store.clips([0, 5, 9]))
    loss = LatentActionLossConfig(forward_first=0.0, encoder_from=0.5, independence=1.0)

    def largest_gradient(progress):
        torch.manual_seed(0)
        stage = LatentActionStage(experiment.latent_actions, loss).train()
        stage(frames, progress)[0].backward()
        return [
            max(float(p.grad.abs().max()) for p in part.parameters() if p.requires_grad)
            for part in (stage.encoder, stage.decoder, stage.foretell)
        ]

    encoder, decoder, foretell = largest_gradient(0.4)
    assert encoder == 0 and decoder > 0 and foretell > 0
    assert min(largest_gradient(0.6)) > 0


def test_an_fsq_has_no_independence(experiment):
    quantizer = replace(experiment.latent_actions.quantizer, kind="fsq", levels=(4, 2))
    config = replace(experiment.latent_actions, quantizer=quantizer)
    with pytest.raises(ValueError, match="independence=0.1 needs a VQ"):
        LatentActionStage(config, LatentActionLossConfig(independence=0.1))


def test_surprise():
    # Patches from the first place, from any, and from nowhere (the last).
    shares = [[0.9, 0.1, 0.0, 0.0], [0.25] * 4, [0.0, 0.0, 0.0, 1.0]]
    goal = torch.tensor(shares).clamp_min(1e-9).log().expand(1, 2, -1, -1)
    assert surprise(goal, goal)[0].tolist() == pytest.approx([0, 0], abs=1e-6)
    for patch, counts in enumerate((True, False, False)):
        guess = goal.clone()
        guess[0, 1, patch] = torch.tensor([0.0, 9.0, 0.0, 0.0])
        assert (surprise(goal, guess)[0] > 1).tolist() == [False, counts]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole(name):
    experiment = load_preset(name)
    config = experiment.world_model("plain", experiment.data[0].frame_skip)
    assert config.num_actions == (6 if name == "paper" else 8)
    for data in experiment.data:
        assert data.start_level + data.num_levels <= 10_000
    for data in experiment.validation_data():
        assert 10_000 <= data.start_level < data.start_level + data.num_levels <= 20_000


def test_unknown_preset():
    with pytest.raises(ValueError, match="unknown preset 'big'; known: coinrun-plain"):
        load_preset("big")


def test_changes_to_a_preset():
    experiment = load_preset(
        "coinrun",
        [
            "world_loop.steps=7",
            "dynamics.action=prepend",
            "data.1.num_frames=9",
            "world_loop.betas=[0.8, 0.9]",
            "start_from=a/b",
        ],
    )
    assert experiment.world_loop.steps == 7 and experiment.dynamics.action == "prepend"
    assert [data.num_frames for data in experiment.data] == [262_144, 9]
    assert experiment.world_loop.betas == (0.8, 0.9) and experiment.start_from == "a/b"
    assert load_preset("coinrun", []) == PRESETS["coinrun"]()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("world_loop.pace=3", "no field 'pace'; known there: steps"),
        ("world_loop", "FIELD=VALUE"),
        ("data.3.seed=1", "no field '3'; known there: 0, 1"),
        ("world_loop.steps=many", "world_loop.steps"),
        ("world_loop.steps.more=1", "no field 'more'"),
    ],
)
def test_bad_changes(change, message):
    with pytest.raises(ValueError, match=message):
        load_preset("coinrun", [change])


def test_a_run_can_start_from_a_bundle(experiment, tmp_path):
    data, validation = stages.collect_missing(experiment)
    stages.train_tokenizer(experiment, tmp_path / "a", data, validation)
    stages.train_actions(experiment, tmp_path / "a", data, validation)
    stages.train_world(experiment, tmp_path / "a", data, validation)
    source = WorldModel.from_pretrained(tmp_path / "a" / "model", dtype=torch.float32)
    stopped = replace(
        experiment,
        start_from=str(tmp_path / "a" / "model"),
        start_parts=("tokenizer", "dynamics"),
        tokenizer_loop=replace(experiment.tokenizer_loop, steps=0),
        actions_loop=replace(experiment.actions_loop, steps=0),
        world_loop=replace(experiment.world_loop, steps=0),
    )
    stages.train_tokenizer(stopped, tmp_path / "b", data, [])
    stages.train_actions(stopped, tmp_path / "b", data, [])
    model = stages.train_world(stopped, tmp_path / "b", data, [])
    for name in ("tokenizer", "dynamics"):
        theirs = getattr(source, name).state_dict()
        for key, value in getattr(model, name).state_dict().items():
            assert torch.equal(value, theirs[key]), f"{name}.{key}"
    fresh = model.latent_actions.state_dict()["to_latent.weight"]
    assert not torch.equal(fresh, source.latent_actions.state_dict()["to_latent.weight"])
    other = replace(
        stopped,
        tokenizer=replace(
            experiment.tokenizer, quantizer=replace(experiment.tokenizer.quantizer, levels=(3, 3))
        ),
    )
    with pytest.raises(ValueError, match="another tokenizer than this experiment"):
        stages.train_tokenizer(other, tmp_path / "c", data, [])
    with pytest.raises(ValueError, match="start_parts has .'decoder'.; known: tokenizer"):
        stages.train_tokenizer(replace(stopped, start_parts=("decoder",)), tmp_path / "d", data, [])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_trained_weight_has_one_optimizer(experiment, optimizer):
    stage = world_stage(experiment)
    optimizers = make_optimizers(stage, LoopConfig(optimizer=optimizer))
    owned = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in stage.parameters() if p.requires_grad)
    assert len(optimizers) == (2 if optimizer == "muon" else 1)
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'"):
        make_optimizers(stage, LoopConfig(optimizer="sgd"))


def test_muon_steps_the_hidden_matrices_of_convolutions():
    stage = TwoPlayerStage(TwoPlayerConfig(width=8), TwoPlayerLossConfig())
    _, muon = make_optimizers(stage, LoopConfig())
    (owned,) = (group["params"] for group in muon.param_groups)
    foresight = stage.model.foresight
    ends = {id(foresight.into.weight), id(foresight.out.weight)}
    hidden = {id(p) for n, p in foresight.named_parameters() if n.endswith("weight")} - ends
    assert {id(p) for p in owned} == hidden and all(p.ndim == 2 for p in owned)
