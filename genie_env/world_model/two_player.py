"""Two players, found in video alone: what the past foretells, and what each player adds to it.

A player is what the past does not foretell but one of few codes, the same for every player and
game, does. One network looks at past frames only and says of every pixel

* where it will have come from (after Jia et al., 2016, arXiv 1605.09673): chances of all places
  within reach, those of every move that a player may make among them;
* which move is left to itself, how far from it a push one way and the other would take things, and
  how much a code tells of that: a code is two numbers, which way it pushes and how surely, which
  know neither the place nor the game, and can but choose among the moves that are likely anyway;
* how much crisper the newest frame should be before anything is taken from it;
* what share of what is not foretold a code has explained in frames like these.

What a network learns too slowly is worked out: how far things have moved is shown to it, and that
they do not go past a border holds whatever it says.

The explained share finds the players: a ball can be foretold, or no code tells where it goes. A
code acts within its own player's pixels, so that neither player's reaches the other, or the rest.

Shapes: B games, T frames, P past frames, H W pixels, C = 3, S = 2 players, K codes of a player,
D = (2 reach + 1)^2 places that a pixel may come from, R = T - P + 1 moments with a whole past, M
transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

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
from genie_env.world_model.pixels import (
    beyond,
    blur,
    crisper,
    fastest,
    moved,
    room,
    with_surroundings,
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
SURE = 2.2
"""How many times as large the log odds of where pixels come from are in a dream: who is never sure
blurs what goes on blurring."""
STAYS = 6.0
"""Log odds, before anything is learned, that a pixel stays where it is."""
PUSHED = 1.85
"""Before anything is learned, how far pushes are thought to go: softplus of it is two pixels."""
HEADS = 6
"""What is foreseen of a pixel beside where it will have come from."""
STOPPED = 4.0
"""Log odds against a move for which there is no room."""
SEEN, AS_SEEN = 0.18, 0.5
"""Of what pushes change of a player, the share that codes have explained, on average over the
frames seen: of the stronger one, and of the weaker one in shares of that. Balls have less."""
INVISIBLE = 1e-3
"""What pushes change of it, all together, where nothing is to be seen."""
OWN = 0.25
"""The same of a pixel that a player's code acts on."""
REACH_OF_PLAYER, APART = 18.0, 24.0
"""Pixels: how far from its middle a player's code acts, and how far two players are apart at first:
farther than the middle of a long paddle from its other end."""
SMOOTH, NEAR, HALF = 2.0, 9.0, 15.0
"""Pixels: what is looked at together to find a player, and to follow one; half of the longest."""
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
    width: int = 48
    """Channels at half of the frame's size; twice as many at an eighth of it."""
    kind: str = TWO_PLAYERS
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name, least in (("past_frames", 1), ("num_codes", 2), ("reach", 1), ("width", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.frame_size < 8 or self.frame_size % 8:
            raise ValueError(f"frame_size={self.frame_size}; accepted: multiples of 8")

    @property
    def num_places(self) -> int:
        """D."""
        return (2 * self.reach + 1) ** 2


class Foreseen(NamedTuple):
    """What the past tells of the next frame, at each of its pixels."""

    came_from_BHWD: Tensor
    """fp32 logits: from which place of the newest frame, row by row."""
    by_code_BHW: Tensor
    """fp32 >= 0: how much a code tells of that."""
    unforced_BHW: Tensor
    """fp32: from how far below and to the right, in pixels, if its player lets it be: a paddle that
    slides goes on, and a code tells only what is done to it."""
    pushed_BHW4: Tensor
    """fp32 >= 0: how many pixels from there a push takes it up, down, left or right, if that is the
    way it goes; not past a border."""
    explained_BHW: Tensor
    """fp32 in 0..1: the share of what is not foretold that a code has explained."""
    crisp_BHW: Tensor
    """fp32 >= 0: how much crisper the newest frame should be."""

    def of(self, games: slice) -> Foreseen:
        """Of some of the games."""
        return Foreseen(*(each[games] for each in self))


class Watched(NamedTuple):
    """M transitions of one game, and what was known before each."""

    newest_MCHW: Tensor
    foreseen: Foreseen
    masks_MSHW: Tensor
    players_MS2: Tensor
    next_MCHW: Tensor
    """What came."""


class MatrixConv2d(nn.Conv2d):
    """A convolution that keeps its weight as the matrix that it is, (out, in kernel kernel): Muon
    steps matrices."""

    weight: nn.Parameter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight = nn.Parameter(self.weight.detach().flatten(1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weight = self.weight.view(self.out_channels, self.in_channels, *self.kernel_size)
        return self._conv_forward(x_BCHW, weight, self.bias)


class DilatedBlock(nn.Module):
    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = MatrixConv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = MatrixConv2d(channels, channels, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.second(F.relu(self.first(F.relu(x_BCHW))))


class Foresight(nn.Module):
    """history (B, P, C, H, W) floats -> `Foreseen`."""

    def __init__(self, config: TwoPlayerConfig) -> None:
        super().__init__()
        width, self.num_places, self.reach = config.width, config.num_places, config.reach
        pairs = config.past_frames - 1
        # Frames, how each differs from the one before, and motion.
        seen = 3 * (1 + 2 * pairs) + 2 * pairs + (pairs > 0)
        self.into = nn.Conv2d(4 * seen, width, 3, padding=1)
        self.first = nn.Sequential(*(DilatedBlock(width) for _ in range(2)))
        self.down = MatrixConv2d(width, 2 * width, 4, stride=4)
        self.afar = nn.Sequential(*(DilatedBlock(2 * width) for _ in range(3)))
        self.up = MatrixConv2d(2 * width, width, 1)
        self.last = nn.Sequential(*(DilatedBlock(width, d) for d in (1, 2, 4, 1, 2)))
        self.out = nn.Conv2d(width, 4 * (self.num_places + HEADS), 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            at = self.out.bias.view(4, -1).T
            at[self.num_places // 2] = STAYS
            at[self.num_places + 1] = at[self.num_places + 3] = -3.0
            at[self.num_places + 4 :] = PUSHED

    def forward(self, history_BPCHW: Tensor) -> Foreseen:
        frames = history_BPCHW.unbind(1)
        moves = [moved(*pair, self.reach) for pair in pairwise(frames)]
        motion = [*moves, fastest(moves)] if moves else []
        change = 2 * (history_BPCHW[:, 1:] - history_BPCHW[:, :-1])
        shown = torch.cat((history_BPCHW / 2, change), 1).flatten(1, 2)
        x = F.pixel_unshuffle(torch.cat((shown, *motion), 1), 2)
        x = x.to(self.into.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = self.first(self.into(x))
        afar = self.afar(self.down(F.relu(x)))
        x = x + F.interpolate(self.up(F.relu(afar)), scale_factor=4)
        # Places of a pixel lie side by side in memory, as they are read together.
        out = self.out(F.relu(self.last(x))).permute(0, 2, 3, 1)
        out = out.unflatten(3, (2, 2, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2).float()
        places, heads = out.tensor_split((self.num_places,), -1)
        code, explained, unforced, crisp, back, forth = heads.unbind(-1)
        room_BHW4 = room(frames[-1], self.reach)
        return Foreseen(
            places - STOPPED * beyond(room_BHW4, self.reach),
            F.softplus(code),
            unforced,
            torch.minimum(F.softplus(torch.stack((back, forth, back, forth), -1)), room_BHW4),
            explained.sigmoid(),
            F.softplus(crisp),
        )


class Transport(nn.Module):
    """The newest frame (B, C, H, W) and codes (N, 2) -> what comes of it with each of them
    everywhere, fp32 (B, N, C, H, W); zeros are no code."""

    def __init__(self, config: TwoPlayerConfig) -> None:
        super().__init__()
        self.reach = reach = config.reach
        line = torch.arange(-reach, reach + 1).float()
        right_down = torch.stack((line.tile(len(line)), line.repeat_interleave(len(line))), 1)
        self.register_buffer("below_D", right_down.sum(1), persistent=False)
        # A paddle that touches the border behind it has room along it all the same.
        right_D, down_D = right_down.abs().unbind(1)
        self.register_buffer("upright_D", down_D >= right_D, persistent=False)
        self.register_buffer("place_D2", right_down, persistent=False)

    def forward(
        self, newest_BCHW: Tensor, foreseen: Foreseen, codes_N2: Tensor, sure: float = 1.0
    ) -> Tensor:
        around = self.around(newest_BCHW, foreseen.crisp_BHW)
        codes = codes_N2.float()
        return torch.stack(
            [_mixed(around, self._chances(foreseen, code, sure)) for code in codes], 1
        )

    def with_codes(
        self, newest_BCHW: Tensor, foreseen: Foreseen, codes_BHW2: Tensor, sure: float = 1.0
    ) -> Tensor:
        """What comes if each pixel has a code of its own: fp32 (B, C, H, W)."""
        around = self.around(newest_BCHW, foreseen.crisp_BHW)
        return _mixed(around, self._chances(foreseen, codes_BHW2.float(), sure))

    def with_origins(
        self, newest_BCHW: Tensor, foreseen: Foreseen, codes_N2: Sequence[Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """What comes with each code everywhere, fp32 (B, C, H, W), and how far right and down of
        each pixel that is now, on average: fp32 (B, H, W, 2) in pixels."""
        around = self.around(newest_BCHW, foreseen.crisp_BHW)
        chances = [self._chances(foreseen, code.float(), 1.0) for code in codes_N2]
        return [(_mixed(around, each), each @ self.place_D2.float()) for each in chances]

    def _chances(self, foreseen: Foreseen, code: Tensor, sure: float) -> Tensor:
        """Of where pixels come from under a code, (2,) of all or (B, H, W, 2) of each: fp32 (B, H,
        W, D)."""
        push, hold = code.split(1, -1)
        up, down, left, right = foreseen.pushed_BHW4.split(1, -1)
        # What is pushed up comes from below.
        unforced, back, forth = foreseen.unforced_BHW[..., None], push.relu(), (-push).relu()
        upright_BHW1 = unforced + back * up - forth * down
        lying_BHW1 = unforced + back * left - forth * right
        far_BHWD = (self.below_D - torch.where(self.upright_D, upright_BHW1, lying_BHW1)).abs()
        near_BHWD = foreseen.by_code_BHW[..., None] * hold / (1 + far_BHWD)
        return (sure * (foreseen.came_from_BHWD + near_BHWD)).softmax(-1)

    def around(self, newest_BCHW: Tensor, crisp_BHW: Tensor) -> Tensor:
        """What lies at the places within reach of each pixel, fp32 (B, C, H, W, down, across)."""
        wide = with_surroundings(crisper(newest_BCHW.float(), crisp_BHW), self.reach)
        side = 2 * self.reach + 1
        return wide.unfold(2, side, 1).unfold(3, side, 1)


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
        """Which way each code pushes, up or left for more than 0, and how surely: log odds against
        what lies far from where the push goes."""

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
        players = [
            self.find_players(foreseen, self.steered(newest_RCHW, foreseen))
            for newest_RCHW, foreseen in zip(newest_BRCHW, seen, strict=True)
        ]
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
        steered_BHW3 = self.steered(frame, state.foreseen)
        state.players_BS2 = self.follow(state.foreseen, steered_BHW3, state.players_BS2)

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
            guesses = _game_by_game(self.guesses, game.newest_MCHW, game.foreseen)
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
            nobodys = partial(self.guesses, with_codes=False)
            foretold.append(_game_by_game(nobodys, game.newest_MCHW, game.foreseen)[:, 0])
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
            first, steered_RHW3 = num_seen - past, self.steered(game_TCHW[past - 1 :], seen)
            early = seen.of(slice(first + 1))
            players = [self.find_players(early, steered_RHW3[: first + 1])[-1:]]
            for r in range(first + 1, len(steered_RHW3) - 1):
                now = seen.of(slice(r, r + 1))
                players.append(self.follow(now, steered_RHW3[r : r + 1], players[-1]))
            foreseen = seen.of(slice(first, -1))
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
        codes = torch.as_tensor(codes_BS if isinstance(codes_BS, Tensor) else np.asarray(codes_BS))
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
        nobodys_12 = torch.zeros_like(self.codes_K2[:1])
        codes = torch.cat((nobodys_12, self.codes_K2)) if with_codes else nobodys_12
        return self.transport(newest_BCHW, foreseen, codes, sure)

    @torch.no_grad()
    def find_players(self, seen: Foreseen, steered_RHW3: Tensor) -> Tensor:
        """Where the players of one game are in each of R frames that follow one another, from what
        is foreseen of the next and its `steered`: fp32 (R, S, 2) of x and y in pixels.

        First the player who is left of the other in the first of the frames, or, where one is
        more above than beside the other, above. Raises PlayersNotSeenError where two cannot be
        seen.
        """
        found, strength, whole_RHW = [], [], seen.explained_BHW
        for _ in range(NUM_PLAYERS):
            bright_RHW = seen.explained_BHW.square() * blur(seen.by_code_BHW, SMOOTH)
            path_R2 = _middle(seen, steered_RHW3, _brightest_path(bright_RHW))
            found.append(path_R2)
            away_RHW = _distance(path_R2, bright_RHW.shape[-1])
            changed_RHW = steered_RHW3[..., 0] * (away_RHW < NEAR)
            told_R = (changed_RHW * whole_RHW).sum((1, 2))
            strength.append(float((told_R / (changed_RHW.sum((1, 2)) + INVISIBLE)).mean()))
            # The other one is somewhere else.
            seen = seen._replace(explained_BHW=seen.explained_BHW * (away_RHW > APART))
        visible = sum(s > max(SEEN, AS_SEEN * max(strength)) for s in strength)
        if visible < NUM_PLAYERS:
            raise PlayersNotSeenError(
                f"{visible} of {NUM_PLAYERS} players can be seen: "
                "accepted are frames in which two things are steered"
            )
        first, second = found
        dx, dy = (second[0] - first[0]).tolist()
        swap = (dx if abs(dx) > abs(dy) else dy) < 0
        return torch.stack((second, first) if swap else (first, second), 1)

    def follow(self, foreseen: Foreseen, steered_BHW3: Tensor, before_BS2: Tensor) -> Tensor:
        """Where the players of B games are now, near where they were: fp32 (B, S, 2)."""
        middles = [_middle(foreseen, steered_BHW3, before_BS2[:, s]) for s in range(NUM_PLAYERS)]
        return torch.stack(middles, 1)

    @torch.no_grad()
    def steered(self, newest_BCHW: Tensor, foreseen: Foreseen) -> Tensor:
        """What tells where a player's ends are: fp32 (B, H, W, 3), first how much a pixel differs
        pushed one way and the other, and so much of how far right and down it goes on average of
        both pushes."""
        ways_K = self.codes_K2[:, 0]
        codes = [self.codes_K2[k] for k in (ways_K.argmin(), ways_K.argmax())]

        def differ(newest: Tensor, seen: Foreseen) -> Tensor:
            (one, by_one), (other, by_other) = self.transport.with_origins(newest, seen, codes)
            much_BHW1 = (one - other).norm(dim=1)[..., None]
            return torch.cat((much_BHW1, -much_BHW1 * (by_one + by_other) / 2), -1)

        return _game_by_game(differ, newest_BCHW, foreseen)

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
        codes_BHW2 = torch.einsum("bshw,bsc->bhwc", masks_BSHW.float(), codes_BS2)
        return _game_by_game(
            partial(self.transport.with_codes, sure=sure), newest_BCHW, foreseen, codes_BHW2
        )

    def read_codes(self, guesses: Tensor, masks_BSHW: Tensor, next_BCHW: Tensor) -> Tensor:
        """What each player did, int64 (B, S): the code that explains best what came in its mask."""
        error = (guesses[:, 1:] - next_BCHW[:, None]).square().mean(2)
        return torch.einsum("bkhw,bshw->bsk", error, masks_BSHW.float()).argmin(-1)


def _game_by_game(
    work: Callable[..., Tensor], newest_BCHW: Tensor, foreseen: Foreseen, *others_B: Tensor
) -> Tensor:
    """`work` of all games; of one after the other on a CPU, in whose cache the chances of one game
    fit and those of many do not."""
    if newest_BCHW.device.type != "cpu":
        return work(newest_BCHW, foreseen, *others_B)
    games = [slice(b, b + 1) for b in range(len(newest_BCHW))]
    return torch.cat([
        work(newest_BCHW[game], foreseen.of(game), *(other[game] for other in others_B))
        for game in games
    ])  # fmt: skip


def _first_codes(config: TwoPlayerConfig) -> Tensor:
    """Which way each code pushes before anything is learned, and how surely: fp32 (K, 2).

    The codes hold, push up or left, and push down or right. Another order, or up with right, would
    do as well; that one is given spares the search, and is all that names a code.
    """
    ways = torch.cat((torch.tensor((0.0, 1.0, -1.0)), torch.randn(config.num_codes)))
    return torch.stack((ways[: config.num_codes], torch.full((config.num_codes,), 3.0)), 1)


def _mixed(around: Tensor, chances_BHWD: Tensor) -> Tensor:
    """The next frame, (B, C, H, W), by chances of where its pixels come from."""
    chances = chances_BHWD.unflatten(-1, around.shape[-2:])
    return (around * chances[:, None]).sum((-2, -1))


def _by_code(foreseen: Foreseen) -> Tensor:
    """How much codes act where they explain something, (B, H, W)."""
    return foreseen.explained_BHW.square() * foreseen.by_code_BHW


def _middle(foreseen: Foreseen, steered_BHW3: Tensor, before_B2: Tensor) -> Tensor:
    """The middle between the ends of what is steered near there, less how far it goes: not where
    it will be, and at a wall only one of both pushes takes it anywhere."""
    where_BHW = _by_code(foreseen)
    size = where_BHW.shape[-1]
    pixel = torch.arange(size, dtype=torch.float32, device=where_BHW.device)
    at_B2 = before_B2
    for _ in range(4):
        near = where_BHW * (-_distance(at_B2, size).square() / (2 * NEAR**2)).exp()
        total_B1 = near.sum((1, 2))[:, None] + NOTHING
        across_B, down_B = (near.sum(axis) @ pixel for axis in (1, 2))
        # Where nothing is steered it stays.
        at_B2 = (torch.stack((across_B, down_B), 1) + NOTHING * at_B2) / total_B1
    own_BHW = foreseen.explained_BHW.square() * (_distance(at_B2, size) < HALF)
    whole, right, down = (steered_BHW3 * own_BHW[..., None]).unbind(-1)
    total_B1 = whole.sum((1, 2))[:, None]
    middle = []
    for axis in (1, 2):
        upto = whole.sum(axis).cumsum(1)
        upto = upto / upto[:, -1:].clamp_min(NOTHING)
        middle.append(((upto < END).sum(1) + (upto < 1 - END).sum(1)) / 2)
    goes_B2 = torch.stack((right.sum((1, 2)), down.sum((1, 2))), 1) / total_B1.clamp_min(NOTHING)
    return torch.where(total_B1 > NOTHING, torch.stack(middle, 1) - goes_B2, at_B2)


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
