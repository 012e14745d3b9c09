"""PPO in the dream on several workers with Ray RLlib: each worker holds one model and steps many
worlds with it.

    pip install -c constraints.txt -e '.[all,ray]'
    python examples/rllib_ppo.py --workers 2 --worlds 16 --iterations 20

The model needs an outcome head, or there is nothing to learn: `genie train outcome`.
"""

import gymnasium as gym
import tyro
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig


def main(
    model: str = "coinrun-plain",
    workers: int = 2,
    worlds: int = 16,
    iterations: int = 20,
    horizon: int = 64,
    batch: int = 4_096,
) -> None:
    """Train, and print the mean return of each iteration.

    Args:
        model: a shipped checkpoint's name, a folder or a hub id.
        workers: processes that dream.
        worlds: of each worker, stepped together.
        iterations: updates.
        horizon: steps after which a dream is cut off.
        batch: steps in an update.
    """
    config = (
        PPOConfig()
        # The id names the package to import first: every worker registers the environment.
        .environment(
            "genie_env:GenieEnv-v0",
            env_config={
                "model": model,
                "reward": "learned",
                "observation": "latents",
                "max_episode_steps": horizon,
                "temperature": 1.0,
            },
        )
        .env_runners(
            num_env_runners=workers,
            num_envs_per_env_runner=worlds,
            # Our own VectorEnv, not one copy of the model a world.
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                conv_filters=[[64, 3, 1], [64, 3, 2]], conv_activation="relu"
            )
        )
        .training(
            train_batch_size_per_learner=batch,
            minibatch_size=min(512, batch),
            num_epochs=3,
            lr=5e-4,
            gamma=0.98,
            entropy_coeff=0.01,
        )
    )
    algorithm = config.build_algo()
    for iteration in range(iterations):
        result = algorithm.train()["env_runners"]
        print(
            f"iteration {iteration}: {result['num_env_steps_sampled_lifetime']:,.0f} steps, mean "
            f"return {result.get('episode_return_mean', float('nan')):.2f}",
            flush=True,
        )
    algorithm.stop()


if __name__ == "__main__":
    tyro.cli(main)
