"""Do both latent actions of a two-player model really control the two players?

Codes get their meaning from 200 labelled transitions of games that were trained on, once and for
all games; everything else is measured on games of styles never seen, and on real ones.

Shapes: B games, T frames, M transitions, S = 2 players, L balls, K codes, A = 3 actions, H W
pixels, C = 3.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from genie_env.envs import duel
from genie_env.world_model.two_player import NUM_PLAYERS, TwoPlayerModel
from training.data.duels import DuelConfig, Players, Truth, play_games
from training.data.real_duels import MAX_BURN_IN, REAL_GAMES, Moment, RealGame, scaled
from training.evaluation.report import matrix_png, write_report
from training.evaluation.sections import Figure, Row, Section, bootstrap, share, strips_png
from training.metrics import normalized_mutual_information

TRAINED_ON, HELD_OUT = 0, 1_000_000 << 32
"""Seeds of our own games: of the first that are trained on, and of such as never are."""
NUM_SEEN, NUM_FRAMES = 8, 20
LABELS = 200
CLOSE = 4.0
"""Pixels from its middle within which a player is found."""
DRIVEN = 20
"""Steps."""


@dataclass(frozen=True)
class TwoPlayerEvaluation:
    """What to measure, and on how much."""

    games: tuple[str, ...] = ("duel", "cooperative_pong", "atari_pong")
    """`duel`: our own, of styles held out."""
    num_games: int = 200
    num_driven: int = 40
    """Games that are driven for 20 steps in the model and in the real game."""


@dataclass(frozen=True)
class Watched:
    """Games in which the model saw both players, and what it said of them."""

    frames_BTHWC: np.ndarray
    truth: Truth
    """With axes (B, T, ...); the players in the model's order."""
    codes_BMS: np.ndarray
    places_BMS2: np.ndarray
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


def along_of(boxes_BTS4: np.ndarray) -> np.ndarray:
    """The axis on which paddles move, 0 for x: that of their longer side, (B, 1, 1)."""
    width, height = (boxes_BTS4[:, 0, :, i + 2] - boxes_BTS4[:, 0, :, i] for i in (0, 1))
    return (height.sum(1) > width.sum(1)).astype(np.int64)[:, None, None]


def in_order(players_BTS4: np.ndarray) -> np.ndarray:
    """Which player the model calls the first, then the second: int64 (B, S)."""
    middle = (players_BTS4[:, 0, :, :2] + players_BTS4[:, 0, :, 2:]) / 2
    apart_B2 = middle[:, 1] - middle[:, 0]
    widest = np.abs(apart_B2).argmax(-1)
    swap_B = np.take_along_axis(apart_B2, widest[:, None], 1)[:, 0] < 0
    return np.where(swap_B[:, None], (1, 0), (0, 1))


def watch(model: TwoPlayerModel, game: str, count: int, seed: int) -> Watched:
    """Play games, and have the model say what was done in them."""
    frames, truth = play_games(count, NUM_FRAMES, DuelConfig("", game), seed)  # type: ignore[arg-type]
    order_BS = in_order(truth.players)
    kept, codes, places = [], [], []
    for b in tqdm(range(count), desc=game, leave=False):
        try:
            found = model.infer_codes(frames[b : b + 1], NUM_SEEN)
        except ValueError:
            continue
        kept.append(b)
        codes.append(found[0][0])
        places.append(found[1][0])
    if not kept:
        raise ValueError(f"the model sees two players in none of {count} games of {game}")

    def ordered(values_BTS: np.ndarray) -> np.ndarray:
        order = order_BS[kept].reshape(len(kept), 1, NUM_PLAYERS, *[1] * (values_BTS.ndim - 3))
        return np.take_along_axis(values_BTS[kept], order, 2)

    told = Truth(
        ordered(truth.actions), ordered(truth.players), truth.balls[kept], ordered(truth.score)
    )
    return Watched(frames[kept], told, np.stack(codes), np.stack(places), count)


def learn_actions(watched: Watched) -> np.ndarray:
    """What each code of each player most often meant in some labelled transitions: (S, K)."""
    num_codes = int(watched.codes_BMS.max()) + 1
    effective = watched.effective_BMS
    meaning = []
    for s in range(NUM_PLAYERS):
        ok = effective[..., s]
        codes, actions = watched.codes_BMS[..., s][ok], watched.actions_BMS[..., s][ok]
        some = np.random.default_rng(0).permutation(len(codes))[:LABELS]
        count_KA = joint(codes[some], actions[some], num_codes)
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
    rows = np.zeros((len(others_BMS), NUM_PLAYERS, 3, 3))
    for b, s in np.ndindex(rows.shape[:2]):
        known = known_BMS[b, :, s]
        rows[b, s] = joint(watched.codes_BMS[b, known, s], others_BMS[b, known, s])
    return rows


def mean_information(rows: np.ndarray) -> float:
    """Of both players, where something is known of them; nan for nobody."""
    counts = [count for count in rows.sum(0) if count.any()]
    told = [normalized_mutual_information(count) for count in counts]
    return float(np.mean(told)) if told else float("nan")


def codes_section(watched: Watched, meaning_SK: np.ndarray) -> Section:
    """How much each player's code tells of what it, the other, the ball and the score did."""
    actions, effective = watched.actions_BMS, watched.effective_BMS
    shuffled = np.random.default_rng(0).permutation(actions.ravel()).reshape(actions.shape)
    sign = np.where(watched.moved_BMS > 0.3, 2, np.where(watched.moved_BMS < -0.3, 1, 0))
    ceiling = np.zeros((len(actions), NUM_PLAYERS, 3, 3))
    for b, s in np.ndindex(ceiling.shape[:2]):
        ok = effective[b, :, s]
        ceiling[b, s] = joint(sign[b, ok, s], actions[b, ok, s])
    own = information(watched, actions, effective)
    rows = [
        Row(
            "NMI of a code and its player's action",
            bootstrap(own, mean_information),
            beside={
                "shuffled": mean_information(information(watched, shuffled, effective)),
                "true displacement": mean_information(ceiling),
            },
        ),
        Row(
            "NMI of a code and the other player's action",
            bootstrap(information(watched, actions[..., ::-1], effective), mean_information),
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
        best = np.zeros((64, 3), int)
        for c in np.unique(cell):
            here = ok & (cell == c)
            best[c] = joint(watched.codes_BMS[..., s][here], actions[..., s][here]).argmax(1)
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
    names = [f"code {k}" for k in range(3)]
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


def places_section(watched: Watched) -> Section:
    """Whether the model looks at the players."""
    middle = (watched.truth.players[..., :2] + watched.truth.players[..., 2:])[:, watched.now] / 2
    off_BS = np.median(np.linalg.norm(watched.places_BMS2 - (middle - 0.5), axis=-1), 1)
    found = (off_BS < CLOSE).all(-1)
    missed = np.zeros(watched.num_played - len(found), bool)
    return Section(
        "Where the players are",
        f"median distance over {NUM_FRAMES - NUM_SEEN} frames, from past frames alone; games in "
        "which the model says that it cannot see two players count as missed",
        [
            Row(f"both within {CLOSE:g} px, each on its side", bootstrap(np.r_[found, missed])),
            Row("two players seen", bootstrap(np.r_[np.ones(len(found)), missed * 0.0])),
            Row("distance", bootstrap(off_BS.mean(1), np.median), "px"),
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
        command = [sys.executable, "-m", "training.evaluation.two_player_predict"]
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


class OwnGames:
    """Games of held-out styles that can be played on."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.game = duel.Duel(duel.draw_styles(rng, count), rng)
        players = Players(count, DuelConfig(""), rng)
        frames, boxes = [], []
        for number in range(NUM_SEEN):
            if number:
                self.game.step(players.act(np.full((count, NUM_PLAYERS), np.nan)))
            frames.append(self.game.render())
            boxes.append(self.game.boxes()[0])
        self.frames_BTHWC, self.players_BTS4 = np.stack(frames, 1), np.stack(boxes, 1)

    def step(self, actions_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.game.step(actions_BS)
        return self.game.render(), self.game.boxes()[0]


class RealGames:
    """The same of a real game. One that is over stands still, its players nowhere (NaN)."""

    def __init__(self, game: str, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.games: list[RealGame] = []
        self._newest: list[Moment] = []
        frames, boxes = [], []
        while len(self.games) < count:
            real = REAL_GAMES[game]()
            moments = [scaled(real.reset(int(rng.integers(2**31))))]
            players = Players(1, DuelConfig(""), rng)
            for _ in range(int(rng.integers(MAX_BURN_IN)) + NUM_SEEN):
                if not moments[-1].over:
                    actions_S = players.act(np.full((1, NUM_PLAYERS), np.nan))[0]
                    moments.append(scaled(real.step(actions_S)))
            if moments[-1].over:
                real.close()
                continue
            self.games.append(real)
            frames.append([moment.frame for moment in moments[-NUM_SEEN:]])
            boxes.append([moment.players for moment in moments[-NUM_SEEN:]])
            self._newest.append(moments[-1])
        self.frames_BTHWC, self.players_BTS4 = np.array(frames), np.array(boxes, np.float32)

    def step(self, actions_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for b, actions_S in enumerate(actions_BS):
            if not self._newest[b].over:
                self._newest[b] = scaled(self.games[b].step(actions_S))
        over_B = np.array([moment.over for moment in self._newest])
        boxes = np.array([moment.players for moment in self._newest])
        boxes[over_B] = np.nan
        return np.array([moment.frame for moment in self._newest]), boxes


def driven_section(
    model: TwoPlayerModel, game: str, meaning_SK: np.ndarray, count: int, seed: int
) -> Section:
    """The same random actions in the game and in the model."""
    make: Callable[[], OwnGames | RealGames] = (
        (lambda: OwnGames(count, seed))
        if game == "duel"
        else (lambda: RealGames(game, count, seed))
    )
    games = make()
    order_BS = in_order(games.players_BTS4)
    code_SA = np.stack([
        [int(np.flatnonzero(meaning_SK[s] == a)[0]) if (meaning_SK[s] == a).any() else 0
         for a in range(duel.NUM_ACTIONS)] for s in range(NUM_PLAYERS)
    ])  # fmt: skip
    rng = np.random.default_rng(seed + 1)
    seen, states = [], []
    for b in range(count):
        try:
            states.append(model.start(games.frames_BTHWC[b : b + 1]))
            seen.append(b)
        except ValueError:
            continue
    errors, shown = np.zeros((DRIVEN, len(seen), NUM_PLAYERS)), []
    for t in range(DRIVEN):
        actions_BS = rng.integers(duel.NUM_ACTIONS, size=(count, NUM_PLAYERS))
        frames, boxes = games.step(actions_BS)
        dreamt = []
        for i, (b, state) in enumerate(zip(seen, states, strict=True)):
            ordered = actions_BS[b][order_BS[b]]
            model.step(state, code_SA[range(NUM_PLAYERS), ordered][None])
            middle = (boxes[b, order_BS[b], :2] + boxes[b, order_BS[b], 2:]) / 2 - 0.5
            errors[t, i] = np.linalg.norm(state.players_BS2[0].cpu().numpy() - middle, axis=-1)
            dreamt.append(model.render(state)[0])
        shown.append((frames[seen[:6]], np.stack(dreamt[:6])))
    strips = np.stack([
        np.stack([pair[which][i] for pair in shown])
        for i in range(min(6, len(seen))) for which in (0, 1)
    ])  # fmt: skip
    return Section(
        "Driven",
        f"{len(seen)} games, the same random actions for {DRIVEN} steps in the game and in the "
        "model, which sees its own frames only; distance of paddles, as the model follows them, "
        "until the real game is over",
        [
            Row("paddle error, mean of all steps", bootstrap(errors.mean(-1).T, np.nanmean), "px"),
            Row("paddle error, median of games at the last step",
                bootstrap(errors[-1].mean(-1), np.nanmedian), "px"),
        ],
        [Figure("driven", "the game above, the dream below; six games", strips_png(strips, 1))],
    )  # fmt: skip


def evaluate_two_player(name: str, config: TwoPlayerEvaluation, out: Path) -> None:
    """Every test on every game, written to `out`. Raises as `TwoPlayerModel.from_pretrained`;
    ImportError without a real game that is named."""
    model = TwoPlayerModel.from_pretrained(name)
    trained_on = watch(model, "duel", 20 + config.num_games // 10, TRAINED_ON)
    meaning_SK = learn_actions(trained_on)
    sections = []
    for game in config.games:
        watched = watch(model, game, config.num_games, HELD_OUT)
        for section in (
            places_section(watched),
            codes_section(watched, meaning_SK),
            change_section(model, watched),
            ladder_section(name, watched),
            driven_section(model, game, meaning_SK, config.num_driven, HELD_OUT + 1),
        ):
            sections.append(replace(section, title=f"{game}: {section.title}"))
        # What is known is written, should the rest be cut off.
        summary = {
            "games": f"{config.num_games} each, {NUM_FRAMES} frames; players are looked for in the "
            f"first {NUM_SEEN}",
            "intervals": "95%, bootstrap over games",
        }
        write_report(out, name, summary, sections)
