"""How agents are trained; apart from the training itself, so that `--help` needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DreamConfig:
    """How an agent is trained."""

    model: str = "coinrun-plain"
    """World model with an outcome head: the name of a shipped checkpoint, a folder, a hub id."""
    run: Path = Path("runs/dream")
    """Folder of the agent; the same command goes on where it stopped."""
    world: Literal["dream", "mapped", "real"] = "dream"
    """To compare with, the same agent from real CoinRun: `mapped`, playing latent actions by the
    map that takes dreamers there (what it loses is the map's fault), or `real`, with the real
    actions."""
    difficulty: str = "easy"
    """Of the real frames that dreams begin with."""
    steps: int = 250_000
    """Steps over all worlds."""
    num_worlds: int = 64
    horizon: int = 64
    """Steps after which a dream is cut off."""
    temperature: float = 1.0
    """Of the dream's sampling. Below 1 a dream is tidier than what it dreams of, and agents learn
    to exploit that."""
    num_starts: int = 2_048
    """Real scenes that dreams begin with, from levels 0-9,999."""
    labels: int = 2_000
    """Labelled transitions from which each latent action gets its real one."""
    frame_stack: int = 3
    """Frames that the agent sees at once: one shows no speed."""
    rollout_steps: int = 32
    """Steps of each world between two updates."""
    batch_size: int = 512
    epochs: int = 3
    learning_rate: float = 5e-4
    discount: float = 0.98
    entropy: float = 0.01
    check_every: int = 25_000
    """Steps between two comparisons with the real game, and between two saves."""
    seed: int = 0
