"""Pong-like games of two players, no two alike: what a two-player world model learns from.

Every game of a batch has a style of its own: colours, sizes, speeds, where the paddles are, how
many balls there are, a score or none, something that moves by itself, what is behind it all. The
rules are those of Pong; a player can move a paddle one way, the other, or not at all.

Positions are in pixels of a 64x64 picture, on two axes: `across`, on which the players face each
other, and `along`, on which they move. Where a style is transposed, across is the vertical.

Shapes: B games, P = 2 players, L balls, H W pixels, C = 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE = 64
STAY, BACK, FORTH = 0, 1, 2
"""What a player can do: nothing, move to lesser coordinates (up or left), or to greater ones."""
NUM_ACTIONS = 3
MAX_BALLS = 3
MAX_SCORE = 8
AT_WALL = 6.0
"""Pixels at each end of a paddle's way, all of which lead to the wall when a game begins."""
ROOM = 10.0
"""Pixels that players who roam have."""
SERVE_DELAY = 4
"""Steps for which a ball rests in the middle before it is served."""
BACKGROUNDS = ("plain", "gradient", "stripes", "noise")


@dataclass
class Styles:
    """How B games look and move; floats are fp32, pixels and pixels a step."""

    transposed: np.ndarray
    """bool (B,): paddles at the top and bottom instead of left and right."""
    inset: np.ndarray
    """(B, P): from the border to the paddle's outer side."""
    thickness: np.ndarray
    """(B,): of a paddle, across."""
    length: np.ndarray
    """(B, P): of a paddle, along."""
    speed: np.ndarray
    """(B, P): of a paddle."""
    inertia: np.ndarray
    """(B,): share of its speed that a paddle keeps from step to step; 0: it stops at once."""
    num_balls: np.ndarray
    """int (B,): 0 to `MAX_BALLS`."""
    ball_size: np.ndarray
    """(B,)."""
    ball_speed: np.ndarray
    """(B,): across."""
    scored: np.ndarray
    """bool (B,): bars beside the border tell the score."""
    drift: np.ndarray
    """(B,): speed of something that moves along by itself and turns at the border; 0: none is
    there."""
    wanders: np.ndarray
    """bool (B,): it turns whenever it likes instead, as a player would."""
    roams: np.ndarray
    """bool (B,): players also go to and fro across, which no action tells."""
    background: np.ndarray
    """uint8 (B, H, W, C)."""
    colours: np.ndarray
    """(B, 5, C): of the two paddles, the balls, what drifts and the score."""


def draw_styles(rng: np.random.Generator, count: int) -> Styles:
    """Styles of as many games. Nothing wanders or roams: what does cannot be told from a player, or
    is more than a player's few codes can tell."""
    background = _backgrounds(rng, count)
    alike = rng.random(count) < 0.4
    colours = _seen_against(rng, background, 5)
    colours[alike, 1] = colours[alike, 0]
    length = rng.uniform(8, 18, (count, 2))
    length[alike, 1] = length[alike, 0]
    speed = rng.uniform(1.5, 4, (count, 2))
    speed[alike, 1] = speed[alike, 0]
    return Styles(
        transposed=rng.random(count) < 0.5,
        inset=rng.uniform(1, 9, (count, 2)).astype(np.float32),
        thickness=rng.uniform(2, 4.5, count).astype(np.float32),
        length=length.astype(np.float32),
        speed=speed.astype(np.float32),
        inertia=(rng.uniform(0.2, 0.6, count) * (rng.random(count) < 0.2)).astype(np.float32),
        num_balls=rng.choice(MAX_BALLS + 1, count, p=(0.15, 0.55, 0.2, 0.1)),
        ball_size=rng.uniform(2, 4.5, count).astype(np.float32),
        ball_speed=rng.uniform(1, 3, count).astype(np.float32),
        scored=rng.random(count) < 0.4,
        drift=(rng.uniform(0.5, 2, count) * (rng.random(count) < 0.35)).astype(np.float32),
        wanders=np.zeros(count, bool),
        roams=np.zeros(count, bool),
        background=background,
        colours=colours,
    )


def _backgrounds(rng: np.random.Generator, count: int) -> np.ndarray:
    """uint8 (B, H, W, C), none of them loud."""
    kind = rng.integers(len(BACKGROUNDS), size=count)
    base = rng.uniform(0, 255, (count, 1, 1, 3)) * rng.choice((0.1, 0.5, 1.0), (count, 1, 1, 1))
    other = np.clip(base + rng.uniform(-60, 60, (count, 1, 1, 3)), 0, 255)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    slope = (np.cos(angle) * x + np.sin(angle) * y + 1) / 2
    stripes = (np.floor(slope * rng.integers(4, 12, (count, 1, 1))) % 2) * 0.5
    noise = rng.random((count, SIZE, SIZE)) * 0.4
    share = np.choose(kind[:, None, None], (np.zeros_like(slope), slope, stripes, noise))
    return (base + (other - base) * share[..., None]).astype(np.uint8)


def _seen_against(rng: np.random.Generator, background: np.ndarray, number: int) -> np.ndarray:
    """Colours (B, number, C) that stand out: the one farthest from the background of a few."""
    mean = background.mean((1, 2))[:, None, None]
    drawn = rng.uniform(0, 255, (len(background), number, 6, 3))
    best = np.abs(drawn - mean).sum(-1).argmax(-1)
    return np.take_along_axis(drawn, best[..., None, None], 2)[:, :, 0].astype(np.float32)


class Duel:
    """B games, stepped together.

    Args:
        styles: of the games.
        rng: draws where everything is at first, where balls are served to, and what wanders or
            roams does, nothing else.
    """

    def __init__(self, styles: Styles, rng: np.random.Generator) -> None:
        self.styles, self._rng = styles, rng
        count = len(styles.inset)
        self.num_games = count
        half = styles.length / 2
        # Some begin at a wall: by chance hardly any would get there.
        place = rng.uniform(half - AT_WALL, SIZE - half + AT_WALL)
        self.paddle = np.clip(place, half, SIZE - half).astype(np.float32)
        """(B, P): middle of each paddle, along."""
        self.forward = np.zeros((count, 2), np.float32)
        """(B, P): how far each paddle has come forward from its line, across."""
        self.velocity = np.zeros((count, 2), np.float32)
        self.ball = np.zeros((count, MAX_BALLS, 2), np.float32)
        """(B, L, 2): middle of each ball, across and along."""
        self.ball_velocity = np.zeros((count, MAX_BALLS, 2), np.float32)
        self.waits = np.zeros((count, MAX_BALLS), np.int64)
        self.score = rng.integers(0, MAX_SCORE // 2, (count, 2))
        self.drifting = rng.uniform((22, 8), (SIZE - 22, SIZE - 8), (count, 2)).astype(np.float32)
        """(B, 2): middle of what drifts, across and along."""
        self._drift_sign = rng.choice((-1.0, 1.0), count).astype(np.float32)
        self._serve(np.ones((count, MAX_BALLS), bool))
        # Games are come upon, not begun: balls are anywhere.
        self.waits[:] = 0
        self.ball[..., 0] = rng.uniform(SIZE * 0.3, SIZE * 0.7, self.ball.shape[:2])
        self.ball[..., 1] = rng.uniform(8, SIZE - 8, self.ball.shape[:2])

    @property
    def present_BL(self) -> np.ndarray:
        """bool (B, L): which of the balls there are."""
        return np.arange(MAX_BALLS) < self.styles.num_balls[:, None]

    def step(self, actions_BP: np.ndarray) -> None:
        """One step of all games. actions_BP: ints in [0, 3), of each player."""
        actions_BP = np.asarray(actions_BP)
        if actions_BP.shape != (self.num_games, 2) or not np.isin(actions_BP, range(3)).all():
            raise ValueError(
                f"actions must be ({self.num_games}, 2) of 0, 1 or 2, got {actions_BP.shape} "
                f"{np.unique(actions_BP)[:8]}"
            )
        style = self.styles
        wanted = np.take((0.0, -1.0, 1.0), actions_BP) * style.speed
        keep = style.inertia[:, None]
        self.velocity = (keep * self.velocity + (1 - keep) * wanted).astype(np.float32)
        half = style.length / 2
        moved = self.paddle + self.velocity
        self.paddle = np.clip(moved, half, SIZE - half).astype(np.float32)
        self.velocity[moved != self.paddle] = 0
        if style.roams.any():
            pace = self._rng.choice((-1.0, 0.0, 1.0), self.forward.shape) * style.speed
            self.forward += np.where(style.roams[:, None], pace, 0)
            self.forward = np.clip(self.forward, 0, ROOM).astype(np.float32)
        self._move_balls()
        if style.wanders.any():
            sign = self._rng.choice((-1.0, 0.0, 1.0), self.num_games)
            self._drift_sign = np.where(style.wanders, sign, self._drift_sign)
        along = self.drifting[:, 1] + self._drift_sign * style.drift
        turn = (along < 3) | (along > SIZE - 3)
        self._drift_sign = np.where(turn, -self._drift_sign, self._drift_sign)
        self.drifting[:, 1] = np.clip(along, 3, SIZE - 3)

    def _move_balls(self) -> None:
        style = self.styles
        radius = style.ball_size[:, None] / 2
        before = self.ball[..., 0]
        self.ball = self.ball + self.ball_velocity * (self.waits == 0)[..., None]
        self.waits = np.maximum(self.waits - 1, 0)
        across, along = self.ball[..., 0], self.ball[..., 1]
        wall = (along < radius) | (along > SIZE - radius)
        self.ball_velocity[..., 1] *= np.where(wall, -1, 1)
        self.ball[..., 1] = np.clip(along, radius, SIZE - radius)
        for player, sign in ((0, -1), (1, 1)):
            face = self._face(player)[:, None] - sign * radius
            reached = (sign * across >= sign * face) & (sign * before <= sign * face)
            off = (self.ball[..., 1] - self.paddle[:, player, None]) / style.length[:, player, None]
            inside = np.abs(off) <= 0.5 + radius / style.length[:, player, None]
            hit = reached & inside & (sign * self.ball_velocity[..., 0] > 0)
            # Where it hits the paddle says where it goes.
            self.ball_velocity[..., 0] *= np.where(hit, -1, 1)
            self.ball_velocity[..., 1] = np.where(
                hit, 2.4 * off * style.ball_speed[:, None], self.ball_velocity[..., 1]
            )
            self.ball[..., 0] = np.where(hit, face, self.ball[..., 0])
        across = self.ball[..., 0]
        out = ((across < -radius) | (across > SIZE + radius)) & self.present_BL
        lost_by_second = (out & (across > SIZE / 2)).sum(1)
        self.score[:, 0] = (self.score[:, 0] + lost_by_second) % (MAX_SCORE + 1)
        self.score[:, 1] = (self.score[:, 1] + out.sum(1) - lost_by_second) % (MAX_SCORE + 1)
        self._serve(out)

    def _face(self, player: int) -> np.ndarray:
        """Across, where a paddle meets balls, (B,)."""
        reach = self._outer(player) + self.styles.thickness
        return reach if player == 0 else SIZE - reach

    def _outer(self, player: int) -> np.ndarray:
        """From its border to the outer side of a paddle, (B,)."""
        return self.styles.inset[:, player] + self.forward[:, player]

    def _serve(self, which_BL: np.ndarray) -> None:
        shape, speed = which_BL.shape, self.styles.ball_speed[:, None]
        start = np.stack((np.full(shape, SIZE / 2), self._rng.uniform(16, SIZE - 16, shape)), -1)
        velocity = np.stack(
            (
                self._rng.choice((-1.0, 1.0), shape) * speed,
                self._rng.uniform(-1, 1, shape) * speed,
            ),
            -1,
        )
        self.ball = np.where(which_BL[..., None], start, self.ball).astype(np.float32)
        self.ball_velocity = np.where(which_BL[..., None], velocity, self.ball_velocity)
        self.waits = np.where(which_BL, SERVE_DELAY, self.waits)

    def boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the players and the balls are in the picture: fp32 (B, P, 4) and (B, L, 4) of
        left, top, right, bottom; NaN for balls that are not there."""
        style = self.styles
        outer = np.stack((self._outer(0), SIZE - self._outer(1)), 1)
        inner = np.stack((self._face(0), self._face(1)), 1)
        low, high = self.paddle - style.length / 2, self.paddle + style.length / 2
        left, right = np.minimum(outer, inner), np.maximum(outer, inner)
        players = np.stack((left, low, right, high), -1)
        radius = style.ball_size[:, None, None] / 2
        balls = np.concatenate((self.ball - radius, self.ball + radius), -1)
        balls = np.where(self.present_BL[..., None], balls, np.nan)
        return self._in_picture(players), self._in_picture(balls)

    def _in_picture(self, boxes: np.ndarray) -> np.ndarray:
        swapped = self.styles.transposed[:, None, None]
        return np.where(swapped, boxes[..., [1, 0, 3, 2]], boxes).astype(np.float32)

    def render(self) -> np.ndarray:
        """uint8 (B, H, W, C)."""
        players, balls = self.boxes()
        middle, drifts = self.drifting, self.styles.drift > 0
        drifting = np.concatenate((middle - 3, middle + 3), 1)[:, None]
        drifting = np.where(drifts[:, None, None], drifting, np.nan)
        bars = []
        for player, side in ((0, 0.0), (1, SIZE / 2)):
            start = np.full(self.num_games, side + 4)
            zero, two = np.zeros(self.num_games), np.full(self.num_games, 2.0)
            bars.append(np.stack((start, zero, start + 2.5 * self.score[:, player], two), 1))
        score = np.where(self.styles.scored[:, None, None], np.stack(bars, 1), np.nan)
        layers = (  # in front first, as the colours of a style
            players[:, :1], players[:, 1:], balls,
            self._in_picture(drifting), self._in_picture(score),
        )  # fmt: skip
        left = np.ones((self.num_games, SIZE, SIZE), np.float32)
        shares = []
        for boxes in layers:
            share = np.minimum(_covered(boxes), left)
            left -= share
            shares.append(share)
        shares_BNL = np.stack(shares, -1).reshape(self.num_games, SIZE * SIZE, len(layers))
        painted = (shares_BNL @ self.styles.colours).reshape(self.styles.background.shape)
        return (painted + left[..., None] * self.styles.background + 0.5).astype(np.uint8)


def _covered(boxes_BN4: np.ndarray) -> np.ndarray:
    """By how much of it each pixel is inside of any of N boxes, fp32 (B, H, W); NaN covers none."""
    pixel = np.arange(SIZE, dtype=np.float32)
    low, high = boxes_BN4[..., :2, None], boxes_BN4[..., 2:, None]
    inside = np.clip(np.minimum(pixel + 1, high) - np.maximum(pixel, low), 0, 1)
    inside = np.nan_to_num(inside).astype(np.float32)  # (B, N, 2, pixels)
    return np.minimum(inside[:, :, 1].transpose(0, 2, 1) @ inside[:, :, 0], 1)
