"""Policy networks on frames: IMPALA on one or more, or an ST transformer on the last few.

Shapes: B worlds or clips, T frames, H W pixels, C = 3, N tokens of a frame, D width, A actions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import dacite
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genie_env.world_model.stems import PixelsToTokens, StemConfig
from genie_env.world_model.tokenizer import to_float
from genie_env.world_model.transformer import STTransformer, TransformerConfig

NOT_KNOWN = -1
"""In place of an action: none was taken yet, or nobody knows which."""


@dataclass(frozen=True)
class NetworkConfig:
    kind: Literal["impala", "st-vivit"] = "impala"
    """`st-vivit` is what the paper cloned with (appendix E): the last frames, and the actions taken
    at them added to their tokens."""
    channels: tuple[int, ...] = (16, 32, 32)
    """`impala`: of its sections, each of which halves the picture."""
    frames: int = 1
    """`impala`: that it sees at once; one shows no speed."""
    hidden: int = 256
    """`impala`: of the layer before the last."""
    stem: StemConfig = field(default_factory=lambda: StemConfig(channels=64, num_blocks=1))
    transformer: TransformerConfig = field(
        default_factory=lambda: TransformerConfig(
            width=128, num_layers=4, num_heads=4, context_frames=4
        )
    )
    """`st-vivit`: how many frames it sees is `context_frames`."""

    @property
    def num_frames(self) -> int:
        """Frames that a decision rests on."""
        return self.frames if self.kind == "impala" else self.transformer.context_frames


class Impala(nn.Module):
    """The residual network of Espeholt et al. (2018), without its memory."""

    def __init__(self, config: NetworkConfig, num_actions: int, frame_size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3 * config.frames
        for channels in config.channels:
            layers += [
                nn.Conv2d(before, channels, 3, padding=1),
                nn.MaxPool2d(3, 2, 1),
                _Residual(channels),
                _Residual(channels),
            ]
            before = channels
            frame_size = (frame_size + 1) // 2
        self.sections = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self.hidden = nn.Linear(before * frame_size**2, config.hidden)
        self.out = nn.Linear(config.hidden, num_actions)
        # Several times faster on a CPU.
        self.sections.to(memory_format=torch.channels_last)

    def forward(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> Tensor:
        x = torch.cat(to_float(frames_BTHWC).unbind(1), -1).permute(0, 3, 1, 2)
        x = self.sections(x.to(self.out.weight.dtype))
        return self.out(F.relu(self.hidden(x)))[:, None]


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))


class STViViT(nn.Module):
    """Causal in time: every frame of a clip is a decision of its own."""

    def __init__(self, config: NetworkConfig, num_actions: int, frame_size: int) -> None:
        super().__init__()
        width = config.transformer.width
        self.stem = PixelsToTokens(config.stem, 3, width)
        num_tokens = (frame_size // config.stem.patch_size) ** 2
        self.place_ND = nn.Parameter(0.02 * torch.randn(num_tokens, width))
        # The last row: no action is known.
        self.action = nn.Embedding(num_actions + 1, width)
        nn.init.normal_(self.action.weight, std=0.02)
        self.transformer = STTransformer(config.transformer)
        self.out = nn.Linear(width, num_actions)

    def forward(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> Tensor:
        pixels = to_float(frames_BTHWC).flatten(0, 1).to(self.out.weight.dtype)
        x = (self.stem(pixels) + self.place_ND).unflatten(0, frames_BTHWC.shape[:2])
        # At a frame what was done before is known, not what is done there.
        before_BT = F.pad(actions_BT[:, :-1], (1, 0), value=NOT_KNOWN)
        before_BT = torch.where(before_BT < 0, self.action.num_embeddings - 1, before_BT)
        x = x + self.action(before_BT)[:, :, None]
        return self.out(self.transformer(x).mean(2))


class Policy(nn.Module):
    """Frames to actions.

    config: which network. num_actions: A, latent or real ones. frame_size: H = W.
    """

    def __init__(self, config: NetworkConfig, num_actions: int, frame_size: int = 64) -> None:
        super().__init__()
        kinds: dict[str, type[Impala] | type[STViViT]] = {"impala": Impala, "st-vivit": STViViT}
        if config.kind not in kinds:
            raise ValueError(f"unknown network {config.kind!r}; known: {', '.join(kinds)}")
        self.config, self.num_actions, self.frame_size = config, num_actions, frame_size
        self.network = kinds[config.kind](config, num_actions, frame_size)

    def forward(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> Tensor:
        """Logits of the action to take at each uint8 frame, (B, T, A), or of `impala` at the last,
        (B, 1, A). actions_BT: int64, those that were taken there; `NOT_KNOWN` where nobody knows.
        """
        return self.network(frames_BTHWC, actions_BT)

    def logits(
        self, obs_BHWC: np.ndarray, past: Past | None = None, fresh_B: np.ndarray | None = None
    ) -> tuple[np.ndarray, Past]:
        """Logits fp32 (B, A) at the present frames uint8, and the past with them.

        past: what this returned last, completed by `Past.acted`; None at the start. fresh_B: bool,
        the worlds that begin an episode now. Raises ValueError for frames of another shape.
        """
        obs_BHWC = np.asarray(obs_BHWC)
        size = self.frame_size
        if obs_BHWC.ndim != 4 or obs_BHWC.shape[1:] != (size, size, 3):
            raise ValueError(f"frames {obs_BHWC.shape}; accepted: (B, {size}, {size}, 3) uint8")
        before = past or Past.of(obs_BHWC, self.config.num_frames)
        now = before.seen(obs_BHWC, fresh_B)
        if before.logits_BA is None:
            logits_BA = self.at(now.frames_BTHWC, now.actions_BT)
        else:
            logits_BA = before.logits_BA.copy()
            # Who stands still, as bad policies do for long, sees nothing new.
            new = now.differs(before)
            if len(new):
                logits_BA[new] = self.at(now.frames_BTHWC[new], now.actions_BT[new])
        return logits_BA, replace(now, logits_BA=logits_BA)

    @torch.no_grad()
    def at(self, frames_BTHWC: np.ndarray, actions_BT: np.ndarray) -> np.ndarray:
        """Logits fp32 (B, A) at the last frames of clips, as of `forward`."""
        device = next(self.parameters()).device
        frames, actions = (torch.from_numpy(a).to(device) for a in (frames_BTHWC, actions_BT))
        return self(frames, actions)[:, -1].float().cpu().numpy()

    def save(self, folder: Path, about: dict[str, Any] | None = None) -> None:
        """Weights and config to a folder; `about` is any JSON beside them."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.detach().float().contiguous() for k, v in self.state_dict().items()}
        save_file(weights, folder / "policy.safetensors")
        facts = {
            "network": asdict(self.config),
            "num_actions": self.num_actions,
            "frame_size": self.frame_size,
            "about": about or {},
        }
        (folder / "policy.json").write_text(json.dumps(facts, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, dtype: torch.dtype = torch.float32) -> Policy:
        """What `save` wrote. FileNotFoundError where nothing is."""
        if not (folder / "policy.json").exists():
            raise FileNotFoundError(f"no policy in {folder} (expected policy.json)")
        facts = json.loads((folder / "policy.json").read_text())
        config = dacite.from_dict(
            NetworkConfig, facts["network"], config=dacite.Config(cast=[tuple], strict=True)
        )
        policy = cls(config, facts["num_actions"], facts["frame_size"])
        policy.load_state_dict(load_file(folder / "policy.safetensors"))
        return policy.to(dtype).eval()


@dataclass(frozen=True)
class Past:
    """What a policy remembers of B worlds."""

    frames_BTHWC: np.ndarray
    """uint8: the last frames; at the start of an episode the first one, repeated."""
    actions_BT: np.ndarray
    """int64: what was done at each."""
    logits_BA: np.ndarray | None = None
    """fp32: what the policy said last."""

    @classmethod
    def of(cls, obs_BHWC: np.ndarray, num_frames: int) -> Past:
        frames_BTHWC = np.repeat(obs_BHWC[:, None], num_frames, axis=1)
        return cls(frames_BTHWC, np.full(frames_BTHWC.shape[:2], NOT_KNOWN))

    def seen(self, obs_BHWC: np.ndarray, fresh_B: np.ndarray | None) -> Past:
        """With the present frame, at which nothing was done yet."""
        frames = np.concatenate((self.frames_BTHWC[:, 1:], obs_BHWC[:, None]), 1)
        actions = np.concatenate(
            (self.actions_BT[:, 1:], np.full((len(obs_BHWC), 1), NOT_KNOWN)), 1
        )
        if fresh_B is not None:
            frames[fresh_B] = obs_BHWC[fresh_B, None]
            actions[fresh_B] = NOT_KNOWN
        return Past(frames, actions)

    def differs(self, before: Past) -> np.ndarray:
        """The worlds that do not look as they did a step ago, int64 (N,)."""
        axes = tuple(range(1, self.frames_BTHWC.ndim))
        frames = (self.frames_BTHWC != before.frames_BTHWC).any(axes)
        # What is done at the last frame is not known yet.
        actions = (self.actions_BT[:, :-1] != before.actions_BT[:, :-1]).any(1)
        return np.flatnonzero(frames | actions)

    def of_worlds(self, rows: np.ndarray) -> Past:
        """Of those worlds alone."""
        logits = None if self.logits_BA is None else self.logits_BA[rows]
        return Past(self.frames_BTHWC[rows], self.actions_BT[rows], logits)

    def acted(self, actions_B: np.ndarray) -> Past:
        """With what was done at the present frame."""
        actions = self.actions_BT.copy()
        actions[:, -1] = actions_B
        return Past(self.frames_BTHWC, actions, self.logits_BA)


def fingerprint(module: nn.Module) -> str:
    """Of its weights: what was made with others is told apart by it."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode() + weight.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def draw(logits_BA: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One action a row by its chances, int64 (B,)."""
    gumbel = -np.log(-np.log(rng.uniform(1e-12, 1, logits_BA.shape)))
    return (logits_BA + gumbel).argmax(-1)
