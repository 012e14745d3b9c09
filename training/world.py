"""The second stage: latent actions and dynamics, trained together on a frozen tokenizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genie_env.world_model.dynamics import Dynamics, DynamicsConfig
from genie_env.world_model.latent_actions import LatentActionConfig
from genie_env.world_model.quantize import perplexity
from genie_env.world_model.tokenizer import VideoTokenizer
from training.dynamics import DynamicsLossConfig, dynamics_loss
from training.latent_actions import LatentActionLossConfig, LatentActionStage


@dataclass(frozen=True)
class WorldLossConfig:
    dynamics_from: float = 0.0
    """Share of the run before which only the latent action model learns; 0: together from the
    start, as in the paper."""
    freeze_actions_at: float = 0.5
    """Share of the run after which the latent action model stops learning: the dynamics then
    learns from codes that keep their meaning, with the whole machine to itself. 1: never."""


class WorldStage(nn.Module):
    """What `training.loop` trains in the second stage: uint8 clips in, loss and metrics out.

    The dynamics gets the codes, not the vectors: no gradient of its loss reaches the latent action
    model, which keeps its own reconstruction and codebook losses.
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
        metrics: dict[str, Tensor] = {}
        if progress < self.loss.freeze_actions_at or not self.training:
            actions_loss, quantized, metrics = self.actions(frames_BTHWC, progress)
            codes_BM = quantized.codes
        else:
            self.actions.eval()
            with torch.no_grad():
                codes_BM = self.actions.encoder(frames_BTHWC).codes
            actions_loss = torch.zeros((), device=frames_BTHWC.device)
        if self.training and progress < self.loss.dynamics_from:
            return actions_loss, metrics | {"lam_codes": codes_BM}
        with torch.no_grad():
            tokens_BTN = self.tokenizer.encode(frames_BTHWC)
        loss, dynamics_metrics = dynamics_loss(
            self.dynamics, tokens_BTN, codes_BM, self.dynamics_loss
        )
        return loss + actions_loss, metrics | dynamics_metrics | {"lam_codes": codes_BM}

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        values = {key: float(value) for key, value in metrics.items() if value.ndim == 0}
        codes = metrics["lam_codes"]
        return values | {"lam_perplexity": perplexity(codes, self.actions.encoder.num_codes)}

    def parts_to_compile(self) -> list[nn.Module]:
        tokenizer = self.tokenizer
        actions = [self.actions.encoder, self.actions.decoder]
        return [tokenizer.stem, tokenizer.encoder, *actions, self.dynamics]
