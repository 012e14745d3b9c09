"""Agents of the dream: trained, resumed, scored on fixed real levels."""

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from stable_baselines3.common.vec_env import VecEnvWrapper

from agents import dream
from agents.config import DreamConfig
from agents.sb3 import SB3VecEnv
from agents.score import Levels, score_buttons, solved, table
from genie_env import cli
from genie_env.envs import coinrun
from genie_env.envs.coinrun import CoinRunVectorEnv


@pytest.fixture(scope="module")
def config(ending_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents")
    ending_model.save_pretrained(folder / "model")
    return DreamConfig(
        model=str(folder / "model"),
        run=folder / "dream",
        steps=128,
        num_worlds=4,
        horizon=6,
        num_starts=24,
        labels=40,
        rollout_steps=8,
        batch_size=16,
        epochs=1,
        check_every=64,
    )


@pytest.fixture(scope="module")
def agent(config):
    return dream.train(config)


def test_training_in_the_dream(config, agent):
    assert agent.num_timesteps == 128 and agent.action_space.n == 8
    checks = [json.loads(line) for line in (config.run / "check.jsonl").read_text().splitlines()]
    assert [check["steps"] for check in checks] == [64, 128]
    # Three ends in ten steps of a dream; the real game goes on.
    assert checks[0]["dream_ends"] > 0.5 > checks[0]["real_ends"]
    assert list((config.run / "tensorboard").rglob("events*"))


def weights(agent):
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


def test_training_goes_on_where_it_stopped(config, agent, capsys):
    # A finished one is left as it is.
    assert torch.equal(weights(dream.train(config)), weights(agent))
    run = config.run.with_name("agent_of_another_name")
    shutil.copytree(config.run, run)
    longer = dream.train(replace(config, run=run, steps=192))
    assert f"resumed from {run / 'agent_128_steps.zip'}" in capsys.readouterr().out
    assert longer.num_timesteps == 192
    moved = (weights(longer) - weights(agent)).abs().max()
    assert 0 < moved < 0.05, "one update away from where it was"
    # A save that was cut short does not count.
    (run / "agent_999_steps.zip").write_bytes(b"half")
    assert dream.train(replace(config, run=run, steps=192)).num_timesteps == 192
    with pytest.raises(ValueError, match="an agent of another config"):
        dream.train(replace(config, discount=0.5))


def test_the_same_agent_in_the_real_game_and_the_score_of_both(config, agent):
    real = replace(config, run=config.run.parent / "real", world="real")
    assert dream.train(real).action_space.n == 15
    mapped = replace(config, run=config.run.parent / "mapped", world="mapped")
    assert dream.train(mapped).action_space.n == 8
    twin = config.run.with_name("twin")
    shutil.copytree(config.run, twin)
    scores = dream.score([config.run, twin, mapped.run, real.run], "20000-20003")
    assert "128 steps in the real" in list(scores)[-1] and len(scores) == 7
    assert all(won.shape == (4,) and won.dtype == bool for won in scores.values())
    text = table(scores)
    assert text.count("\n") == 9 and "always right+jump" in text
    with pytest.raises(ValueError, match="cannot play in the dream"):
        dream.film_side_by_side(real.run)
    cli.main(["dream", "eval", "--run", str(real.run), "--levels", "20000-20001"])
    assert "128 steps in the real" in (real.run / "score.md").read_text()


def test_side_by_side(config, agent):
    with Image.open(dream.film_side_by_side(config.run, num_scenes=2)) as film:
        assert film.size == (2 * 64 * dream.GIF_ZOOM, 2 * 64 * dream.GIF_ZOOM)
        assert film.n_frames > 1


def test_refusals(config, tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="no outcome head"):
        dream.train(replace(config, model=str(tmp_path / "model"), run=tmp_path / "run"))
    with pytest.raises(FileNotFoundError, match="no finished agent"):
        dream.score([tmp_path])


def test_each_level_is_played_once_whatever_the_batch():
    levels = Levels("plain", "easy", 20_000, 7)

    def make_env(num_envs):
        return SB3VecEnv(CoinRunVectorEnv(num_envs, "plain", "easy"))

    def right_jump(obs, worlds, begin):
        assert len(obs) == len(worlds)
        return np.full(len(worlds), coinrun.RIGHT_JUMP)

    whole = solved(right_jump, make_env, levels)
    assert (solved(right_jump, make_env, levels, at_once=3) == whole).all()
    alone = CoinRunVectorEnv(1, "plain", "easy")
    for state, won in zip(levels.states, whole, strict=True):
        alone.reset(options={"states": [state]})
        while True:
            *_, terminated, truncated, infos = alone.step(np.array([coinrun.RIGHT_JUMP]))
            if terminated[0] or truncated[0]:
                break
        assert infos["success"][0] == won
    alone.close()
    assert 0 < whole.mean() < 1
    assert (score_buttons(levels)["always right+jump"] == whole).all()


def test_fewer_worlds_for_the_last_levels_change_nothing():
    levels = Levels("plain", "hard", 20_000, 16)
    sizes, starts = [], []

    def stubborn(rng, obs, worlds, begin):
        sizes.append(len(obs))
        starts.append(begin)
        # Half of the levels' players never jump, and stand before a wall until time is out.
        jumps = (worlds % 2 == 0) & (rng.random(len(worlds)) < 0.6)
        return np.where(jumps, coinrun.RIGHT_JUMP, coinrun.RIGHT)

    def game(count):
        return SB3VecEnv(CoinRunVectorEnv(count, "plain", "hard", frame_skip=3))

    class Watched(VecEnvWrapper):
        """Keeps its worlds: it might remember what it saw."""

        def reset(self):
            return self.venv.reset()

        def step_wait(self):
            return self.venv.step_wait()

    some = solved(partial(stubborn, np.random.default_rng(0)), game, levels)
    played = sizes.copy()
    assert starts.count(True) == 1 and played[0] == 16 and played[-1] <= 8
    sizes.clear()
    watched = solved(
        partial(stubborn, np.random.default_rng(0)), lambda count: Watched(game(count)), levels
    )
    assert (some == watched).all() and sizes == played
