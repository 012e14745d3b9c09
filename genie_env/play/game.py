"""The game around a `Session`: keys and the clock in, what is to be shown out. No window here.

One job at a time runs beside the window (a step of the world, mostly), so that keys are answered
however slow the model is; what is shown is always the newest finished one, never a frame behind
the action that made it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genie_env.play.canvas import Canvas
from genie_env.play.keymap import HELD, Keymap, Press, press_of
from genie_env.play.recording import write_film
from genie_env.play.session import Session, View

SPEEDS = (1.0, 2.0, 5.0, 10.0, 15.0, 25.0, 40.0, float("inf"))
"""Steps a second to aim at; the last is as fast as the model can."""
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
REWIND_FPS = 30
BRANCH_STEPS = 4
"""For which each action is held in the strip of futures."""
MESSAGE_SECONDS = 4.0

Mode = Literal["play", "branch", "paint", "remap"]


@dataclass
class Shown:
    """All that a window draws."""

    view: View
    mode: Mode = "play"
    paused: bool = False
    agent: bool = False
    uncertainty: bool = False
    real: bool = True
    speed: float = SPEEDS[-1]
    temperature: float = 1.0
    maskgit_steps: int = 1
    fps: float = 0.0
    """As measured over the last steps."""
    futures_AHWC: np.ndarray | None = None
    canvas: Canvas | None = None
    remapped: int | None = None
    """The latent action that the next key shall mean."""
    recording: int | None = None
    """Frames recorded so far."""
    rewound: int | None = None
    """The step that is shown while the world runs backwards."""
    message: str = ""
    pressed: list[str] = field(default_factory=list)
    """Keys that are down, the last at the end."""


class Game:
    """Args:
    session: where it is played; its first episode begins here.
    keymap: what keys mean.
    folder: where films go.
    film: what they are.
    keymap_file: written when a key is remapped.
    speed: steps a second to aim at.
    seed: of all randomness.

    Raises ValueError for a speed that is none; else as `Session.start`.
    executor: runs one job at a time; a thread of its own if None.
    clock: seconds.
    """

    def __init__(
        self,
        session: Session,
        keymap: Keymap,
        folder: Path = Path("played"),
        film: Literal["gif", "mp4"] = "gif",
        keymap_file: Path | None = None,
        speed: float = SPEEDS[-1],
        seed: int | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed={speed}; accepted: steps a second, above 0")
        self.session, self.keymap = session, keymap
        self._folder, self._film_kind = folder, film
        self._keymap_file, self._clock = keymap_file, clock
        self._executor = executor or ThreadPoolExecutor(1)
        self._job: Future[Any] | None = None
        self._then: Callable[[Any], None] = lambda result: None
        self._queue: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._tapped: list[str] = []
        self._film: list[np.ndarray] = []
        self._stepped_at: deque[float] = deque(maxlen=20)
        self._due = self._message_until = 0.0
        self.running = True
        sampling = session.env.sample_with()
        self.shown = Shown(
            session.start(seed=seed),
            agent=session.policy is not None,
            speed=speed,
            temperature=sampling.temperature,
            maskgit_steps=sampling.steps,
        )

    # What the window tells.

    def key_down(self, key: str) -> None:
        """A key by its name went down."""
        shown = self.shown
        if shown.mode == "remap" and shown.remapped is not None:
            self._remap(key, shown.remapped)
            return
        if key not in shown.pressed:
            shown.pressed.append(key)
        command = self.keymap.keys.get(key)
        if command is None:
            return
        if command in HELD or command.startswith("code "):
            if shown.mode == "branch" and command.startswith("code "):
                self.choose(int(command.removeprefix("code ")))
            elif shown.mode == "paint" and command.startswith("code "):
                self._choose_colour(int(command.removeprefix("code ")))
            elif command != "rewind":
                # A tap between two steps counts for the next.
                self._tapped.append(key)
                shown.agent = False
            return
        getattr(self, "_" + command.replace(" ", "_"))()

    def key_up(self, key: str) -> None:
        if key in self.shown.pressed:
            self.shown.pressed.remove(key)

    def drop(self, path: str) -> None:
        """A file was dropped on the window: start from it."""
        self._start_from(path, f"start: {Path(path).name}")

    def paint(self, x: float, y: float, pick: bool = False) -> None:
        """The mouse is down at (x, y) of the frame, both 0 to 1."""
        if self.shown.canvas is not None:
            (self.shown.canvas.pick if pick else self.shown.canvas.paint)(x, y)

    def choose(self, action: int) -> None:
        """Of the futures shown, this one comes true."""
        futures = self.shown.futures_AHWC
        if self.shown.mode != "branch" or futures is None or action >= len(futures):
            return
        self._leave()
        for _ in range(BRANCH_STEPS):
            self._do(lambda: self.session.step(Press(action)), self._show)

    def remap(self, code: int) -> None:
        """The next key shall mean this latent action."""
        self.shown.mode, self.shown.remapped = "remap", code
        self._say(f"press the key for action {code + 1} (escape: none)")

    # What happens by itself.

    def tick(self) -> bool:
        """Let time pass; whether there may be something new to draw."""
        now = self._clock()
        changed = False
        if self.shown.message and now >= self._message_until:
            self.shown.message, changed = "", True
        if self._job is not None:
            if not self._job.done():
                return changed
            self._finish(self._job)
            changed = True
        if self._job is None and self._queue:
            self._submit(*self._queue.popleft())
            return True
        return self._go_on(now) or changed

    def wait(self) -> float:
        """Seconds for which nothing will happen by itself: how long a window may sleep."""
        if self._job is not None or self._queue:
            return 0.002
        if self._rewinding() or self._plays():
            return max(0.0, self._due - self._clock())
        return 0.25

    def close(self) -> None:
        """Wait for the job under way, write the film that was being recorded, free what there
        is."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        if self._film:
            write_film(self._film_path(), np.stack(self._film), self._film_fps())
        self.session.close()

    def _plays(self) -> bool:
        shown = self.shown
        return shown.mode == "play" and not shown.paused and not shown.view.ended

    def _rewinding(self) -> bool:
        held = self.keymap.commands(self.shown.pressed)
        return self.shown.mode == "play" and "rewind" in held

    def _go_on(self, now: float) -> bool:
        shown = self.shown
        if now < self._due or self._job is not None:
            return False
        if self._rewinding():
            if shown.rewound is None:
                shown.rewound = shown.view.number
            if shown.rewound > self.session.view.oldest:
                shown.rewound -= 1
            shown.view = self.session.seen(shown.rewound)
            self._due = now + 1 / REWIND_FPS
            return True
        if shown.rewound is not None:
            number, shown.rewound = shown.rewound, None
            self._submit(lambda: self.session.return_to(number), self._show)
            return True
        if not self._plays():
            return False
        # From when this step was due, so that the pace does not slip; but no race to catch up.
        self._due = max(self._due + 1 / shown.speed, now) if shown.speed < SPEEDS[-1] else now
        self._submit(self._next_step(), self._show)
        return True

    def _next_step(self) -> Callable[[], View]:
        """A step with the keys that are down now."""
        held = [*self._tapped, *(k for k in self.shown.pressed if k not in self._tapped)]
        self._tapped = []
        press = press_of(self.keymap.commands(held), self.session.controls.codes)
        if press is not None:
            return lambda: self.session.step(press)
        return self.session.step if self.shown.agent else self.session.idle

    def _show(self, view: View) -> None:
        now = self._clock()
        shown = self.shown
        if view.number == shown.view.number + 1:
            self._stepped_at.append(now)
            if shown.recording is not None:
                self._film.append(view.frame_HWC)
                shown.recording = len(self._film)
        else:
            self._stepped_at.clear()
        shown.view = view
        took = now - self._stepped_at[0] if self._stepped_at else 0.0
        shown.fps = (len(self._stepped_at) - 1) / took if took > 0 else 0.0
        if view.ended:
            how = "reached the coin" if view.ended == "coin" else "died"
            again, other = (self.keymap.label(c) for c in ("restart", "new start"))
            self._say(f"{how}: {again} again, {other} another start", seconds=60)

    # Commands, by the names in `keymap.COMMANDS`.

    def _pause(self) -> None:
        self.shown.paused = not self.shown.paused
        self._due = 0.0

    def _single_step(self) -> None:
        self.shown.paused = True
        if self.shown.mode == "play":
            self._do(self._next_step(), self._show)

    def _restart(self) -> None:
        self._leave()
        self._do(self.session.restart, self._show_start)

    def _new_start(self) -> None:
        self._leave()
        self._do(self.session.start, self._show_start)

    def _save(self) -> None:
        self._do(
            self.session.save, lambda _: self._say(f"saved; {self.keymap.label('load')} comes back")
        )

    def _load(self) -> None:
        self._leave()
        self._do(self.session.load, self._show_start)

    def _branch(self) -> None:
        if self.shown.mode == "branch":
            self._leave()
            return
        self._leave()
        self.shown.mode = "branch"
        self._do(lambda: self.session.futures(BRANCH_STEPS), self._show_futures)

    def _uncertainty(self) -> None:
        self.shown.uncertainty = not self.shown.uncertainty

    def _real_game(self) -> None:
        self.shown.real = not self.shown.real
        if self.shown.real and self.shown.view.real_HWC is None:
            self._say("the real game needs a start of its own: --prompt coinrun:LEVEL")

    def _paint(self) -> None:
        if self.shown.mode == "paint":
            self._leave()
            return
        self._leave()
        self.shown.mode, self.shown.canvas = "paint", Canvas(self.shown.view.frame_HWC)

    def _confirm(self) -> None:
        if self.shown.canvas is not None:
            frame_HWC = self.shown.canvas.frame_HWC
            self._leave()
            self._start_from(frame_HWC, "start: what was painted")

    def _agent(self) -> None:
        if self.session.policy is None:
            self._say("no agent was named: --agent FILE")
        else:
            self.shown.agent = not self.shown.agent

    def _record(self) -> None:
        shown = self.shown
        if shown.recording is None:
            self._film, shown.recording = [shown.view.frame_HWC], 1
            self._say(f"recording; {self.keymap.label('record')} writes it")
            return
        film, fps, path = np.stack(self._film), self._film_fps(), self._film_path()
        self._film, shown.recording = [], None
        self._do(lambda: write_film(path, film, fps), lambda path: self._say(f"wrote {path}"))

    def _keep(self) -> None:
        self._do(self.session.keep, self._say)

    def _slower(self) -> None:
        self.shown.speed = _neighbour(SPEEDS, self.shown.speed, -1)

    def _faster(self) -> None:
        self.shown.speed = _neighbour(SPEEDS, self.shown.speed, +1)

    def _cooler(self) -> None:
        self.shown.temperature = _neighbour(TEMPERATURES, self.shown.temperature, -1)
        self._sample()

    def _hotter(self) -> None:
        self.shown.temperature = _neighbour(TEMPERATURES, self.shown.temperature, +1)
        self._sample()

    def _fewer_steps(self) -> None:
        self.shown.maskgit_steps = max(1, self.shown.maskgit_steps - 1)
        self._sample()

    def _more_steps(self) -> None:
        self.shown.maskgit_steps = min(25, self.shown.maskgit_steps + 1)
        self._sample()

    def _quit(self) -> None:
        if self.shown.mode == "play":
            self.running = False
        else:
            self._leave()

    # How.

    def _leave(self) -> None:
        """Back to playing."""
        shown = self.shown
        shown.mode, shown.futures_AHWC, shown.canvas, shown.remapped = "play", None, None, None
        shown.rewound = None
        self._due = 0.0

    def _sample(self) -> None:
        temperature, steps = self.shown.temperature, self.shown.maskgit_steps
        env = self.session.env
        self._do(
            lambda: env.sample_with(temperature=temperature, maskgit_steps=steps), lambda _: None
        )

    def _start_from(self, prompt: Any, message: str) -> None:
        def show(view: View) -> None:
            self._show_start(view)
            self._say(message)

        self._leave()
        self._do(lambda: self.session.start(prompt), show)

    def _show_start(self, view: View) -> None:
        self.shown.message = ""
        self._show(view)

    def _show_futures(self, futures_AHWC: np.ndarray) -> None:
        if self.shown.mode == "branch":
            self.shown.futures_AHWC = futures_AHWC

    def _choose_colour(self, number: int) -> None:
        canvas = self.shown.canvas
        if canvas is not None and number < len(canvas.palette):
            canvas.colour = list(canvas.palette)[number]

    def _remap(self, key: str, code: int) -> None:
        self._leave()
        if self.keymap.keys.get(key) == "quit":
            return
        self.keymap = self.keymap.with_key(key, f"code {code}")
        if self._keymap_file is not None:
            self.keymap.write(self._keymap_file)
        self._say(f"{key} is action {code + 1} now")

    def _say(self, message: str, seconds: float = MESSAGE_SECONDS) -> None:
        self.shown.message = message
        self._message_until = self._clock() + seconds

    def _film_path(self) -> Path:
        number = 1 + len(list(self._folder.glob("played-*")))
        return self._folder / f"played-{number:03d}.{self._film_kind}"

    def _film_fps(self) -> float:
        return min(30.0, self.shown.fps or self.session.env.metadata["render_fps"])

    def _do(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """After whatever is under way; before the next step that the clock asks for."""
        self._queue.append((job, then))

    def _submit(self, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self._job, self._then = self._executor.submit(job), then

    def _finish(self, job: Future[Any]) -> None:
        self._job = None
        try:
            result = job.result()
        except (ValueError, TypeError, OSError, ImportError, IndexError, MemoryError) as error:
            # What was asked for cannot be: the world is as it was, and the player is told.
            self._leave()
            self._say(str(error), seconds=10)
        else:
            self._then(result)


def _neighbour(values: tuple[float, ...], value: float, way: int) -> float:
    """The next of ascending values, up (+1) or down (-1)."""
    beyond = [v for v in values if (v > value if way > 0 else v < value)]
    return (min(beyond) if way > 0 else max(beyond)) if beyond else value
