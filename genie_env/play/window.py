"""The window: pygame's events to a `Game`, what the game shows to the screen."""

from __future__ import annotations

import os

import pygame

from genie_env.play.game import Game
from genie_env.play.panels import Layout, draw

POLL_SECONDS = 0.004
"""How long a key may wait at most while the world is stepping."""


class Window:
    """Args:
    game: to show.
    title: of the window.

    Raises OSError without a display.
    """

    def __init__(self, game: Game, title: str) -> None:
        self.game, self.title = game, title
        try:
            # Not pygame.init(): it would open the sound device as well.
            pygame.display.init()
            pygame.font.init()
            pygame.display.set_caption(title)
            self.layout = self._layout()
            self.surface = pygame.display.set_mode(self.layout.size, pygame.RESIZABLE)
        except pygame.error as error:
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            where = f"display {display}" if display else "no display is set"
            raise OSError(
                f"no window can be opened ({error}; {where}): play on a machine with a screen, or "
                "under a virtual one: xvfb-run genie play"
            ) from error

    def _layout(self, size: tuple[int, int] | None = None) -> Layout:
        frame_size = self.game.shown.view.frame_HWC.shape[0]
        return Layout.within(frame_size, self.game.session.controls.num_actions, size)

    def run(self) -> None:
        """Until the player quits. The game is closed then, whatever happens."""
        try:
            changed = True
            while self.game.running:
                if changed:
                    self.draw()
                # Sleeps where nothing happens; wakes at once for a key.
                wait = max(POLL_SECONDS, self.game.wait())
                event = pygame.event.wait(round(1000 * wait))
                changed = self._handle(event)
                for event in pygame.event.get():
                    changed |= self._handle(event)
                changed |= self.game.tick()
        finally:
            self.game.close()
            pygame.display.quit()

    def draw(self) -> None:
        game = self.game
        draw(
            self.surface,
            self.layout,
            game.shown,
            game.keymap,
            game.session.controls,
            self.title,
        )
        pygame.display.flip()

    def _handle(self, event: pygame.event.Event) -> bool:
        """Whether there may be something new to draw."""
        game = self.game
        if event.type == pygame.QUIT:
            game.running = False
        elif event.type == pygame.KEYDOWN:
            game.key_down(pygame.key.name(event.key))
        elif event.type == pygame.KEYUP:
            game.key_up(pygame.key.name(event.key))
        elif event.type == pygame.WINDOWFOCUSLOST:
            # The key's release will be another window's.
            game.shown.pressed.clear()
        elif event.type == pygame.DROPFILE:
            game.drop(event.file)
        elif event.type == pygame.MOUSEBUTTONDOWN or (
            event.type == pygame.MOUSEMOTION and any(event.buttons)
        ):
            self._point(event)
        elif event.type == pygame.VIDEORESIZE:
            self.layout = self._layout(event.size)
        elif event.type not in (pygame.WINDOWEXPOSED, pygame.WINDOWFOCUSGAINED):
            return False
        return True

    def _point(self, event: pygame.event.Event) -> None:
        game, layout = self.game, self.layout
        if game.shown.mode == "paint":
            right = event.buttons[2] if event.type == pygame.MOUSEMOTION else event.button == 3
            area = layout.world
            x, y = event.pos[0] - area.left, event.pos[1] - area.top
            game.paint(x / area.width, y / area.height, pick=bool(right))
        elif event.type == pygame.MOUSEBUTTONDOWN:
            for code in range(layout.num_actions):
                if game.shown.mode == "branch" and layout.future(code).collidepoint(event.pos):
                    game.choose(code)
                elif layout.action_row(code).collidepoint(event.pos):
                    game.remap(code)
