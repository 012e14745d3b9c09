"""The window: pygame's events to a `Game`, what the game shows to the screen."""

from __future__ import annotations

from contextlib import suppress

import pygame

from genie_env.play.game import Game
from genie_env.play.panels import Layout, draw
from genie_env.play.screen import Screen

JOB_DONE = pygame.event.custom_type()
LEFT_BUTTON, RIGHT_BUTTON = 1, 3


class Window(Screen):
    """Args:
    game: to show.
    title: of the window.

    Raises OSError without a display.
    """

    def __init__(self, game: Game, title: str) -> None:
        self.game: Game = game
        self.layout = self._layout()
        super().__init__(game, title, self.layout.size, pygame.RESIZABLE)
        self.surface = pygame.Surface(self.layout.size)

    def _layout(self, size: tuple[int, int] | None = None) -> Layout:
        frame_size = self.game.shown.view.frame_HWC.shape[0]
        return Layout.within(frame_size, self.game.session.controls.num_actions, size)

    def _place(self) -> pygame.Rect:
        """Where on the screen all is drawn: as it is in the middle, made smaller if need be."""
        room = self.screen.get_rect()
        whole = self.surface.get_rect()
        if whole.width > room.width or whole.height > room.height:
            whole = whole.fit(room)
        whole.center = room.center
        return whole

    def run(self) -> None:
        self.game.job_done = self._wake
        super().run()

    def _wake(self) -> None:
        # A full queue or a window just closed: the loop looks by itself soon, or no longer.
        with suppress(pygame.error):
            pygame.event.post(pygame.event.Event(JOB_DONE))

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
        place = self._place()
        if place.size == self.surface.get_size():
            self.screen.blit(self.surface, place)
        else:
            self.screen.blit(pygame.transform.smoothscale(self.surface, place.size), place)
        pygame.display.flip()

    def handle(self, event: pygame.event.Event) -> bool:
        if event.type == pygame.MOUSEBUTTONDOWN:
            self._click(event.button, self._at(event.pos))
        elif event.type == pygame.MOUSEMOTION and event.buttons[0]:
            self._paint(self._at(event.pos), on=True)
        elif event.type == pygame.VIDEORESIZE:
            self.layout = self._layout(event.size)
            self.surface = pygame.Surface(self.layout.size)
            self.screen.fill((0, 0, 0))
        else:
            return super().handle(event)
        return True

    def _at(self, pos: tuple[int, int]) -> tuple[float, float]:
        """A place on the screen as one of the layout."""
        place = self._place()
        scale = self.surface.get_width() / place.width
        return (pos[0] - place.left) * scale, (pos[1] - place.top) * scale

    def _click(self, button: int, at: tuple[float, float]) -> None:
        game, layout = self.game, self.layout
        if button == RIGHT_BUTTON:
            game.pick(*self._in_world(at))
        if button != LEFT_BUTTON:
            return
        self._paint(at, on=False)
        if game.shown.canvas is not None:
            for number in range(len(game.shown.canvas.palette)):
                if layout.colour(number).collidepoint(at):
                    game.choose_colour(number)
            return
        for code in range(layout.num_actions):
            if layout.future(code).collidepoint(at):
                game.choose(code)
            if layout.action_row(code).collidepoint(at):
                game.remap(code)

    def _paint(self, at: tuple[float, float], on: bool) -> None:
        if self.layout.world.collidepoint(at):
            self.game.paint(*self._in_world(at), on=on)

    def _in_world(self, at: tuple[float, float]) -> tuple[float, float]:
        area = self.layout.world
        return (at[0] - area.left) / area.width, (at[1] - area.top) / area.height
