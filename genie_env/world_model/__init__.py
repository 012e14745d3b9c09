"""The learned world: tokenizer, latent action model, MaskGIT dynamics, and their bundle."""

from genie_env.world_model.checkpoint import CheckpointError, shipped_checkpoints
from genie_env.world_model.world_model import WorldModel, WorldModelConfig, WorldState

__all__ = [
    "CheckpointError",
    "WorldModel",
    "WorldModelConfig",
    "WorldState",
    "shipped_checkpoints",
]
