"""The shortest use: a dreamed CoinRun level, a hundred random latent actions."""

import gymnasium as gym

import genie_env  # noqa: F401  (registers GenieEnv-v0)

env = gym.make("GenieEnv-v0", model="coinrun-plain", max_episode_steps=100)
obs, info = env.reset(seed=0)
print(f"dreaming from {info['prompt']}: frames {obs.shape} {obs.dtype}, {env.action_space}")
done = False
while not done:
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    done = terminated or truncated
print(f"the last step took {info['step_ms']:.1f} ms")
env.close()
