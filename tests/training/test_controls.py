"""What latent actions do, measured with the real game."""

from dataclasses import replace

import pytest

from genie_env.envs.coinrun import BUTTON_NAMES
from genie_env.play.controls import Controls
from genie_env.world_model import WorldModel
from training import run as stages
from training.controls import measure_controls

pytest.importorskip("procgen")


@pytest.fixture
def world(tiny_model):
    model = WorldModel(replace(tiny_model.config, look="plain", frame_skip=3))
    model.load_state_dict(tiny_model.state_dict())
    return model


def test_every_button_is_seen_as_some_latent_action(world):
    measured = measure_controls(world, num_scenes=8)
    assert set(measured) <= set(BUTTON_NAMES) and {"none", "left", "jump"} <= set(measured)
    for share_K in measured.values():
        assert len(share_K) == world.config.num_actions
        assert sum(share_K) == pytest.approx(1, abs=0.01)
    assert measured == measure_controls(world, num_scenes=8)


def test_what_was_measured_travels_with_the_model(world, experiment, tmp_path):
    world.save_pretrained(tmp_path / "model")
    stages.measure_world(experiment, tmp_path, num_scenes=8)
    config = WorldModel.from_pretrained(tmp_path / "model").config
    assert Controls.of(config.controls, config.num_actions).codes.keys() >= {"none", "right"}


def test_other_videos_have_no_buttons(tiny_model):
    world = WorldModel(replace(tiny_model.config, look="other"))
    with pytest.raises(ValueError, match="look 'other'"):
        measure_controls(world)
