import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from genie_env.world_model import WorldModel, WorldModelConfig
from training.evaluation import prompts, sections
from training.evaluation.prompts import other_games, photographs, prompt_section, sketches

CODES = 3


@pytest.fixture(scope="module")
def world():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = WorldModelConfig.tiny()
    actions = config.latent_actions
    quantizer = replace(actions.quantizer, num_codes=CODES)
    world = WorldModel(replace(config, latent_actions=replace(actions, quantizer=quantizer)))
    for weight in world.parameters():
        if weight.requires_grad and not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    return world


def starts(count=2, num_frames=2, seed=0):
    shape = (count, num_frames, 64, 64, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def quick(monkeypatch):
    """Without the engine and what takes long: the search for shifts, bootstraps, PNG."""
    monkeypatch.setattr(prompts, "other_games", lambda level: list(starts()[:, 0]))
    monkeypatch.setattr(prompts, "photographs", lambda: list(starts(seed=1)[:, 0]))
    monkeypatch.setattr(prompts, "scene_shift", lambda before, after: np.array([3.0, 4.0]))
    monkeypatch.setattr(prompts, "strips_png", lambda strips: str(strips.shape).encode())
    monkeypatch.setattr(prompts, "LONG_STEPS", 4)
    for module in (prompts, sections):
        monkeypatch.setattr(module, "DRAWS", 20)


def test_section(world, quick):
    section = prompt_section(world, starts())
    rows = {row.name: row for row in section.rows}
    kinds = {"in-distribution": 2, "sketches": 3, "photographs": 2, "other games": 2}
    for kind, count in kinds.items():
        row = rows[f"difference between codes after 4 steps: {kind}"]
        assert row.estimate.count == count
        assert 0 < row.estimate.low <= row.estimate.value <= row.estimate.high < 255
        assert row.beside["two seeds of a code"] > 0
        assert rows[f"scene shift over 4 steps: {kind}"].estimate.value == 4 * 5
        assert rows[f"distance between the scene shifts of two codes: {kind}"].estimate.value == 0
        assert rows[f"detail kept after 4 steps: {kind}"].estimate.value > 0
    ratio = rows["difference between codes over in-distribution: sketches"].estimate.value
    found = rows["difference between codes after 4 steps: sketches"]
    np.testing.assert_allclose(ratio * found.beside["in-distribution"], found.estimate.value)
    # 3 + 2 + 2 prompts and 2 starts; given, decoded and a frame a code; every 2nd of 4 steps.
    strips, walk = section.figures
    assert strips.png == f"(9, {2 + CODES}, 64, 64, 3)".encode()
    assert walk.png == b"(9, 3, 64, 64, 3)"
    # Measured again it is the same; frames before the last of a start change nothing.
    earlier = np.concatenate((starts(seed=5), starts()), 1)
    assert prompt_section(world, earlier).rows == section.rows


def test_actions_that_do_nothing_differ_less_than_seeds(world, quick, monkeypatch):
    step = world.step
    monkeypatch.setattr(
        world, "step", lambda state, actions: step(state, np.zeros_like(actions)), raising=True
    )
    for row in prompt_section(world, starts()).rows:
        if row.name.startswith("difference between codes over that between seeds"):
            assert row.estimate.value == pytest.approx(0, abs=0.01)


def test_starts_of_a_wrong_shape(world):
    with pytest.raises(ValueError, match="in-distribution starts of shape"):
        prompt_section(world, starts()[0])
    with pytest.raises(ValueError, match="in-distribution starts of shape"):
        prompt_section(world, starts()[:0])


def test_sketches_are_fixed_by_their_seed():
    first, again, other = (np.stack(list(map(np.asarray, sketches(s)))) for s in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len({picture.tobytes() for picture in first}) == 3


def test_photographs_and_other_games():
    for picture in photographs():
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    pytest.importorskip("procgen")
    frames, again = other_games(3), other_games(3)
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 4
    assert all(map(np.array_equal, frames, again))
    assert len({frame.tobytes() for frame in frames}) == 4


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match="pip install scikit-image"):
        photographs()
    monkeypatch.setitem(sys.modules, "procgen", None)
    with pytest.raises(ImportError, match="procgen"):
        other_games()
