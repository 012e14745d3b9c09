"""GenieEnv: one dreamed world as a Gymnasium environment.

Shapes: T frames, H W pixels (H = W = the model's frame size), C = 3 channels (RGB).
"""

import operator
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from genie_env.envs.settings import DreamSettings
from genie_env.envs.window import RENDER_MODES, FrameWindow
from genie_env.world_model import WorldModel
from genie_env.world_model.sampling import SamplingConfig


class WallClock(np.float64):
    """A measured duration: a float that equals every other measured duration.

    The same seed and actions give the same frames but not the same milliseconds.
    `gymnasium.utils.env_checker.check_env` compares the infos of two equal steps with `==`; a
    plain float would make it call a deterministic environment non-deterministic.
    """

    def __eq__(self, other: object) -> Any:
        return True if isinstance(other, WallClock) else super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        return False if isinstance(other, WallClock) else super().__ne__(other)

    def __hash__(self) -> int:
        return hash(WallClock)


@dataclass(frozen=True)
class SavedState:
    """A point in a dream, from `GenieEnv.get_state`. It may be restored any number of times."""

    world: Any
    frame_HWC: np.ndarray


class GenieEnv(gym.Env[np.ndarray, np.int64]):
    """A world dreamed by a `WorldModel` from a prompt, stepped by latent actions.

    Observations are uint8 (H, W, 3), actions ints of `Discrete(num_actions)`. What a latent action
    does was learned, not named.

    `info` holds `step_ms` (wall time of the model's step and the decoding of its frame) and
    `token_entropy` (mean entropy of the newest frame's token distributions, nats a token); after
    `reset` also `prompt` (what the episode starts from, one line).

    The same seed, prompt and actions give the same frames. An episode has no end of its own
    unless the model terminates it; `gym.make(..., max_episode_steps=N)` truncates.

    Args:
        prompt: what to start from, see `genie_env.envs.prompts.ACCEPTED`; `None` draws one of the
            starts that ship with the model. `reset(options={"prompt": ...})` sets it for one
            episode.
        model: name of a shipped checkpoint, a folder, a hub id, or a loaded `WorldModel`.
        reward: where reward and end come from, see `genie_env.envs.rewards.ACCEPTED`; `None` takes
            the model's own (`WorldModel.outcome`) where it has learned them.
        render_mode: `None`, `"rgb_array"` or `"human"` (a window; needs the extra `play`).
        temperature: of the sampling; the model's default if `None`.
        maskgit_steps: decoding steps a frame; the model's default if `None`.
        device: where to load a model given by name; the best there is if `None`.

    Raises:
        FileNotFoundError, TypeError, ValueError: a prompt, model or argument that is not accepted.
        DependencyNotInstalled: `render_mode="human"` without pygame.

    Example:
        >>> import gymnasium as gym, genie_env
        >>> env = gym.make("GenieEnv-v0", prompt="coinrun:20000")  # doctest: +SKIP
        >>> obs, info = env.reset(seed=0)  # doctest: +SKIP
        >>> obs, reward, terminated, truncated, info = env.step(3)  # doctest: +SKIP
    """

    # A constant 15, the real game's own rate, whatever the model's frame_skip: playable.
    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": RENDER_MODES,
        "render_fps": 15,
    }

    def __init__(
        self,
        prompt: Any = None,
        model: "str | Path | WorldModel" = "coinrun-plain",
        reward: Any = None,
        render_mode: str | None = None,
        temperature: float | None = None,
        maskgit_steps: int | None = None,
        device: str | None = None,
    ) -> None:
        self._window = FrameWindow("GenieEnv", self.metadata["render_fps"], render_mode)
        self._settings = DreamSettings(prompt, model, reward, temperature, maskgit_steps, device)
        self.model = self._settings.model
        self.render_mode = render_mode

        size = self.model.config.frame_size
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(self.model.config.num_actions)
        self._world: Any = None
        self._frame_HWC: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode: draws and reads the prompt, starts the model from it.

        Args:
            seed: of all randomness to come; `None` goes on with what there is.
            options: `{"prompt": ...}` replaces the environment's prompt for this episode.

        Returns:
            The prompt's last frame as the model sees it, uint8 (H, W, 3), and `info`.

        Raises:
            ValueError: other options; else as `genie_env.envs.prompts.load_prompt`.
        """
        super().reset(seed=seed)
        start = self._settings.draw_start(self.np_random, options or {})
        started = time.perf_counter()
        self._world = self.model.start(start.frames_THWC[None], seeds=[start.seed])
        info = self._observe(started) | {"prompt": start.prompt}
        assert self._frame_HWC is not None
        return self._frame_HWC.copy(), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advances the dream by one frame.

        Args:
            action: a latent action, an integer from 0 to num_actions - 1.

        Returns:
            frame uint8 (H, W, 3), reward, terminated, truncated (always False), info.

        Raises:
            ResetNeeded: before the first `reset`, or after `close`.
            ValueError: an action out of range or no integer; a reward function's answer that is
                not accepted.
        """
        code = self._check_action(action)
        if self._world is None:
            raise ResetNeeded("step() before reset(): there is no world to step yet")
        started = time.perf_counter()
        self.model.step(
            self._world,
            np.array([code]),
            temperature=self._settings.sampling.temperature,
            steps=self._settings.sampling.steps,
        )
        info = self._observe(started)
        reward_B, terminated_B = self._settings.rewards.of(self._world)
        assert self._frame_HWC is not None
        return self._frame_HWC.copy(), float(reward_B[0]), bool(terminated_B[0]), False, info

    def render(self) -> np.ndarray | None:
        """The newest frame, uint8 (H, W, 3); in human mode shows it and returns None."""
        return self._window.render(self._frame_HWC)

    def close(self) -> None:
        """Closes the window and drops the world. May be called again."""
        self._window.close()
        self._world = self._frame_HWC = None

    def get_state(self) -> SavedState:
        """The present point in the dream, its random state included, to return to later."""
        if self._world is None or self._frame_HWC is None:
            raise ResetNeeded("get_state() before reset(): there is no world to save yet")
        return SavedState(self._world.clone(), self._frame_HWC.copy())

    def set_state(self, saved: SavedState) -> np.ndarray:
        """Returns to a saved point, and gives its frame, uint8 (H, W, 3)."""
        if not isinstance(saved, SavedState):
            raise TypeError(f"set_state got a {type(saved).__name__}; accepted: a SavedState")
        self._world = saved.world.clone()
        self._frame_HWC = saved.frame_HWC.copy()
        return saved.frame_HWC.copy()

    def sample_with(
        self, *, temperature: float | None = None, maskgit_steps: int | None = None
    ) -> SamplingConfig:
        """How the steps to come are sampled: changes what is given, and returns all of it.

        Raises:
            TypeError, ValueError: a value that is not accepted.
        """
        self._settings.sample_with(temperature, maskgit_steps)
        return self._settings.sampling

    def futures(self, num_steps: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """What each action, held, would do from here, all under the luck that the next step will
        have. The world itself stays where it is.

        Returns:
            Frames uint8 (A, num_steps, H, W, 3), and bool (A, num_steps): whether the world would
            have ended by then (it is dreamt on nevertheless).

        Raises:
            ResetNeeded: before the first `reset`. ValueError: no step.
        """
        if self._world is None:
            raise ResetNeeded("futures() before reset(): there is no world yet")
        if num_steps < 1:
            raise ValueError(f"num_steps={num_steps}; accepted: at least 1")
        codes_A = np.arange(self.model.config.num_actions)
        worlds = self._world.select(np.zeros(len(codes_A), np.int64))
        sampling = self._settings.sampling
        frames, ended = [], []
        for _ in range(num_steps):
            self.model.step(worlds, codes_A, sampling.temperature, sampling.steps)
            frames.append(self.model.render(worlds))
            ended.append(self._settings.rewards.of(worlds)[1])
        return np.stack(frames, 1), np.logical_or.accumulate(ended).T

    def uncertainty(self) -> np.ndarray:
        """How unsure the model was of each token of the newest frame, nats: fp32 (h, w) on the
        token grid; zeros for a prompt."""
        if self._world is None:
            raise ResetNeeded("uncertainty() before reset(): there is no world yet")
        return self._world.entropy_BN[0].reshape((self.model.config.tokenizer.grid,) * 2)

    def get_keys_to_action(self) -> dict[tuple[int, ...], int]:
        """Keys "1", "2", ... to latent actions 0, 1, ... (`gymnasium.utils.play`).

        With no key held `play` sends action 0; `play(env, noop=CODE)` names another.
        """
        num_keys = min(9, self.model.config.num_actions)
        return {(ord("1") + code,): code for code in range(num_keys)}

    def _observe(self, started: float) -> dict[str, Any]:
        """Decodes the newest frame, shows it in human mode, and returns the info of the step."""
        self._frame_HWC = np.array(self.model.render(self._world)[0])
        info = {
            "step_ms": WallClock((time.perf_counter() - started) * 1000),
            "token_entropy": float(self._world.entropy_B[0]),
        }
        self._window.follow(self._frame_HWC)
        return info

    def _check_action(self, action: Any) -> int:
        num_actions = self.model.config.num_actions
        try:
            if isinstance(action, bool):  # operator.index takes it for 0 or 1
                raise TypeError
            code = operator.index(action)
        except TypeError:
            code = -1
        if not 0 <= code < num_actions:
            raise ValueError(
                f"action {action!r} ({type(action).__name__}); accepted: an integer from 0 to "
                f"{num_actions - 1}"
            )
        return code
