"""What every test shares: no window, one thread, a tiny random world model."""

import os

# Before anything imports torch or pygame. One thread: the tiny models gain nothing from more,
# and results do not depend on the number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")

import pytest


@pytest.fixture(scope="session")
def tiny_model():
    """A WorldModel with random weights, small enough to step in milliseconds. Do not train it."""
    import torch

    from genie_env.world_model import WorldModel, WorldModelConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return WorldModel(WorldModelConfig.tiny())


@pytest.fixture(scope="session")
def ending_model():
    """Such a model with an outcome head: about three steps in ten bring an end. Do not train it."""
    from dataclasses import replace

    import torch

    from genie_env.world_model import WorldModel, WorldModelConfig
    from genie_env.world_model.outcome import OutcomeConfig

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = WorldModel(replace(WorldModelConfig.tiny(), outcome=OutcomeConfig(width=8)))
    with torch.no_grad():
        model.outcome_head.says.bias.copy_(torch.tensor([0.0, -2.0, -1.5]))
    return model
