"""What is measured of watched games: where players are, what codes tell and change.

Shapes: B games, T frames, M transitions, S = 2 players, K codes, A = 3 actions, H W pixels, C = 3.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from genie_env.envs import duel
from genie_env.world_model.two_player import NUM_PLAYERS, TwoPlayerModel
from training.evaluation.report import matrix_png
from training.evaluation.sections import Figure, Row, Section, bootstrap, share, strips_png
from training.evaluation.two_player.watch import (
    CLOSE,
    LABELS,
    NUM_FRAMES,
    NUM_SEEN,
    Watched,
    along_of,
    information,
    joint,
    mean_information,
    middles,
)


def codes_section(
    watched: Watched, meaning_SK: np.ndarray, halves_BMS: np.ndarray | None = None
) -> Section:
    """How much each player's code tells of what it, the other, the ball and the score did.

    halves_BMS: codes of the left and the right half, as a floor.
    """
    actions, effective = watched.actions_BMS, watched.effective_BMS
    shuffled = np.random.default_rng(0).permutation(actions.ravel()).reshape(actions.shape)
    sign = np.where(watched.moved_BMS > 0.3, 2, np.where(watched.moved_BMS < -0.3, 1, 0))
    ceiling = np.zeros((len(actions), NUM_PLAYERS, 3, 3))
    for b, s in np.ndindex(ceiling.shape[:2]):
        ok = effective[b, :, s]
        ceiling[b, s] = joint(sign[b, ok, s], actions[b, ok, s])
    own = information(watched, actions, effective)
    beside = {
        "shuffled": mean_information(information(watched, shuffled, effective)),
        "true displacement": mean_information(ceiling),
    }
    upright_B = along_of(watched.truth.players)[:, 0, 0] == 1
    if halves_BMS is not None and upright_B.any():
        floor = information(replace(watched, codes_BMS=halves_BMS), actions, effective)
        beside["left and right halves, where players are left and right"] = mean_information(
            floor[upright_B]
        )
    rows = [
        Row(
            "NMI of a code and its player's action",
            bootstrap(own, mean_information),
            beside=beside,
        ),
        Row(
            "NMI of a code and the other player's action",
            bootstrap(information(watched, actions[..., ::-1], effective), mean_information),
        ),
        # Where a game answers late, what is seen is not yet what was done.
        Row(
            "NMI of a code and the way that its paddle goes",
            bootstrap(information(watched, sign, effective), mean_information),
        ),
    ]
    balls = watched.truth.balls[..., 0, :]
    step = (balls[:, NUM_SEEN:] - balls[:, watched.now])[..., :2]
    for axis, name in enumerate(("left or right", "up or down")):
        way = np.where(step[..., axis] > 0, 2, 1)[..., None].repeat(NUM_PLAYERS, -1)
        known = effective & ~np.isnan(step[..., axis])[..., None]
        if known.any():
            rows.append(
                Row(
                    f"NMI of a code and the ball's way {name}",
                    bootstrap(information(watched, way, known), mean_information),
                )
            )
    score = watched.truth.score
    scored = (score[:, NUM_SEEN:] != score[:, watched.now]).any(-1, keepdims=True)
    if scored.any():
        told = information(watched, scored.astype(int).repeat(NUM_PLAYERS, -1), effective)
        rows.append(Row("NMI of a code and a point", bootstrap(told, mean_information)))
    hits = np.zeros((len(actions), 2))
    by_place = np.zeros((len(actions), 2))
    middle = (watched.truth.players[..., :2] + watched.truth.players[..., 2:])[:, watched.now] / 2
    for s in range(NUM_PLAYERS):
        right = meaning_SK[s][watched.codes_BMS[..., s]] == actions[..., s]
        ok = effective[..., s]
        hits += np.stack(((right & ok).sum(1), ok.sum(1)), 1)
        # Where the paddle is, in eighths of the picture each way.
        place = (np.clip(middle[..., s, :], 0, duel.SIZE - 1) // (duel.SIZE / 8)).astype(int)
        cell = place[..., 0] * 8 + place[..., 1]
        best = np.zeros((64, watched.num_codes), int)
        for c in np.unique(cell):
            here = ok & (cell == c)
            best[c] = joint(
                watched.codes_BMS[..., s][here], actions[..., s][here], watched.num_codes
            ).argmax(1)
        by_place += np.stack(
            (((best[cell, watched.codes_BMS[..., s]] == actions[..., s]) & ok).sum(1), ok.sum(1)), 1
        )
    rows.append(Row("actions told by one map for all games", bootstrap(hits, share)))
    rows.append(
        Row(
            "more told by a map for each place",
            bootstrap(
                np.concatenate((hits, by_place), 1), lambda r: share(r[:, 2:]) - share(r[:, :2])
            ),
        )
    )
    total = own.sum(0)
    names = [f"code {k}" for k in range(watched.num_codes)]
    figures = [
        Figure(
            f"codes-of-player-{s}",
            f"what player {s} does (columns) at each of its codes: shares of the code",
            matrix_png(
                total[s] / np.maximum(total[s].sum(1, keepdims=True), 1), names,
                ("stays", "up or left", "down or right"),
            ),
        )
        for s in range(NUM_PLAYERS)
    ]  # fmt: skip
    return Section(
        "Codes and what was done",
        f"{len(actions)} games, {NUM_FRAMES - NUM_SEEN} transitions each, those without effect "
        "left out (a paddle at a wall); mean of both players; the map of codes to actions is that "
        f"of {LABELS} transitions a player of games that were trained on",
        rows,
        figures,
    )


def off_players(watched: Watched) -> np.ndarray:
    """How far from each player the model has it, the median of each game, pixels (B, S)."""
    off = watched.places_BMS2 - middles(watched.truth.players[:, watched.now])
    return np.median(np.linalg.norm(off, axis=-1), 1)


def found_players(watched: Watched) -> np.ndarray:
    """Whether both are found, each on its side, of all games that were played, bool."""
    found_B = (off_players(watched) < CLOSE).all(-1)
    return np.r_[found_B, np.zeros(watched.num_played - len(found_B), bool)]


def places_section(watched: Watched) -> Section:
    """Whether the model looks at the players."""
    seen = np.arange(watched.num_played) < len(watched.kept_B)
    return Section(
        "Where the players are",
        f"median distance over {NUM_FRAMES - NUM_SEEN} frames, from past frames alone; games in "
        "which the model says that it cannot see two players count as missed",
        [
            Row(f"both within {CLOSE:g} px, each on its side", bootstrap(found_players(watched))),
            Row("two players seen", bootstrap(seen)),
            Row("distance", bootstrap(off_players(watched).mean(1), np.median), "px"),
        ],
    )


def change_section(model: TwoPlayerModel, watched: Watched) -> Section:
    """What changes in the next frame if one player does something else."""
    names = ("own paddle", "other paddle", "ball", "rest")
    rows = np.zeros((len(watched.frames_BTHWC), NUM_PLAYERS, len(names)))
    strips = []
    for b, frames in enumerate(watched.frames_BTHWC):
        told_SKMCHW = model.alternatives(frames, watched.codes_BMS[b], NUM_SEEN)
        for s, told in enumerate(told_SKMCHW):
            difference = np.ptp(told, 0).sum(1)  # M H W
            for part, mask in zip(range(4), _parts(watched, b, s), strict=True):
                rows[b, s, part] = (difference * mask).sum()
            if b < 6:
                shown = [frames[NUM_SEEN - 1], *(_pixels(each[0]) for each in told)]
                strips.append(np.stack(shown))
    shares = rows / rows.sum(-1, keepdims=True).clip(1e-9)
    return Section(
        "One code changed",
        "difference of the next frames under the codes of one player, the other's as it was: "
        "where it lies; a paddle's box takes in the pixels that it may reach in a step",
        [
            Row(f"share in: {name}", bootstrap(shares[..., part].mean(1)))
            for part, name in enumerate(names)
        ],
        [
            Figure(
                "counterfactuals",
                "where the next frame changes (columns) if one player does something else (rows): "
                "shares of all that changes, mean of games",
                matrix_png(shares.mean(0), [f"player {s}" for s in range(NUM_PLAYERS)], names),
            ),
            Figure(
                "one-code", "the newest frame, then the next under each code of one player; a row "
                "a player, six games", strips_png(np.stack(strips))
            )
        ],
    )  # fmt: skip


def _pixels(frame_CHW: np.ndarray) -> np.ndarray:
    return np.clip((np.moveaxis(frame_CHW, 0, -1) + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)


def _parts(watched: Watched, b: int, s: int) -> list[np.ndarray]:
    """Own paddle, the other, balls, rest: bool (M, H, W) each, no pixel in two."""
    players, balls = watched.truth.players[b, watched.now], watched.truth.balls[b, watched.now]
    along = int(along_of(watched.truth.players)[b, 0, 0])
    reach = np.full(4, 1.0)
    # It moves by at most 4 pixels, and lies between pixels.
    reach[[along, along + 2]] = 5.0
    own = _inside(players[:, s], reach)
    other = _inside(players[:, 1 - s], reach) & ~own
    ball = np.zeros_like(own)
    for number in range(balls.shape[1]):
        ball |= _inside(balls[:, number], np.full(4, 4.0))
    ball &= ~own & ~other
    return [own, other, ball, ~own & ~other & ~ball]


def _inside(boxes_M4: np.ndarray, reach_4: np.ndarray) -> np.ndarray:
    """bool (M, H, W). NaN holds nothing."""
    pixel = np.arange(duel.SIZE)
    low, high = boxes_M4[:, :2] - reach_4[:2], boxes_M4[:, 2:] + reach_4[2:]
    with np.errstate(invalid="ignore"):
        inside = (pixel + 1 > low[..., None]) & (pixel < high[..., None])
    return inside[:, 1, :, None] & inside[:, 0, None]


def ladder_section(name: str, watched: Watched) -> Section:
    """How much less is left to say when the codes are told, in a separate process."""
    rng = np.random.default_rng(0)
    codes = watched.codes_BMS
    shuffled = rng.permutation(codes.reshape(-1, NUM_PLAYERS)).reshape(codes.shape)
    one = codes.copy()
    one[..., 1] = shuffled[..., 1]
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(given, frames=watched.frames_BTHWC, codes=np.stack((codes, one, shuffled)))
        command = [sys.executable, "-m", "training.evaluation.two_player.predict"]
        subprocess.run([*command, name, str(given), str(out)], check=True)
        with np.load(out) as columns:
            foretold, told = columns["foretold"], columns["told"]
    frames = watched.frames_BTHWC.astype(np.float32)
    copied = ((frames[:, NUM_SEEN:] - frames[:, watched.now]) ** 2).mean((2, 3, 4))

    def left(error_BM: np.ndarray) -> np.ndarray:
        return np.stack((error_BM.sum(1), copied.sum(1)), 1)

    named = {
        "nobody's code": foretold,
        "both codes": told[0],
        "both, the second player's shuffled": told[1],
        "both shuffled": told[2],
    }
    return Section(
        "What is left to say",
        "error of the next frame over that of the last one repeated; codes are written to a file "
        "as whole numbers, and a process of its own predicts from these and from past frames",
        [Row(what, bootstrap(left(error), share)) for what, error in named.items()],
    )
