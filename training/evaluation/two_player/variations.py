"""The same games with one thing changed: what must make no difference, and where the limits are.

Shapes: B games, T frames, M transitions, S = 2 players, K codes, A = 3 actions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from genie_env.envs.duel import BACK, FORTH, SIZE, STAY, draw_styles
from genie_env.world_model.two_player import NUM_PLAYERS, PlayersNotSeenError, TwoPlayerModel
from training.data.duels import DuelConfig, Truth, play_duels
from training.evaluation.sections import Row, Section, bootstrap
from training.evaluation.two_player.sections import found_players
from training.evaluation.two_player.watch import (
    NUM_FRAMES,
    NUM_SEEN,
    information,
    mean_information,
    watch_games,
)
from training.metrics import mutual_information

DRIFT = 1.5
"""Pixels a step: of what is no player and moves."""
OPPOSITE = (STAY, FORTH, BACK)
"""Of `STAY`, `BACK` and `FORTH`."""


def play_changed(count: int, seed: int, **styles: Any) -> tuple[np.ndarray, Truth]:
    """Games whose styles are drawn as ever but for these, the same for all games."""
    rng = np.random.default_rng(seed)
    drawn = draw_styles(rng, count)
    changed = {
        name: np.full_like(getattr(drawn, name), value) for name, value in styles.items()
    }  # fmt: skip
    return play_duels(replace(drawn, **changed), NUM_FRAMES, DuelConfig(""), rng)


def variations_section(
    model: TwoPlayerModel, meaning_SK: np.ndarray, count: int, seed: int
) -> Section:
    """What must make no difference. meaning: of each code of each player."""
    kinds: dict[str, dict[str, Any]] = {
        "paddles that stop at once": {"inertia": 0},
        "paddles that slide": {"inertia": 0.4},
        "no ball": {"num_balls": 0},
        "three balls": {"num_balls": 3},
    }
    rows = _rows(model, kinds, count, seed)
    return Section(
        "Variations",
        f"{count} games of each kind",
        [*rows, _distractor_row(model, count, seed), _turned_row(model, meaning_SK, count, seed)],
    )


def limits_section(model: TwoPlayerModel, count: int, seed: int) -> Section:
    """What is known not to work."""
    kinds: dict[str, dict[str, Any]] = {
        "something wanders by chance": {"wanders": True, "drift": DRIFT},
        "players go to and fro, too": {"roams": True},
    }
    rows = _rows(model, kinds, count, seed)
    for gone, who in (((1,), "one player"), ((0, 1), "no player")):
        rows.append(
            Row(f"{who}: refused", bootstrap(_refused(model, play_without(gone, count, seed))))
        )
    return Section(
        "Known limits",
        f"{count} games of each kind: what wanders by chance cannot be told from a player by video "
        "alone; three codes cannot say which of nine ways a player went; where players are missing "
        "something else may be taken for one",
        rows,
    )


def play_without(gone: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """The frames of games, as many as players are looked for in, in which these players are out of
    the picture: uint8 (B, T, H, W, C)."""
    rng = np.random.default_rng(seed)
    styles = draw_styles(rng, count)
    inset_BP = styles.inset.copy()
    inset_BP[:, gone] = -SIZE
    return play_duels(replace(styles, inset=inset_BP), NUM_SEEN, DuelConfig(""), rng)[0]


def _refused(model: TwoPlayerModel, games_BTHWC: np.ndarray) -> np.ndarray:
    """Whether the model says of games that it does not see two players, bool (B,)."""
    refused = []
    for frames_THWC in games_BTHWC:
        try:
            model.start(frames_THWC[None])
        except PlayersNotSeenError:
            refused.append(True)
        else:
            refused.append(False)
    return np.array(refused)


def _rows(
    model: TwoPlayerModel, kinds: dict[str, dict[str, Any]], count: int, seed: int
) -> list[Row]:
    """Of each kind of game, by the styles that it changes."""
    rows = []
    for name, styles in kinds.items():
        watched = watch_games(model, *play_changed(count, seed, **styles), what=name)
        own = information(watched, watched.actions_BMS, watched.effective_BMS)
        rows += [
            Row(f"{name}: both players found", bootstrap(found_players(watched))),
            Row(f"{name}: NMI of a code and its player's action", bootstrap(own, mean_information)),
        ]
    return rows


def _distractor_row(model: TwoPlayerModel, count: int, seed: int) -> Row:
    """Paired: the same games without and with something that moves as can be foretold."""
    without, beside = (
        watch_games(model, *play_changed(count, seed, drift=drift), what="distractor")
        for drift in (0.0, DRIFT)
    )
    both = np.intersect1d(without.kept_B, beside.kept_B)
    counts = np.stack(
        [
            information(w, w.actions_BMS, w.effective_BMS)[np.searchsorted(w.kept_B, both)]
            for w in (without, beside)
        ],
        1,
    )

    def lost(rows_B2SKA: np.ndarray) -> float:
        bits = [
            np.mean([mutual_information(count_KA) for count_KA in counts_SKA])
            for counts_SKA in rows_B2SKA.sum(0)
        ]
        return float(bits[0] - bits[1])

    return Row("information that something foretellable costs", bootstrap(counts, lost), "bit")


def _turned_row(model: TwoPlayerModel, meaning_SK: np.ndarray, count: int, seed: int) -> Row:
    """Upside down the first player is the second, and up is down."""
    frames, truth = play_changed(count, seed)
    upright = watch_games(model, frames, truth, "turned")
    turned = watch_games(model, np.ascontiguousarray(frames[:, :, ::-1, ::-1]), truth, "turned")
    both = np.intersect1d(upright.kept_B, turned.kept_B)
    did, did_turned = (
        meaning_SK[range(NUM_PLAYERS), w.codes_BMS[np.searchsorted(w.kept_B, both)]]
        for w in (upright, turned)
    )
    same = did == np.take(OPPOSITE, did_turned[..., ::-1])
    return Row("turned upside down: what each player is seen to do", bootstrap(same.mean((1, 2))))
