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


@dataclass(frozen=True)
class CloneConfig:
    """How a policy is cloned from video of which it is known what was done."""

    network: Literal["impala", "st-vivit"] = "impala"
    """On a single frame; or, as in the paper, on the last four and the actions between them."""
    channels: tuple[int, ...] = (16, 32, 32)
    """`impala`: of its sections."""
    frames: int = 1
    """`impala`: that it sees at once; one shows no speed."""
    steps: int = 14_000
    batch_size: int = 64
    """Clips; `st-vivit` learns from each of a clip's frames."""
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames={self.frames}; accepted: at least 1")


@dataclass(frozen=True)
class PlanConfig:
    """How an expert looks ahead. Steps are those of the recorded video."""

    at_once: int = 64
    """Tries carried out side by side."""
    every: int = 2
    """Steps between two states that are saved."""
    sight: float = 6.0
    """Cells to the right that are on the screen: what lies beyond is not known."""
    ahead: int = 28
    """Steps that are looked ahead."""
    before: int = 12
    """Steps before trouble from which something may be done about it."""
    safe: int = 9
    """Steps that must go well afterwards."""
    room: int = 2
    """Steps on the ground in which the next thing can be begun."""
    progress: float = 0.6
    """Cells to the right; who makes less between three saved states stands."""
    max_steps: int = 120
    """Of a way."""

    def __post_init__(self) -> None:
        least = self.before + self.every
        if self.safe < self.every or self.ahead < least:
            raise ValueError(
                f"safe={self.safe}, ahead={self.ahead}; accepted: safe >= every={self.every}, "
                f"ahead >= before + every = {least}"
            )


@dataclass(frozen=True)
class ExpertConfig:
    """Videos of an expert of the real game."""

    out: Path = Path("data/expert")
    """Folder of a clip store for each difficulty; the same command goes on where it stopped."""
    look: str = "full"
    difficulties: tuple[str, ...] = ("easy", "hard")
    first_level: int = 0
    num_levels: int = 3_000
    """Of each difficulty, from `first_level` up; below 10,000."""
    shard_levels: int = 500
    frame_skip: int = 3
    """Engine steps for which a button is held."""
    handovers: int = 1
    """For each level that it gets through, so many times it takes over where somebody has pressed a
    few buttons by chance."""
    novice: Path | None = None
    """Folder of a policy of real buttons (`runs/bc/oracle`, say): the expert only takes over where
    that one is about to fail."""
    plan: PlanConfig = PlanConfig()
    seed: int = 0


@dataclass(frozen=True)
class CloningConfig:
    """How to learn to act from videos without actions."""

    run: Path = Path("runs/bc")
    """Folder of what is learnt; the same command goes on where it stopped."""
    model: str = "coinrun"
    """World model whose latent actions label the videos: a shipped name, a folder, a hub id."""
    videos: tuple[Path, ...] = (Path("data/expert/easy"), Path("data/expert/hard"))
    """Folders of videos, or clip stores."""
    labelled: tuple[Path, ...] = ()
    """Clip stores with true actions, of which a few are read; `videos` if none is named."""
    labels: int = 200
    """Labelled transitions that the map is learnt from."""
    choose: Literal["doubtful", "evenly"] = "doubtful"
    """Which transitions get the labels: `evenly` drawn ones, or (all but a fifth of them) those
    that the labels so far leave the most doubtful: the buttons that matter are rare."""
    map: Literal["dictionary", "effects", "decoder", "relabel"] = "effects"
    """From latent to real actions: the paper's dictionary; over effect classes with a prior;
    decoded from all that the policy says; or (LAPO+'s way) the latent actions of all videos are
    decoded, and real ones cloned."""
    clone: CloneConfig = CloneConfig()
    seed: int = 0
    """Of the labels that are drawn, and of what the policy draws."""


@dataclass(frozen=True)
class CloningScoreConfig:
    """What cloned policies are compared on."""

    levels: str = "20000-20999"
    """First and last level, both included; one episode on each."""
    difficulties: tuple[str, ...] = ("easy", "hard")
    methods: tuple[Literal["maps", "alone", "relabelled", "inverse"], ...] = (
        "maps",
        "alone",
        "relabelled",
        "inverse",
    )
    """Beside the oracle: the latent policy with every map, what is cloned from nothing but the
    labels, and from videos that decoded latent actions or inverse dynamics labelled."""
    labels: tuple[int, ...] = (10, 50, 200, 1_000)
    """Sizes of the labelled set; beside these, all labels."""
    draws: int = 10
    """Labelled sets of each size."""
    retrained_draws: int = 1
    """The same, for the methods that clone all videos anew for every labelled set."""
    retrained_labels: tuple[int, ...] = (200,)
    """Sizes for those."""
    expert: bool = True
    """Whether the expert that looks ahead plays, too."""
    beside: tuple[Path, ...] = ()
    """`score.json` files of other runs, whose rows are shown where this run has none."""
