"""The real game through the tokenizer's eyes."""

import numpy as np
import pytest
import torch

from agents.tokenized import TokenizedCoinRun
from genie_env.envs.coinrun import CoinRunVectorEnv


@pytest.fixture
def make(tiny_model):
    envs = []

    def make(buttons=None, **kwargs):
        envs.append(TokenizedCoinRun(tiny_model, buttons, num_envs=4, seed=3, **kwargs))
        return envs[-1]

    yield make
    for env in envs:
        env.close()


def test_latents_are_those_of_each_episode_by_itself(make, tiny_model):
    env, rng = make(), np.random.default_rng(0)
    real = CoinRunVectorEnv(4, look="plain", seed=3)
    (latents, _), (frames, _) = env.reset(), real.reset()
    seen = [[frame] for frame in frames]
    ends = 0
    for _ in range(300):
        actions = rng.choice([7, 8], size=4)
        before = latents
        latents, reward, terminated, truncated, infos = env.step(actions)
        frames, their_reward, their_terminated, *_ = real.step(actions)
        assert (reward == their_reward).all() and (terminated == their_terminated).all()
        for b in np.flatnonzero(terminated | truncated):
            seen[b] = []
            ends += 1
            assert (infos["final_obs"][b] == before[b]).all()
        for b in range(4):
            seen[b].append(frames[b])
    assert ends > 2
    assert env.observation_space.contains(latents)
    for b in range(4):
        tokens = tiny_model.tokenizer.encode(torch.from_numpy(np.array(seen[b]))[None])[:, -1]
        assert np.allclose(tiny_model.token_latents(tokens)[0], latents[b])
    real.close()


def test_latent_actions_press_their_buttons(make):
    dictionary = np.array([7, 8, 4, 1, 2, 5, 0, 3])
    latent, plain = make(dictionary), make()
    assert latent.single_action_space.n == 8 and plain.single_action_space.n == 15
    assert np.array_equal(latent.reset()[0], plain.reset()[0])
    for codes in np.random.default_rng(0).integers(8, size=(20, 4)):
        ours, theirs = latent.step(codes), plain.step(dictionary[codes])
        assert all(np.array_equal(a, b) for a, b in zip(ours[:4], theirs[:4], strict=True))


def test_bad_dictionary(make):
    with pytest.raises(ValueError, match=r"shape \(3,\); accepted: \(8,\)"):
        make(np.zeros(3, int))
