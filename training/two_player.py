"""The objective that finds two players in video: foretell, and explain by a code what is left.

Shapes: B clips, T = P + 1 + U frames, P past frames, of which up to U may be the model's own, H W
pixels, C = 3, K codes of a player.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_env.world_model.pixels import blur
from genie_env.world_model.tokenizer import to_float
from genie_env.world_model.two_player import OWN, TwoPlayerConfig, TwoPlayerModel

FAINT = 1e-3
"""Squared error, of pixels from -1 to 1, below which nothing is worth explaining."""


@dataclass(frozen=True)
class TwoPlayerLossConfig:
    foretell_first: float = 0.4
    """Share of the run in which only what the past foretells is learned: what balls do must be
    known before codes may explain anything, or they explain balls."""
    near: float = 3.0
    """Pixels: what is explained by one code. Every place takes the code that fits best around
    it (hard EM), as nobody knows yet where the players are."""
    share_near: float = 4.0
    """The same for the share that a code explains."""
    locally: float = 8.0
    """Weight of the part of the error around each pixel that its code leaves: a faint player
    counts as much as a loud one."""
    any_code: float = 1.0
    """Weight of the error of the mean over all codes: players do any of them as often, so it must
    foretell as well as no code does. It tells codes that fit nowhere (a push at a wall) what they
    do."""
    by_code: float = 0.1
    """Price of letting a code act on a pixel."""
    own_frames: int = 3
    """U: how many of the newest frames of the past are at most the model's own, once it knows
    codes: who plays on sees nothing else, and must not smear what is smeared already."""
    own_sure: float = 1.5
    """How many times as large the log odds are in these. Dreams have more (`SURE`), which was
    found afterwards; training with that was not tried."""


class TwoPlayerStage(nn.Module):
    """A stage of `training.loop`: uint8 clips in, loss and metrics out."""

    def __init__(self, config: TwoPlayerConfig, loss: TwoPlayerLossConfig) -> None:
        super().__init__()
        self.model = TwoPlayerModel(config)
        self.loss = loss

    def forward(self, frames_BTHWC: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        past = self.model.config.past_frames
        frames = to_float(frames_BTHWC).movedim(-1, 2)
        with_codes = progress >= self.loss.foretell_first or not self.training
        own = 0
        if self.training and with_codes:
            own = int(torch.randint(self.loss.own_frames + 1, ()))
        history, target = self._played_on(frames[:, : past + own]), frames[:, past + own]
        foreseen = self.model.foresight(history)
        with torch.autocast(frames.device.type, enabled=False):
            guesses = self.model.guesses(history[:, -1], foreseen, with_codes)
            error = (guesses - target[:, None]).square().mean(2)  # B 1+K H W
            # In shares of what standing still would cost on average of the clip: faint games count
            # as much as loud ones, transitions in which little happens no more than others.
            shown = frames[:, : past + own + 1]
            scale_B = (shown[:, 1:] - shown[:, :-1]).square().mean((1, 2, 3, 4)) + 4e-4
            foretold = error[:, 0].mean((1, 2)) / scale_B
            metrics = {"foretold": foretold.detach().mean()}
            if not with_codes:
                return foretold.mean(), metrics
            with torch.no_grad():
                best = blur(error[:, 1:], self.loss.near).argmin(1, keepdim=True)
                around = blur(error, self.loss.share_near)
                left = around[:, 1:].amin(1)
                share = ((around[:, 0] - left) / (around[:, 0] + FAINT)).clamp(0, 1)
                unforeseen = blur(error[:, 0], self.loss.near) + FAINT
            coded = error[:, 1:].gather(1, best)[:, 0]
            told = coded.mean((1, 2)) / scale_B
            # Nothing but their mean says what codes that were not taken would have done.
            any_code = (guesses[:, 1:].mean(1) - target).square().mean((1, 2, 3)) / scale_B
            locally = (coded / unforeseen).mean()
            explained = F.binary_cross_entropy(foreseen.explained_BHW, share)
        loss = foretold.mean() + told.mean() + self.loss.any_code * any_code.mean()
        loss = loss + self.loss.locally * locally + explained
        loss = loss + self.loss.by_code * foreseen.by_code_BHW.mean()
        return loss, metrics | {
            "told": told.detach().mean(),
            "any_code": any_code.detach().mean(),
            "by_code": foreseen.by_code_BHW.detach().mean(),
            "explained": explained.detach(),
        }

    @torch.no_grad()
    def _played_on(self, frames_BTCHW: Tensor) -> Tensor:
        """The last P frames, those after the first P as it would dream them by the codes that fit
        best."""
        past = self.model.config.past_frames
        history = frames_BTCHW[:, :past]
        for target in frames_BTCHW[:, past:].unbind(1):
            foreseen = self.model.foresight(history)
            with torch.autocast(frames_BTCHW.device.type, enabled=False):
                guesses = self.model.guesses(history[:, -1], foreseen, sure=self.loss.own_sure)
                error = (guesses[:, 1:] - target[:, None]).square().mean(2)
                best = blur(error, self.loss.share_near).argmin(1)[:, None, None]
                told = guesses[:, 1:].take_along_dim(best, 1)[:, 0]
                own = (foreseen.explained_BHW > OWN)[:, None]
                newest = torch.where(own, told, guesses[:, 0])
            history = torch.cat((history[:, 1:], newest[:, None]), 1)
        return history

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        return {name: float(value) for name, value in metrics.items()}

    def parts_to_compile(self) -> list[nn.Module]:
        return [self.model.foresight, self.model.transport]
