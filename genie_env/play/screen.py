"""What every window of pygame's does: open, pass on events, keep time."""

from __future__ import annotations

import os
from typing import Protocol

import pygame

NO_SCREEN = frozenset({"offscreen", "dummy", "evdev"})
"""SDL's drivers without a window: right where asked for, else a game that nobody sees."""


class Playable(Protocol):
    """What a window shows."""

    running: bool

    def key_down(self, key: str) -> None:
        """A key by pygame's name went down."""

    def key_up(self, key: str) -> None: ...

    def let_go(self) -> None:
        """Of all keys: their release will be another window's."""

    def drop(self, path: str) -> None:
        """A file was dropped on the window."""

    def tick(self) -> bool:
        """Do what is due; whether there is something new to draw."""

    def wait(self) -> float:
        """Seconds for which nothing will happen by itself."""

    def close(self) -> None: ...


class Screen:
    """A window with a game in it, which `draw` shows.

    Args:
        game: to show.
        title: of the window.
        size: (width, height), pixels.
        flags: of `pygame.display.set_mode`.

    Raises OSError without a display.
    """

    def __init__(self, game: Playable, title: str, size: tuple[int, int], flags: int = 0) -> None:
        self.game, self.title = game, title
        try:
            # Not pygame.init(): it would open the sound device as well.
            pygame.display.init()
            pygame.font.init()
            driver = pygame.display.get_driver()
            if driver in NO_SCREEN and os.environ.get("SDL_VIDEODRIVER") != driver:
                raise pygame.error(f"only the driver {driver!r} works here")
            pygame.display.set_caption(title)
            self.screen = pygame.display.set_mode(size, flags)
        except pygame.error as error:
            pygame.display.quit()
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            where = f"display {display}" if display else "no display is set"
            raise OSError(
                f"no window can be opened ({error}; {where}): play on a machine with a screen, or "
                "under a virtual one: xvfb-run genie play"
            ) from error

    def draw(self) -> None:
        """Show the game as it is now."""
        raise NotImplementedError

    def run(self) -> None:
        """Until the players quit. The game is closed then, whatever happens."""
        try:
            changed = True
            while self.game.running:
                if changed:
                    self.draw()
                # Sleeps where nothing happens; wakes at once for a key.
                # pygame takes 0 milliseconds for ever.
                wait = max(1, round(1000 * self.game.wait()))
                changed = self.handle(pygame.event.wait(wait))
                for event in pygame.event.get():
                    changed |= self.handle(event)
                changed |= self.game.tick()
        finally:
            # The window first: writing a long film takes seconds.
            pygame.display.quit()
            self.game.close()

    def handle(self, event: pygame.event.Event) -> bool:
        """Whether there may be something new to draw."""
        game = self.game
        if event.type == pygame.QUIT:
            game.running = False
        elif event.type == pygame.KEYDOWN:
            game.key_down(pygame.key.name(event.key))
        elif event.type == pygame.KEYUP:
            game.key_up(pygame.key.name(event.key))
        elif event.type == pygame.WINDOWFOCUSLOST:
            game.let_go()
        elif event.type == pygame.DROPFILE:
            game.drop(event.file)
        else:
            return event.type in (pygame.WINDOWEXPOSED, pygame.WINDOWFOCUSGAINED)
        return True
