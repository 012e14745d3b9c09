"""GenieParallelEnv: the API, both players, and what users do wrong."""

import re

import numpy as np
import pettingzoo
import pytest
from gymnasium.error import ResetNeeded
from pettingzoo.test import api_test, parallel_api_test, seed_test
from pettingzoo.test.render_test import render_test
from pettingzoo.utils import parallel_to_aec

import genie_env
from genie_env.envs.two_player import GenieParallelEnv
from genie_env.world_model.two_player import TwoPlayerModel
from training.evaluation.two_player.variations import play_without

AGENTS = ["player_0", "player_1"]


@pytest.fixture(scope="module")
def model():
    return TwoPlayerModel.from_pretrained("duel")


@pytest.fixture
def env(model):
    env = genie_env.parallel_env(model=model, max_cycles=30)
    yield env
    env.close()


def play(env, seed, num_steps=10):
    rng = np.random.default_rng(seed)
    frames = [env.reset(seed=seed)[0]]
    for _ in range(num_steps):
        actions = {agent: int(rng.integers(3)) for agent in AGENTS}
        frames.append(env.step(actions)[0])
    return np.array([[frame[agent] for agent in AGENTS] for frame in frames])


def test_pettingzoo_tests_pass(model, env):
    parallel_api_test(env, num_cycles=70)
    api_test(parallel_to_aec(genie_env.parallel_env(model=model, max_cycles=20)), num_cycles=30)
    seed_test(lambda: parallel_to_aec(GenieParallelEnv(model=model, max_cycles=20)), num_cycles=10)
    render_test(
        lambda render_mode="rgb_array": parallel_to_aec(
            GenieParallelEnv(model=model, max_cycles=20, render_mode=render_mode)
        )
    )


def test_the_same_seed_and_actions_give_the_same_frames(model, env):
    other = GenieParallelEnv(model=model)
    assert (play(env, 3) == play(other, 3)).all()
    assert (play(env, 3) == play(env, 3)).all()
    assert (play(env, 3) != play(env, 4)).any()


def test_it_is_registered(model):
    env = pettingzoo.make("parallel", "GenieParallelEnv-v0", model=model, max_cycles=5)
    assert env.reset(seed=0)[0].keys() == set(AGENTS)


def test_each_player_has_codes_of_its_own(env):
    assert env.action_space("player_0").n == 3
    for agent in AGENTS:
        frames = []
        for code in range(3):
            env.reset(seed=1)
            for _ in range(3):
                frame = env.step(dict.fromkeys(AGENTS, 0) | {agent: code})[0][agent]
            frames.append(frame)
        assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()


def test_a_view_of_ones_own(model):
    env = GenieParallelEnv(model=model, view="own", render_mode="rgb_array")
    obs, infos = env.reset(seed=0)
    whole = env.render()
    for number, agent in enumerate(AGENTS):
        hidden = (obs[agent] != whole).any(-1)
        assert hidden.any() and (obs[agent][hidden] == 0).all()
        x, _ = infos[AGENTS[1 - number]]["position"]
        y, x = np.argwhere(hidden).mean(0)
        assert abs(np.array([x, y]) - infos[AGENTS[1 - number]]["position"]).max() < 8


def test_an_episode_is_truncated(model):
    env = GenieParallelEnv(model=model, max_cycles=2)
    env.reset(seed=0)
    assert env.step(dict.fromkeys(AGENTS, 0))[3] == dict.fromkeys(AGENTS, False)
    assert env.step(dict.fromkeys(AGENTS, 0))[3] == dict.fromkeys(AGENTS, True)
    assert env.agents == []
    with pytest.raises(ResetNeeded):
        env.step(dict.fromkeys(AGENTS, 0))


def test_a_reward_of_ones_own(model):
    def reward(before, after):
        assert before.shape == after.shape == (64, 64, 3)
        return {"player_0": 1.0, "player_1": -1.0}

    env = GenieParallelEnv(model=model, reward=reward)
    env.reset(seed=0)
    assert env.step(dict.fromkeys(AGENTS, 1))[1] == {"player_0": 1.0, "player_1": -1.0}
    env = GenieParallelEnv(model=model, reward=lambda a, b: {"player_0": 1.0, "player_1": None})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="accepted: finite numbers"):
        env.step(dict.fromkeys(AGENTS, 1))
    for wrong in (lambda a, b: 1.0, lambda a, b: {"player_0": 1.0}):
        env = GenieParallelEnv(model=model, reward=wrong)
        env.reset(seed=0)
        with pytest.raises(ValueError, match="a number for each of player_0, player_1"):
            env.step(dict.fromkeys(AGENTS, 0))


def test_a_prompt_without_two_players(env):
    grey = np.full((8, 64, 64, 3), 99, np.uint8)
    with pytest.raises(ValueError, match="0 of 2 players can be seen"):
        env.reset(options={"prompt": grey})
    with pytest.raises(ValueError, match="T >= 4"):
        env.reset(options={"prompt": grey[:2]})
    with pytest.raises(ValueError, match=r"prompt ndarray \(64, 64, 3\) has T = 1 frames"):
        env.reset(options={"prompt": grey[0]})
    with pytest.raises(ValueError, match="'coinrun:5' is a level of the real CoinRun"):
        env.reset(options={"prompt": "coinrun:5"})


@pytest.mark.parametrize(("gone", "most"), [((1,), 0.25), ((0, 1), 0.3)])
def test_prompts_in_which_players_are_missing_are_refused(env, gone, most):
    """Most of them: something else that moves may be taken for one."""
    videos = play_without(gone, 20, seed=3)
    accepted = 0
    for video_THWC in videos:
        try:
            env.reset(options={"prompt": video_THWC})
            accepted += 1
        except ValueError as error:
            assert re.search("[01] of 2 players can be seen", str(error))
    assert accepted <= most * len(videos)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"player_0": 0}, "one for each of player_0, player_1"),
        ({"player_0": 0, "player_1": 0, "player_2": 0}, "one for each of player_0, player_1"),
        ({"player_0": 0, "me": 0}, "one for each of player_0, player_1"),
        ({"player_0": 0, "player_1": 3}, "action 3 of player_1; accepted: an integer from 0 to 2"),
        ({"player_0": 0.5, "player_1": 0}, "action 0.5 of player_0"),
        ({"player_0": 0, 1: 0}, "one for each of player_0, player_1"),
        (None, "actions None; accepted: one for each of player_0, player_1"),
    ],
)
def test_actions_that_do_not_fit(env, actions, message):
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(actions)


def test_arguments_that_do_not_fit(model):
    with pytest.raises(ResetNeeded):
        GenieParallelEnv(model=model).step(dict.fromkeys(AGENTS, 0))
    env = GenieParallelEnv(model=model)
    for space in (env.observation_space, env.action_space):
        with pytest.raises(ValueError, match="unknown agent 'me'; accepted: player_0, player_1"):
            space("me")
    with pytest.raises(ValueError, match="unknown view"):
        GenieParallelEnv(model=model, view="mine")
    with pytest.raises(ValueError, match="unknown render_mode"):
        GenieParallelEnv(model=model, render_mode="video")
    with pytest.raises(ValueError, match="max_cycles=0"):
        GenieParallelEnv(model=model, max_cycles=0)
    with pytest.raises(TypeError, match="reward of type str"):
        GenieParallelEnv(model=model, reward="score")
