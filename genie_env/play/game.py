"""The game around a `Session`: keys and the clock in, what is to be shown out. No window here.

One job at a time runs beside the window (a step of the world, mostly), so that keys are answered
however slow the model is; what is shown is always the newest finished one, never a frame behind
the action that made it. While a job runs nothing else touches the session but `seen`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genie_env.envs.settings import MAX_MASKGIT_STEPS
from genie_env.play.canvas import Canvas
from genie_env.play.keymap import COMMANDS, DIRECTIONS, Keymap, Press, press_of
from genie_env.play.recording import check_kind, write_film
from genie_env.play.session import Session, View

SPEEDS = (1.0, 2.0, 5.0, 10.0, 15.0, 25.0, 40.0, float("inf"))
"""Steps a second to aim at; the last is as fast as the model can."""
TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
REWIND_FPS = 30
BRANCH_STEPS = 4
"""For which each action is held in the strip of futures."""
MESSAGE_SECONDS = 4.0
IDLE_SECONDS = 0.25
JOB_SECONDS = 0.05
"""At most so long asleep while a job runs: its end and every key wake a window anyway."""

Mode = Literal["play", "branch", "paint", "remap"]


@dataclass
class Shown:
    """All that a window draws."""

    view: View
    newest: int = 0
    oldest: int = 0
    """Numbers of the present step, and of the first that can be returned to."""
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
    ends_A: np.ndarray | None = None
    """Which of the futures the world does not live to see."""
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


@dataclass(frozen=True)
class Job:
    """Something to do beside the window, and what follows."""

    run: Callable[[], Any]
    then: Callable[[Any], None]
    failed: Callable[[], None] = lambda: None
    must: bool = False
    """Even when the player leaves meanwhile."""


class Game:
    """Args:
    session: where it is played; its first episode begins here.
    keymap: what keys mean.
    folder: where films go.
    film: what they are, see `recording.KINDS`.
    keymap_file: written when a key is remapped.
    speed: steps a second to aim at.
    seed: of all randomness.
    executor: runs one job at a time; a thread of its own if None. Best the one that made the
        session: two threads that both compute with PyTorch on a CPU each keep a team of helpers,
        and steps then take half as long again.
    clock: seconds.

    Raises ValueError, ImportError for a speed or kind of film that is none; else as
    `Session.start`.
    """

    def __init__(
        self,
        session: Session,
        keymap: Keymap,
        folder: Path = Path("played"),
        film: str = "gif",
        keymap_file: Path | None = None,
        speed: float = SPEEDS[-1],
        seed: int | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"speed={speed}; accepted: steps a second, above 0")
        check_kind(film)
        self.session, self.keymap = session, keymap
        self._folder, self._film_kind = folder, film
        self._keymap_file, self._clock = keymap_file, clock
        self._executor = executor or ThreadPoolExecutor(1)
        self._job: tuple[Job, Future[Any]] | None = None
        self._queue: deque[Job] = deque()
        self._tapped: list[str] = []
        self._film: list[np.ndarray] = []
        self._film_pace: list[float] = []
        self._stepped_at: deque[float] = deque(maxlen=20)
        self._brush: tuple[float, float] | None = None
        self._due = self._message_until = 0.0
        self.running = True
        self.job_done: Callable[[], None] = lambda: None
        """Called from the job's thread: time to `tick` again."""
        temperature, maskgit_steps = session.sample_with()
        self.shown = Shown(
            self._executor.submit(session.start, seed=seed).result(),
            agent=session.policy is not None,
            speed=speed,
            temperature=temperature,
            maskgit_steps=maskgit_steps,
        )

    # What the window tells.

    def key_down(self, key: str) -> None:
        """A key by its name went down."""
        shown = self.shown
        if shown.mode == "remap":
            self._remap(key)
            return
        if key not in shown.pressed:
            shown.pressed.append(key)
        command = self.keymap.keys.get(key, "")
        if command.startswith("code "):
            self._act(key, int(command.removeprefix("code ")))
        elif command in DIRECTIONS:
            self._act(key, None)
        elif command == "rewind":
            if shown.canvas is not None:
                shown.canvas.clear()
        elif command:
            getattr(self, "_" + command.replace(" ", "_"))()

    def key_up(self, key: str) -> None:
        if key in self.shown.pressed:
            self.shown.pressed.remove(key)
        if self.keymap.keys.get(key) == "rewind":
            self._settle()

    def let_go(self) -> None:
        """Of all keys: their release will be another window's."""
        self.shown.pressed.clear()
        self._settle()

    def drop(self, path: str) -> None:
        """A file was dropped on the window: start from it."""
        self._start_from(path, f"start: {Path(path).name}")

    def paint(self, x: float, y: float, on: bool = False) -> None:
        """The mouse paints at (x, y) of the frame, both 0 to 1; `on` from where it was last."""
        if self.shown.canvas is not None:
            self.shown.canvas.paint(x, y, self._brush if on else None)
            self._brush = x, y

    def pick(self, x: float, y: float) -> None:
        """The mouse takes the colour at (x, y) of the frame."""
        if self.shown.canvas is not None:
            self.shown.canvas.pick(x, y)

    def choose_colour(self, number: int) -> None:
        canvas = self.shown.canvas
        if canvas is not None and number < len(canvas.palette):
            canvas.colour = list(canvas.palette)[number]

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
        self._leave()
        self.shown.mode, self.shown.remapped = "remap", code
        self._say(f"press the key for action {code + 1} (escape: none)", seconds=60)

    # What happens by itself.

    def tick(self) -> bool:
        """Let time pass; whether there may be something new to draw."""
        now = self._clock()
        changed = False
        if self.shown.message and now >= self._message_until:
            self.shown.message, changed = "", True
        if self._job is not None:
            job, future = self._job
            if not future.done():
                return changed
            self._finish(job, future)
            changed = True
        if self._queue:
            self._submit(self._queue.popleft())
            return True
        return self._go_on(now) or changed

    def wait(self) -> float:
        """Seconds for which nothing will happen by itself: how long a window may sleep."""
        if self._job is not None:
            return JOB_SECONDS
        if self._queue:
            return 0.0
        if self._rewinding() or self._plays():
            return max(0.0, self._due - self._clock())
        return IDLE_SECONDS

    def close(self) -> None:
        """Wait for the job under way, do what must not be lost, free what there is."""
        try:
            self._executor.shutdown(wait=True, cancel_futures=False)
            if self._job is not None:
                self._finish(*self._job)
            for job in self._queue:
                if job.must:
                    job.then(job.run())
            self._queue.clear()
            if self._film:
                write_film(self._folder, self._film_kind, self._film, self._film_fps())
                self._film = []
        finally:
            self.session.close()

    def _plays(self) -> bool:
        shown = self.shown
        return shown.mode == "play" and not shown.paused and not shown.view.ended

    def _rewinding(self) -> bool:
        held = self.keymap.commands(self.shown.pressed)
        return self.shown.mode == "play" and "rewind" in held

    def _settle(self) -> None:
        """Put the world where the rewound view is."""
        number, self.shown.rewound = self.shown.rewound, None
        if number is not None:
            self._queue.append(Job(lambda: self.session.return_to(number), self._show))

    def _go_on(self, now: float) -> bool:
        if now < self._due:
            return False
        if self._rewinding():
            self._rewind(now)
            return True
        if not self._plays():
            return False
        period = 1 / self.shown.speed
        # From when this step was due, so that the pace does not slip; but no race to catch up.
        self._due = (self._due if now - self._due < period else now) + period
        self._submit(Job(self._next_step(), self._show, self._stumble))
        return True

    def _rewind(self, now: float) -> None:
        shown = self.shown
        number = shown.view.number if shown.rewound is None else shown.rewound
        shown.rewound = max(number - 1, self.session.oldest)
        shown.newest, shown.oldest = self.session.newest, self.session.oldest
        shown.view = self.session.seen(shown.rewound)
        shown.message = ""
        self._stepped_at.clear()
        self._due = now + 1 / REWIND_FPS

    def _next_step(self) -> Callable[[], View]:
        """A step with the keys that are down now."""
        held = [*(k for k in self.shown.pressed if k not in self._tapped), *self._tapped]
        self._tapped = []
        press = press_of(self.keymap.commands(held), self.session.controls.codes)
        if press is not None:
            return lambda: self.session.step(press)
        return self.session.step if self.shown.agent else self.session.idle

    def _show(self, view: View) -> None:
        now, shown = self._clock(), self.shown
        if view.number == shown.view.number + 1:
            if shown.recording is not None:
                if self._stepped_at:
                    self._film_pace.append(now - self._stepped_at[-1])
                self._film.append(view.frame_HWC)
                shown.recording = len(self._film)
            self._stepped_at.append(now)
        else:
            self._stepped_at.clear()
        if shown.view.ended and not view.ended:
            shown.message = ""
        shown.view = view
        shown.newest, shown.oldest = view.number, self.session.oldest
        took = now - self._stepped_at[0] if self._stepped_at else 0.0
        shown.fps = (len(self._stepped_at) - 1) / took if took > 0 else 0.0
        if view.ended:
            how = "reached the coin" if view.ended == "coin" else "died"
            again, other = (self.keymap.label(c) for c in ("restart", "new start"))
            self._say(f"{how}: {again} again, {other} another start", seconds=60)

    def _act(self, key: str, code: int | None) -> None:
        """A key of an action went down: latent action `code`, or a direction."""
        shown, controls = self.shown, self.session.controls
        if shown.mode == "branch" and code is not None:
            self.choose(code)
        elif shown.mode == "paint" and code is not None:
            self.choose_colour(code)
        elif shown.mode != "play":
            return
        elif code is not None and code >= controls.num_actions:
            self._say(f"this world has {controls.num_actions} actions")
        elif code is None and not controls.codes:
            self._say("nobody measured what this world's actions do: press 1 to 8")
        else:
            shown.agent = False
            if self._plays() or self._job is not None:
                # A tap between two steps counts for the next.
                self._tapped.append(key)

    # Commands, by the names in `keymap.COMMANDS`.

    def _pause(self) -> None:
        self.shown.paused = not self.shown.paused
        self._stand()

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
        back = self.keymap.label("load")
        self._do(self.session.save, lambda _: self._say(f"saved; {back} comes back"))

    def _load(self) -> None:
        if not self.session.has_saved and not self._queue:
            self._say("no moment was saved yet")
            return
        self._leave()
        self._do(self.session.load, self._show_start)

    def _branch(self) -> None:
        again = self.shown.mode == "branch"
        self._leave()
        if self.shown.view.ended:
            self._say("this world has ended: there is no what if")
        elif not again:
            self.shown.mode = "branch"
            self._ask_futures()

    def _uncertainty(self) -> None:
        self.shown.uncertainty = not self.shown.uncertainty

    def _real_game(self) -> None:
        self.shown.real = not self.shown.real
        if self.shown.real and self.shown.view.real_HWC is None:
            self._say("the real game needs a start of its own: --prompt coinrun:LEVEL")

    def _paint(self) -> None:
        again = self.shown.mode == "paint"
        self._leave()
        if not again:
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
            self._film, self._film_pace, shown.recording = [shown.view.frame_HWC], [], 1
            self._say(f"recording; {self.keymap.label('record')} writes it")
            return
        film, fps = self._film, self._film_fps()
        self._film, shown.recording = [], None

        def restore() -> None:
            if not self._film:
                self._film, shown.recording = film, len(film)

        self._do(
            lambda: write_film(self._folder, self._film_kind, film, fps),
            lambda path: self._say(f"wrote {path}"),
            restore,
            must=True,
        )

    def _keep(self) -> None:
        if self.session.keeps:
            self._do(self.session.keep, self._say, must=True)
        else:
            self._say("no folder was named to keep episodes in: --keep FOLDER")

    def _slower(self) -> None:
        self.shown.speed = _neighbour(SPEEDS, self.shown.speed, -1)

    def _faster(self) -> None:
        self.shown.speed = _neighbour(SPEEDS, self.shown.speed, +1)

    def _cooler(self) -> None:
        self._sample(temperature=_neighbour(TEMPERATURES, self.shown.temperature, -1))

    def _hotter(self) -> None:
        self._sample(temperature=_neighbour(TEMPERATURES, self.shown.temperature, +1))

    def _fewer_steps(self) -> None:
        self._sample(maskgit_steps=max(1, self.shown.maskgit_steps - 1))

    def _more_steps(self) -> None:
        self._sample(maskgit_steps=min(MAX_MASKGIT_STEPS, self.shown.maskgit_steps + 1))

    def _quit(self) -> None:
        if self.shown.mode == "play":
            self.running = False
        else:
            self._leave()

    # How.

    def _stand(self) -> None:
        """What was measured or tapped while the world ran says nothing of when it runs again."""
        self._stepped_at.clear()
        self._tapped = []
        self._due = 0.0

    def _leave(self) -> None:
        """Back to playing."""
        shown = self.shown
        if shown.mode == "remap":
            shown.message = ""
        shown.mode, shown.canvas, shown.remapped = "play", None, None
        shown.futures_AHWC = shown.ends_A = self._brush = None
        self._stand()

    def _stumble(self) -> None:
        """A step could not be made: trying it again at once would only fail again."""
        self.shown.paused = True

    def _sample(self, **changes: Any) -> None:
        # Shown at once, so that two quick presses are two changes.
        for name, value in changes.items():
            setattr(self.shown, name, value)
        self._do(lambda: self.session.sample_with(**changes), lambda _: None)
        if self.shown.mode == "branch":
            self._ask_futures()

    def _ask_futures(self) -> None:
        self.shown.futures_AHWC = self.shown.ends_A = None
        shown_before = self.shown.view

        def show(found: tuple[np.ndarray, np.ndarray]) -> None:
            if self.shown.mode == "branch" and self.shown.view is shown_before:
                self.shown.futures_AHWC, self.shown.ends_A = found
            elif self.shown.mode == "branch":
                # A step that was under way has come in between.
                self._ask_futures()

        self._do(lambda: self.session.futures(BRANCH_STEPS), show, self._leave)

    def _start_from(self, prompt: Any, message: str) -> None:
        def show(view: View) -> None:
            self._show_start(view)
            self._say(message)

        self._leave()
        self._do(lambda: self.session.start(prompt), show)

    def _show_start(self, view: View) -> None:
        self._show(view)
        if not view.ended:
            self.shown.message = ""

    def _remap(self, key: str) -> None:
        code = self.shown.remapped
        self._leave()
        meant = self.keymap.keys.get(key, "")
        if key == "escape" or code is None:
            return
        if meant in COMMANDS:
            self._say(f"{key} is taken: {COMMANDS[meant]}")
            return
        self.keymap = keymap = self.keymap.with_key(key, f"code {code}")
        self._say(f"{key} is action {code + 1} now")
        if self._keymap_file is not None:
            file = self._keymap_file
            self._do(lambda: keymap.write(file), lambda _: None, must=True)

    def _say(self, message: str, seconds: float = MESSAGE_SECONDS) -> None:
        self.shown.message = message
        self._message_until = self._clock() + seconds

    def _film_fps(self) -> float:
        """The pace at which it was played, pauses left out."""
        usual = self.session.env.metadata["render_fps"]
        return float(np.clip(1 / np.median(self._film_pace), 1, 50)) if self._film_pace else usual

    def _do(
        self,
        run: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[], None] = lambda: None,
        must: bool = False,
    ) -> None:
        """After whatever is under way; before the next step that the clock asks for."""
        self._settle()
        self._queue.append(Job(run, then, failed, must))

    def _submit(self, job: Job) -> None:
        future = self._executor.submit(job.run)
        self._job = job, future
        future.add_done_callback(lambda _: self.job_done())

    def _finish(self, job: Job, future: Future[Any]) -> None:
        self._job = None
        try:
            result = future.result()
        except Exception as error:
            # What was asked for cannot be: the world is as it was, and the player is told.
            logging.getLogger(__name__).debug("a job failed", exc_info=True)
            job.failed()
            self._say(str(error) or type(error).__name__, seconds=10)
        else:
            job.then(result)


def _neighbour(values: tuple[float, ...], value: float, way: int) -> float:
    """The next of ascending values, up (+1) or down (-1)."""
    beyond = [v for v in values if (v > value if way > 0 else v < value)]
    return (min(beyond) if way > 0 else max(beyond)) if beyond else value
