"""WorldModel: tokenizer, latent actions and dynamics in one bundle that can be stepped.

Shapes: B worlds, T frames, M = T - 1 transitions, N tokens in a frame, h w their grid, E latent
width, H W pixels, C = 3, P shipped prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from genie_env.world_model.allocator import keep_freed_memory
from genie_env.world_model.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    fast_dtype,
    find_checkpoint,
    read_config,
    read_prompts,
    read_weights,
    write_config,
    write_prompts,
    write_weights,
)
from genie_env.world_model.dynamics import NO_ACTION, Dynamics, DynamicsConfig
from genie_env.world_model.latent_actions import LatentActionConfig, LatentActionEncoder
from genie_env.world_model.outcome import NOTHING, OUTCOMES, SUCCESS, OutcomeConfig, OutcomeHead
from genie_env.world_model.quantize import QuantizerConfig
from genie_env.world_model.sampling import SamplingConfig, decode_frame, gumbel, uniform
from genie_env.world_model.stems import StemConfig
from genie_env.world_model.tokenizer import TokenizerConfig, VideoTokenizer, check_frames
from genie_env.world_model.transformer import TemporalCache, TransformerConfig

WEIGHT_FILES = ("model.safetensors", "outcome.safetensors")
"""The outcome head has a file of its own: it is small, and retrained without the rest."""


MODEL_CARD = """---
{{ card_data }}
---

# A world model for `GenieEnv-v0`

Learned from video without action labels, by [Genie](https://arxiv.org/abs/2402.15391)'s method.

```python
import gymnasium as gym
import genie_env

env = gym.make("GenieEnv-v0", model="THIS FOLDER OR HUB ID")
obs, info = env.reset(seed=0)
obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
```

`config.json` says what it was trained on (`look`, `frame_skip`) and its size. Please add: data,
command, hardware, time, and the table that `genie eval` prints.
"""
"""What `save_pretrained` writes as README.md where there is none."""


@dataclass(frozen=True)
class WorldModelConfig:
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    latent_actions: LatentActionConfig = field(default_factory=LatentActionConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    outcome: OutcomeConfig | None = None
    """None: a world without reward or end, like the paper's."""
    look: str = "plain"
    """Of the CoinRun it was trained on: `plain` or `full`; `other` for other videos."""
    frame_skip: int = 1
    """Steps of the real game that one dreamt step stands for."""
    controls: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Measured on the real game: button ("none", "left", "right", "jump", "left+jump",
    "right+jump") -> share of each latent action when it is pressed on the ground. For people."""
    format_version: int = FORMAT_VERSION

    @property
    def num_actions(self) -> int:
        return self.latent_actions.quantizer.num_codes

    @property
    def frame_size(self) -> int:
        """Pixels a side."""
        return self.tokenizer.frame_size

    @property
    def context_frames(self) -> int:
        """Frames that the dynamics looks at, the new one among them."""
        return self.dynamics.transformer.context_frames

    @classmethod
    def tiny(cls) -> WorldModelConfig:
        """A model of a few thousand weights, for tests and the `debug` preset."""
        small = TransformerConfig(width=32, num_layers=2, num_heads=2, context_frames=4)
        stem = StemConfig(patch_size=16, channels=8, num_blocks=1)
        return cls(
            tokenizer=TokenizerConfig(
                stem=stem,
                encoder=small,
                decoder=small,
                quantizer=QuantizerConfig(levels=(4, 4, 4)),
            ),
            latent_actions=LatentActionConfig(
                encoder_stem=stem,
                encoder=small,
                decoder_stem=stem,
                decoder=small,
                quantizer=QuantizerConfig(kind="vq_ema", num_codes=8, latent_dim=8),
            ),
            dynamics=DynamicsConfig(transformer=small),
        )


@dataclass
class WorldState:
    """B worlds in the middle of their dreams. `clone` it to branch or rewind."""

    tokens_BN: Tensor
    """The newest frame, int64."""
    entropy_BN: np.ndarray
    """fp32, nats: how unsure the model was of each token of the newest frame (0 for a prompt)."""
    outcome_B: np.ndarray
    """int64: what the newest step brought, an index into `outcome.OUTCOMES`."""
    outlook_BO: Tensor | None
    """fp32: how likely the next step brings each of `outcome.OUTCOMES`; None without a head."""
    generators: list[torch.Generator]
    history: TemporalCache
    decoder: TemporalCache | None
    """None: frames are never decoded."""
    undecoded: list[Tensor]
    """Tokens of the frames that `render` has not been asked for yet."""
    frames_BHWC: Tensor | None = None
    """uint8: the newest frame, once rendered."""

    def __len__(self) -> int:
        return len(self.tokens_BN)

    @property
    def entropy_B(self) -> np.ndarray:
        """fp32, nats a token: how unsure the model was of the newest frame."""
        return self.entropy_BN.mean(-1)

    def clone(self) -> WorldState:
        """An independent copy, random state included: both go on to the same frames."""
        return replace(
            self,
            generators=[_copy_generator(g) for g in self.generators],
            history=self.history.clone(),
            decoder=self.decoder and self.decoder.clone(),
            undecoded=list(self.undecoded),
        )

    def select(self, worlds: Sequence[int] | np.ndarray) -> WorldState:
        """An independent state of those worlds, each as often as it is named. Frames that are to
        be decoded must have been (`WorldModel.render`); else ValueError."""
        world_B = self._indices(worlds)
        return replace(
            self,
            tokens_BN=self.tokens_BN[world_B],
            entropy_BN=self.entropy_BN[world_B.cpu().numpy()],
            outcome_B=self.outcome_B[world_B.cpu().numpy()],
            outlook_BO=None if self.outlook_BO is None else self.outlook_BO[world_B],
            generators=[_copy_generator(self.generators[b]) for b in world_B.tolist()],
            history=self.history.select(world_B),
            decoder=self.decoder and self.decoder.select(world_B),
            undecoded=[],
            frames_BHWC=None if self.frames_BHWC is None else self.frames_BHWC[world_B],
        )

    def put(self, worlds: Sequence[int] | np.ndarray, other: WorldState) -> None:
        """Replace some worlds, distinct indices, by those of another state, in that order; the
        other worlds go on as if nothing had happened. ValueError where the numbers differ, where
        only one of the two is decoded, or where frames are still to be."""
        world_B = self._indices(worlds)
        other._indices([])
        if len(world_B) != len(other):
            raise ValueError(f"{len(other)} worlds cannot take the places of {len(world_B)}")
        if (self.decoder is None) != (other.decoder is None):
            raise ValueError("one state was started with decode=False, the other was not")
        self.tokens_BN = self.tokens_BN.index_copy(0, world_B, other.tokens_BN)
        self.entropy_BN, self.outcome_B = self.entropy_BN.copy(), self.outcome_B.copy()
        self.entropy_BN[world_B.cpu().numpy()] = other.entropy_BN
        self.outcome_B[world_B.cpu().numpy()] = other.outcome_B
        if self.outlook_BO is not None and other.outlook_BO is not None:
            self.outlook_BO = self.outlook_BO.index_copy(0, world_B, other.outlook_BO)
        for b, generator in zip(world_B.tolist(), other.generators, strict=True):
            self.generators[b] = _copy_generator(generator)
        self.history.put(world_B, other.history)
        if self.decoder is not None and other.decoder is not None:
            assert self.frames_BHWC is not None and other.frames_BHWC is not None
            self.decoder.put(world_B, other.decoder)
            self.frames_BHWC = self.frames_BHWC.index_copy(0, world_B, other.frames_BHWC)

    def _indices(self, worlds: Sequence[int] | np.ndarray) -> Tensor:
        if self.undecoded:
            raise ValueError("render the worlds first: their newest frames are not decoded yet")
        return torch.as_tensor(np.asarray(worlds, np.int64), device=self.tokens_BN.device)


class WorldModel(
    nn.Module,
    ModelHubMixin,
    library_name="genie-env",
    tags=["world-model", "reinforcement-learning", "gymnasium"],
    license="mit",
    model_card_template=MODEL_CARD,
):
    """A learned world: start it from frames, step it by latent actions, render it.

    >>> model = WorldModel.from_pretrained("coinrun-plain")
    >>> state = model.start(frames_BTHWC, seeds=[0])
    >>> model.step(state, [3])
    >>> frames_BHWC = model.render(state)
    """

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        keep_freed_memory()
        if config.latent_actions.frame_size != config.tokenizer.frame_size:
            raise ValueError(
                f"latent_actions.frame_size={config.latent_actions.frame_size} differs from "
                f"tokenizer.frame_size={config.tokenizer.frame_size}"
            )
        self.config = config
        self.tokenizer = VideoTokenizer(config.tokenizer)
        self.latent_actions = LatentActionEncoder(config.latent_actions)
        self.dynamics = Dynamics(
            config.dynamics,
            config.tokenizer.num_tokens,
            self.tokenizer.num_codes,
            config.num_actions,
        )
        self.outcome_head = (
            OutcomeHead(config.outcome, config.tokenizer.num_tokens, self.dynamics.width)
            if config.outcome
            else None
        )
        size = config.frame_size
        self.prompts = np.zeros((0, 1, size, size, 3), np.uint8)
        """Starting frames shipped with the weights, uint8 (P, T, H, W, 3); P may be 0."""
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.dynamics.place_ND.device

    @torch.no_grad()
    def start(
        self,
        frames_BTHWC: np.ndarray | Tensor,
        seeds: Sequence[int] | None = None,
        decode: bool = True,
    ) -> WorldState:
        """Worlds that begin with these frames, T >= 1; the latent actions between several frames
        are inferred, so that the worlds start in motion.

        frames_BTHWC: uint8. seeds: one an world (random if None). The first `render` shows the
        last of the frames as the tokenizer sees it. decode: False for worlds whose frames nobody
        looks at, only their `latents`. Raises TypeError, ValueError.
        """
        frames = check_frames(frames_BTHWC, self.config.frame_size).to(self.device)
        num_worlds, num_frames = frames.shape[:2]
        if seeds is None:
            seeds = [int(s) for s in np.random.default_rng().integers(2**62, size=num_worlds)]
        if len(seeds) != num_worlds:
            raise ValueError(f"{len(seeds)} seeds for {num_worlds} worlds; one each is needed")
        tokens_BTN = self.tokenizer.encode(frames)
        actions_BT = torch.full((num_worlds, num_frames), NO_ACTION, device=self.device)
        if num_frames > 1:
            actions_BT[:, 1:] = self.latent_actions(frames).codes
        history = self.dynamics.new_cache(num_worlds)
        for t in range(num_frames):
            features_BND = self.dynamics.commit(tokens_BTN[:, t], actions_BT[:, t], history)
        return WorldState(
            tokens_BN=tokens_BTN[:, -1],
            entropy_BN=np.zeros(tokens_BTN[:, 0].shape, np.float32),
            outcome_B=np.full(num_worlds, NOTHING),
            outlook_BO=self._outlook(features_BND),
            generators=[torch.Generator(self.device).manual_seed(int(s)) for s in seeds],
            history=history,
            decoder=self.tokenizer.new_decoder_cache(num_worlds) if decode else None,
            undecoded=list(tokens_BTN.unbind(1)) if decode else [],
        )

    @torch.no_grad()
    def step(
        self,
        state: WorldState,
        actions_B: np.ndarray | Tensor | Sequence[int],
        temperature: float | None = None,
        steps: int | None = None,
    ) -> None:
        """Advance every world by one frame, in place.

        actions_B: ints in 0..num_actions-1. temperature, steps: instead of those of
        `config.sampling`. Raises ValueError.
        """
        actions = self._check_actions(actions_B, len(state))
        sampling = self.config.sampling
        if temperature is not None or steps is not None:
            sampling = replace(
                sampling,
                temperature=sampling.temperature if temperature is None else temperature,
                steps=sampling.steps if steps is None else steps,
            )
        if state.outlook_BO is not None:
            noise_BO = gumbel(uniform(state.generators, len(OUTCOMES))).to(self.device)
            state.outcome_B = (state.outlook_BO.log() + noise_BO).argmax(-1).cpu().numpy()
        tokens_BN, entropy_BN = decode_frame(
            lambda tokens, places: self.dynamics.step(tokens, actions, state.history, places),
            self.dynamics.num_tokens,
            self.dynamics.mask_token,
            state.generators,
            sampling,
        )
        features_BND = self.dynamics.commit(tokens_BN, actions, state.history)
        state.outlook_BO = self._outlook(features_BND)
        state.tokens_BN, state.entropy_BN = tokens_BN, entropy_BN.cpu().numpy()
        if state.decoder is None:
            return
        state.undecoded.append(tokens_BN)
        state.frames_BHWC = None
        decoder = self.config.tokenizer.decoder
        reach = decoder.num_layers * (decoder.context_frames - 1) + 1
        if len(state.undecoded) > reach:
            # Nobody looks: older frames can no longer show in the newest, so forget them.
            state.undecoded = state.undecoded[-reach:]
            state.decoder = self.tokenizer.new_decoder_cache(len(state))

    @torch.no_grad()
    def render(self, state: WorldState) -> np.ndarray:
        """The newest frame of every world, uint8 (B, H, W, 3), a fresh array. ValueError for
        worlds started with `decode=False`."""
        if state.decoder is None:
            raise ValueError("these worlds were started with decode=False: they have no frames")
        for tokens_BN in state.undecoded:
            state.frames_BHWC = self.tokenizer.decode_step(tokens_BN, state.decoder)
            state.decoder.advance()
        state.undecoded = []
        assert state.frames_BHWC is not None
        return state.frames_BHWC.cpu().numpy().copy()

    def latents(self, state: WorldState) -> np.ndarray:
        """The newest frame of every world as `token_latents`. No pixel is decoded."""
        return self.token_latents(state.tokens_BN)

    def token_latents(self, tokens_BN: Tensor) -> np.ndarray:
        """The vectors that a frame's tokens stand for, on their grid: fp32 (B, h, w, E), each
        number in [-1, 1] with FSQ."""
        grid = self.config.tokenizer.grid
        vectors_BNE = self.tokenizer.quantizer.lookup(tokens_BN).float()
        return vectors_BNE.unflatten(1, (grid, grid)).cpu().numpy()

    def outcome(self, state: WorldState) -> tuple[np.ndarray, np.ndarray]:
        """Reward fp32 (B,) and termination bool (B,) of the newest step. Without an outcome head,
        as in the paper's action-free world, 0 and False."""
        paid = self.config.outcome.success_reward if self.config.outcome else 0.0
        reward_B = np.where(state.outcome_B == SUCCESS, paid, 0.0).astype(np.float32)
        return reward_B, state.outcome_B != NOTHING

    def _outlook(self, features_BND: Tensor) -> Tensor | None:
        if self.outcome_head is None:
            return None
        return self.outcome_head(features_BND).softmax(-1)

    @torch.no_grad()
    def infer_actions(self, frames_BTHWC: np.ndarray | Tensor) -> np.ndarray:
        """Latent actions int64 (B, M) between the frames of a video, uint8 with T >= 2."""
        return (
            self.latent_actions(check_frames(frames_BTHWC, self.config.frame_size).to(self.device))
            .codes.cpu()
            .numpy()
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **hub_kwargs: Any,
    ) -> WorldModel:
        """Load a shipped checkpoint by its name, one from a folder, or one from the Hub by its id.

        device: `cuda` where there is one, else `cpu`. dtype: bf16 where the device multiplies it
        fast, else fp32. hub_kwargs: as for `huggingface_hub.snapshot_download`.
        Raises CheckpointError (a ValueError), or FileNotFoundError that lists the known names.
        """
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        folder = find_checkpoint(name, hub_kwargs)
        model = cls._from_folder(folder)
        return model.to(device, dtype or fast_dtype(device))

    @classmethod
    def _from_folder(cls, folder: Path) -> WorldModel:
        config = read_config(folder, WorldModelConfig)
        try:
            model = cls(config)
        except ValueError as error:
            raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error
        read_weights(folder, WEIGHT_FILES if config.outcome else WEIGHT_FILES[:1], model)
        model.prompts = read_prompts(folder, config.frame_size)
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        write_config(save_directory, self.config)
        weights = dict(self.state_dict())
        ends = {key: weights.pop(key) for key in list(weights) if key.startswith("outcome_head.")}
        for name, part in zip(WEIGHT_FILES, (weights, ends), strict=True):
            if part:
                write_weights(save_directory / name, part)
        write_prompts(save_directory, self.prompts)

    def _check_actions(self, actions_B: Any, num_worlds: int) -> Tensor:
        actions = torch.as_tensor(actions_B)
        if actions.shape != (num_worlds,) or actions.is_floating_point():
            raise ValueError(
                f"actions of shape {tuple(actions.shape)} and dtype {actions.dtype}; accepted: "
                f"ints ({num_worlds},), one a world"
            )
        if actions.min() < 0 or actions.max() >= self.config.num_actions:
            raise ValueError(
                f"actions {actions.tolist()}; accepted: 0 to {self.config.num_actions - 1}"
            )
        return actions.to(self.device, torch.int64)


def _copy_generator(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return copy
