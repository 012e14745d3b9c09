"""Dynamics on a frozen tokenizer: with the latent action model, as in the paper, or after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genie_env.world_model.dynamics import Dynamics, DynamicsConfig
from genie_env.world_model.latent_actions import LatentActionConfig
from genie_env.world_model.tokenizer import VideoTokenizer
from training.dynamics import DynamicsLossConfig, dynamics_loss
from training.latent_actions import LatentActionLossConfig, LatentActionStage


@dataclass(frozen=True)
class WorldLossConfig:
    freeze_actions_at: float = 0.5
    """Share of the stage after which the latent action model stops learning: the dynamics then
    learns from codes that keep their meaning, with the whole machine to itself. 0: it is finished
    before; 1: never."""


class WorldStage(nn.Module):
    """A stage of `training.loop`: uint8 clips in, loss and metrics out.

    The dynamics gets the codes, not the vectors: no gradient of its loss reaches the latent action
    model, which keeps its own.
    """

    def __init__(
        self,
        tokenizer: VideoTokenizer,
        actions: LatentActionConfig,
        actions_loss: LatentActionLossConfig,
        dynamics: DynamicsConfig,
        dynamics_loss: DynamicsLossConfig,
        loss: WorldLossConfig,
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer.requires_grad_(False)
        self.actions = LatentActionStage(actions, actions_loss)
        self.dynamics = Dynamics(
            dynamics,
            tokenizer.config.num_tokens,
            tokenizer.num_codes,
            self.actions.encoder.num_codes,
        )
        self.dynamics_loss = dynamics_loss
        self.loss = loss

    def train(self, mode: bool = True) -> WorldStage:
        super().train(mode)
        self.tokenizer.eval()
        return self

    def forward(self, frames_BTHWC: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        if progress < self.loss.freeze_actions_at:
            actions_loss, actions, metrics = self.actions.infer(frames_BTHWC, progress)
            codes_BM = actions.codes
        else:
            self.actions.eval()
            with torch.no_grad():
                codes_BM = self.actions.encoder(frames_BTHWC).codes
            actions_loss = torch.zeros((), device=frames_BTHWC.device)
            metrics = {"lam_codes": codes_BM}
        with torch.no_grad():
            tokens_BTN = self.tokenizer.encode(frames_BTHWC)
        loss, dynamics_metrics = dynamics_loss(
            self.dynamics, tokens_BTN, codes_BM, self.dynamics_loss
        )
        return loss + actions_loss, metrics | dynamics_metrics

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        return self.actions.summarize(metrics)

    def parts_to_compile(self) -> list[nn.Module]:
        tokenizer = self.tokenizer
        actions = self.actions.parts_to_compile()
        return [tokenizer.stem, tokenizer.encoder, *actions, self.dynamics]
