"""Latent actions to real ones, from a small labelled set (paper, section 3.3).

Shapes: X labelled transitions, K latent actions, A real ones.
"""

from __future__ import annotations

import numpy as np

from genie_env.envs import coinrun
from genie_env.envs.coinrun import PLAIN_BUTTONS


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


def learn_dictionary(codes_X: np.ndarray, actions_X: np.ndarray, num_codes: int) -> np.ndarray:
    """For each latent action the real one under which it is the most likely: int64 (K,).

    How common each real action is in the labelled set is taken out: a code that stands for rare
    jumps would else be called by the walking that it is sometimes seen with. A code that was never
    seen gets the commonest action.

    Raises ValueError without labels, or for codes and actions that do not fit.
    """
    codes_X, actions_X = np.asarray(codes_X), plain_button(actions_X)
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
    count_AK = np.zeros((coinrun.NUM_ACTIONS, num_codes))
    np.add.at(count_AK, (actions_X, codes_X), 1)
    # One transition more of each code for every action: of a rare action little is known, so it
    # is not certain to mean what it was seen with once or twice.
    likely_AK = (count_AK + 1) / (count_AK.sum(1, keepdims=True) + num_codes)
    likely_AK[count_AK == 0] = 0
    best_K = likely_AK.argmax(0)
    return np.where(count_AK.sum(0) > 0, best_K, count_AK.sum(1).argmax())
