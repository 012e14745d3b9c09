"""The window under the dummy driver: what is drawn, and pygame's events on their way to the game.

`test_driven.py` drives a real one.
"""

import os
from dataclasses import replace

import numpy as np
import pytest

pygame = pytest.importorskip("pygame")

from genie_env.play.panels import Layout  # noqa: E402
from genie_env.play.window import Window  # noqa: E402


@pytest.fixture
def window(make_game, monkeypatch):
    monkeypatch.setitem(os.environ, "SDL_VIDEODRIVER", "dummy")
    window = Window(make_game(), "test")
    yield window
    pygame.display.quit()


def pixels(window):
    window.draw()
    return pygame.surfarray.array3d(window.surface).swapaxes(0, 1)


def inside(image, area):
    return image[area.top : area.bottom, area.left : area.right]


def key(kind, name):
    return pygame.event.Event(kind, key=pygame.key.key_code(name))


def test_the_frame_is_shown_crisply(window):
    area = window.layout.world
    shown = inside(pixels(window), area)
    zoom = window.layout.zoom
    frame_HWC = window.game.shown.view.frame_HWC
    # A strip at the top belongs to the badges.
    exact = frame_HWC.repeat(zoom, 0).repeat(zoom, 1)[48:]
    np.testing.assert_array_equal(shown[48:], exact)


def test_events_reach_the_game(window, run):
    game = window.game
    assert window.handle(key(pygame.KEYDOWN, "d"))
    assert game.shown.pressed == ["d"]
    window.handle(key(pygame.KEYUP, "d"))
    assert game.shown.pressed == []
    window.handle(key(pygame.KEYDOWN, "d"))
    window.handle(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    assert game.shown.pressed == []
    window.handle(pygame.event.Event(pygame.DROPFILE, file="/no/such.png"))
    run(game, 2)
    assert "is not there" in game.shown.message
    window.handle(pygame.event.Event(pygame.QUIT))
    assert not game.running


def test_a_click_remaps_an_action(window):
    row = window.layout.action_row(5)
    window.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=row.center, button=1))
    assert window.game.shown.remapped == 5
    window.handle(key(pygame.KEYDOWN, "x"))
    assert window.game.keymap.keys["x"] == "code 5"


def test_the_mouse_paints_and_picks(window, run):
    game = window.game
    window.handle(key(pygame.KEYDOWN, "c"))
    middle = window.layout.world.center
    before = inside(pixels(window), window.layout.world).copy()
    window.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=middle, button=1))
    assert (inside(pixels(window), window.layout.world) != before).any()
    window.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=(30, 300), button=3))
    assert game.shown.canvas.colour == "picked"
    swatch = window.layout.colour(3).center
    window.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=swatch, button=1))
    assert game.shown.canvas.colour == "coin"
    drawn = game.shown.canvas.frame_HWC.copy()
    window.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=(300, 300), button=4))  # wheel
    window.handle(pygame.event.Event(pygame.MOUSEMOTION, pos=(300, 300), buttons=(0, 0, 0)))
    np.testing.assert_array_equal(game.shown.canvas.frame_HWC, drawn)


def test_a_click_on_a_future_takes_it(window, run):
    game = window.game
    run(game, 1)
    window.handle(key(pygame.KEYDOWN, "b"))
    for _ in range(5):
        game.tick()
    futures_AHWC = game.shown.futures_AHWC
    strip = inside(pixels(window), window.layout.future(2))
    assert len(np.unique(strip.reshape(-1, 3), axis=0)) > 50
    where = window.layout.future(2).center
    window.handle(pygame.event.Event(pygame.MOUSEBUTTONDOWN, pos=where, button=1))
    window.handle(key(pygame.KEYDOWN, "p"))
    run(game)
    np.testing.assert_array_equal(game.shown.view.frame_HWC, futures_AHWC[2])


def test_the_rewind_bar_shows_where_we_are(window, run, clock):
    game = window.game
    run(game, 20)
    area = window.layout.strip
    before = inside(pixels(window), area).copy()
    game.key_down("backspace")
    for _ in range(20):
        clock.now += 0.05
        game.tick()
    assert game.shown.view.number < 10
    right_half = np.s_[:24, area.width // 2 :]
    assert (inside(pixels(window), area)[right_half] != before[right_half]).any()


@pytest.mark.parametrize("command", ["p", "u", "f2", "tab"])
def test_what_is_on_is_seen(window, run, command):
    game = window.game
    game.session.policy = lambda frames_THWC: 0
    game.key_down("p")
    game.key_down(".")
    run(game)
    game.key_up("p")
    before = pixels(window).copy()
    game.key_down(command)
    assert (pixels(window) != before).any()


def test_a_resized_window_keeps_whole_pixels(window):
    window.handle(pygame.event.Event(pygame.VIDEORESIZE, size=(1600, 1200), w=1600, h=1200))
    assert window.layout.zoom > 8
    for size in ((1600, 1200), (1600, 600), (500, 900)):
        window.screen = pygame.display.set_mode(size)
        window.handle(pygame.event.Event(pygame.VIDEORESIZE, size=size, w=size[0], h=size[1]))
        window.draw()
        place = window._place()
        assert window.screen.get_rect().contains(place)
        x, y = window._at(place.center)
        assert abs(x - window.surface.get_width() / 2) < 2
        assert abs(y - window.surface.get_height() / 2) < 2
    small = Layout.within(64, 8, (300, 200))
    assert small.zoom == 4
    for layout in (window.layout, small, Layout.within(128, 12)):
        whole = pygame.Rect((0, 0), layout.size)
        assert all(whole.contains(area) for area in (layout.world, layout.side, layout.strip))
        assert layout.world.width % layout.frame_size == 0


def test_every_mode_can_be_drawn(window, run):
    game = window.game
    for keys in (["b"], ["escape", "c"], ["escape", "backspace"], ["p", "u", "g"], ["."], ["f2"]):
        for name in keys:
            game.key_down(name)
            game.tick()
        pixels(window)
    assert game.running


def test_running_ends_with_the_game_and_closes_it(window):
    closed = []
    window.game.close = lambda: closed.append(True)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    window.run()
    assert closed and not pygame.display.get_init()


@pytest.mark.parametrize(
    ("given", "message"), [({}, "no display is set"), ({"DISPLAY": ":997"}, "display :997")]
)
def test_no_display_is_told(make_game, monkeypatch, given, message):
    # Left to itself SDL would draw where nobody sees it.
    for name in ("SDL_VIDEODRIVER", "WAYLAND_DISPLAY", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    pygame.display.quit()
    with pytest.raises(OSError, match=f"no window can be opened .*{message}.*xvfb-run"):
        Window(make_game(), "test")


def test_worlds_of_many_actions_can_be_drawn(window):
    from genie_env.play.panels import draw

    layout = Layout.within(64, 24)
    game = window.game
    game.shown.view = replace(game.shown.view, real_HWC=np.zeros((64, 64, 3), np.uint8))
    surface = pygame.Surface(layout.size)
    draw(surface, layout, game.shown, game.keymap, game.session.controls, "many")
    rows = [layout.action_row(code) for code in range(24)]
    assert all(layout.side.contains(row) for row in rows)
