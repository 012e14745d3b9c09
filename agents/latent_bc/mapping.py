"""Latent actions to real ones and back, from a small labelled set (paper, section 3.3).

Shapes: X labelled transitions, K latent actions, A = 6 real ones (`PLAIN_BUTTONS`), F features.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from genie_env.envs import coinrun
from genie_env.envs.coinrun import PLAIN_BUTTONS

MapKind = Literal["dictionary", "effects", "decoder"]
MAP_KINDS: tuple[MapKind, ...] = ("dictionary", "effects", "decoder")
PRIOR = 2.0
"""Labels that a code has before it was seen: what is common is meant rather than what is rare."""


def plain_button(actions: np.ndarray) -> np.ndarray:
    """Each real action as the one of `PLAIN_BUTTONS` that does the same, int64 (...)."""
    table = np.zeros(coinrun.NUM_ACTIONS, np.int64)
    for action, (_, dx, dy) in enumerate(coinrun.ACTION_MEANINGS):
        same = (
            button
            for button in PLAIN_BUTTONS
            if coinrun.ACTION_MEANINGS[button][1:] == (dx, max(dy, 0))
        )
        table[action] = next(same)
    return table[np.asarray(actions)]


def plain_button_index(actions: np.ndarray) -> np.ndarray:
    """Where in `PLAIN_BUTTONS` the one of `plain_button` stands, int64 (...)."""
    place = np.zeros(coinrun.NUM_ACTIONS, np.int64)
    place[list(PLAIN_BUTTONS)] = np.arange(len(PLAIN_BUTTONS))
    return place[plain_button(actions)]


def learn_dictionary(codes_X: np.ndarray, actions_X: np.ndarray, num_codes: int) -> np.ndarray:
    """For each latent action the real one under which it is the most likely: int64 (K,).

    How common each real action is in the labelled set is taken out: a code that stands for rare
    jumps would else be called by the walking that it is sometimes seen with. A code that was never
    seen gets the commonest action.

    Raises ValueError without labels, or for codes and actions that do not fit.
    """
    _check(codes_X, actions_X, num_codes)
    codes_X, actions_X = np.asarray(codes_X), plain_button(actions_X)
    count_AK = np.zeros((coinrun.NUM_ACTIONS, num_codes))
    np.add.at(count_AK, (actions_X, codes_X), 1)
    # One transition more of each code for every action: of a rare action little is known, so it
    # is not certain to mean what it was seen with once or twice.
    likely_AK = (count_AK + 1) / (count_AK.sum(1, keepdims=True) + num_codes)
    likely_AK[count_AK == 0] = 0
    best_K = likely_AK.argmax(0)
    return np.where(count_AK.sum(0) > 0, best_K, count_AK.sum(1).argmax())


def _check(codes_X: np.ndarray, actions_X: np.ndarray, num_codes: int) -> None:
    codes_X, actions_X = np.asarray(codes_X), np.asarray(actions_X)
    if codes_X.shape != actions_X.shape or codes_X.ndim != 1 or not len(codes_X):
        raise ValueError(
            f"{codes_X.shape} latent and {actions_X.shape} real actions; accepted: as many of "
            "both, at least one"
        )
    if codes_X.min() < 0 or codes_X.max() >= num_codes:
        raise ValueError(
            f"latent actions from {codes_X.min()} to {codes_X.max()}; accepted: 0 to "
            f"{num_codes - 1}"
        )


@dataclass(frozen=True)
class ActionMap:
    """What a policy of latent actions presses.

    kind: `dictionary`, the paper's: of a code one of the real actions that were seen with it, drawn
    as often as they were; `effects`: always the one that was seen with it most, and `PRIOR` labels
    more that are as all labels are; `decoder`: real actions as a linear function of all the
    policy's log-chances.
    """

    kind: MapKind
    weight_KA: np.ndarray
    """Chances of each code's real actions; of `decoder`, weights."""
    bias_A: np.ndarray

    def chances(self, logits_BK: np.ndarray, codes_B: np.ndarray) -> np.ndarray:
        """Of the real actions, (B, A), where a policy with these logits drew these codes."""
        if self.kind == "decoder":
            return softmax(_log_softmax(logits_BK) @ self.weight_KA + self.bias_A)
        return self.weight_KA[codes_B]

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "weight": self.weight_KA.tolist(),
            "bias": self.bias_A.tolist(),
        }

    @classmethod
    def from_json(cls, facts: dict[str, object]) -> ActionMap:
        kind, weight, bias = facts["kind"], facts["weight"], facts["bias"]
        return cls(kind, np.array(weight), np.array(bias))  # type: ignore[arg-type]


def fit_map(
    kind: MapKind, count_KA: np.ndarray, actions_X: np.ndarray, logits_XK: np.ndarray
) -> ActionMap:
    """The map that labelled transitions teach.

    count_KA: how often each latent action goes with each button (`count_codes`; or fp64, of what
    was read). actions_X: labelled buttons. logits_XK: the policy's, at their frames.
    A code that was never seen gets what is commonest, with a warning.

    Raises ValueError without labels, for arrays that do not fit, or an unknown kind.
    """
    num_codes, num_buttons = logits_XK.shape[-1], len(PLAIN_BUTTONS)
    if count_KA.shape != (num_codes, num_buttons) or len(actions_X) != len(logits_XK):
        raise ValueError(
            f"counts {count_KA.shape}, {len(actions_X)} buttons and logits {logits_XK.shape}; "
            f"accepted: (K, {num_buttons}), X and (X, K)"
        )
    if not len(actions_X) or not count_KA.any():
        raise ValueError("no labelled transition; accepted: at least one")
    bias_A = np.zeros(num_buttons)
    if kind == "decoder":
        button_X = plain_button_index(actions_X)
        weight_KA, bias_A = fit_linear(_log_softmax(logits_XK), button_X, num_buttons)
        return ActionMap(kind, weight_KA, bias_A)
    usual_A = count_KA.sum(0) / count_KA.sum()
    unseen = np.flatnonzero(count_KA.sum(1) == 0)
    if len(unseen):
        warnings.warn(
            f"no label among {len(actions_X)} shows the latent actions {unseen.tolist()}: they get "
            "what is commonest",
            stacklevel=2,
        )
        count_KA = count_KA.copy()
        count_KA[unseen] = usual_A
    if kind == "effects":
        return ActionMap(kind, np.eye(num_buttons)[(count_KA + PRIOR * usual_A).argmax(1)], bias_A)
    if kind == "dictionary":
        return ActionMap(kind, count_KA / count_KA.sum(1, keepdims=True), bias_A)
    raise ValueError(f"unknown map {kind!r}; known: {', '.join(MAP_KINDS)}")


def count_codes(codes_X: np.ndarray, actions_X: np.ndarray, num_codes: int) -> np.ndarray:
    """How often each latent action was seen with each of `PLAIN_BUTTONS`, fp64 (K, A).

    Raises ValueError without transitions, or for codes and actions that do not fit.
    """
    _check(codes_X, actions_X, num_codes)
    count_KA = np.zeros((num_codes, len(PLAIN_BUTTONS)))
    np.add.at(count_KA, (np.asarray(codes_X), plain_button_index(actions_X)), 1)
    return count_KA


def fit_linear(
    features_XF: np.ndarray, classes_X: np.ndarray, num_classes: int, decay: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression: weights (F, classes) and bias. decay: of the squared
    weights, beside the sum of the cross-entropies."""
    x = torch.from_numpy(np.asarray(features_XF, np.float64))
    y = torch.from_numpy(np.asarray(classes_X))
    weight = torch.zeros(x.shape[1], num_classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=x.dtype, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight + bias, y, reduction="sum")
        value = value + decay / 2 * (weight.square().sum() + 1e-2 * bias.square().sum())
        value.backward()
        return value

    solver.step(loss)
    return weight.detach().numpy(), bias.detach().numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Chances, over the last axis."""
    return np.exp(_log_softmax(logits))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
