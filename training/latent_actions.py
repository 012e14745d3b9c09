"""The latent action model's objective: codes that help most to predict the next frame.

Shapes: B clips, T frames, M = T - 1 transitions, N patches, S places, K codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_env.world_model.latent_actions import (
    LatentActionConfig,
    LatentActionDecoder,
    LatentActionEncoder,
    LatentActions,
)
from genie_env.world_model.quantize import perplexity
from genie_env.world_model.tokenizer import to_float


@dataclass(frozen=True)
class LatentActionLossConfig:
    forward_first: float = 0.25
    """Share of the stage in which the decoder learns to predict without any action: what it can
    predict by itself is not an action."""
    encoder_from: float = 0.0
    """Share of the stage after which the encoder learns. One that begins with what another video
    taught it would unlearn that from a forward model that knows nothing yet."""
    focus: float = 0.0
    """A transition weighs as much as its surprise over the mean's, to this power (0: all alike).
    A jump is 6% of the transitions: alike, left and right jumps are content to share a code."""
    max_weight: float = 10.0
    """At most this."""
    independence: float = 0.0
    """Weight of what the past says of a code, nats. Where actions are drawn whatever was seen
    before (`CollectConfig.redraw=1`), a code that can be foretold is none: with 0 codes are content
    to be bins of how fast things already move."""
    independent_from: float = 0.7
    """Share of the stage after which that counts: before, the codes are worth so little that the
    easiest way to say nothing of the past is to say nothing."""
    softness: float = 0.2
    """Squared distance over which a latent belongs to several codes, for that measure."""


def surprise(goal_BMNS: Tensor, guess_BMNS: Tensor) -> Tensor:
    """How badly logits foretell where the patches of each transition came from (log shares):
    divergences in nats (B, M).

    A patch counts by how much its place says: one of many alike says nothing, nor does one that
    came into view. Near and far count alike, so that a step to the right is worth a code as much as
    a jump is.
    """
    share_BMNS = goal_BMNS.exp()
    entropy_BMN = -(share_BMNS * goal_BMNS).sum(-1)
    divergence_BMN = -(share_BMNS * guess_BMNS.float().log_softmax(-1)).sum(-1) - entropy_BMN
    seen_BMN = 1 - share_BMNS[..., -1]
    weight_BMN = seen_BMN * (1 - entropy_BMN / math.log(goal_BMNS.shape[-1]))
    # The bound: a transition in which all looks alike teaches nothing.
    return (weight_BMN * divergence_BMN).sum(-1) / weight_BMN.sum(-1).clamp_min(1e-3)


def _held(x: Tensor) -> Tensor:
    """As it is, with a gradient of 0: every weight still takes part in the step (DDP wants it
    so)."""
    return x.detach() + 0 * x


class LatentActionStage(nn.Module):
    """Encoder, quantizer and forward model with their own losses: a stage of `training.loop`, and
    a part of `training.world` where both learn together."""

    def __init__(self, config: LatentActionConfig, loss: LatentActionLossConfig) -> None:
        super().__init__()
        self.encoder = LatentActionEncoder(config)
        self.decoder = LatentActionDecoder(config, self.encoder.quantizer.latent_dim)
        self.loss = loss
        if loss.independence and config.quantizer.kind == "fsq":
            raise ValueError(
                f"independence={loss.independence} needs a VQ: an FSQ has no distances to its codes"
            )
        width, num_codes = config.encoder.width, self.encoder.num_codes
        if loss.independence:
            self.foretell = nn.Sequential(
                nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_codes)
            )

    def forward(self, frames_BTHWC: Tensor, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        loss, _, metrics = self.infer(frames_BTHWC, progress)
        return loss, metrics

    def infer(
        self, frames_BTHWC: Tensor, progress: float
    ) -> tuple[Tensor, LatentActions, dict[str, Tensor]]:
        """Loss, latent actions and metrics."""
        actions = self.encoder(frames_BTHWC)
        if self.training and progress < self.loss.encoder_from:
            actions = actions._replace(
                vectors=_held(actions.vectors),
                features=_held(actions.features),
                latents=_held(actions.latents),
                loss=0 * actions.loss,
            )
        quantizer_loss = actions.loss
        if self.training and progress < self.loss.forward_first:
            # Multiplied, so that every weight still takes part in the step (DDP wants it so).
            actions = actions._replace(vectors=actions.vectors * 0)
            quantizer_loss = quantizer_loss * 0
        guess = self.decoder(frames_BTHWC, actions)
        metrics = {"lam_codes": actions.codes.detach()}
        if actions.came_from is not None:
            surprise_BM = surprise(actions.came_from[:, 1:], guess)
            mean = surprise_BM.detach().mean()
            weight_BM = (surprise_BM.detach() / mean) ** self.loss.focus
            loss = (surprise_BM * weight_BM.clamp(max=self.loss.max_weight)).mean()
            metrics["lam_surprise"] = mean
        else:
            target = to_float(frames_BTHWC)
            loss, copied = (
                F.mse_loss(past.float(), target[:, 1:]) for past in (guess, target[:, :-1])
            )
            metrics["lam_psnr"], metrics["lam_copy_psnr"] = (
                10 * torch.log10(4 / error.detach()) for error in (loss, copied)
            )
        if self.loss.independence:
            foretold, known = self._foretold(actions)
            metrics["lam_foretold"] = known.detach()
            late = progress >= self.loss.independent_from or not self.training
            loss = loss + foretold + (self.loss.independence * known if late else 0.0)
        return loss + quantizer_loss, actions, metrics

    def _foretold(self, actions: LatentActions) -> tuple[Tensor, Tensor]:
        """How badly the past foretells the codes (what `foretell` learns by), and how much it says
        of them (what the encoder shall avoid): nats, fp32 scalars."""
        # Of the first transition nothing is known before it.
        past_BMD = actions.features[:, :-1].detach()
        log_BMK = self.foretell(past_BMD.to(self.foretell[0].weight.dtype)).float().log_softmax(-1)
        missed = F.nll_loss(log_BMK.flatten(0, 1), actions.codes[:, 1:].flatten())
        distance_BMK = self.encoder.quantizer.distances(actions.latents[:, 1:])
        share_BMK = (-distance_BMK.square() / self.loss.softness).softmax(-1)
        usual_K = share_BMK.mean((0, 1)).clamp_min(1e-4).log()
        return missed, (share_BMK * (log_BMK.detach() - usual_K)).sum(-1).mean()

    def summarize(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        values = {key: float(value) for key, value in metrics.items() if value.ndim == 0}
        return values | {"lam_perplexity": perplexity(metrics["lam_codes"], self.encoder.num_codes)}

    def parts_to_compile(self) -> list[nn.Module]:
        return [self.encoder, self.decoder]
