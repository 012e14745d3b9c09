"""Worlds learned from video, as Gymnasium environments, and for two players as PettingZoo's.

Importing this registers ``GenieEnv-v0``, and with PettingZoo (where it is installed)
``GenieParallelEnv-v0``. The environment and the model behind it (and so torch)
are imported when the first one is made.
"""

from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from genie_env.envs.two_player import GenieParallelEnv

__version__ = "0.1.0"

# No max_episode_steps: a dream runs as long as its user likes; gym.make(..., max_episode_steps=N)
# sets a limit.
gymnasium.register(
    id="GenieEnv-v0",
    entry_point="genie_env.envs.single:GenieEnv",
    vector_entry_point="genie_env.envs.vector:GenieVectorEnv",
)

try:
    import pettingzoo
except ImportError:  # the extra two-player
    pass
else:
    pettingzoo.register(
        "parallel", "GenieParallelEnv-v0", "genie_env.envs.two_player:GenieParallelEnv"
    )


def parallel_env(prompt: Any = None, **arguments: Any) -> "GenieParallelEnv":
    """A game of two, as a PettingZoo parallel environment; arguments as `GenieParallelEnv`."""
    from genie_env.envs.two_player import GenieParallelEnv

    return GenieParallelEnv(prompt, **arguments)
