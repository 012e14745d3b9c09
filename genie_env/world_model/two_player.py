"""Two players, found in video alone: what the past foretells, and what each player adds to it.

A player is what the past does not foretell but one of few codes, the same for every player and
game, does. One network looks at past frames only and says of every pixel

* where it will have come from (after Jia et al., 2016, arXiv 1605.09673): chances of all places
  within reach, those of every move that a player may make among them;
* how much a code would change that, and from which move on: a code is two numbers (how much it
  pushes one way and how much it holds back, or `TwoPlayerConfig.pushes`), which know neither the
  place nor the game, and can but choose among the moves that are likely anyway;
* how much crisper the newest frame should be before anything is taken from it;
* what share of what is not foretold a code has explained in frames like these.

The last finds the players: a ball can be foretold, or no code tells where it goes. A code acts
within its own player's pixels, so that neither player's reaches the other, or the rest.

Shapes: B games, T frames, P past frames, H W pixels, C = 3, S = 2 players, K codes of a player,
D = (2 reach + 1)^2 places that a pixel may come from, R = T - P + 1 moments with a whole past, M
transitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from genie_env.world_model.checkpoint import (
    FORMAT_VERSION,
    TWO_PLAYERS,
    fast_dtype,
    find_checkpoint,
    read_config,
    read_prompts,
    read_weights,
    write_config,
    write_prompts,
    write_weights,
)
from genie_env.world_model.tokenizer import check_frames, to_float, to_uint8

NUM_PLAYERS = 2
WEIGHTS = "model.safetensors"
MODEL_CARD = """---
{{ card_data }}
---

# A world of two players for `genie_env.parallel_env`

Both players were found in video without labels. `config.json` has its size. Please add: data,
command, hardware, time, and what `genie eval-two-player` prints.
"""
"""What `save_pretrained` writes as README.md where there is none."""
SURE = 1.5
"""How many times as large the log odds of where pixels come from are in a dream: who is never sure
blurs what goes on blurring."""
STAYS = 6.0
"""Log odds, before anything is learned, that a pixel stays where it is."""
PUSHED = 1.85
"""Before anything is learned, how far pushes are thought to go: softplus of it is two pixels."""
SEEN = 0.2
"""Of what a code has to explain, on average over the frames seen, where a player is."""
OWN = 0.25
"""The same of a pixel that a player's code acts on."""
REACH_OF_PLAYER, APART = 18.0, 16.0
"""Pixels: how far from its middle a player's code acts, and how far two players are apart."""
SMOOTH, NEAR, HALF = 2.0, 9.0, 15.0
"""Pixels: what is looked at together to find a player, and to follow one; half of the longest."""
MATCH, FAINT_MOVE = 20.0, 0.05
"""Log odds of a move that fits against one that fits not at all; how much may differ by chance."""
NOTHING = 1e-9
"""What is steered, all together, where nothing is."""
END = 0.1
"""Share of what is steered that lies beyond each end of a player: codes act at the ends, which are
not equally bright, so its middle is halfway between these."""


class PlayersNotSeenError(ValueError):
    """Frames in which fewer than two things are steered."""


@dataclass(frozen=True)
class TwoPlayerConfig:
    frame_size: int = 64
    """Pixels a side, a multiple of 8."""
    past_frames: int = 4
    """P: with fewer than three nothing tells how fast a ball is, and its motion is taken for
    somebody's choice."""
    num_codes: int = 3
    """K, of each player. Fewer than what two players can do together (9 in Pong), or one code
    holds both."""
    reach: int = 4
    """Pixels that things may move in a step, up or down, left or right."""
    pushes: Literal["odds", "places"] = "odds"
    """What a code is: odds for and against what lies far from the unforced move; or which way, and
    how surely, to the place where a push is foretold to take each pixel."""
    middle: Literal["codes", "ends"] = "codes"
    """Where a player is: amid what codes act on; or between its ends, where pushes differ."""
    show_motion: bool = False
    """Whether the network is shown how far what is at each pixel has moved, and what lies on the
    way from it to each border, beside the frames: what it need not find out."""
    width: int = 48
    """Channels at half of the frame's size; twice as many at an eighth of it."""
    kind: str = TWO_PLAYERS
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name, least in (("past_frames", 1), ("num_codes", 2), ("reach", 1), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name, known in (("pushes", ("odds", "places")), ("middle", ("codes", "ends"))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}"
                )
        if self.frame_size < 8 or self.frame_size % 8:
            raise ValueError(f"frame_size={self.frame_size}; accepted: multiples of 8")

    @property
    def num_places(self) -> int:
        """D."""
        return (2 * self.reach + 1) ** 2


class Foreseen(NamedTuple):
    """What the past tells of the next frame, at each of its pixels."""

    came_from_BDHW: Tensor
    """fp32 logits: from which place of the newest frame, row by row."""
    by_code_BHW: Tensor
    """fp32 >= 0: how much a code changes that."""
    unforced_BHW: Tensor
    """fp32: from how far below and to the right, in pixels, if its player lets it be: a paddle that
    slides goes on, and a code tells only what is done to it."""
    pushed_B2HW: Tensor
    """fp32 >= 0: how many pixels from there a push up or left takes it, and one down or right; 0
    where pushes are odds."""
    explained_BHW: Tensor
    """fp32 in 0..1: the share of what is not foretold that a code has explained."""
    crisp_BHW: Tensor
    """fp32 >= 0: how much crisper the newest frame should be."""


class Watched(NamedTuple):
    """M transitions of one game, and what was known before each."""

    newest_MCHW: Tensor
    foreseen: Foreseen
    masks_MSHW: Tensor
    players_MS2: Tensor
    next_MCHW: Tensor
    """What came."""


class DilatedBlock(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.second(F.relu(self.first(F.relu(x_BCHW))))


class Foresight(nn.Module):
    """history (B, P, C, H, W) floats -> `Foreseen`."""

    def __init__(self, config: TwoPlayerConfig) -> None:
        super().__init__()
        width, self.num_places, self.reach = config.width, config.num_places, config.reach
        self.show_motion = config.show_motion
        # Frames, and how each differs from the one before.
        seen = 3 * (2 * config.past_frames - 1)
        if config.show_motion:
            seen += 4 + 2 * (config.past_frames - 1)
        self.into = nn.Conv2d(4 * seen, width, 3, padding=1)
        self.first = nn.Sequential(*(DilatedBlock(width) for _ in range(2)))
        self.down = nn.Conv2d(width, 2 * width, 4, stride=4)
        self.afar = nn.Sequential(*(DilatedBlock(2 * width) for _ in range(3)))
        self.up = nn.Conv2d(2 * width, width, 1)
        self.last = nn.Sequential(*(DilatedBlock(width, d) for d in (1, 2, 4, 1, 2)))
        self.foretells_pushes = config.pushes == "places"
        self.out = nn.Conv2d(width, 4 * (self.num_places + 4 + 2 * self.foretells_pushes), 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            at = self.out.bias.view(-1, 4)
            at[self.num_places // 2] = STAYS
            at[self.num_places + 1] = at[self.num_places + 3] = -3.0
            at[self.num_places + 4 :] = PUSHED

    def forward(self, history_BPCHW: Tensor) -> Foreseen:
        change = 2 * (history_BPCHW[:, 1:] - history_BPCHW[:, :-1])
        shown = torch.cat((history_BPCHW / 2, change), 1).flatten(1, 2)
        if self.show_motion:
            frames = history_BPCHW.unbind(1)
            moved = [_moved(*pair, self.reach) for pair in pairwise(frames)]
            shown = torch.cat((shown, _ways_out(frames[-1]), *moved), 1)
        x = F.pixel_unshuffle(shown, 2)
        x = x.to(self.into.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = self.first(self.into(x))
        afar = self.afar(self.down(F.relu(x)))
        x = x + F.interpolate(self.up(F.relu(afar)), scale_factor=4)
        out = F.pixel_shuffle(self.out(F.relu(self.last(x))).float(), 2)
        places, heads, pushed = out.tensor_split((self.num_places, self.num_places + 4), 1)
        code, explained, unforced, crisp = heads.unbind(1)
        pushed = F.softplus(pushed) if self.foretells_pushes else torch.zeros_like(heads[:, :2])
        return Foreseen(
            places, F.softplus(code), unforced, pushed, explained.sigmoid(), F.softplus(crisp)
        )


class Transport(nn.Module):
    """The newest frame (B, C, H, W) -> what comes of it, fp32 (B, 1 + K, C, H, W): without a code,
    and, where codes (K, 2) are given, with each of them everywhere."""

    def __init__(self, config: TwoPlayerConfig) -> None:
        super().__init__()
        self.reach = reach = config.reach
        self.to_places = config.pushes == "places"
        line = torch.arange(-reach, reach + 1).float()
        below_D = (line[:, None] + line).flatten()[:, None, None]
        self.register_buffer("below_D", below_D, persistent=False)

    def forward(
        self,
        newest_BCHW: Tensor,
        foreseen: Foreseen,
        codes_K2: Tensor | None = None,
        sure: float = 1.0,
    ) -> Tensor:
        around_BCDHW = self.around(newest_BCHW, foreseen.crisp_BHW)
        frames = [_mixed(around_BCDHW, foreseen.came_from_BDHW, sure)]
        for code in () if codes_K2 is None else codes_K2.float():
            frames.append(_mixed(around_BCDHW, self._under(foreseen, *code), sure))
        return torch.stack(frames, 1)

    def with_codes(
        self, newest_BCHW: Tensor, foreseen: Foreseen, codes_B2HW: Tensor, sure: float = 1.0
    ) -> Tensor:
        """What comes if each pixel has a code, or none (zeros), of its own: fp32 (B, C, H, W)."""
        push_BHW, hold_BHW = codes_B2HW.float().unbind(1)
        came_from_BDHW = self._under(foreseen, push_BHW[:, None], hold_BHW[:, None])
        return _mixed(self.around(newest_BCHW, foreseen.crisp_BHW), came_from_BDHW, sure)

    def _under(self, foreseen: Foreseen, push: Tensor | float, hold: Tensor) -> Tensor:
        """Logits (B, D, H, W) of where pixels come from under a code, of all or (B, 1, H, W) of
        each."""
        off_BDHW = self.below_D - foreseen.unforced_BHW[:, None]
        if self.to_places:
            back_B1HW, forth_B1HW = foreseen.pushed_B2HW.split(1, 1)
            way = torch.as_tensor(push)
            # What is pushed up comes from below.
            off_BDHW = off_BDHW - way.relu() * back_B1HW + (-way).relu() * forth_B1HW
            push = 0.0
        far_BDHW = off_BDHW.abs()
        odds_BDHW = (push * off_BDHW - hold * far_BDHW) / (1 + far_BDHW)
        return foreseen.came_from_BDHW + foreseen.by_code_BHW[:, None] * odds_BDHW

    def around(self, newest_BCHW: Tensor, crisp_BHW: Tensor) -> Tensor:
        """What lies at the places within reach of each pixel, fp32 (B, C, D, H, W)."""
        B, _, H, W = newest_BCHW.shape
        wide = _with_surroundings(_crisper(newest_BCHW.float(), crisp_BHW), self.reach)
        return F.unfold(wide, 2 * self.reach + 1).view(B, 3, -1, H, W)


@dataclass
class DuelState:
    """B games in the middle of their dreams. Nothing in it is written to: a shallow copy (`clone`)
    goes on by itself."""

    history_BPCHW: Tensor
    """fp32 in -1..1: the newest frames."""
    foreseen: Foreseen
    """Of the next frame."""
    players_BS2: Tensor
    """fp32: x and y of the players in the newest frame, pixels."""

    def __len__(self) -> int:
        return len(self.players_BS2)

    @classmethod
    def together(cls, states: Sequence[DuelState]) -> DuelState:
        """Games of several as those of one."""
        foreseen = zip(*(state.foreseen for state in states), strict=True)
        return cls(
            torch.cat([state.history_BPCHW for state in states]),
            Foreseen(*(torch.cat(part) for part in foreseen)),
            torch.cat([state.players_BS2 for state in states]),
        )

    def clone(self) -> DuelState:
        return DuelState(self.history_BPCHW, self.foreseen, self.players_BS2)


class TwoPlayerModel(
    nn.Module,
    ModelHubMixin,
    library_name="genie-env",
    tags=["world-model", "multi-agent-reinforcement-learning", "pettingzoo"],
    license="mit",
    model_card_template=MODEL_CARD,
):
    """Finds two players in video, reads their codes off it, and plays on by codes.

    >>> model = TwoPlayerModel.from_pretrained("duel")
    >>> state = model.start(frames_BTHWC)
    >>> model.step(state, [[1, 2]])
    >>> frames_BHWC = model.render(state)
    """

    def __init__(self, config: TwoPlayerConfig) -> None:
        super().__init__()
        self.config = config
        size = config.frame_size
        self.prompts = np.zeros((0, 1, size, size, 3), np.uint8)
        """Starting frames shipped with the weights, uint8 (G, T, H, W, 3); G may be 0."""
        self.foresight = Foresight(config)
        self.transport = Transport(config)
        self.codes_K2 = nn.Parameter(_first_codes(config))
        """How much each code pushes up or left, and how much it holds: log odds far from the
        unforced move, or from where the push goes."""

    @property
    def device(self) -> torch.device:
        return self.codes_K2.device

    @torch.no_grad()
    def start(self, frames_BTHWC: np.ndarray | Tensor) -> DuelState:
        """Games that begin with these frames, uint8, T >= P; more of them show better who plays.

        Raises:
            TypeError, ValueError: other frames.
            PlayersNotSeenError: a ValueError; not both players are seen in them.
        """
        frames = self._check_frames(frames_BTHWC)
        seen = self._foresee_all(frames)
        past, pixels = self.config.past_frames, to_float(frames).movedim(-1, 2)
        newest_BRCHW = pixels[:, past - 1 :]
        players = [self.find_players(*game) for game in zip(newest_BRCHW, seen, strict=True)]
        # Like everything that follows, seen in the newest frame.
        newest = Foreseen(
            *(torch.stack([each[-1] for each in part]) for part in zip(*seen, strict=True))
        )
        return DuelState(
            pixels[:, -past:], newest, torch.stack([path_RS2[-1] for path_RS2 in players])
        )

    @torch.no_grad()
    def step(self, state: DuelState, codes_BS: np.ndarray | Tensor | Any) -> None:
        """Advance every game by one frame, in place. codes_BS: ints in 0..K-1. ValueError."""
        codes = self._check_codes(codes_BS, len(state))
        masks = self.masks(state.foreseen, state.players_BS2)
        frame = self.compose(state.history_BPCHW[:, -1], state.foreseen, masks, codes, SURE)
        state.history_BPCHW = torch.cat((state.history_BPCHW[:, 1:], frame[:, None]), 1)
        state.foreseen = self.foresight(state.history_BPCHW)
        state.players_BS2 = self.follow(frame, state.foreseen, state.players_BS2)

    def render(self, state: DuelState) -> np.ndarray:
        """The newest frame of every game, uint8 (B, H, W, 3)."""
        return to_uint8(state.history_BPCHW[:, -1]).movedim(1, -1).cpu().numpy()

    @torch.no_grad()
    def seen_masks(self, state: DuelState) -> np.ndarray:
        """The pixels that each player's code acts on next, bool (B, S, H, W)."""
        return self.masks(state.foreseen, state.players_BS2).cpu().numpy()

    @torch.no_grad()
    def infer_codes(
        self, frames_BTHWC: np.ndarray | Tensor, num_seen: int = 8
    ) -> tuple[np.ndarray, np.ndarray]:
        """What both players did in a video after `num_seen` frames, in which they are looked for:
        codes int64 (B, T - num_seen, S), and where they were when they did it, from the past
        alone, fp32 (B, T - num_seen, S, 2) of x and y in pixels.

        Raises as `start`.
        """
        codes, places = [], []
        for game in self._watch(frames_BTHWC, num_seen):
            guesses = self.guesses(game.newest_MCHW, game.foreseen)
            codes.append(self.read_codes(guesses, game.masks_MSHW, game.next_MCHW))
            places.append(game.players_MS2)
        return torch.stack(codes).cpu().numpy(), torch.stack(places).cpu().numpy()

    @torch.no_grad()
    def predict(
        self, frames_BTHWC: np.ndarray | Tensor, codes_BMS: np.ndarray, num_seen: int = 8
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each frame after `num_seen`, from those before it and what both players then did: fp32
        (B, M, C, H, W) in -1..1, first with nobody's code, then with both. Raises as `start`."""
        foretold, told = [], []
        for game, codes_MS in zip(self._watch(frames_BTHWC, num_seen), codes_BMS, strict=True):
            foretold.append(self.guesses(game.newest_MCHW, game.foreseen, with_codes=False)[:, 0])
            codes = self._check_codes(codes_MS, len(game.next_MCHW))
            told.append(self.compose(*game[:3], codes))
        return torch.stack(foretold).cpu().numpy(), torch.stack(told).cpu().numpy()

    @torch.no_grad()
    def alternatives(
        self, frames_THWC: np.ndarray, codes_MS: np.ndarray, num_seen: int = 8
    ) -> np.ndarray:
        """As `predict` of one game, under every code of each player, while the other does what
        the codes say: fp32 (S, K, M, C, H, W)."""
        (game,) = self._watch(frames_THWC[None], num_seen)
        codes = self._check_codes(codes_MS, len(game.next_MCHW))
        frames = []
        for s in range(NUM_PLAYERS):
            for code in range(self.config.num_codes):
                changed = codes.clone()
                changed[:, s] = code
                frames.append(self.compose(*game[:3], changed))
        return torch.stack(frames).unflatten(0, (NUM_PLAYERS, -1)).cpu().numpy()

    def _watch(self, frames_BTHWC: np.ndarray | Tensor, num_seen: int) -> Iterator[Watched]:
        """Each game in turn, from its `num_seen`th frame on. Nothing depends on a later frame."""
        frames, past = self._check_frames(frames_BTHWC), self.config.past_frames
        if not past <= num_seen < frames.shape[1]:
            raise ValueError(
                f"num_seen={num_seen} of {frames.shape[1]} frames; accepted: from {past}, and less "
                "than there are"
            )
        for game_TCHW, seen in zip(
            to_float(frames).movedim(-1, 2), self._foresee_all(frames), strict=True
        ):
            first, newest_RCHW = num_seen - past, game_TCHW[past - 1 :]
            early = Foreseen(*(each[: first + 1] for each in seen))
            players = [self.find_players(newest_RCHW[: first + 1], early)[-1:]]
            for r in range(first + 1, len(newest_RCHW) - 1):
                now = Foreseen(*(each[r : r + 1] for each in seen))
                players.append(self.follow(newest_RCHW[r : r + 1], now, players[-1]))
            foreseen = Foreseen(*(each[first:-1] for each in seen))
            players_MS2 = torch.cat(players)
            yield Watched(
                game_TCHW[num_seen - 1 : -1],
                foreseen,
                self.masks(foreseen, players_MS2),
                players_MS2,
                game_TCHW[num_seen:],
            )

    def _foresee_all(self, frames_BTHWC: Tensor) -> list[Foreseen]:
        """Of each game what is foreseen at its R moments."""
        past, count = self.config.past_frames, frames_BTHWC.shape[1]
        pixels = to_float(frames_BTHWC).movedim(-1, 2)
        return [
            self.foresight(torch.stack([game[r : r + past] for r in range(count - past + 1)]))
            for game in pixels
        ]

    def _check_frames(self, frames_BTHWC: np.ndarray | Tensor) -> Tensor:
        # Fewer do not show what moves how.
        frames = check_frames(frames_BTHWC, self.config.frame_size, self.config.past_frames)
        return frames.to(self.device)

    def _check_codes(self, codes_BS: Any, num_games: int) -> Tensor:
        codes = torch.as_tensor(np.asarray(codes_BS))
        if codes.shape != (num_games, NUM_PLAYERS) or codes.is_floating_point():
            raise ValueError(
                f"codes of shape {tuple(codes.shape)} and dtype {codes.dtype}; accepted: ints "
                f"({num_games}, {NUM_PLAYERS}), one a player"
            )
        if codes.min() < 0 or codes.max() >= self.config.num_codes:
            raise ValueError(f"codes {codes.tolist()}; accepted: 0 to {self.config.num_codes - 1}")
        return codes.to(self.device, torch.int64)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **hub_kwargs: Any,
    ) -> TwoPlayerModel:
        """As `WorldModel.from_pretrained`."""
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        folder = find_checkpoint(name, hub_kwargs, TWO_PLAYERS)
        config = read_config(folder, TwoPlayerConfig, TWO_PLAYERS)
        model = cls(config)
        read_weights(folder, (WEIGHTS,), model)
        model.prompts = read_prompts(folder, config.frame_size)
        return model.to(device, dtype or fast_dtype(device)).eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        write_config(save_directory, self.config)
        write_weights(save_directory / WEIGHTS, dict(self.state_dict()))
        write_prompts(save_directory, self.prompts)

    def guesses(
        self,
        newest_BCHW: Tensor,
        foreseen: Foreseen,
        with_codes: bool = True,
        sure: float = 1.0,
    ) -> Tensor:
        """The next frame without a code, and, with codes, with each of them everywhere: fp32
        (B, 1 + K, C, H, W)."""
        return self.transport(newest_BCHW, foreseen, self.codes_K2 if with_codes else None, sure)

    @torch.no_grad()
    def find_players(self, newest_RCHW: Tensor, seen: Foreseen) -> Tensor:
        """Where the players of one game are in each of R frames that follow one another, from these
        and what is foreseen of the next: fp32 (R, S, 2) of x and y in pixels.

        First the player who is left of the other in the first of the frames, or, where one is
        more above than beside the other, above. Raises PlayersNotSeenError where two cannot be
        seen.
        """
        found, strength = [], []
        steered_RHW = self.steered(newest_RCHW, seen)
        for _ in range(NUM_PLAYERS):
            bright_RHW = seen.explained_BHW.square() * blur(seen.by_code_BHW, SMOOTH)
            path_R2 = _middle(seen, steered_RHW, _brightest_path(bright_RHW))
            found.append(path_R2)
            strength.append(float(_around(seen.explained_BHW, path_R2, NEAR).mean()))
            # The other one is somewhere else.
            free_RHW = _distance(path_R2, bright_RHW.shape[-1]) > APART
            seen = seen._replace(explained_BHW=seen.explained_BHW * free_RHW)
            steered_RHW = steered_RHW * free_RHW
        visible = sum(s > SEEN for s in strength)
        if visible < NUM_PLAYERS:
            raise PlayersNotSeenError(
                f"{visible} of {NUM_PLAYERS} players can be seen: "
                "accepted are frames in which two things are steered"
            )
        first, second = found
        dx, dy = (second[0] - first[0]).tolist()
        swap = (dx if abs(dx) > abs(dy) else dy) < 0
        return torch.stack((second, first) if swap else (first, second), 1)

    def follow(self, newest_BCHW: Tensor, foreseen: Foreseen, before_BS2: Tensor) -> Tensor:
        """Where the players of B games are now, near where they were: fp32 (B, S, 2)."""
        steered_BHW = self.steered(newest_BCHW, foreseen)
        middles = [_middle(foreseen, steered_BHW, before_BS2[:, s]) for s in range(NUM_PLAYERS)]
        return torch.stack(middles, 1)

    def steered(self, newest_BCHW: Tensor, foreseen: Foreseen) -> Tensor:
        """What tells where a player's ends are: fp32 >= 0 (B, H, W)."""
        if self.config.middle == "codes":
            return _by_code(foreseen)
        # Pushed one way or the other, a paddle's ends differ and nothing else does.
        ways_K = self.codes_K2[:, 0]
        opposite_22 = self.codes_K2[torch.stack((ways_K.argmin(), ways_K.argmax()))]
        guesses = self.transport(newest_BCHW, foreseen, opposite_22)
        differ_BHW = (guesses[:, 1] - guesses[:, 2]).norm(dim=1)
        return foreseen.explained_BHW.square() * differ_BHW

    def masks(self, foreseen: Foreseen, players_BS2: Tensor) -> Tensor:
        """The pixels that each player's code acts on, bool (B, S, H, W); no pixel has two."""
        size = foreseen.explained_BHW.shape[-1]
        away = torch.stack([_distance(players_BS2[:, s], size) for s in range(NUM_PLAYERS)], 1)
        nearest = F.one_hot(away.argmin(1), NUM_PLAYERS).movedim(-1, 1).bool()
        own = (foreseen.explained_BHW > OWN)[:, None]
        return nearest & own & (away < REACH_OF_PLAYER)

    def compose(
        self,
        newest_BCHW: Tensor,
        foreseen: Foreseen,
        masks_BSHW: Tensor,
        codes_BS: Tensor,
        sure: float = 1.0,
    ) -> Tensor:
        """The next frame, (B, C, H, W): within each player's mask as its code has it, elsewhere as
        it was foretold. sure: 1 for the mean of what may come, more for a likelier one."""
        codes_BS2 = self.codes_K2.float()[codes_BS]
        codes_B2HW = torch.einsum("bshw,bsc->bchw", masks_BSHW.float(), codes_BS2)
        return self.transport.with_codes(newest_BCHW, foreseen, codes_B2HW, sure)

    def read_codes(self, guesses: Tensor, masks_BSHW: Tensor, next_BCHW: Tensor) -> Tensor:
        """What each player did, int64 (B, S): the code that explains best what came in its mask."""
        error = (guesses[:, 1:] - next_BCHW[:, None]).square().mean(2)
        return torch.einsum("bkhw,bshw->bsk", error, masks_BSHW.float()).argmin(-1)


def _first_codes(config: TwoPlayerConfig) -> Tensor:
    """How much each code pushes and holds before anything is learned: fp32 (K, 2).

    The codes hold, push up or left, and push down or right. Another order, or up with right, would
    do as well; that one is given spares the search, and is all that names a code.
    """
    push, hold = (2.0, 0.0) if config.pushes == "odds" else (1.0, 3.0)
    codes = torch.tensor(((0.0, 3.0), (push, hold), (-push, hold)))[: config.num_codes]
    others = torch.randn(config.num_codes - len(codes), 2)
    if config.pushes == "places":
        others[:, 1] = hold
    return torch.cat((codes, others))


def _ways_out(frame_BCHW: Tensor) -> Tensor:
    """How much changes on the straight way from each pixel to the border above, below, left and
    right of it, in 0..1, (B, 4, H, W): nothing where the thing that it belongs to is at a wall."""
    ways = []
    for axis in (2, 3):
        steps = frame_BCHW.diff(dim=axis).abs().sum(1).float()
        before = F.pad(steps.cumsum(axis - 1), (0, 0, 1, 0) if axis == 2 else (1, 0))
        after = before.narrow(axis - 1, -1, 1) - before
        ways += [before.tanh(), after.tanh()]
    return torch.stack(ways, 1)


def _moved(before_BCHW: Tensor, after_BCHW: Tensor, reach: int) -> Tensor:
    """How far what is at each pixel has come, right and down, in shares of the reach, fp32
    (B, 2, H, W). Matched around it, straight along either axis; 0 where no move fits better."""
    wide = F.pad(before_BCHW.float(), (reach,) * 4, mode="replicate")
    height, width = after_BCHW.shape[-2:]
    moves = [(0, 0)] + [m for d in range(1, reach + 1) for m in ((d, 0), (-d, 0), (0, d), (0, -d))]
    differ = torch.stack([
        (wide[..., reach - y : reach - y + height, reach - x : reach - x + width] - after_BCHW)
        .abs().sum(1)
        for x, y in moves
    ], 1)  # fmt: skip
    around = F.avg_pool2d(differ, 5, 1, 2)
    # A faint thing is matched as surely as a loud one.
    odds = -MATCH * around / (around.amax(1, keepdim=True) + FAINT_MOVE)
    share = torch.tensor(moves, dtype=odds.dtype, device=odds.device) / reach
    return torch.einsum("bmhw,mx->bxhw", odds.softmax(1), share)


def _mixed(around_BCDHW: Tensor, came_from_BDHW: Tensor, sure: float) -> Tensor:
    """The next frame, (B, C, H, W), from logits of where its pixels come from."""
    return (around_BCDHW * (sure * came_from_BDHW).softmax(1)[:, None]).sum(2)


def _crisper(frame_BCHW: Tensor, crisp_BHW: Tensor) -> Tensor:
    """The frame with what blurs edges taken back, never beyond the colours beside them: means of
    pixels, however chosen, blur a little more with every step."""
    mean = F.avg_pool2d(frame_BCHW, 3, 1, 1, count_include_pad=False)
    crisp = frame_BCHW + crisp_BHW[:, None] * (frame_BCHW - mean)
    least, most = -F.max_pool2d(-frame_BCHW, 3, 1, 1), F.max_pool2d(frame_BCHW, 3, 1, 1)
    return torch.minimum(torch.maximum(crisp, least), most)


def _with_surroundings(frame_BCHW: Tensor, reach: int) -> Tensor:
    """The frame, and around it what is commonest at its border: who leaves the border leaves
    background behind, and not another part of itself."""
    sides = (frame_BCHW[..., 0, :], frame_BCHW[..., -1, :], frame_BCHW[..., 0], frame_BCHW[..., -1])
    beyond_BC11 = torch.cat(sides, -1).median(-1).values[..., None, None]
    return F.pad(frame_BCHW - beyond_BC11, (reach,) * 4) + beyond_BC11


def blur(map_BHW: Tensor, sigma: float) -> Tensor:
    """Gaussian; darkness beyond the border."""
    half = int(2 * sigma)
    line = torch.arange(-half, half + 1, dtype=map_BHW.dtype, device=map_BHW.device)
    weight = (-line.square() / (2 * sigma**2)).exp()
    weight = weight / weight.sum()
    x = F.conv2d(map_BHW.flatten(0, -3)[:, None], weight.view(1, 1, -1, 1), padding=(half, 0))
    return F.conv2d(x, weight.view(1, 1, 1, -1), padding=(0, half)).view_as(map_BHW)


def _by_code(foreseen: Foreseen) -> Tensor:
    """How much codes act where they explain something, (B, H, W)."""
    return foreseen.explained_BHW.square() * foreseen.by_code_BHW


def _middle(foreseen: Foreseen, steered_BHW: Tensor, before_B2: Tensor) -> Tensor:
    """The middle between the ends of what is steered near there."""
    where_BHW = _by_code(foreseen)
    size = steered_BHW.shape[-1]
    pixel = torch.arange(size, dtype=torch.float32, device=steered_BHW.device)
    at_B2 = before_B2
    for _ in range(4):
        near = where_BHW * (-_distance(at_B2, size).square() / (2 * NEAR**2)).exp()
        total_B1 = near.sum((1, 2))[:, None] + NOTHING
        across_B, down_B = (near.sum(axis) @ pixel for axis in (1, 2))
        # Where nothing is steered it stays.
        at_B2 = (torch.stack((across_B, down_B), 1) + NOTHING * at_B2) / total_B1
    whole = steered_BHW * (_distance(at_B2, size) < HALF)
    middle = []
    for axis in (1, 2):
        upto = whole.sum(axis).cumsum(1)
        upto = upto / upto[:, -1:].clamp_min(NOTHING)
        middle.append(((upto < END).sum(1) + (upto < 1 - END).sum(1)) / 2)
    seen_B1 = whole.sum((1, 2))[:, None] > NOTHING
    return torch.where(seen_B1, torch.stack(middle, 1), at_B2)


def _brightest_path(map_RHW: Tensor) -> Tensor:
    """fp32 (R, 2) of x and y: the path through all of the frames that sees most, at most 4 pixels a
    step each way (Viterbi, on squares of 2 by 2 pixels)."""
    coarse = F.avg_pool2d(map_RHW[:, None], 2)[:, 0]
    side = coarse.shape[-1]
    best, came_from = coarse[0], []
    for frame in coarse[1:]:
        most, where = F.max_pool2d(best[None, None], 5, 1, 2, return_indices=True)
        best = frame + most[0, 0]
        came_from.append(where.flatten())
    path = [int(best.argmax())]
    for where in reversed(came_from):
        path.append(int(where[path[-1]]))
    place_R = torch.tensor(path[::-1], device=map_RHW.device)
    return torch.stack((place_R % side, place_R // side), 1) * 2 + 0.5


def _distance(middle_B2: Tensor, size: int) -> Tensor:
    """Of every pixel from there: fp32 (B, H, W)."""
    pixel = torch.arange(size, dtype=torch.float32, device=middle_B2.device)
    across = (pixel - middle_B2[:, :1]).square()
    down = (pixel - middle_B2[:, 1:]).square()
    return (down[:, :, None] + across[:, None]).sqrt()


def _around(map_BHW: Tensor, middle_B2: Tensor, radius: float) -> Tensor:
    """The highest value near there, (B,)."""
    near = _distance(middle_B2, map_BHW.shape[-1]) < radius
    return (map_BHW * near).amax((1, 2))
