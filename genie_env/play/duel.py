"""Two people on one keyboard in a dream of two: `genie play --model duel`.

`DuelGame` turns keys and the clock into steps, without a window; `DuelWindow` shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pygame

from genie_env.envs.two_player import AGENTS, GenieParallelEnv
from genie_env.play.recording import check_kind, write_film
from genie_env.play.screen import Screen
from genie_env.play.timeline import Moment, Timeline

ACTING = {
    "player_0": {"w": 1, "a": 1, "s": 2, "d": 2},
    "player_1": {"up": 1, "left": 1, "down": 2, "right": 2},
}
"""Keys to latent actions; without one that is down, 0. Up and left are one code: paddles move along
one axis."""
HANDS = {"player_0": "W S / A D", "player_1": "arrows"}
COMMANDS = {
    "backspace": ("rewind", "rewind (hold)"),
    "r": ("restart", "start over"),
    "n": ("new_start", "another start"),
    "p": ("pause", "pause"),
    "-": ("slower", "slower"),
    "=": ("faster", "faster"),
    "f2": ("record", "record, then write"),
    "escape": ("quit", "quit"),
}
"""Key to method, and how the window says it."""
SLOWEST, FASTEST = 1.0, 60.0
"""Steps a second."""
TOLD_STEPS = 20
"""For which it is shown whose keys move what."""
BACKGROUND, TEXT, FAINT = (18, 20, 26), (232, 234, 240), (140, 147, 165)
COLOURS = {"player_0": (92, 200, 255), "player_1": (255, 176, 72)}
ZOOM, GAP, LINE = 8, 16, 24
"""Pixels."""


class DuelGame:
    """Args:
    env: to play in. It is not closed here.
    folder: where films go.
    film: what they are, see `recording.KINDS`.
    speed: steps a second; the environment's own pace if None.
    seed: of the starts that are drawn.
    clock: seconds.

    Raises ValueError, ImportError for a speed or kind of film that is none; else as
    `GenieParallelEnv.reset`.
    """

    def __init__(
        self,
        env: GenieParallelEnv,
        folder: Path = Path("played"),
        film: str = "gif",
        speed: float | None = None,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.speed = float(env.metadata["render_fps"]) if speed is None else speed
        if not self.speed > 0:
            raise ValueError(f"speed={speed}; accepted: steps a second, above 0")
        check_kind(film)
        self.env = env
        self._folder, self._kind, self._clock = folder, film, clock
        self.pressed: list[str] = []
        self._tapped: list[str] = []
        self.paused, self.running, self.message = False, True, ""
        self.film: list[np.ndarray] | None = None
        """Frames recorded so far."""
        self._due = 0.0
        self._start(seed=seed)

    @property
    def now(self) -> Moment:
        """The present one; `shown` is where the players are, agent -> (x, y)."""
        return self._timeline[self.number]

    @property
    def number(self) -> int:
        """Of the present step."""
        return self._timeline.newest

    def key_down(self, key: str) -> None:
        """A key by pygame's name went down."""
        if key not in self.pressed:
            self.pressed.append(key)
        if any(key in keys for keys in ACTING.values()):
            self._tapped.append(key)
        elif key in COMMANDS and key != "backspace":
            getattr(self, "_" + COMMANDS[key][0])()

    def key_up(self, key: str) -> None:
        if key in self.pressed:
            self.pressed.remove(key)

    def let_go(self) -> None:
        """Of all keys: their release will be another window's."""
        self.pressed.clear()

    def drop(self, path: str) -> None:
        """A video was dropped on the window: start from it."""
        try:
            self._start(prompt=path)
        except Exception as error:
            # What was dropped cannot be a start: the game is as it was, and the players are told.
            self.message = str(error) or type(error).__name__

    def tick(self) -> bool:
        """Take the step that is due, if one is; whether there is something new to draw."""
        now = self._clock()
        if now < self._due:
            return False
        # From when this step was due, so that the pace does not slip; but no race to catch up.
        period = 1 / self.speed
        self._due = (self._due if now - self._due < period else now) + period
        if "backspace" in self.pressed:
            self._timeline.return_to(max(self.number - 1, self._timeline.oldest))
            return True
        if self.paused:
            return False
        codes = self._codes()
        frames, _, _, _, infos = self.env.step(codes)
        self._add(frames, infos, codes)
        if self.film is not None:
            self.film.append(self.now.frame_HWC)
        return True

    def wait(self) -> float:
        """Seconds for which nothing will happen by itself."""
        return max(0.0, self._due - self._clock())

    def close(self) -> None:
        """Write what is being recorded."""
        if self.film is not None:
            self._record()

    def _codes(self) -> dict[str, int]:
        # A tap between two steps counts for the next; of several keys the last.
        held = [*(key for key in self.pressed if key not in self._tapped), *self._tapped]
        self._tapped = []
        codes = dict.fromkeys(AGENTS, 0)
        for key in held:
            for agent, keys in ACTING.items():
                if key in keys and keys[key] < self.env.action_space(agent).n:
                    codes[agent] = keys[key]
        return codes

    def _start(self, prompt: Any = None, seed: int | None = None) -> None:
        options = None if prompt is None else {"prompt": prompt}
        frames, infos = self.env.reset(seed, options)
        self.prompt = infos[AGENTS[0]]["prompt"]
        self._timeline = Timeline([self.env], self._replay)
        self._add(frames, infos, None)
        self._first = self.env.get_state(), self.now
        self.message = ""

    def _replay(self, codes: dict[str, int], settings: None) -> None:
        self.env.step(codes)

    def _add(
        self,
        frames: dict[str, np.ndarray],
        infos: dict[str, dict[str, Any]],
        codes: dict[str, int] | None,
    ) -> None:
        places = {agent: infos[agent]["position"] for agent in AGENTS}
        self._timeline.add(Moment(frames[AGENTS[0]], codes, places))

    # Commands, by the names in `COMMANDS`.

    def _restart(self) -> None:
        state, moment = self._first
        self.env.set_state(state)
        self._timeline = Timeline([self.env], self._replay)
        self._timeline.add(moment)

    def _new_start(self) -> None:
        self._start()

    def _pause(self) -> None:
        self.paused = not self.paused

    def _slower(self) -> None:
        self.speed = max(SLOWEST, self.speed / 1.5)

    def _faster(self) -> None:
        self.speed = min(FASTEST, self.speed * 1.5)

    def _record(self) -> None:
        if self.film is None:
            self.film, self.message = [self.now.frame_HWC], "recording; f2 writes it"
            return
        path = write_film(self._folder, self._kind, self.film, min(self.speed, 50))
        self.film, self.message = None, f"wrote {path}"

    def _quit(self) -> None:
        self.running = False


class DuelWindow(Screen):
    """Args:
    game: to show.
    title: of the window.

    Raises OSError without a display.
    """

    def __init__(self, game: DuelGame, title: str) -> None:
        self.game: DuelGame = game
        side = len(game.now.frame_HWC) * ZOOM
        self.world = pygame.Rect(GAP, GAP + 2 * LINE, side, side)
        rows = (len(COMMANDS) + 1) // 2
        size = (side + 2 * GAP, self.world.bottom + (rows + 1) * LINE + GAP)
        super().__init__(game, title, size)
        self._font = pygame.font.Font(None, 24)

    def draw(self) -> None:
        game, moment = self.game, self.game.now
        self.screen.fill(BACKGROUND)
        frame = pygame.surfarray.make_surface(moment.frame_HWC.swapaxes(0, 1))
        self.screen.blit(pygame.transform.scale(frame, self.world.size), self.world)
        for number, (agent, keys) in enumerate(HANDS.items()):
            what = f"{agent}: {keys}"
            right = self.world.right - self._font.size(what)[0]
            self._write(what, (right if number else self.world.left, GAP), COLOURS[agent])
            if game.number < TOLD_STEPS:
                x, y = ((place + 0.5) * ZOOM for place in moment.shown[agent])
                at = (self.world.left + x, self.world.top + y)
                pygame.draw.circle(self.screen, COLOURS[agent], at, 2 * ZOOM, 2)
        state = "paused" if game.paused else f"{game.speed:.0f} steps a second"
        if game.film is not None:
            state += f", recording ({len(game.film)} frames)"
        self._write(game.message or f"{state}; start: {game.prompt}", (GAP, GAP + LINE), TEXT)
        for number, (key, (_, what)) in enumerate(COMMANDS.items()):
            row, column = divmod(number, 2)
            at = (GAP + column * self.world.width // 2, self.world.bottom + GAP + row * LINE)
            self._write(f"{key}: {what}", at, FAINT)
        pygame.display.flip()

    def _write(self, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
        self.screen.blit(self._font.render(text, True, colour), at)
