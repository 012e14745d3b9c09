"""GenieParallelEnv: one dreamed game of two as a PettingZoo parallel environment.

Shapes: T frames, H W pixels (H = W = the model's frame size), C = 3 channels (RGB), S = 2 players.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from pettingzoo import ParallelEnv

from genie_env.envs.prompts import check_prompt, describe_prompt, draw_prompt, load_prompt
from genie_env.envs.window import RENDER_MODES, FrameWindow
from genie_env.world_model.two_player import NUM_PLAYERS, TwoPlayerModel

AGENTS = [f"player_{number}" for number in range(NUM_PLAYERS)]
PROMPT_FRAMES = 16
"""At most: more show no better who plays."""
VIEWS = ("shared", "own")

RewardFunction = Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
"""The frame before and the newest, uint8 (H, W, 3), to a reward of each agent."""


class GenieParallelEnv(ParallelEnv[str, np.ndarray, int]):
    """A game of two dreamed by a `TwoPlayerModel` from a prompt, in which each player has latent
    actions of its own.

    `player_0` is the one who is left of the other in the first frame, or, where one is more above
    than beside the other, above. Observations are uint8 (H, W, 3), actions ints of
    `Discrete(num_codes)`. Of the model as it comes they mean: stay, up or left, down or right.

    The same seed, prompt and actions give the same frames. A game has no end of its own.

    Args:
        prompt: what to start from, at least `past_frames` frames in which both players move: see
            `genie_env.envs.prompts.ACCEPTED`; `None` draws one of the starts that ship with the
            model. `reset(options={"prompt": ...})` sets it for one episode.
        model: name of a shipped checkpoint, a folder, a hub id, or a loaded `TwoPlayerModel`.
        reward: `None` (always 0), or a function of the frame before and the newest, uint8 (H, W,
            3), that returns {"player_0": number, "player_1": number}.
        view: `shared`: both see the whole frame; `own`: the other player's pixels are black.
        max_cycles: an episode is truncated after so many; `None`: never.
        render_mode: `None`, `"rgb_array"` or `"human"` (a window; needs the extra `play`).
        device: where to load a model given by name; the best there is if `None`.

    Raises:
        FileNotFoundError, TypeError, ValueError: a prompt, model or argument that is not accepted.
        DependencyNotInstalled: `render_mode="human"` without pygame.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "name": "genie_duel_v0",
        "render_modes": RENDER_MODES,
        "render_fps": 15,
        "is_parallelizable": True,
    }

    def __init__(
        self,
        prompt: Any = None,
        model: str | Path | TwoPlayerModel = "duel",
        reward: RewardFunction | None = None,
        view: Literal["shared", "own"] = "shared",
        max_cycles: int | None = None,
        render_mode: str | None = None,
        device: str | None = None,
    ) -> None:
        if view not in VIEWS:
            raise ValueError(f"unknown view {view!r}; accepted: {', '.join(VIEWS)}")
        if reward is not None and not callable(reward):
            raise TypeError(
                f"reward of type {type(reward).__name__}; accepted: None, or a function of the "
                "frame before and the newest"
            )
        if max_cycles is not None and max_cycles < 1:
            raise ValueError(f"max_cycles={max_cycles}; accepted: at least 1, or None")
        self._window = FrameWindow("Genie: two players", self.metadata["render_fps"], render_mode)
        self.model = (
            model
            if isinstance(model, TwoPlayerModel)
            else TwoPlayerModel.from_pretrained(model, device=device)
        )
        check_prompt(prompt, len(self.model.prompts))
        self.prompt, self.view, self.max_cycles = prompt, view, max_cycles
        self.render_mode = render_mode
        self._reward = reward
        self.possible_agents = list(AGENTS)
        self.agents: list[str] = []
        size = self.model.config.frame_size
        self._observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self._action_spaces = {
            agent: gym.spaces.Discrete(self.model.config.num_codes) for agent in AGENTS
        }
        self._rng: np.random.Generator | None = None
        self._game: Any = None
        self._frame_HWC: np.ndarray | None = None
        self._steps = 0

    def observation_space(self, agent: str) -> gym.spaces.Box:
        """Of `player_0` or `player_1`; ValueError for another name."""
        _check_agent(agent)
        return self._observation_space

    def action_space(self, agent: str) -> gym.spaces.Discrete:
        """As `observation_space`."""
        _check_agent(agent)
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Starts an episode: draws and reads the prompt, and looks for the players in it.

        Args:
            seed: of the prompt that is drawn; `None` goes on with what there is.
            options: `{"prompt": ...}` replaces the environment's prompt for this episode; what
                else is in it is left alone, as PettingZoo's own test asks.

        Returns:
            The prompt's last frame for each agent, and infos with `prompt` (what the episode
            starts from, one line) and `position` (x and y of the player's middle, pixels).

        Raises:
            ValueError: a prompt too short, or in which not both players are seen;
                else as `genie_env.envs.prompts.load_prompt`.
        """
        if seed is not None or self._rng is None:
            self._rng, _ = seeding.np_random(seed)
        shipped = self.model.prompts
        prompt = draw_prompt((options or {}).get("prompt", self.prompt), self._rng, len(shipped))
        frames_THWC = load_prompt(
            prompt,
            self.model.config.frame_size,
            look="other",
            shipped_PTHWC=shipped,
            max_frames=PROMPT_FRAMES,
        )
        least = self.model.config.past_frames
        if len(frames_THWC) < least:
            raise ValueError(
                f"prompt {describe_prompt(prompt)} has T = {len(frames_THWC)} frames; accepted: "
                f"T >= {least}, in which both players are seen to move"
            )
        self._game = self.model.start(frames_THWC[None])
        self._steps = 0
        self.agents = list(AGENTS)
        infos = self._infos()
        for info in infos.values():
            info["prompt"] = describe_prompt(prompt)
        return self._observe(), infos

    def step(
        self, actions: Mapping[str, int]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Advances the dream by one frame.

        Args:
            actions: a latent action of each of `agents`.

        Returns:
            Observations, rewards, terminated (never), truncated and infos, of each agent.

        Raises:
            ResetNeeded: before the first `reset`, after the end of an episode, or after `close`.
            ValueError: an agent that is missing or unknown; an action out of range or no integer;
                rewards that are not accepted.
        """
        if self._game is None or not self.agents:
            raise ResetNeeded("step() before reset(): there is no game to step")
        codes_S = self._check_actions(actions)
        before_HWC = self._frame_HWC
        self.model.step(self._game, codes_S[None])
        self._steps += 1
        observations = self._observe()
        assert before_HWC is not None and self._frame_HWC is not None
        rewards = self._rewards(before_HWC, self._frame_HWC)
        over = self.max_cycles is not None and self._steps >= self.max_cycles
        if over:
            self.agents = []
        return (
            observations,
            rewards,
            dict.fromkeys(AGENTS, False),
            dict.fromkeys(AGENTS, over),
            self._infos(),
        )

    def render(self) -> np.ndarray | None:
        """The newest frame, uint8 (H, W, 3); in human mode shows it and returns None."""
        return self._window.render(self._frame_HWC)

    def get_state(self) -> Any:
        """The episode as it is now, for `set_state`. ResetNeeded before the first reset."""
        if self._game is None:
            raise ResetNeeded("get_state() before reset(): there is no game yet")
        return self._game.clone(), self._frame_HWC, self._steps, list(self.agents)

    def set_state(self, state: Any) -> None:
        """Go on where `get_state` was called, any number of times; starts are drawn as they would
        have been anyway."""
        game, self._frame_HWC, self._steps, agents = state
        self._game, self.agents = game.clone(), list(agents)

    def close(self) -> None:
        """Closes the window and drops the game. May be called again."""
        self._window.close()
        self._game = self._frame_HWC = None

    def _observe(self) -> dict[str, np.ndarray]:
        self._frame_HWC = self.model.render(self._game)[0]
        self._window.follow(self._frame_HWC)
        views = {agent: self._frame_HWC.copy() for agent in AGENTS}
        if self.view == "own":
            mask_SHW = self.model.seen_masks(self._game)[0]
            for number, agent in enumerate(AGENTS):
                views[agent][mask_SHW[1 - number]] = 0
        return views

    def _infos(self) -> dict[str, dict[str, Any]]:
        positions_S2 = self._game.players_BS2[0].tolist()
        return {
            agent: {"position": tuple(position)}
            for agent, position in zip(AGENTS, positions_S2, strict=True)
        }

    def _check_actions(self, actions: Mapping[str, int]) -> np.ndarray:
        """int64 (S,)."""
        if not isinstance(actions, Mapping) or set(actions) != set(AGENTS):
            raise ValueError(f"actions {actions!r}; accepted: one for each of {', '.join(AGENTS)}")
        count = self.model.config.num_codes
        codes = []
        for agent in AGENTS:
            try:
                code = operator.index(actions[agent])
            except TypeError:
                code = -1
            if not 0 <= code < count:
                raise ValueError(
                    f"action {actions[agent]!r} of {agent}; accepted: an integer from 0 to "
                    f"{count - 1}"
                )
            codes.append(code)
        return np.array(codes)

    def _rewards(self, before_HWC: np.ndarray, after_HWC: np.ndarray) -> dict[str, float]:
        if self._reward is None:
            return dict.fromkeys(AGENTS, 0.0)
        found = self._reward(before_HWC.copy(), after_HWC.copy())
        if not isinstance(found, Mapping) or set(found) != set(AGENTS):
            raise ValueError(
                f"the reward function returned {found!r}; accepted: a number for each of "
                f"{', '.join(AGENTS)}"
            )
        try:
            rewards = {agent: float(found[agent]) for agent in AGENTS}
            finite = all(map(math.isfinite, rewards.values()))
        except (TypeError, ValueError):
            finite = False
        if not finite:
            raise ValueError(f"the reward function returned {found!r}; accepted: finite numbers")
        return rewards


def _check_agent(agent: str) -> None:
    if agent not in AGENTS:
        raise ValueError(f"unknown agent {agent!r}; accepted: {', '.join(AGENTS)}")
