"""The same actions in the game and in the model, which sees its own frames only.

Shapes: B games, T frames, S = 2 players, K codes, A = 3 actions, H W pixels, C = 3.
"""

from __future__ import annotations

import copy

import numpy as np

from genie_env.envs import duel
from genie_env.world_model.two_player import (
    NUM_PLAYERS,
    DuelState,
    PlayersNotSeenError,
    TwoPlayerModel,
)
from training.data.duels import DuelConfig, Players
from training.data.real_duels import MAX_BURN_IN, REAL_GAMES, Moment, RealGame, scaled
from training.evaluation.sections import Figure, Row, Section, bootstrap, strips_png
from training.evaluation.two_player.watch import NUM_SEEN, along_of, in_order, middles

DRIVEN = 20
"""Steps."""


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
        """Frames uint8 (B, H, W, C) and boxes of the players, fp32 (B, S, 4)."""
        self.game.step(actions_BS)
        return self.game.render(), self.game.boxes()[0]

    def close(self) -> None:
        """As `RealGames.close`."""


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

    def close(self) -> None:
        """Free the games."""
        for game in self.games:
            game.close()


class Dream:
    """A model that goes on from games in which it sees both players.

    meaning: of each code of each player, (S, K).
    """

    def __init__(
        self, model: TwoPlayerModel, games: OwnGames | RealGames, meaning_SK: np.ndarray
    ) -> None:
        self.model = model
        states, self.seen = [], []
        for b, frames_THWC in enumerate(games.frames_BTHWC):
            try:
                states.append(model.start(frames_THWC[None]))
            except PlayersNotSeenError:
                continue
            self.seen.append(b)
        if not states:
            raise PlayersNotSeenError(
                f"the model sees two players in none of {len(games.frames_BTHWC)} games"
            )
        self.state = DuelState.together(states)
        self._order_BS = in_order(games.players_BTS4[self.seen], self.places())
        self._along_B = along_of(games.players_BTS4)[self.seen, 0, 0]
        self._code_SA = np.stack([
            [int(np.flatnonzero(meaning_SK[s] == a)[0]) if (meaning_SK[s] == a).any() else 0
             for a in range(duel.NUM_ACTIONS)] for s in range(NUM_PLAYERS)
        ])  # fmt: skip

    def of_seen(self, values_BS: np.ndarray) -> np.ndarray:
        """Of the games that it sees, the players in its order: (len(seen), S, ...)."""
        order = self._order_BS.reshape(*self._order_BS.shape, *[1] * (values_BS.ndim - 2))
        return np.take_along_axis(values_BS[self.seen], order, 1)

    def step(self, actions_BS: np.ndarray) -> None:
        """With what is done in all the games."""
        codes = self._code_SA[range(NUM_PLAYERS), self.of_seen(actions_BS)]
        self.model.step(self.state, codes)

    def places(self) -> np.ndarray:
        """Where it has the players, fp32 (len(seen), S, 2)."""
        return self.state.players_BS2.cpu().numpy()

    def along(self, places_BS2: np.ndarray) -> np.ndarray:
        """The one of both coordinates on which paddles move, (len(seen), S)."""
        return np.take_along_axis(places_BS2, self._along_B[:, None, None], 2)[..., 0]


def driven_section(
    model: TwoPlayerModel, game: str, meaning_SK: np.ndarray, count: int, seed: int
) -> Section:
    """The same random actions in the game and in the model."""
    games = OwnGames(count, seed) if game == "duel" else RealGames(game, count, seed)
    try:
        dream = Dream(model, games, meaning_SK)
        rng = np.random.default_rng(seed + 1)
        errors, shown = [], []
        for _ in range(DRIVEN):
            actions_BS = rng.integers(duel.NUM_ACTIONS, size=(count, NUM_PLAYERS))
            frames, boxes = games.step(actions_BS)
            dream.step(actions_BS)
            off_BS2 = dream.places() - dream.of_seen(middles(boxes))
            errors.append(np.linalg.norm(off_BS2, axis=-1).mean(-1))
            shown.append((frames[dream.seen[:6]], model.render(dream.state)[:6]))
    finally:
        games.close()
    strips = np.stack([
        np.stack([pair[which][i] for pair in shown])
        for i in range(min(6, len(dream.seen))) for which in (0, 1)
    ])  # fmt: skip
    error_BT = np.stack(errors, 1)
    return Section(
        "Driven",
        f"{len(dream.seen)} games, the same random actions for {DRIVEN} steps in the game and in "
        "the model, which sees its own frames only; distance of paddles, as the model follows "
        "them, until the real game is over",
        [
            Row("paddle error, mean of all steps", bootstrap(error_BT, np.nanmean), "px"),
            Row("paddle error, median of games at the last step",
                bootstrap(error_BT[:, -1], np.nanmedian), "px"),
        ],
        [Figure("driven", "the game above, the dream below; six games", strips_png(strips, 1))],
    )  # fmt: skip


INTERVENTIONS: dict[str, tuple[tuple[int, int], ...]] = {
    "one player": (
        (duel.BACK, duel.STAY), (duel.FORTH, duel.STAY),
        (duel.STAY, duel.BACK), (duel.STAY, duel.FORTH),
    ),
    "both": ((duel.BACK, duel.FORTH), (duel.BACK, duel.BACK)),
    "swapped": ((duel.FORTH, duel.BACK), (duel.FORTH, duel.FORTH)),
}  # fmt: skip
"""What the first and the second player do."""
HELD = 4
"""Steps for which they do it."""
SHOWN = 3
"""Games in the picture."""
MOVED = 2.0
"""Pixels: less is no move."""


def interventions_section(
    model: TwoPlayerModel, meaning_SK: np.ndarray, count: int, seed: int
) -> Section:
    """Whether paddles go where they go in the game, whoever is made to do something."""
    start = OwnGames(count, seed)
    dream = Dream(model, start, meaning_SK)
    first, rows, strips = dream.state, [], []
    before_BS2 = dream.places(), dream.of_seen(middles(start.players_BTS4[:, -1]))
    for name, pairs in INTERVENTIONS.items():
        right = []
        for pair in pairs:
            games, dream.state = copy.deepcopy(start), first.clone()
            shown = [model.render(first)]
            for _ in range(HELD):
                _, boxes = games.step(np.tile(pair, (count, 1)))
                dream.step(np.tile(pair, (count, 1)))
                shown.append(model.render(dream.state))
            after_BS2 = dream.places(), dream.of_seen(middles(boxes))
            dreamt, true = (
                dream.along(after - before)
                for after, before in zip(after_BS2, before_BS2, strict=True)
            )
            right.append(_sign(dreamt) == _sign(true))
            if name == "one player":
                strips.append(np.stack(shown, 1)[:SHOWN])
        rows.append(Row(f"as in the game: {name}", bootstrap(np.mean(right, (0, 2)))))
    return Section(
        "Made to move",
        f"{len(dream.seen)} games; what is done for {HELD} steps, in the game and in the model; "
        f"share of the players who go the same way in both, back, forth, or less than {MOVED:g} px",
        rows,
        [
            Figure(
                "one-player-moves",
                "dreams in which one code differs: the first player goes up or left, then down or "
                f"right, then the second, while the other stays; {SHOWN} games",
                strips_png(np.concatenate(np.stack(strips, 1))),
            )
        ],
    )


def _sign(step: np.ndarray) -> np.ndarray:
    return np.where(np.abs(step) < MOVED, 0, np.sign(step))
