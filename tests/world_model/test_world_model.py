import json
import shutil

import numpy as np
import pytest
import torch

from genie_env.world_model import CheckpointError, WorldModel, WorldModelConfig
from genie_env.world_model.dynamics import NO_ACTION


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig.tiny())
    for weight in model.parameters():
        if weight.requires_grad and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    model.prompts = video(3, 2)
    return model


def video(num_worlds, num_frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_worlds, num_frames, 64, 64, 3), dtype=np.uint8)


def rollout(model, state, actions_TB):
    frames = [model.render(state)]
    for actions_B in actions_TB:
        model.step(state, actions_B)
        frames.append(model.render(state))
    return np.stack(frames, 1)


ACTIONS = np.random.default_rng(1).integers(8, size=(14, 3))


def test_same_seed_same_frames_and_other_seed_others(model):
    start = video(3, 2)
    first = rollout(model, model.start(start, [1, 2, 3]), ACTIONS)
    again = rollout(model, model.start(start, [1, 2, 3]), ACTIONS)
    other = rollout(model, model.start(start, [1, 2, 4]), ACTIONS)
    assert np.array_equal(first, again)
    assert np.array_equal(first[:2], other[:2])
    assert not np.array_equal(first[2], other[2])


def test_a_batch_is_many_single_worlds(model):
    start = video(3, 3)
    together = rollout(model, model.start(start, [5, 6, 7]), ACTIONS)
    for b in range(3):
        alone = rollout(model, model.start(start[b : b + 1], [5 + b]), ACTIONS[:, b : b + 1])
        # Matrix products of other shapes may round a pixel otherwise, never a token.
        assert np.abs(alone[0].astype(int) - together[b]).max() <= 1


def test_a_clone_dreams_the_same_and_leaves_the_original_alone(model):
    state = model.start(video(1, 1), [3])
    model.step(state, [1])
    copy = state.clone()
    branch = rollout(model, copy, ACTIONS[:6, :1])
    other = rollout(model, copy.clone(), ACTIONS[6:, 1:2])
    assert np.array_equal(rollout(model, state, ACTIONS[:6, :1]), branch)
    assert not np.array_equal(other[:, 1:3], branch[:, 1:3])


def test_rendering_seldom_shows_the_same_frame(model):
    """However long nobody looked, also beyond the reach of the decoder's memory."""
    for num_steps in (3, 14):
        looked = model.start(video(1, 2), [4])
        blind = model.start(video(1, 2), [4])
        for action in ACTIONS[:num_steps, 0]:
            model.step(looked, [action])
            last = model.render(looked)
            model.step(blind, [action])
        assert np.abs(model.render(blind).astype(int) - last).max() <= 1
    assert np.array_equal(model.render(blind), model.render(blind))


def test_steps_with_the_cache_equal_the_recomputed_window(model):
    """The world that `step` walks is the one that `Dynamics.forward` sees as a whole clip."""
    state = model.start(video(2, 1), [1, 2])
    tokens = [state.tokens_BN]
    for t in range(9):
        model.step(state, ACTIONS[t, :2])
        tokens.append(state.tokens_BN)
    tokens_BTN = torch.stack(tokens, 1)
    actions_BM = torch.from_numpy(ACTIONS[:9, :2].T.copy())
    hidden = torch.full_like(tokens_BTN, model.dynamics.mask_token)
    with torch.no_grad():
        whole = model.dynamics(tokens_BTN, actions_BM, hidden)
        cache = model.dynamics.new_cache(2)
        model.dynamics.commit(tokens_BTN[:, 0], torch.full((2,), NO_ACTION), cache)
        for t in range(1, 10):
            step = model.dynamics.step(hidden[:, t], actions_BM[:, t - 1], cache)
            torch.testing.assert_close(step, whole[:, t - 1])
            model.dynamics.commit(tokens_BTN[:, t], actions_BM[:, t - 1], cache)


def test_an_endless_rollout_slides_without_a_jump(model):
    state = model.start(video(1, 1), [0])
    sizes = set()
    for t in range(40):
        model.step(state, [t % 8])
        sizes.add((tuple(state.history.kv_L2BNHWE.shape), len(state.undecoded)))
        model.render(state)
    assert len({shape for shape, _ in sizes}) == 1
    assert int(state.history.time_B[0]) == 41
    assert np.isfinite(state.entropy_B).all()


def test_infer_actions_is_what_start_uses(model):
    clip = video(2, 5)
    actions_BM = model.infer_actions(clip)
    assert actions_BM.shape == (2, 4)
    assert actions_BM.min() >= 0
    assert actions_BM.max() < 8


@pytest.mark.parametrize("steps", [1, 25])
def test_any_number_of_maskgit_steps(model, steps):
    state = model.start(video(1, 1), [0])
    model.step(state, [0], steps=steps, temperature=0.7)
    assert model.render(state).shape == (1, 64, 64, 3)


def test_save_and_load(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "README.md").exists()
    loaded = WorldModel.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert loaded.config == model.config
    assert np.array_equal(loaded.prompts, model.prompts)
    again = WorldModel.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    a = rollout(loaded, loaded.start(video(1, 2), [1]), ACTIONS[:4, :1])
    assert np.array_equal(a, rollout(again, again.start(video(1, 2), [1]), ACTIONS[:4, :1]))


def test_a_head_is_saved_beside_the_rest(ending_model, tiny_model, tmp_path):
    ending_model.save_pretrained(tmp_path / "saved")
    loaded = WorldModel.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    for key, weight in ending_model.outcome_head.state_dict().items():
        assert torch.equal(loaded.outcome_head.state_dict()[key], weight.bfloat16().float())
    tiny_model.save_pretrained(tmp_path / "headless")
    assert not (tmp_path / "headless" / "outcome.safetensors").exists()
    (tmp_path / "saved" / "outcome.safetensors").unlink()
    with pytest.raises(CheckpointError, match="outcome.safetensors is missing"):
        WorldModel.from_pretrained(tmp_path / "saved")


def test_bf16_runs(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    loaded = WorldModel.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
    assert rollout(loaded, loaded.start(video(1, 2), [1]), ACTIONS[:8, :1]).dtype == np.uint8


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (np.zeros((1, 1, 64, 64, 3), np.float32), TypeError, "float32; accepted: uint8"),
        (np.zeros((1, 64, 64, 3), np.uint8), ValueError, r"\(1, 64, 64, 3\)"),
        (np.zeros((1, 0, 64, 64, 3), np.uint8), ValueError, "T >= 1"),
        (np.zeros((1, 1, 32, 32, 3), np.uint8), ValueError, "64, 64, 3"),
    ],
)
def test_bad_frames(model, frames, error, message):
    with pytest.raises(error, match=message):
        model.start(frames, [0])


@pytest.mark.parametrize("actions", [[8], [-1], [0, 1], [0.5]])
def test_bad_actions(model, actions):
    state = model.start(video(1, 1), [0])
    with pytest.raises(ValueError, match="accepted: "):
        model.step(state, actions)


def test_wrong_number_of_seeds(model):
    with pytest.raises(ValueError, match="2 seeds for 1 worlds"):
        model.start(video(1, 1), [0, 1])


def test_unknown_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'coinrum'; accepted: a shipped"):
        WorldModel.from_pretrained("coinrum")
    with pytest.raises(FileNotFoundError, match="no checkpoint '/no/such/folder'"):
        WorldModel.from_pretrained("/no/such/folder")


def test_a_hub_id_that_is_not_to_be_had(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="no checkpoint 'nobody/nothing': neither a folder"):
        WorldModel.from_pretrained("nobody/nothing", local_files_only=True)


def _edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def _drop_tensor(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["dynamics.head.weight"]
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: _edit_config(f, format_version=99), "format version 99; .* reads version 1"),
        (lambda f: _edit_config(f, surprise=1), "surprise"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 99), "is damaged"),
        (_drop_tensor, "missing tensor dynamics.head.weight"),
    ],
)
def test_damaged_checkpoints(model, tmp_path, harm, message):
    model.save_pretrained(tmp_path / "saved")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "saved", copy)
    harm(copy)
    with pytest.raises(CheckpointError, match=message):
        WorldModel.from_pretrained(copy)
