"""One person in one dreamed world: what can be done there, without a window.

A `Session` knows an environment (`reset`, `step`, `get_state`, ...), never a model; whoever draws
it gets a `View` from every call and needs nothing else.

Shapes: H W pixels, h w the token grid, A actions, T frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genie_env.envs.single import GenieEnv
from genie_env.envs.vector import world_bytes
from genie_env.play.controls import Controls
from genie_env.play.keymap import Press
from genie_env.play.timeline import Moment, Timeline, World
from genie_env.play.twin import RealTwin

Policy = Callable[[np.ndarray], int]
"""Frames of the episode so far (the last few), uint8 (T, H, W, 3), to a latent action."""
Keep = Callable[[np.ndarray, np.ndarray, int], str]
"""Frames uint8 (T, H, W, 3), latent actions (T - 1,) and the episode's number (a number that was
given before replaces what was kept then) to a line that says where they went."""

MEMORY = 16
"""Frames that a policy is shown at most."""
STATE_BYTES = 2**29
"""For the states that rewinding goes back to."""


@dataclass(frozen=True)
class View:
    """All there is to show of a moment."""

    frame_HWC: np.ndarray
    """uint8."""
    uncertainty_hw: np.ndarray
    """fp32, nats."""
    prompt: str
    number: int = 0
    """Of the step; 0 is the start."""
    press: Press | None = None
    """What led here."""
    by_agent: bool = False
    score: float = 0.0
    ended: str | None = None
    """"coin" or "death", once the world has ended."""
    step_ms: float = 0.0
    real_HWC: np.ndarray | None = None
    """The real game after the same buttons, where the start is one of its levels."""
    real_ended: str | None = None


@dataclass(frozen=True)
class Place:
    """A moment that can be returned to from anywhere."""

    state: Any
    twin: RealTwin | None
    twin_state: Any
    view: View
    memory: tuple[np.ndarray, ...] = ()
    """Frames before it, for policies."""


class Session:
    """Args:
    env: to play in. It is not closed here.
    controls: what its latent actions do.
    policy: who plays when the agent does.
    keep: is given episodes to keep.
    """

    def __init__(
        self,
        env: GenieEnv,
        controls: Controls,
        policy: Policy | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.env, self.controls, self.policy = env, controls, policy
        self._keep = keep
        self._most_states = max(4, min(128, STATE_BYTES // world_bytes(env.model)))
        self._timeline = Timeline([], self._replay)
        self._memory: tuple[np.ndarray, ...] = ()
        self._twin: RealTwin | None = None
        self._first: Place | None = None
        self._saved: tuple[Place, Place] | None = None
        """The start of an episode and the moment of it that was saved."""
        self._twins: list[RealTwin] = []
        self._episode = 0

    @property
    def view(self) -> View:
        """The present one."""
        return self.seen(self.newest)

    @property
    def newest(self) -> int:
        """Number of the present step."""
        return self._timeline.newest

    @property
    def oldest(self) -> int:
        """Number of the first step that can be returned to."""
        return self._timeline.oldest

    @property
    def has_saved(self) -> bool:
        return self._saved is not None

    @property
    def keeps(self) -> bool:
        """Whether there is somebody to keep episodes."""
        return self._keep is not None

    def sample_with(
        self, temperature: float | None = None, maskgit_steps: int | None = None
    ) -> tuple[float, int]:
        """As `GenieEnv.sample_with`: temperature and MaskGIT steps of the steps to come."""
        sampling = self.env.sample_with(temperature=temperature, maskgit_steps=maskgit_steps)
        return sampling.temperature, sampling.steps

    def start(self, prompt: Any = None, seed: int | None = None) -> View:
        """A new episode, from another prompt than the environment's if one is given.

        Raises as `GenieEnv.reset`; the old episode goes on then.
        """
        options = None if prompt is None else {"prompt": prompt}
        frame_HWC, info = self.env.reset(seed=seed, options=options)
        self._twin = self._make_twin(info["prompt"])
        view = self._look(frame_HWC, info["prompt"])
        self._first = self._place(view)
        return self._begin(view)

    def restart(self) -> View:
        """The same start with the same luck."""
        assert self._first is not None
        return self._return(self._first)

    def step(self, press: Press | None = None) -> View:
        """One step with what is pressed; with None the agent's, or of no button. A world that has
        ended stays as it is."""
        before = self.view
        if before.ended:
            return before
        by_agent = press is None and self.policy is not None
        if press is None:
            press = Press(self._ask_policy()) if by_agent else Press(self.controls.idle, "none")
        settings = self.sample_with()
        frame_HWC, reward, terminated, _, info = self.env.step(press.code)
        if self._twin:
            self._twin.step(press)
        view = replace(
            self._look(frame_HWC, before.prompt),
            number=before.number + 1,
            press=press,
            by_agent=by_agent,
            score=before.score + reward,
            ended=("coin" if reward > 0 else "death") if terminated else None,
            step_ms=float(info["step_ms"]),
        )
        self._timeline.add(Moment(frame_HWC, press, view, settings))
        return view

    def idle(self) -> View:
        """One step of no button, whoever plays."""
        return self.step(Press(self.controls.idle, "none"))

    def seen(self, number: int) -> View:
        """How the episode looked after a step, 0 to the present one's. IndexError where that is
        forgotten."""
        return self._timeline[number].shown

    def return_to(self, number: int) -> View:
        """Back to a step, and on from there. IndexError where it is too long ago."""
        now = self.sample_with()
        view: View = self._timeline.return_to(number).shown
        self.sample_with(*now)
        return view

    def save(self) -> None:
        """Keep this moment, to `load` it any number of times."""
        assert self._first is not None
        frames = [*self._memory, *(moment.frame_HWC for moment in self._timeline.last(MEMORY))]
        here = replace(self._place(self.view), memory=tuple(frames[-MEMORY:-1]))
        self._saved = self._first, here
        self._close_twins()

    def load(self) -> View:
        """The saved moment; the episode goes on from there. ValueError without one."""
        if self._saved is None:
            raise ValueError("no moment was saved yet")
        self._first, here = self._saved
        return self._return(here)

    def futures(self, num_steps: int = 4) -> tuple[np.ndarray, np.ndarray]:
        """What each action, held, would lead to: uint8 (A, H, W, 3), and whether the world would
        have ended by then, bool (A,)."""
        frames_ATHWC, ended_AT = self.env.futures(num_steps)
        return frames_ATHWC[:, -1], ended_AT[:, -1]

    def frames(self) -> np.ndarray:
        """The episode so far, uint8 (T, H, W, 3)."""
        return np.stack([moment.frame_HWC for moment in self._timeline.last()])

    def keep(self) -> str:
        """Hand the episode over as training data, in place of an earlier part of it; where it went.
        ValueError where nobody takes it or there is no step yet."""
        if self._keep is None:
            raise ValueError("no folder was named to keep episodes in: --keep FOLDER")
        moments = self._timeline.last()
        if len(moments) < 2:
            raise ValueError("there is nothing to keep yet: play a step first")
        codes = np.array([moment.action.code for moment in moments[1:]])
        return self._keep(self.frames(), codes, self._episode)

    def close(self) -> None:
        """Free the real game; the environment stays."""
        self._twin = self._first = self._saved = None
        self._close_twins()

    def _make_twin(self, prompt: str) -> RealTwin | None:
        name, _, level = prompt.partition(":")
        if name != "coinrun" or not level:
            return None
        config = self.env.model.config
        names = {code: buttons[0] for code, buttons in self.controls.names.items()}
        twin = RealTwin(int(level), config.look, config.frame_skip, names)
        self._twins.append(twin)
        return twin

    def _close_twins(self) -> None:
        """Those that nothing leads back to."""
        places = [self._first, *(self._saved or ())]
        needed = [self._twin, *(place.twin for place in places if place)]
        for twin in [twin for twin in self._twins if twin not in needed]:
            twin.close()
            self._twins.remove(twin)

    def _place(self, view: View) -> Place:
        twin = self._twin
        return Place(self.env.get_state(), twin, twin and twin.get_state(), view)

    def _return(self, place: Place) -> View:
        self.env.set_state(place.state)
        self._twin = place.twin
        if place.twin:
            place.twin.set_state(place.twin_state)
        return self._begin(replace(place.view, number=0), place.memory)

    def _look(self, frame_HWC: np.ndarray, prompt: str) -> View:
        return View(
            frame_HWC,
            self.env.uncertainty(),
            prompt,
            real_HWC=self._twin.frame_HWC if self._twin else None,
            real_ended=self._twin.ended if self._twin else None,
        )

    def _begin(self, view: View, memory: tuple[np.ndarray, ...] = ()) -> View:
        worlds: list[World] = [self.env, *([self._twin] if self._twin else [])]
        self._timeline = Timeline(worlds, self._replay, most=self._most_states)
        self._timeline.add(Moment(view.frame_HWC, None, view))
        self._memory = memory
        self._episode += 1
        self._close_twins()
        return view

    def _replay(self, press: Press, settings: tuple[float, int]) -> None:
        self.sample_with(*settings)
        self.env.step(press.code)
        if self._twin:
            self._twin.step(press)

    def _ask_policy(self) -> int:
        assert self.policy is not None
        last = [*self._memory, *(moment.frame_HWC for moment in self._timeline.last(MEMORY))]
        return int(self.policy(np.stack(last[-MEMORY:])))
