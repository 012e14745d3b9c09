"""The SB3 adapter under what SB3 does with a VecEnv, in the dream and in the real game."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import (
    VecFrameStack,
    VecMonitor,
    VecTransposeImage,
    VecVideoRecorder,
)

import genie_env  # noqa: F401  (registers GenieEnv-v0)
from agents.sb3 import SB3VecEnv
from genie_env.envs.coinrun import CoinRunVectorEnv

B = 3


@pytest.fixture(scope="module")
def prompt(tiny_model):
    size = tiny_model.config.frame_size
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)


@pytest.fixture
def dream(tiny_model, prompt):
    def make(num_envs=B, **kwargs):
        kwargs = {"max_episode_steps": 4, "autoreset_mode": AutoresetMode.SAME_STEP} | kwargs
        return SB3VecEnv(
            gym.make_vec(
                "GenieEnv-v0", num_envs=num_envs, model=tiny_model, prompt=prompt, **kwargs
            )
        )

    return make


def policy(env, **kwargs):
    settings = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu", "seed": 0}
    kind = "CnnPolicy" if len(env.observation_space.shape) == 3 else "MlpPolicy"
    return PPO(kind, env, **settings | kwargs)


def test_steps_ends_and_infos(dream):
    env = dream()
    env.seed(3)
    obs = env.reset()
    assert obs.shape == (B, 64, 64, 3) and obs.dtype == np.uint8
    assert all("(2, " in info["prompt"] for info in env.reset_infos)
    for _ in range(3):
        obs, reward, done, infos = env.step(np.zeros(B, int))
        assert not done.any() and reward.dtype == np.float32
        assert all("terminal_observation" not in info for info in infos)
    obs, _, done, infos = env.step(np.zeros(B, int))
    assert done.all()
    for b, info in enumerate(infos):
        assert info["TimeLimit.truncated"] is True
        assert info["terminal_observation"].shape == (64, 64, 3)
        assert (info["terminal_observation"] != obs[b]).any()
        assert info["token_entropy"] >= 0 and "prompt" in env.reset_infos[b]


def test_a_seed_repeats_a_rollout(dream):
    def rollout():
        env = dream()
        env.seed(7)
        frames = [env.reset()]
        frames += [env.step(np.full(B, a))[0] for a in (1, 2, 3, 4, 5, 6)]
        return np.stack(frames)

    assert (rollout() == rollout()).all()


def test_ppo_learns_saves_and_loads(dream, tmp_path):
    env = VecMonitor(dream())
    model = policy(env).learn(48)
    assert len(model.ep_info_buffer) >= 6 and model.ep_info_buffer[-1]["l"] == 4
    model.save(tmp_path / "policy")
    obs = env.reset()
    loaded = PPO.load(tmp_path / "policy", env=env)
    assert (
        loaded.predict(obs, deterministic=True)[0] == model.predict(obs, deterministic=True)[0]
    ).all()
    loaded.learn(24)


def test_latents_frame_stack_and_evaluation(dream, tmp_path):
    small = {"policy_kwargs": {"net_arch": [8]}}
    env = VecFrameStack(dream(observation="latents"), 2)
    assert env.observation_space.shape == (4, 4, 6)
    held_out = VecFrameStack(dream(2, observation="latents"), 2)
    callback = EvalCallback(
        held_out, n_eval_episodes=2, eval_freq=8, log_path=str(tmp_path), verbose=0
    )
    PPO("MlpPolicy", env, n_steps=8, batch_size=8, n_epochs=1, device="cpu", **small).learn(
        24, callback
    )
    assert np.load(tmp_path / "evaluations.npz")["ep_lengths"].tolist() == [[4, 4]]


def test_video(dream, tmp_path):
    env = VecVideoRecorder(
        dream(render_mode="rgb_array"), str(tmp_path), lambda step: step == 0, video_length=3
    )
    env.reset()
    for _ in range(4):
        env.step(np.zeros(B, int))
    env.close()
    assert list(tmp_path.glob("*.mp4"))


def test_images_are_tiled(dream):
    env = dream(4, render_mode="rgb_array")
    env.reset()
    assert env.render().shape == (128, 128, 3)
    assert dream().get_images() == [None] * B


def test_the_real_game_too():
    env = SB3VecEnv(
        CoinRunVectorEnv(
            4, look="plain", start_level=10_000, num_levels=10, frame_skip=3, num_threads=0
        )
    )
    env.reset()
    ended = 0
    for _ in range(400):
        _, _, done, infos = env.step(np.full(4, 8))
        for b in np.flatnonzero(done):
            ended += 1
            assert infos[b]["terminal_observation"].shape == (64, 64, 3)
            assert infos[b]["success"] in (True, False)
            assert infos[b]["TimeLimit.truncated"] in (True, False)
    assert ended > 2
    model = policy(VecTransposeImage(VecMonitor(env)))
    model.learn(32)
    env.close()


def test_what_is_refused(dream, tiny_model, prompt):
    with pytest.raises(TypeError, match="accepted: a gymnasium VectorEnv"):
        SB3VecEnv(gym.make("GenieEnv-v0", model=tiny_model, prompt=prompt))
    with pytest.raises(ValueError, match="SAME_STEP"):
        dream(autoreset_mode=AutoresetMode.NEXT_STEP)
    env = dream()
    with pytest.raises(ValueError, match=r"cannot set render_mode for worlds \[1\] alone"):
        env.set_attr("render_mode", None, indices=[1])
    env.set_options([{"prompt": prompt}, {}, {}])
    with pytest.raises(ValueError, match="options differ"):
        env.reset()
    assert env.env_is_wrapped(gym.Wrapper) == [False] * B
    assert env.get_attr("num_envs", [0, 2]) == [B, B]
