"""Two players by penalties: the design that is known to fail, kept to be compared with.

A network says of every place of one frame whether the first player, the second, or nobody is there;
what changes at a player's places becomes its code; everybody's changes are added up. Nothing in
that tells players from balls, so penalties shall: masks have to cover something, must not overlap,
and codes must matter. Masks may also be made to look at the frame that is to be foretold.

Shapes: B clips, T frames, M transitions, S = 2 players, K codes, H W pixels, h w places, C = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_env.world_model.tokenizer import check_frames, to_float
from genie_env.world_model.two_player import NUM_PLAYERS, DilatedBlock
from training.data.clip_store import ClipStore
from training.loop import LoopConfig, train
from training.remember import remember

PATCH = 4
"""Pixels a side of a place."""
LEANS = 2.0
"""Log odds, at the left and right border, that the mask of a player of that side begins with."""


@dataclass(frozen=True)
class PenalizedConfig:
    frame_size: int = 64
    num_codes: int = 3
    width: int = 96
    masks_see_next: bool = False
    """A leak: whatever a mask says of the next frame need not be said by a code."""
    coverage: float = 5.0
    """Price of a player's mask of less than `least` of the picture."""
    least: float = 0.02
    overlap: float = 50.0
    """Price of places that are both players'."""
    sensitivity: float = 0.5
    """Worth of what another code changes at a player's places."""


class PenalizedModel(nn.Module):
    """Masks, codes and what comes, from two frames."""

    def __init__(self, config: PenalizedConfig) -> None:
        super().__init__()
        self.config = config
        width, side = config.width, config.frame_size // PATCH
        self.into = nn.Conv2d(3, width, PATCH, PATCH)
        self.encoder = nn.Sequential(*(DilatedBlock(width, d) for d in (1, 2, 1)))
        seen = 2 * width if config.masks_see_next else width
        self.mask = nn.Sequential(
            nn.Conv2d(seen + 2, width, 1), nn.ReLU(), nn.Conv2d(width, NUM_PLAYERS + 1, 1)
        )
        line = torch.linspace(-1, 1, side)
        down, across = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("place", torch.stack((across, down)))
        self.lean = nn.Parameter(torch.stack((-LEANS * across, LEANS * across, 0 * across)))
        self.code = nn.Linear(2 * width, config.num_codes)
        self.meaning = nn.Embedding(config.num_codes, width)
        self.nobody, self.player = (self._branch(width) for _ in range(2))
        self.both = self._branch(2 * width)
        self.out = nn.Conv2d(width, 3 * PATCH * PATCH, 1)

    def _branch(self, width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(width, self.config.width, 3, padding=1),
            *(DilatedBlock(self.config.width, d) for d in (1, 2)),
        )

    def seen(self, frame_BCHW: Tensor) -> Tensor:
        """Features of each place, (B, width, h, w)."""
        return self.encoder(self.into(frame_BCHW))

    def masks(self, now_BEhw: Tensor, next_BEhw: Tensor) -> Tensor:
        """Shares of the first player, the second, and nobody: fp32 (B, S + 1, h, w)."""
        place = self.place.expand(len(now_BEhw), -1, -1, -1)
        seen = (now_BEhw, next_BEhw) if self.config.masks_see_next else (now_BEhw,)
        return (self.mask(torch.cat((*seen, place), 1)) + self.lean).float().softmax(1)

    def codes(self, now_BEhw: Tensor, next_BEhw: Tensor, masks: Tensor) -> Tensor:
        """Log odds of each player's codes, (B, S, K)."""
        both = torch.cat((now_BEhw, next_BEhw), 1)
        share = masks[:, :NUM_PLAYERS] / masks[:, :NUM_PLAYERS].sum((2, 3), keepdim=True)
        return self.code(torch.einsum("behw,bshw->bse", both.float(), share))

    def next(
        self, frame_BCHW: Tensor, now_BEhw: Tensor, masks: Tensor, chosen_BSK: Tensor
    ) -> Tensor:
        """The frame that comes, fp32 (B, C, H, W), by codes as (nearly) one-hot rows."""
        meant_BSE = chosen_BSK @ self.meaning.weight
        change = self.nobody(now_BEhw)
        for s in range(NUM_PLAYERS):
            acted = self.player(now_BEhw + meant_BSE[:, s, :, None, None])
            change = change + masks[:, s, None] * acted
        together = torch.cat((now_BEhw, now_BEhw * meant_BSE.prod(1)[..., None, None]), 1)
        change = change + masks[:, :NUM_PLAYERS].sum(1, keepdim=True) * self.both(together)
        return frame_BCHW.float() + F.pixel_shuffle(self.out(F.relu(change)).float(), PATCH)

    @torch.no_grad()
    def infer_codes(
        self, frames_BTHWC: np.ndarray, num_seen: int = 8
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `TwoPlayerModel.infer_codes`; a player is where the middle of its mask is."""
        codes, places = [], []
        for now, after in self._transitions(frames_BTHWC, num_seen):
            z_now, z_next = self.seen(now), self.seen(after)
            masks = self.masks(z_now, z_next)
            codes.append(self.codes(z_now, z_next, masks).argmax(-1))
            share = masks[:, :NUM_PLAYERS] / masks[:, :NUM_PLAYERS].sum((2, 3), keepdim=True)
            middle = torch.einsum("mshw,xhw->msx", share, self.place)
            places.append((middle + 1) / 2 * (self.config.frame_size - 1))
        return torch.stack(codes).numpy(), torch.stack(places).numpy()

    def _transitions(self, frames_BTHWC: np.ndarray, num_seen: int) -> list[tuple[Tensor, Tensor]]:
        frames = check_frames(frames_BTHWC, self.config.frame_size, num_seen + 1)
        pixels = to_float(frames).movedim(-1, 2)
        return [(game[num_seen - 1 : -1], game[num_seen:]) for game in pixels]


class PenalizedStage(nn.Module):
    """A stage of `training.loop`: pairs of uint8 frames in, loss and metrics out."""

    def __init__(self, config: PenalizedConfig) -> None:
        super().__init__()
        self.model = PenalizedModel(config)

    def forward(self, frames_BTHWC: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.model.config
        now, after = to_float(frames_BTHWC).movedim(-1, 2).unbind(1)
        z_now, z_next = self.model.seen(now), self.model.seen(after)
        masks = self.model.masks(z_now, z_next)
        soft = self.model.codes(z_now, z_next, masks).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), config.num_codes).to(soft)
        chosen = hard + soft - soft.detach()  # straight through
        guess = self.model.next(now, z_now, masks, chosen)
        reconstruction = F.smooth_l1_loss(guess, after, beta=0.1)
        area = masks[:, :NUM_PLAYERS].mean((0, 2, 3))
        coverage = F.relu(config.least - area).sum() / config.least
        overlap = (masks[:, 0] * masks[:, 1]).mean()
        loss = reconstruction + config.coverage * coverage + config.overlap * overlap
        if config.sensitivity:
            other = self.model.next(now, z_now, masks, chosen.roll(1, -1))
            where = F.interpolate(masks[:, :NUM_PLAYERS].sum(1, keepdim=True), scale_factor=PATCH)
            changed = ((guess - other).abs() * where).sum() / (3 * where.sum())
            loss = loss - config.sensitivity * changed.clamp(max=0.5)
        return loss, {
            "reconstruction": reconstruction.detach(),
            "area": area.detach().mean(),
            "overlap": overlap.detach(),
        }

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in metrics.items()}

    def parts_to_compile(self) -> list[nn.Module]:
        return []


def train_penalized(
    config: PenalizedConfig, loop: LoopConfig, run_dir: Path, data: list[Path]
) -> PenalizedModel:
    """Train to the end; the same call resumes. Raises as `training.loop.train`."""
    remember(config, run_dir / "run.json")
    torch.manual_seed(loop.seed)
    stage = PenalizedStage(config)
    train(stage, loop, run_dir / "training", ClipStore(data, 2))
    return stage.model.cpu().eval()
