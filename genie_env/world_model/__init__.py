"""The learned world: tokenizer, latent action model, MaskGIT dynamics, and their bundle."""

from genie_env.world_model.world_model import (
    CheckpointError,
    WorldModel,
    WorldModelConfig,
    WorldState,
    shipped_checkpoints,
)

__all__ = [
    "CheckpointError",
    "WorldModel",
    "WorldModelConfig",
    "WorldState",
    "shipped_checkpoints",
]
