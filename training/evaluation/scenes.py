"""Real scenes to measure on: clips of the game with the engine's exact state beside every frame.

From a saved state every button can be tried, so that what an action does is known, not guessed.

Shapes: B scenes, T frames, M = T - 1 transitions, P plans, k steps of a plan, H W pixels, C = 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from genie_env.envs import coinrun
from genie_env.envs.coinrun import CoinRunVectorEnv
from genie_env.world_model.outcome import DEATH, NOTHING, SUCCESS
from training.data.collect import CollectConfig, MixedPolicy
from training.outcome import Episode

# Of buttons with equal effects the first one stands for all: no-op before everything else.
BUTTONS = (4, 1, 7, 5, 2, 8, 3, 0, 6)
"""The nine distinct buttons, plainest first."""
DIRECTION = {a: coinrun.ACTION_MEANINGS[a][1] for a in BUTTONS}
JUMPS = {a: coinrun.ACTION_MEANINGS[a][2] == 1 for a in BUTTONS}
_MAX_BURN_IN = 40
_WORLDS_AT_ONCE = 288


@dataclass(frozen=True)
class Scenes:
    """Unbroken clips of the real game."""

    frames_BTHWC: np.ndarray
    """uint8."""
    actions_BM: np.ndarray
    """int64: the true buttons, folded to the nine distinct ones."""
    states: list[list[bytes]]
    """[b][t]: the engine's state at frame t of scene b."""
    levels_B: np.ndarray
    """int32."""


class RealGame:
    """The engine that the scenes come from, one look, difficulty, range of levels, frame skip."""

    def __init__(
        self, look: str, difficulty: str, first_level: int, num_levels: int, frame_skip: int
    ) -> None:
        self._make_env = partial(
            CoinRunVectorEnv,
            look=look,
            difficulty=difficulty,
            start_level=first_level,
            num_levels=num_levels,
            frame_skip=frame_skip,
        )
        self._branches: CoinRunVectorEnv | None = None

    def scenes(self, count: int, num_frames: int, seed: int) -> Scenes:
        """`count` clips of `num_frames` frames under the default mix of policies, from up to 40
        steps into an episode on; levels are drawn with replacement."""
        env = self._make_env(count, seed=seed)
        rng = np.random.default_rng(seed)
        policy = _default_policy(count, rng)
        frames: list[list[np.ndarray]] = [[] for _ in range(count)]
        actions: list[list[int]] = [[] for _ in range(count)]
        states: list[list[bytes]] = [[] for _ in range(count)]
        levels_B = np.zeros(count, np.int32)
        wait_B = rng.integers(_MAX_BURN_IN + 1, size=count)
        obs_BHWC, infos = env.reset()
        fresh_B = np.ones(count, bool)
        while any(len(clip) < num_frames for clip in frames):
            now = env.get_states()
            action_B = policy.act(fresh_B)
            for b in range(count):
                if wait_B[b] > 0 or len(frames[b]) == num_frames:
                    continue
                levels_B[b] = infos["level_seed"][b]
                frames[b].append(obs_BHWC[b])
                states[b].append(now[b])
                actions[b].append(coinrun.EFFECTIVE_ACTION[action_B[b]])
            obs_BHWC, _, terminated_B, truncated_B, infos = env.step(action_B)
            wait_B = wait_B - 1
            fresh_B = terminated_B | truncated_B
            for b in np.flatnonzero(fresh_B):
                if len(frames[b]) < num_frames:
                    frames[b], actions[b], states[b] = [], [], []
        env.close()
        return Scenes(np.array(frames), np.array(actions)[:, :-1], states, levels_B)

    def episodes(self, count: int, seed: int) -> list[Episode]:
        """The first episode of each of `count` worlds, whole, under the default mix of policies;
        levels are drawn with replacement. Episodes of a single frame are left out."""
        env = self._make_env(count, seed=seed)
        policy = _default_policy(count, np.random.default_rng(seed))
        frames: list[list[np.ndarray]] = [[] for _ in range(count)]
        outcomes: dict[int, int] = {}
        obs_BHWC, _ = env.reset()
        fresh_B = np.ones(count, bool)
        while len(outcomes) < count:
            for b in range(count):
                if b not in outcomes:
                    frames[b].append(obs_BHWC[b])
            obs_BHWC, _, terminated_B, truncated_B, infos = env.step(policy.act(fresh_B))
            fresh_B = terminated_B | truncated_B
            for b in np.flatnonzero(fresh_B):
                ended = SUCCESS if infos["success"][b] else DEATH
                outcomes.setdefault(int(b), NOTHING if truncated_B[b] else ended)
        env.close()
        return [
            Episode(np.array(clip), outcomes[b]) for b, clip in enumerate(frames) if len(clip) > 1
        ]

    def play(self, states: list[bytes], plans_PK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What every plan leads to from every state.

        plans_PK: buttons (P, k), each held for the frame skip. Returns the frames, uint8
        (B, P, k, H, W, C), and bool (B, P, k): whether the episode had ended by then (the frame is
        of another level).
        """
        plans_PK = np.asarray(plans_PK)
        num_plans, num_steps = plans_PK.shape
        at_once = max(1, _WORLDS_AT_ONCE // num_plans)
        size = coinrun.FRAME_SIZE
        frames = np.empty((len(states), num_plans, num_steps, size, size, 3), np.uint8)
        ended = np.zeros((len(states), num_plans, num_steps), bool)
        for first in range(0, len(states), at_once):
            some = states[first : first + at_once]
            # A short last group is filled up: one engine serves all groups.
            padded = some + [some[0]] * (at_once - len(some))
            env = self._engine(at_once * num_plans)
            env.set_states([state for state in padded for _ in range(num_plans)])
            over = np.zeros(at_once * num_plans, bool)
            for step in range(num_steps):
                obs, _, terminated, truncated, _ = env.step(np.tile(plans_PK[:, step], at_once))
                over |= terminated | truncated
                grid = obs.reshape(at_once, num_plans, size, size, 3)
                frames[first : first + at_once, :, step] = grid[: len(some)]
                ended[first : first + at_once, :, step] = over.reshape(at_once, -1)[: len(some)]
        return frames, ended

    def without(self, states: list[bytes], kind: str) -> list[np.ndarray | None]:
        """Each state's frame with everything of a kind erased; None where it has none."""
        env = self._engine(_WORLDS_AT_ONCE)
        edited = [env.erase(state, kind) for state in states]
        having = [b for b, state in enumerate(edited) if state is not None]
        frames: list[np.ndarray | None] = [None] * len(states)
        for first in range(0, len(having), _WORLDS_AT_ONCE):
            some = having[first : first + _WORLDS_AT_ONCE]
            obs, _ = env.set_states([edited[b] for b in some], range(len(some)))  # type: ignore[misc]
            for row, b in enumerate(some):
                frames[b] = obs[row].copy()
        return frames

    def close(self) -> None:
        if self._branches is not None:
            self._branches.close()
            self._branches = None

    def _engine(self, num_worlds: int) -> CoinRunVectorEnv:
        if self._branches is None or self._branches.num_envs != num_worlds:
            self.close()
            self._branches = self._make_env(num_worlds)
            self._branches.reset()
        return self._branches


def _default_policy(num_worlds: int, rng: np.random.Generator) -> MixedPolicy:
    config = CollectConfig(out="")
    return MixedPolicy(config.mix, config.redraw, num_worlds, rng)


def effects(frames_BPHWC: np.ndarray, ended_BP: np.ndarray) -> np.ndarray:
    """Which plans have the same effect: int64 (B, P), the first plan with exactly equal frames;
    -1 where the plan ends the episode (the engine does not render what it led to)."""
    same_BPP = (frames_BPHWC[:, :, None] == frames_BPHWC[:, None]).all((-3, -2, -1))
    same_BPP &= ~ended_BP[:, None, :]
    return np.where(ended_BP, -1, same_BPP.argmax(-1))
