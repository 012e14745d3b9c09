"""The real Procgen CoinRun as a Gymnasium `VectorEnv`: data, evaluation and transfer.

Shape legend: B worlds, H W C pixels.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from genie_env.envs.coinrun_state import Body, agent_body, erase

FRAME_SIZE = 64
ENGINE_FPS = 15
MAX_ENGINE_STEPS = 1000
"""The engine ends an episode after this many of its steps."""

LOOKS = ("full", "plain")
DIFFICULTIES = ("easy", "hard")

ACTION_MEANINGS: tuple[tuple[str, int, int], ...] = (
    ("LEFT+DOWN", -1, -1),
    ("LEFT", -1, 0),
    ("LEFT+UP", -1, 1),
    ("DOWN", 0, -1),
    ("NOOP", 0, 0),
    ("UP", 0, 1),
    ("RIGHT+DOWN", 1, -1),
    ("RIGHT", 1, 0),
    ("RIGHT+UP", 1, 1),
    ("D", 0, 0),
    ("A", 0, 0),
    ("W", 0, 0),
    ("S", 0, 0),
    ("Q", 0, 0),
    ("E", 0, 0),
)
"""(name, dx, dy) of the 15 buttons; dy = 1 jumps. The six letters do nothing in CoinRun."""

NUM_ACTIONS = len(ACTION_MEANINGS)
LEFT, LEFT_JUMP, NOOP, JUMP, RIGHT, RIGHT_JUMP = 1, 2, 4, 5, 7, 8
PLAIN_BUTTONS = (NOOP, LEFT, RIGHT, JUMP, LEFT_JUMP, RIGHT_JUMP)
"""One button for each direction, with and without a jump: "down" adds nothing in CoinRun."""
BUTTON_NAMES = ("none", "left", "right", "jump", "left+jump", "right+jump")
"""Of `PLAIN_BUTTONS`."""
DISTINCT_ACTIONS = tuple(range(9))
"""The buttons that differ from one another in CoinRun."""
EFFECTIVE_ACTION = np.array([a if a in DISTINCT_ACTIONS else NOOP for a in range(NUM_ACTIONS)])
"""int64 (15,): each button, the letters as the no-op that they are."""

_STATE_MAGIC = b"CRS1"
# magic, look, difficulty, engine steps of the running episode, CRC of the engine's own bytes
_STATE_HEADER = struct.Struct("<4sBBIxxI")
_SEED_END = 2**31 - 1


def engine_class() -> type:
    """Procgen's own environment class, of all its games. Raises ImportError without Procgen."""
    try:
        # procgen imports gym 0.26, which prints a notice that concerns no user of this package.
        from gym_notices import notices

        notices.notices.clear()
    except ImportError:
        pass
    try:
        from procgen import ProcgenGym3Env
    except ImportError as error:
        raise ImportError(
            "CoinRunVectorEnv needs the real Procgen engine, which is not installed "
            f'({error}). Install it with: pip install "genie-env[procgen]"'
        ) from error
    return ProcgenGym3Env


def _check_int(name: str, value: Any, low: int, high: int | None = None) -> int:
    bounds = f">= {low}" if high is None else f"in [{low}, {high}]"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int {bounds}, got {value!r}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be {bounds}, got {value}")
    return int(value)


class CoinRunVectorEnv(VectorEnv):
    """B worlds of the real CoinRun, stepped together by the Procgen engine.

    Args:
        num_envs: number of worlds, B >= 1.
        look: "full" (backgrounds and all themes) or "plain" (no backgrounds, one theme).
        difficulty: "easy" or "hard", the engine's `distribution_mode`.
        start_level: first level seed, >= 0.
        num_levels: levels are drawn from [start_level, start_level + num_levels). Must be > 0:
            with 0 the engine would draw from all levels and ignore `start_level`.
        seed: engine seed of the first `reset`; same seed and actions, same frames.
        frame_skip: engine steps for which each action is held, >= 1. Rewards are summed. A world
            whose level ends midway gets no-op for the rest of the hold, in its next level.
        render_mode: None or "rgb_array".
        num_threads: threads of the engine; None takes the cores this process may use.

    Observations are uint8 (B, 64, 64, 3), actions ints (B,) in [0, 15) (`ACTION_MEANINGS`).

    Autoreset is SAME_STEP, because the engine resets inside its step: when a level ends, the
    returned observation already shows the next level (its first frame; with `frame_skip` > 1 the
    frame after the remaining no-ops), and `info["final_obs"][b]` is the last frame *seen before*
    the end. The terminal frame itself is never rendered by the engine.

    An episode is `truncated` when it reached the engine's limit of 1,000 engine steps without the
    coin, and `terminated` in every other case (coin or death). A death on exactly the 1,000th
    engine step cannot be told from running out of time and counts as truncated.

    `info` holds, with the usual `_key` masks: `level_seed` int32 (B,) of the level now shown; and,
    where an episode ended, `success` bool (the coin was reached), `prev_level_seed` int32 and
    `final_obs` (object array of uint8 (64, 64, 3)).

    Raises:
        ImportError: the engine is not installed.
        TypeError, ValueError: an argument outside of what is listed above.
    """

    def __init__(
        self,
        num_envs: int,
        look: str = "full",
        difficulty: str = "easy",
        start_level: int = 0,
        num_levels: int = 10_000,
        seed: int = 0,
        frame_skip: int = 1,
        render_mode: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.num_envs = _check_int("num_envs", num_envs, 1)
        if look not in LOOKS:
            raise ValueError(f"look must be one of {LOOKS}, got {look!r}")
        if difficulty not in DIFFICULTIES:
            raise ValueError(f"difficulty must be one of {DIFFICULTIES}, got {difficulty!r}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.look = look
        self.difficulty = difficulty
        self.start_level = _check_int("start_level", start_level, 0)
        if num_levels == 0:
            raise ValueError(
                "num_levels must be > 0, got 0: the engine reads 0 as 'all levels' and then "
                "ignores start_level, so no split of levels would hold"
            )
        self.num_levels = _check_int("num_levels", num_levels, 1)
        if self.start_level + self.num_levels > _SEED_END:
            raise ValueError(
                f"start_level + num_levels must be <= {_SEED_END}, "
                f"got {self.start_level} + {self.num_levels}"
            )
        self.frame_skip = _check_int("frame_skip", frame_skip, 1)
        self._next_seed: int | None = _check_int("seed", seed, 0, _SEED_END - 1)
        self._rng = np.random.default_rng(self._next_seed)
        if num_threads is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
            num_threads = min(cores, self.num_envs)
        num_threads = _check_int("num_threads", num_threads, 0)
        # One thread in a pool is slower than none: the caller's own thread does the work then.
        self._num_threads = 0 if num_threads == 1 else num_threads
        self._engine_class = engine_class()
        self._engine: Any = None

        self.render_mode = render_mode
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": max(1, round(ENGINE_FPS / self.frame_skip)),
            "autoreset_mode": AutoresetMode.SAME_STEP,
        }
        self.single_observation_space = gym.spaces.Box(
            0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8
        )
        self.single_action_space = gym.spaces.Discrete(NUM_ACTIONS)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start every world afresh.

        Args:
            seed: engine seed in [0, 2**31 - 2]; the engine is rebuilt from it. None uses the
                constructor's seed the first time, and a new one derived from the last given seed
                at each later call, so starts are always fresh and the whole run reproducible.
            options: `{"states": ...}`, one state a world (see `get_states`, `level_starts`): the
                worlds start there instead.

        Returns:
            uint8 (B, 64, 64, 3) and `{"level_seed": int32 (B,), "_level_seed": bool (B,)}`.
        """
        self._check_open()
        if unknown := sorted((options or {}).keys() - {"states"}):
            raise ValueError(f"unknown reset options {unknown}; accepted: 'states'")
        if seed is not None:
            seed = _check_int("seed", seed, 0, _SEED_END - 1)
            self._rng = np.random.default_rng(seed)
        elif self._next_seed is not None:
            seed = self._next_seed
        else:
            seed = int(self._rng.integers(_SEED_END))
        self._next_seed = None

        if self._engine is not None:
            self._engine.close()
        self._engine = self._engine_class(
            num=self.num_envs,
            env_name="coinrun",
            distribution_mode=self.difficulty,
            start_level=self.start_level,
            num_levels=self.num_levels,
            use_backgrounds=self.look == "full",
            restrict_themes=self.look == "plain",
            rand_seed=seed,
            num_threads=self._num_threads,
        )
        self._obs_BHWC = self._engine.observe()[1]["rgb"]
        self._episode_steps_B = np.zeros(self.num_envs, np.int64)
        if options:
            return self.set_states(options["states"])
        return self._obs_BHWC.copy(), self._level_info(self._engine.get_info())

    def step(
        self, actions: np.ndarray | Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Hold `actions`, ints (B,) in [0, 15), for `frame_skip` engine steps.

        Returns:
            observations uint8 (B, 64, 64, 3), rewards float64 (B,), terminated bool (B,),
            truncated bool (B,), infos. See the class for what they hold at the end of a level.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`.
            ValueError, TypeError: actions of another shape, kind or range.
        """
        self._check_started("step")
        held_B = self._check_actions(actions).copy()

        reward_B = np.zeros(self.num_envs)
        ended_B = np.zeros(self.num_envs, bool)
        success_B = np.zeros(self.num_envs, bool)
        truncated_B = np.zeros(self.num_envs, bool)
        prev_level_B = np.zeros(self.num_envs, np.int32)
        final_obs_B = np.full(self.num_envs, None, object)
        for _ in range(self.frame_skip):
            before_BHWC = self._obs_BHWC
            self._engine.act(held_B)
            step_reward_B, observed, first_B = self._engine.observe()
            self._obs_BHWC = observed["rgb"]
            self._episode_steps_B += 1
            # What the next level pays during the no-ops is not this episode's reward.
            reward_B += np.where(ended_B, 0.0, step_reward_B)
            if first_B.any():
                engine_infos = self._engine.get_info()
                for b in np.flatnonzero(first_B & ~ended_B):
                    success_B[b] = bool(engine_infos[b]["prev_level_complete"])
                    prev_level_B[b] = engine_infos[b]["prev_level_seed"]
                    timeout = self._episode_steps_B[b] >= MAX_ENGINE_STEPS
                    truncated_B[b] = timeout and not success_B[b]
                    final_obs_B[b] = before_BHWC[b].copy()
                self._episode_steps_B[first_B] = 0
                ended_B |= first_B
                held_B[ended_B] = NOOP

        infos = self._level_info(self._engine.get_info())
        if ended_B.any():
            values = {
                "success": success_B,
                "prev_level_seed": prev_level_B,
                "final_obs": final_obs_B,
            }
            for key, value_B in values.items():
                infos[key] = value_B
                infos[f"_{key}"] = ended_B.copy()
        return self._obs_BHWC.copy(), reward_B, ended_B & ~truncated_B, truncated_B, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The frames now shown, B arrays uint8 (64, 64, 3); None when `render_mode` is None."""
        if self.render_mode is None:
            return None
        self._check_started("render")
        return tuple(frame_HWC.copy() for frame_HWC in self._obs_BHWC)

    def get_states(self) -> list[bytes]:
        """The exact state of every world: continuing from it repeats frames, rewards and ends.

        A state carries its level range and the world's random generators along, so a world that
        is restored from it goes on drawing levels from the range the state was saved with.
        """
        self._check_started("get_states")
        return [
            self._pack_state(int(steps), engine_state)
            for steps, engine_state in zip(
                self._episode_steps_B, self._engine.callmethod("get_state"), strict=True
            )
        ]

    def set_states(
        self, states: Sequence[bytes], worlds: Sequence[int] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Restore states saved by `get_states`, of this env or another of the same kind.

        Args:
            states: one state a world.
            worlds: the worlds to restore, distinct ints in [0, B); None restores all. The others
                stay as they are.

        Returns:
            The observations now shown, uint8 (B, 64, 64, 3), and infos as from `reset`.

        Raises:
            ValueError: a wrong number of states, a world out of range, bytes that no `get_states`
                made, or a state of another look or difficulty. Nothing is restored then.
        """
        self._check_started("set_states")
        worlds = list(range(self.num_envs)) if worlds is None else list(worlds)
        for world in worlds:
            _check_int("each of worlds", world, 0, self.num_envs - 1)
        if len(set(worlds)) != len(worlds):
            raise ValueError(f"worlds must be distinct, got {worlds}")
        if len(states) != len(worlds):
            raise ValueError(f"expected {len(worlds)} states, one a world, got {len(states)}")
        parsed = [self._parse_state(state) for state in states]
        engine_states = self._engine.callmethod("get_state")
        for world, (steps, engine_state) in zip(worlds, parsed, strict=True):
            self._episode_steps_B[world] = steps
            engine_states[world] = engine_state
        self._engine.callmethod("set_state", engine_states)
        self._obs_BHWC = self._engine.observe()[1]["rgb"]
        return self._obs_BHWC.copy(), self._level_info(self._engine.get_info())

    def erase(self, state: bytes, kind: str) -> bytes | None:
        """A state of `get_states` with its "agent", "coin", "saw"s or "enemy"s made invisible;
        None where it has none. Frames rendered with and without a thing tell where it shows.

        Raises ValueError for another kind, or bytes that no `get_states` made.
        """
        steps, engine_state = self._parse_state(state)
        edited = erase(engine_state, kind)
        return None if edited is None else self._pack_state(steps, edited)

    def agent_body(self, state: bytes) -> Body:
        """Where the agent is in a state of `get_states`, and how it moves.

        Raises ValueError for bytes that no `get_states` made.
        """
        return agent_body(self._parse_state(state)[1])

    def close_extras(self, **kwargs: Any) -> None:
        """Free the engine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _pack_state(self, steps: int, engine_state: bytes) -> bytes:
        header = _STATE_HEADER.pack(
            _STATE_MAGIC,
            LOOKS.index(self.look),
            DIFFICULTIES.index(self.difficulty),
            steps,
            zlib.crc32(engine_state),
        )
        return header + engine_state

    def _parse_state(self, state: bytes) -> tuple[int, bytes]:
        # The engine aborts the whole process on bytes it cannot read, hence the checksum.
        problem = "it is not a state made by CoinRunVectorEnv.get_states"
        if not isinstance(state, bytes) or len(state) < _STATE_HEADER.size:
            raise ValueError(f"cannot restore {type(state).__name__}: {problem}")
        magic, look, difficulty, steps, crc = _STATE_HEADER.unpack_from(state)
        engine_state = state[_STATE_HEADER.size :]
        if magic != _STATE_MAGIC or zlib.crc32(engine_state) != crc:
            raise ValueError(f"cannot restore {len(state)} bytes: {problem}, or it is damaged")
        saved, ours = (LOOKS[look], DIFFICULTIES[difficulty]), (self.look, self.difficulty)
        if saved != ours:
            raise ValueError(f"state is of (look, difficulty) {saved}, this env is of {ours}")
        return steps, engine_state

    def _check_open(self) -> None:
        if self.closed:
            raise gym.error.ClosedEnvironmentError("this CoinRunVectorEnv is closed")

    def _check_started(self, verb: str) -> None:
        self._check_open()
        if self._engine is None:
            raise gym.error.ResetNeeded(f"call reset() before {verb}()")

    def _check_actions(self, actions: np.ndarray | Sequence[int]) -> np.ndarray:
        actions_B = np.asarray(actions)
        if actions_B.shape != (self.num_envs,):
            raise ValueError(f"actions must have shape ({self.num_envs},), got {actions_B.shape}")
        if not np.issubdtype(actions_B.dtype, np.integer):
            raise TypeError(f"actions must be integers, got dtype {actions_B.dtype}")
        if actions_B.min() < 0 or actions_B.max() >= NUM_ACTIONS:
            raise ValueError(
                f"actions must lie in [0, {NUM_ACTIONS}), got {actions_B.min()} to "
                f"{actions_B.max()}"
            )
        return actions_B.astype(np.int32)

    def _level_info(self, engine_infos: list[dict[str, Any]]) -> dict[str, Any]:
        level_seed_B = np.array([info["level_seed"] for info in engine_infos], np.int32)
        return {"level_seed": level_seed_B, "_level_seed": np.ones(self.num_envs, bool)}


def level_starts(
    look: str = "full", difficulty: str = "easy", start_level: int = 20_000, num_levels: int = 1_000
) -> list[bytes]:
    """The state that each level of a range begins with, in order: for one episode on each, by
    `CoinRunVectorEnv.reset(options={"states": ...})` of an env of the same look and difficulty.

    The engine draws levels from a range: from one of a single level it draws that one. A world
    that goes on after its episode plays the same level again. Raises as `CoinRunVectorEnv` does.
    """
    states = []
    for level in range(start_level, start_level + _check_int("num_levels", num_levels, 1)):
        env = CoinRunVectorEnv(1, look, difficulty, level, num_levels=1, num_threads=1)
        env.reset()
        states += env.get_states()
        env.close()
    return states
