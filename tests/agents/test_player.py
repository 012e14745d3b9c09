"""Trained agents as players of a dream."""

import numpy as np
import pytest
from stable_baselines3 import PPO

import genie_env  # noqa: F401  (registers GenieEnv-v0)
from agents.networks import NetworkConfig, Policy
from agents.player import load_player
from genie_env.envs.single import GenieEnv


@pytest.fixture(scope="module")
def frames(tiny_model):
    size = tiny_model.config.frame_size
    return np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)


def test_a_policy_on_frames_plays(tiny_model, frames, tmp_path):
    env = GenieEnv(frames[0], tiny_model, reward="none")
    agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8, seed=0)
    agent.save(tmp_path / "agent.zip")
    play = load_player(tmp_path / "agent.zip", tiny_model)
    chosen = {play(frames) for _ in range(30)}
    assert chosen <= set(range(8)) and len(chosen) > 1


def test_an_agent_of_the_dream_sees_the_stack_that_it_was_trained_on(
    ending_model, frames, tmp_path, monkeypatch
):
    from agents import dream
    from agents.config import DreamConfig

    pytest.importorskip("procgen")
    ending_model.save_pretrained(tmp_path / "model")
    config = DreamConfig(
        model=str(tmp_path / "model"), run=tmp_path / "run", steps=8, num_worlds=2, horizon=4,
        num_starts=24, labels=40, rollout_steps=4, batch_size=8, epochs=1, check_every=10_000,
    )  # fmt: skip
    dream.train(config)
    play = load_player(tmp_path / "run", ending_model)
    seen = []
    monkeypatch.setattr(
        PPO, "predict", lambda self, obs, *a, **k: (seen.append(obs) or np.array(3), None)
    )
    play = load_player(tmp_path / "run", ending_model)
    assert play(frames) == 3 and play(frames[:1]) == 3
    latents = ending_model.config.tokenizer.grid, ending_model.tokenizer.quantizer.latent_dim
    assert seen[0].shape == (latents[0], latents[0], 3 * latents[1])
    # What VecFrameStack shows at an episode's beginning.
    assert not seen[1][..., : 2 * latents[1]].any() and seen[1][..., 2 * latents[1] :].any()


@pytest.mark.parametrize("kind", ["impala", "st-vivit"])
def test_a_clone_sees_the_frames_that_it_was_trained_on(
    kind, tiny_model, frames, tmp_path, monkeypatch
):
    size, num_actions = tiny_model.config.frame_size, tiny_model.config.num_actions
    policy = Policy(NetworkConfig(kind, channels=(4,)), num_actions, size)
    policy.save(tmp_path / "latent")
    play = load_player(tmp_path, tiny_model, seed=0)
    assert {play(frames) for _ in range(40)} <= set(range(num_actions))
    seen = []
    forward = Policy.forward
    monkeypatch.setattr(Policy, "forward", lambda *a: (seen.append(a[1]), forward(*a))[1])
    play(frames), play(frames[:2])
    count = policy.config.num_frames
    assert (seen[0][0].numpy() == frames[-count:]).all()
    assert (seen[1][0].numpy() == frames[[0, 0, 0, 1][-count:]]).all()


def test_agents_that_cannot_play_here(tiny_model, tmp_path):
    import gymnasium as gym

    with pytest.raises(FileNotFoundError, match="no agent"):
        load_player(tmp_path / "none.zip", tiny_model)
    with pytest.raises(FileNotFoundError, match="no finished agent"):
        load_player(tmp_path, tiny_model)
    other = PPO("MlpPolicy", gym.make("CartPole-v1"), n_steps=8, batch_size=8)
    other.save(tmp_path / "other.zip")
    with pytest.raises(ValueError, match=r"Discrete\(2\), this world 8"):
        load_player(tmp_path / "other.zip", tiny_model)
    env = GenieEnv(np.zeros((64, 64, 3), np.uint8), tiny_model, reward="none")
    space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    small = gym.wrappers.TransformObservation(env, lambda frame: frame[:16, :16], space)
    PPO("MlpPolicy", small, n_steps=8, batch_size=8).save(tmp_path / "small.zip")
    with pytest.raises(ValueError, match=r"sees .*16, 16.*; accepted .* \(64, 64, 3\)"):
        load_player(tmp_path / "small.zip", tiny_model)
    Policy(NetworkConfig(channels=(4,)), 3).save(tmp_path / "clone")
    with pytest.raises(ValueError, match=r"\(3, 64\), this world"):
        load_player(tmp_path / "clone", tiny_model)
