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
from genie_env.play.controls import Controls
from genie_env.play.keymap import Press
from genie_env.play.timeline import Moment, Timeline, World
from genie_env.play.twin import RealTwin

Policy = Callable[[np.ndarray], int]
"""Frames of the episode so far (the last few), uint8 (T, H, W, 3), to a latent action."""

MEMORY = 16
"""Frames that a policy is shown at most."""


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
    oldest: int = 0
    """The first step that rewinding reaches."""
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


class Session:
    """Args:
    env: to play in. It is not closed here.
    controls: what its latent actions do.
    policy: who plays when the agent does.
    keep: is given an episode to keep: frames uint8 (T, H, W, 3), actions (T - 1,).
    """

    def __init__(
        self,
        env: GenieEnv,
        controls: Controls,
        policy: Policy | None = None,
        keep: Callable[[np.ndarray, np.ndarray], str] | None = None,
    ) -> None:
        self.env, self.controls, self.policy = env, controls, policy
        self._keep = keep
        self._twin: RealTwin | None = None
        self._saved: tuple[Any, ...] | None = None
        self._timeline = Timeline([], self._replay)

    @property
    def view(self) -> View:
        """The present one."""
        return self._timeline.moments[-1].shown

    def start(self, prompt: Any = None, seed: int | None = None) -> View:
        """A new episode, from another prompt than the environment's if one is given.

        Raises as `GenieEnv.reset`; the old episode goes on then.
        """
        options = None if prompt is None else {"prompt": prompt}
        frame_HWC, info = self.env.reset(seed=seed, options=options)
        self._put_twin(info["prompt"])
        self._first = self.env.get_state(), self._twin and self._twin.get_state()
        return self._begin(self._look(frame_HWC, info["prompt"]))

    def restart(self) -> View:
        """The same start with the same luck."""
        frame_HWC = self.env.set_state(self._first[0])
        if self._twin and self._first[1]:
            self._twin.set_state(self._first[1])
        return self._begin(self._look(frame_HWC, self.view.prompt))

    def step(self, press: Press | None = None) -> View:
        """One step with what is pressed; with None the agent's, or of no button. A world that has
        ended stays as it is."""
        if self.view.ended:
            return self.view
        by_agent = press is None and self.policy is not None
        if press is None:
            press = Press(self._ask_policy()) if by_agent else Press(self.controls.idle, "none")
        settings = self.env.sample_with()
        frame_HWC, reward, terminated, _, info = self.env.step(press.code)
        if self._twin:
            self._twin.step(press)
        before = self.view
        view = replace(
            self._look(frame_HWC, before.prompt),
            number=before.number + 1,
            press=press,
            by_agent=by_agent,
            score=before.score + reward,
            ended=("coin" if reward > 0 else "death") if terminated else None,
            step_ms=float(info["step_ms"]),
        )
        return self._add(view, press, settings)

    def idle(self) -> View:
        """One step of no button, whoever plays."""
        return self.step(Press(self.controls.idle, "none"))

    def seen(self, number: int) -> View:
        """How the episode looked after a step, 0 to the present one's."""
        return self._timeline.moments[number].shown

    def return_to(self, number: int) -> View:
        """Back to a step, and on from there. IndexError where it is too long ago."""
        now = self.env.sample_with()
        view: View = self._timeline.return_to(number).shown
        self.env.sample_with(temperature=now.temperature, maskgit_steps=now.steps)
        return view

    def save(self) -> None:
        """Keep this moment, to `load` it any number of times."""
        twin = self._twin
        self._saved = (self.env.get_state(), twin, twin and twin.get_state(), self.view)

    def load(self) -> View:
        """The saved moment; the episode goes on from there. ValueError without one."""
        if self._saved is None:
            raise ValueError("no moment was saved yet")
        state, twin, twin_state, view = self._saved
        self.env.set_state(state)
        self._twin = twin
        if twin:
            twin.set_state(twin_state)
        return self._begin(replace(view, number=0, oldest=0))

    def futures(self, num_steps: int = 4) -> np.ndarray:
        """What each action, held, would lead to: uint8 (A, H, W, 3)."""
        return self.env.futures(num_steps)[:, -1]

    def frames(self) -> np.ndarray:
        """The episode so far, uint8 (T, H, W, 3)."""
        return np.stack([moment.frame_HWC for moment in self._timeline.moments])

    def keep(self) -> str:
        """Hand the episode over as training data; where it went. ValueError where nobody takes it
        or there is no step yet."""
        if self._keep is None:
            raise ValueError("no folder was named to keep episodes in: --keep FOLDER")
        moments = self._timeline.moments
        if len(moments) < 2:
            raise ValueError("there is nothing to keep yet: play a step first")
        codes = np.array([moment.action.code for moment in moments[1:]])
        return self._keep(self.frames(), codes)

    def close(self) -> None:
        """Free the real game; the environment stays."""
        if self._twin:
            self._twin.close()
            self._twin = None

    def _put_twin(self, prompt: str) -> None:
        # A saved moment may still need the old one.
        if self._twin and not (self._saved and self._saved[1] is self._twin):
            self._twin.close()
        self._twin = None
        name, _, level = prompt.partition(":")
        if name == "coinrun" and level:
            config = self.env.model.config
            self._twin = RealTwin(int(level), config.look, config.frame_skip, self.controls.names)

    def _look(self, frame_HWC: np.ndarray, prompt: str) -> View:
        return View(
            frame_HWC,
            self.env.uncertainty(),
            prompt,
            real_HWC=self._twin.frame_HWC if self._twin else None,
            real_ended=self._twin.ended if self._twin else None,
        )

    def _begin(self, view: View) -> View:
        worlds: list[World] = [self.env, *([self._twin] if self._twin else [])]
        self._timeline = Timeline(worlds, self._replay)
        self._timeline.begin(Moment(view.frame_HWC, None, view))
        return view

    def _add(self, view: View, press: Press, settings: Any) -> View:
        # The moment must be added before what it reaches is known.
        self._timeline.add(Moment(view.frame_HWC, press, view, settings))
        view = replace(view, oldest=self._timeline.oldest)
        self._timeline.moments[-1] = replace(self._timeline.moments[-1], shown=view)
        return view

    def _replay(self, press: Press, settings: Any) -> None:
        self.env.sample_with(temperature=settings.temperature, maskgit_steps=settings.steps)
        self.env.step(press.code)
        if self._twin:
            self._twin.step(press)

    def _ask_policy(self) -> int:
        assert self.policy is not None
        last = [moment.frame_HWC for moment in self._timeline.moments[-MEMORY:]]
        return int(self.policy(np.stack(last)))
