"""Reward and end: learned, a user's function, or none."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import genie_env  # noqa: F401  (registers GenieEnv-v0)

FRAME = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)


def make(model, **kwargs):
    return gym.make("GenieEnv-v0", model=model, prompt=FRAME, **kwargs)


def make_vec(model, num_envs=6, **kwargs):
    return gym.make_vec("GenieEnv-v0", num_envs=num_envs, model=model, prompt=FRAME, **kwargs)


def outcomes(env, steps=12, seed=0):
    env.reset(seed=seed)
    return [env.step(np.full(env.num_envs, t % 8))[1:3] for t in range(steps)]


def test_learned_ends_and_rewards_are_drawn_by_seed(ending_model):
    env = make_vec(ending_model, autoreset_mode=AutoresetMode.SAME_STEP)
    rolled = outcomes(env)
    reward_TB, ended_TB = (np.array(x) for x in zip(*rolled, strict=True))
    assert set(np.unique(reward_TB)) == {0, ending_model.config.outcome.success_reward}
    assert ended_TB[reward_TB > 0].all()
    deaths = ended_TB & (reward_TB == 0)
    assert deaths.any() and not ended_TB.all()
    again = outcomes(env)
    assert all(
        (a == b).all()
        for x, y in zip(rolled, again, strict=True)
        for a, b in zip(x, y, strict=True)
    )
    other = outcomes(env, seed=1)
    assert any((a[1] != b[1]).any() for a, b in zip(rolled, other, strict=True))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_batched_ends_equal_those_of_single_environments(ending_model, mode):
    single = SyncVectorEnv([lambda: make(ending_model)] * 6, autoreset_mode=mode)
    batched = make_vec(ending_model, autoreset_mode=mode)
    for ours, theirs in zip(outcomes(batched), outcomes(single), strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.dtype == other.dtype and (mine == other).all()


def test_how_often_is_what_the_head_says(ending_model):
    env = make_vec(ending_model, num_envs=256, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    chance_BO = env._worlds.outlook_BO.numpy()
    assert np.allclose(chance_BO.sum(1), 1, atol=1e-5)
    _, reward_B, ended_B, _, _ = env.step(np.zeros(256, int))
    for said, happened in ((chance_BO[:, 1], reward_B > 0), (1 - chance_BO[:, 0], ended_B)):
        assert said.mean() == pytest.approx(happened.mean(), abs=0.08)


def test_worlds_without_a_head_or_with_none_never_end(tiny_model, ending_model):
    for model, reward in ((tiny_model, None), (ending_model, "none")):
        for reward_B, ended_B in outcomes(make_vec(model, reward=reward)):
            assert not reward_B.any() and not ended_B.any()


@pytest.mark.parametrize("observation", ["frames", "latents"])
def test_a_function_sees_the_newest_frames(tiny_model, observation):
    seen = []

    def bright(frames_BHWC):
        seen.append(frames_BHWC)
        mean_B = frames_BHWC.mean((1, 2, 3))
        return mean_B, mean_B > np.median(mean_B)

    env = make_vec(tiny_model, reward=bright, observation=observation, render_mode="rgb_array")
    env.reset(seed=0)
    _, reward_B, ended_B, _, _ = env.step(np.zeros(6, int))
    assert seen[-1].shape == (6, 64, 64, 3) and seen[-1].dtype == np.uint8
    assert (np.array(env.render()) == seen[-1]).all()
    assert np.allclose(reward_B, seen[-1].mean((1, 2, 3)))
    assert 0 < ended_B.sum() < 6
    one = make(tiny_model, reward=lambda frames: [frames.shape[0] + 0.5])
    one.reset(seed=0)
    assert one.step(0)[1:3] == (1.5, False)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([np.nan], r"nan.*accepted: finite"),
        ([np.inf], "accepted: finite"),
        ([1.0, 2.0], r"shape \(2,\)"),
        (1.0, r"shape \(\)"),
        (["much"], "accepted: finite"),
        (([1.0], [0]), "accepted: bool"),
        (([1.0], [True], [False]), "3 things"),
    ],
)
def test_bad_answers_of_a_function(tiny_model, answer, message):
    env = make(tiny_model, reward=lambda frames: answer)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(0)


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [
        ("best", ValueError, "unknown reward 'best'; accepted: None"),
        ("learned", ValueError, "no outcome head"),
        (1.0, TypeError, "reward of type float; accepted: None"),
    ],
)
def test_bad_rewards(tiny_model, reward, error, message):
    for build in (make, make_vec):
        with pytest.raises(error, match=message):
            build(tiny_model, reward=reward)
