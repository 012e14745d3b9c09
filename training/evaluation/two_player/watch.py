"""Games that a two-player model watched, what it said of them, and what was true.

Shapes: B games, T frames, M transitions, S = 2 players, L balls, K codes, A = 3 actions, H W
pixels, C = 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from genie_env.envs import duel
from genie_env.world_model.tokenizer import to_float
from genie_env.world_model.two_player import NUM_PLAYERS, PlayersNotSeenError, TwoPlayerModel
from training.data.duels import AT_ONCE, DuelConfig, Truth, play_games
from training.metrics import normalized_mutual_information

NUM_SEEN, NUM_FRAMES = 8, 20
CLOSE = 4.0
"""Pixels from its middle within which a player is found."""
LABELS = 200


@dataclass(frozen=True)
class Watched:
    """Games in which the model saw both players, and what it said of them."""

    frames_BTHWC: np.ndarray
    truth: Truth
    """With axes (B, T, ...); the players in the model's order."""
    codes_BMS: np.ndarray
    places_BMS2: np.ndarray
    kept_B: np.ndarray
    """int64: which of the games that were played these are."""
    num_codes: int
    """K."""
    num_played: int
    """Those in which it did not see both among them."""

    @property
    def now(self) -> slice:
        """The frames from which transitions lead on."""
        return slice(NUM_SEEN - 1, -1)

    @property
    def actions_BMS(self) -> np.ndarray:
        return self.truth.actions[:, self.now].astype(np.int64)

    @property
    def moved_BMS(self) -> np.ndarray:
        """How far each paddle moves along, pixels."""
        boxes = self.truth.players
        step = boxes[:, NUM_SEEN:] - boxes[:, self.now]
        return np.take_along_axis(step, along_of(boxes)[..., None], -1)[..., 0]

    @property
    def effective_BMS(self) -> np.ndarray:
        """Whether what was done had an effect: a wall may stop a paddle."""
        return (self.actions_BMS == duel.STAY) | (np.abs(self.moved_BMS) > 0.05)


def middles(boxes: np.ndarray) -> np.ndarray:
    """Of boxes (..., 4), in pixels counted from the middle of the first: (..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2 - 0.5


def along_of(boxes_BTS4: np.ndarray) -> np.ndarray:
    """The axis on which paddles move, 0 for x: that of their longer side, (B, 1, 1)."""
    width, height = (boxes_BTS4[:, 0, :, i + 2] - boxes_BTS4[:, 0, :, i] for i in (0, 1))
    return (height.sum(1) > width.sum(1)).astype(np.int64)[:, None, None]


def in_order(players_BTS4: np.ndarray, places_BS2: np.ndarray) -> np.ndarray:
    """Which player the model calls the first, then the second: int64 (B, S).

    places: where it has them when it has seen `NUM_SEEN` frames. They tell where in the first frame
    one player is as much above the other as beside, so that either may be the first.
    """
    middle = middles(players_BTS4)
    apart_B2 = middle[:, 0, 1] - middle[:, 0, 0]
    widest = np.abs(apart_B2).argmax(-1)
    swap_B = np.take_along_axis(apart_B2, widest[:, None], 1)[:, 0] < 0
    either_B = np.abs(np.subtract(*np.abs(apart_B2).T)) < CLOSE
    now = middle[:, NUM_SEEN - 1]
    straight_B, crossed_B = (
        np.linalg.norm(places_BS2 - each, axis=-1).sum(-1) for each in (now, now[:, ::-1])
    )
    swap_B = np.where(either_B, crossed_B < straight_B, swap_B)
    return np.where(swap_B[:, None], (1, 0), (0, 1))


def watch(model: TwoPlayerModel, game: str, count: int, seed: int) -> Watched:
    """Play games, and have the model say what was done in them."""
    config = DuelConfig("", game)  # type: ignore[arg-type]
    return watch_games(model, *play_games(count, NUM_FRAMES, config, seed), what=game)


def watch_trained_on(model: TwoPlayerModel, count: int) -> Watched:
    """The same of the first games that `record_duels` records, and some frames more; `AT_ONCE` at
    most."""
    frames, truth = play_games(AT_ONCE, NUM_FRAMES, DuelConfig(""), seed=0)
    first = Truth(*(column[:count] for column in truth))
    return watch_games(model, frames[:count], first, what="games that were trained on")


def watch_games(
    model: TwoPlayerModel, frames_BTHWC: np.ndarray, truth: Truth, what: str = ""
) -> Watched:
    """Have the model say what was done in games. Raises PlayersNotSeenError where it sees both
    players in none."""
    count = len(frames_BTHWC)
    kept, codes, places = [], [], []
    for b in tqdm(range(count), desc=what, leave=False):
        try:
            found = model.infer_codes(frames_BTHWC[b : b + 1], NUM_SEEN)
        except PlayersNotSeenError:
            continue
        kept.append(b)
        codes.append(found[0][0])
        places.append(found[1][0])
    if not kept:
        raise PlayersNotSeenError(f"the model sees two players in none of {count} games {what}")

    order_BS = in_order(truth.players[kept], np.stack(places)[:, 0])

    def ordered(values_BTS: np.ndarray) -> np.ndarray:
        order = order_BS.reshape(len(kept), 1, NUM_PLAYERS, *[1] * (values_BTS.ndim - 3))
        return np.take_along_axis(values_BTS[kept], order, 2)

    told = Truth(
        ordered(truth.actions), ordered(truth.players), truth.balls[kept], ordered(truth.score)
    )
    return Watched(
        frames_BTHWC[kept],
        told,
        np.stack(codes),
        np.stack(places),
        np.array(kept),
        model.config.num_codes,
        count,
    )


def learn_actions(watched: Watched) -> np.ndarray:
    """What each code of each player most often meant in some labelled transitions: (S, K)."""
    effective = watched.effective_BMS
    meaning = []
    for s in range(NUM_PLAYERS):
        ok = effective[..., s]
        codes, actions = watched.codes_BMS[..., s][ok], watched.actions_BMS[..., s][ok]
        some = np.random.default_rng(0).permutation(len(codes))[:LABELS]
        count_KA = joint(codes[some], actions[some], watched.num_codes)
        meaning.append(count_KA.argmax(1))
    return np.stack(meaning)


def joint(
    codes: np.ndarray, others: np.ndarray, num_codes: int = 3, num_others: int = 3
) -> np.ndarray:
    count = np.zeros((num_codes, num_others))
    np.add.at(count, (codes, others), 1)
    return count


def information(watched: Watched, others_BMS: np.ndarray, known_BMS: np.ndarray) -> np.ndarray:
    """Joint counts of each player's code and something, fp64 (B, S, K, 3): rows for `bootstrap`."""
    num_codes = watched.num_codes
    rows = np.zeros((len(others_BMS), NUM_PLAYERS, num_codes, 3))
    for b, s in np.ndindex(rows.shape[:2]):
        known = known_BMS[b, :, s]
        rows[b, s] = joint(watched.codes_BMS[b, known, s], others_BMS[b, known, s], num_codes)
    return rows


def mean_information(rows: np.ndarray) -> float:
    """Of both players, where something is known of them; nan for nobody."""
    counts = [count for count in rows.sum(0) if count.any()]
    told = [normalized_mutual_information(count) for count in counts]
    return float(np.mean(told)) if told else float("nan")


def halves_codes(model: TwoPlayerModel, watched: Watched) -> np.ndarray:
    """The floor: what explains each half of the picture best, wherever players are; int64
    (B, M, S)."""
    frames, past = watched.frames_BTHWC, model.config.past_frames
    half = np.arange(frames.shape[2]) < frames.shape[2] // 2
    halves_S1W = torch.from_numpy(np.stack((half, ~half)))[:, None].to(model.device)
    masks_SHW = halves_S1W.expand(-1, len(half), -1)
    codes = []
    for game_THWC in frames:
        pixels = to_float(torch.from_numpy(game_THWC).to(model.device)).movedim(-1, 1)
        moments = range(NUM_SEEN, len(pixels))
        with torch.no_grad():
            foreseen = model.foresight(torch.stack([pixels[t - past : t] for t in moments]))
            guesses = model.guesses(pixels[NUM_SEEN - 1 : -1], foreseen)
            masks = masks_SHW.expand(len(guesses), -1, -1, -1)
            codes.append(model.read_codes(guesses, masks, pixels[NUM_SEEN:]).cpu().numpy())
    return np.stack(codes)
