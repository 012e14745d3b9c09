"""Named experiments: a preset is a function that returns a complete `Experiment`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import dacite

from genie_env.world_model.dynamics import DynamicsConfig
from genie_env.world_model.latent_actions import LatentActionConfig
from genie_env.world_model.outcome import OutcomeConfig
from genie_env.world_model.quantize import QuantizerConfig
from genie_env.world_model.sampling import SamplingConfig
from genie_env.world_model.stems import StemConfig
from genie_env.world_model.tokenizer import TokenizerConfig
from genie_env.world_model.transformer import TransformerConfig
from genie_env.world_model.world_model import WorldModelConfig
from training.data.collect import VALIDATION_LEVELS, CollectConfig
from training.dynamics import DynamicsLossConfig
from training.latent_actions import LatentActionLossConfig
from training.loop import LoopConfig
from training.outcome import OutcomeTraining
from training.tokenizer import TokenizerLossConfig
from training.world import WorldLossConfig

Config = TypeVar("Config")
"""A dataclass."""


@dataclass(frozen=True)
class Experiment:
    """All that decides a run, from the data to the weights."""

    data: tuple[CollectConfig, ...]
    """Collected apart, trained on together: clips are drawn evenly from all."""
    actions_data: tuple[CollectConfig, ...] = ()
    """For the latent action model by itself; the same as `data` if empty. Where every button is
    drawn anew, codes can be asked to say nothing of the past
    (`LatentActionLossConfig.independence`)."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    tokenizer_loss: TokenizerLossConfig = field(default_factory=TokenizerLossConfig)
    tokenizer_loop: LoopConfig = field(default_factory=LoopConfig)
    tokenizer_ends: float = 0.0
    """Share of the clips of the tokenizer and its decoder that are the last ones of their
    episodes: coins are rare elsewhere."""
    latent_actions: LatentActionConfig = field(default_factory=LatentActionConfig)
    latent_actions_loss: LatentActionLossConfig = field(default_factory=LatentActionLossConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    dynamics_loss: DynamicsLossConfig = field(default_factory=DynamicsLossConfig)
    actions_loop: LoopConfig | None = None
    """For the latent action model by itself, before the dynamics; None: only with them."""
    world_loss: WorldLossConfig = field(default_factory=WorldLossConfig)
    world_loop: LoopConfig = field(default_factory=LoopConfig)
    decoder_loss: TokenizerLossConfig = field(
        default_factory=lambda: TokenizerLossConfig(focus=0.5)
    )
    decoder_loop: LoopConfig = field(default_factory=LoopConfig)
    outcome: OutcomeConfig = field(default_factory=OutcomeConfig)
    outcome_training: OutcomeTraining = field(default_factory=OutcomeTraining)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    validation_frames: int = 32_768
    """For each of `data`."""
    start_from: str | None = None
    """A world model (name, folder or hub id) whose weights the run begins with."""
    start_parts: tuple[str, ...] = ("tokenizer", "latent_actions", "dynamics")
    """Which of its parts; they must be of the experiment's own sizes."""

    def paused_after(self, minutes: float | None) -> Experiment:
        """The same experiment, each stage of which saves and stops after so many minutes."""
        return replace(
            self,
            tokenizer_loop=replace(self.tokenizer_loop, max_minutes=minutes),
            actions_loop=self.actions_loop and replace(self.actions_loop, max_minutes=minutes),
            world_loop=replace(self.world_loop, max_minutes=minutes),
            decoder_loop=replace(self.decoder_loop, max_minutes=minutes),
        )

    def validation_data(self) -> tuple[CollectConfig, ...]:
        """The same behaviour on the validation levels."""
        start, count = VALIDATION_LEVELS
        return tuple(
            replace(
                config,
                out=f"{config.out}-validation",
                num_frames=self.validation_frames,
                shard_frames=min(config.shard_frames, self.validation_frames),
                start_level=start,
                num_levels=count,
                seed=config.seed + 1,
            )
            for config in self.data
        )

    def world_model(self, look: str, frame_skip: int) -> WorldModelConfig:
        """The bundle's config; `look` and `frame_skip` are those of the data."""
        return WorldModelConfig(
            tokenizer=self.tokenizer,
            latent_actions=self.latent_actions,
            dynamics=self.dynamics,
            sampling=self.sampling,
            look=look,
            frame_skip=frame_skip,
        )


def coinrun_plain() -> Experiment:
    """Plain look, easy levels: what two CPU cores train in about two hours."""
    return Experiment(
        data=(CollectConfig(out="data/coinrun-plain", num_frames=262_144, look="plain"),),
        tokenizer_loop=LoopConfig(steps=3_400, batch_size=6, clip_frames=12, compile=True),
        dynamics=DynamicsConfig(TransformerConfig(width=192, num_layers=4, num_heads=6)),
        actions_data=(
            CollectConfig(
                out="data/coinrun-plain-redrawn",
                num_frames=262_144,
                look="plain",
                redraw=1.0,
                mix={"walker": 0.9, "uniform": 0.1},
            ),
        ),
        latent_actions_loss=LatentActionLossConfig(forward_first=0.18, independence=0.15),
        actions_loop=LoopConfig(
            steps=3_100, batch_size=12, clip_frames=8, warmup_steps=100, compile=True
        ),
        world_loss=WorldLossConfig(freeze_actions_at=0.0),
        world_loop=LoopConfig(
            steps=4_000, batch_size=3, clip_frames=24, learning_rate=8e-4, compile=True
        ),
        decoder_loop=LoopConfig(
            steps=1_500, batch_size=6, clip_frames=12, learning_rate=6e-4, compile=True
        ),
        # Chosen on validation levels: a model this small needs a cool head to keep its levels
        # together. To train agents in, ask for 1.
        sampling=SamplingConfig(steps=2, temperature=0.25),
    )


def coinrun() -> Experiment:
    """Full look, hard and easy levels: `coinrun_plain` for longer, about four hours on two CPU
    cores. What that learnt of motion and of the rules holds here too."""
    plain = coinrun_plain()
    return replace(
        plain,
        start_from="coinrun-plain",
        start_parts=("latent_actions", "dynamics"),
        # Easy levels have one theme and background in this look; only hard ones vary them.
        data=(
            CollectConfig(out="data/coinrun-hard", num_frames=262_144, difficulty="hard"),
            CollectConfig(out="data/coinrun-easy", num_frames=131_072),
        ),
        actions_data=tuple(
            replace(
                plain.actions_data[0],
                out=f"data/coinrun-{difficulty}-redrawn",
                look="full",
                difficulty=difficulty,
            )
            for difficulty in ("hard", "easy")
        ),
        latent_actions_loss=replace(
            plain.latent_actions_loss, forward_first=0.0, encoder_from=0.15, independent_from=0.0
        ),
        actions_loop=LoopConfig(
            steps=1_800, batch_size=12, clip_frames=8, learning_rate=5e-4, compile=True
        ),
        tokenizer_ends=0.3,
        tokenizer_loop=replace(plain.tokenizer_loop, steps=6_800),
        world_loop=replace(plain.world_loop, steps=8_000),
    )


def paper() -> Experiment:
    """Appendix F as printed: CoinRun, hard, 10M frames of a random policy, no action repeats."""
    size = TransformerConfig(width=512, num_layers=8, num_heads=8)
    codes = QuantizerConfig(kind="vq_gradient", num_codes=1024, latent_dim=32, normalize=False)
    patch = StemConfig(kind="patch", patch_size=4)
    action_patch = StemConfig(kind="patch", patch_size=16)
    return Experiment(
        data=(
            CollectConfig(
                out="data/paper",
                num_frames=10_000_000,
                difficulty="hard",
                frame_skip=1,
                mix={"uniform": 1.0},
            ),
        ),
        tokenizer=TokenizerConfig(stem=patch, encoder=size, decoder=size, quantizer=codes),
        tokenizer_loss=TokenizerLossConfig(focus=0.0),
        tokenizer_loop=LoopConfig(
            steps=300_000,
            batch_size=48,
            learning_rate=3e-4,
            final_learning_rate=3e-4,
            warmup_steps=10_000,
            optimizer="adamw",
            betas=(0.9, 0.9),
        ),
        latent_actions=LatentActionConfig(
            reach=None,
            encoder_stem=action_patch,
            encoder=size,
            decoder_stem=action_patch,
            decoder=size,
            quantizer=replace(codes, num_codes=6),
        ),
        latent_actions_loss=LatentActionLossConfig(forward_first=0.0),
        dynamics=DynamicsConfig(replace(size, num_layers=12), history="masked"),
        dynamics_loss=DynamicsLossConfig(
            mask_schedule="uniform", min_mask=0.5, corrupt_history=0.0
        ),
        world_loss=WorldLossConfig(freeze_actions_at=1.0),
        world_loop=LoopConfig(
            steps=200_000,
            batch_size=36,
            learning_rate=3e-5,
            final_learning_rate=3e-6,
            warmup_steps=5_000,
            optimizer="adamw",
            betas=(0.9, 0.9),
        ),
        sampling=SamplingConfig(steps=25, temperature=1.0),
    )


def debug() -> Experiment:
    """Seconds: the whole way from the game to a stepping world, with nothing learned."""
    tiny = WorldModelConfig.tiny()
    loop = LoopConfig(
        steps=6,
        batch_size=2,
        clip_frames=6,
        warmup_steps=2,
        log_every=2,
        validate_every=3,
        validation_batches=1,
    )
    return Experiment(
        data=(
            CollectConfig(
                out="data/debug", num_frames=2_048, shard_frames=1_024, num_envs=8, look="plain"
            ),
        ),
        tokenizer=tiny.tokenizer,
        tokenizer_loop=loop,
        latent_actions=tiny.latent_actions,
        dynamics=tiny.dynamics,
        actions_loop=loop,
        world_loss=WorldLossConfig(freeze_actions_at=0.0),
        world_loop=loop,
        decoder_loop=loop,
        outcome_training=OutcomeTraining(episodes=12, steps=6),
        validation_frames=1_024,
    )


PRESETS: dict[str, Callable[[], Experiment]] = {
    "coinrun-plain": coinrun_plain,
    "coinrun": coinrun,
    "paper": paper,
    "debug": debug,
}


def load_preset(name: str, changes: Sequence[str] = ()) -> Experiment:
    """The named experiment, `changed` as told.

    Raises ValueError for an unknown preset, field or value.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return changed(PRESETS[name](), changes)


def changed(config: Config, changes: Sequence[str]) -> Config:
    """A config, a dataclass, with other values: `["world_loop.steps=300", "sampling.steps=3"]`.

    Values are JSON, or else strings. Raises ValueError for an unknown field or value.
    """
    values: dict[str, Any] = asdict(config)  # type: ignore[call-overload]
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"change {change!r}; accepted: FIELD=VALUE, like world_loop.steps=300")
        *parents, field_name = path.split(".")
        inner: Any = values
        for part in [*parents, field_name]:
            if isinstance(inner, tuple):
                # `data` has several: data.0.num_frames.
                inner = {str(number): value for number, value in enumerate(inner)}
            if not isinstance(inner, dict) or part not in inner:
                known = ", ".join(inner) if isinstance(inner, dict) else "none"
                raise ValueError(f"change {change!r}: no field {part!r}; known there: {known}")
            holder, inner = inner, inner[part]
        try:
            holder[field_name] = json.loads(text)
        except json.JSONDecodeError:
            holder[field_name] = text
    try:
        return dacite.from_dict(type(config), values, dacite.Config(cast=[tuple, float]))
    except dacite.DaciteError as error:
        raise ValueError(f"changes {list(changes)}: {error}") from error
