"""Draws what a `Game` shows. Nothing is decided here.

Every panel is a function of (surface, area, what is shown); where they are is `Layout`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pygame

from genie_env.play.controls import Controls
from genie_env.play.game import BRANCH_STEPS, SPEEDS, Shown
from genie_env.play.keymap import COMMANDS, DIRECTIONS, LABELS, Keymap

BACKGROUND, RAISED, LINE = (18, 20, 26), (30, 33, 42), (58, 63, 78)
TEXT, FAINT, ACCENT, WARM = (232, 234, 240), (140, 147, 165), (92, 200, 255), (255, 176, 72)
GAP = 16
WORLD, SIDE, STRIP = 512, 392, 112
"""Pixels: the world's side unless the window is resized; the panels' width and height."""


@dataclass(frozen=True)
class Layout:
    """Areas of a window for frames of some size, shown at a whole multiple of it."""

    frame_size: int
    num_actions: int
    zoom: int

    @classmethod
    def within(
        cls, frame_size: int, num_actions: int, size: tuple[int, int] | None = None
    ) -> Layout:
        """The largest for a window of this size, or for one of the usual size."""
        room = WORLD
        if size is not None:
            room = max(WORLD // 2, min(size[0] - SIDE - 3 * GAP, size[1] - STRIP - 3 * GAP))
        return cls(frame_size, num_actions, max(1, room // frame_size))

    @property
    def world(self) -> pygame.Rect:
        side = self.frame_size * self.zoom
        return pygame.Rect(GAP, GAP, side, side)

    @property
    def strip(self) -> pygame.Rect:
        """Under the world: futures, colours, or how far back it can be rewound."""
        return pygame.Rect(GAP, self.side.bottom + GAP, self.size[0] - 2 * GAP, STRIP)

    @property
    def side(self) -> pygame.Rect:
        height = max(self.world.height, WORLD)
        return pygame.Rect(self.world.right + GAP, GAP, SIDE, height)

    @property
    def size(self) -> tuple[int, int]:
        """Of the window that all this needs."""
        return self.side.right + GAP, self.side.bottom + STRIP + 2 * GAP

    def action_row(self, code: int) -> pygame.Rect:
        """A line of the table of latent actions; a click there remaps it."""
        height = min(24, (self.side.height - 96 - 200) // self.num_actions)
        top = self.side.top + 96 + height * code
        return pygame.Rect(self.side.left, top, self.side.width, height)

    def colour(self, number: int) -> pygame.Rect:
        """Of the palette; a click there takes it."""
        return pygame.Rect(self.strip.left + number * 84, self.strip.top + 6, 72, 48)

    def future(self, action: int) -> pygame.Rect:
        side = min(88, self.strip.width // self.num_actions - 6)
        return pygame.Rect(self.strip.left + action * (side + 6), self.strip.top + 4, side, side)


def draw(
    surface: pygame.Surface,
    layout: Layout,
    shown: Shown,
    keymap: Keymap,
    controls: Controls,
    title: str,
) -> None:
    """The whole window."""
    surface.fill(BACKGROUND)
    _draw_world(surface, layout.world, shown)
    _draw_status(surface, layout.side, shown, title)
    _draw_actions(surface, layout, shown, keymap, controls)
    below = layout.action_row(layout.num_actions).top + 8
    rest = pygame.Rect(layout.side.left, below, layout.side.width, layout.side.bottom - below)
    if shown.real and shown.view.real_HWC is not None:
        _draw_real(surface, rest, shown, keymap)
    else:
        _draw_keys(surface, rest, keymap)
    if shown.mode == "branch":
        _draw_futures(surface, layout, shown, controls)
    elif shown.canvas is not None:
        _draw_palette(surface, layout, shown, keymap)
    else:
        _draw_rewind(surface, layout.strip, shown, keymap)
    if shown.message:
        _draw_message(surface, layout.world, shown.message)


def _draw_world(surface: pygame.Surface, area: pygame.Rect, shown: Shown) -> None:
    frame_HWC = shown.canvas.frame_HWC if shown.canvas is not None else shown.view.frame_HWC
    edge = WARM if shown.rewound is not None else ACCENT if shown.mode != "play" else LINE
    pygame.draw.rect(surface, edge, area.inflate(4, 4), 2, border_radius=3)
    _blit_frame(surface, area, frame_HWC)
    if shown.uncertainty and shown.canvas is None:
        _draw_uncertainty(surface, area, shown.view.uncertainty_hw)
    badges = [
        ("PAUSED", shown.paused and shown.mode == "play"),
        ("REWIND", shown.rewound is not None),
        ("AGENT", shown.agent),
        (f"REC {shown.recording}", shown.recording is not None),
    ]
    x = area.left + 8
    for text, on in badges:
        if on:
            x = _badge(surface, (x, area.top + 8), text).right + 6


def _draw_uncertainty(
    surface: pygame.Surface, area: pygame.Rect, nats_hw: np.ndarray, full: float = 3.0
) -> None:
    """Warm where the model was unsure; opaque from `full` nats a token."""
    share_hw = np.clip(nats_hw / full, 0, 1)
    height, width = share_hw.shape
    heat = pygame.Surface((width, height), pygame.SRCALPHA)
    pygame.surfarray.pixels3d(heat)[:] = WARM
    pygame.surfarray.pixels_alpha(heat)[:] = (200 * share_hw.T).astype(np.uint8)
    surface.blit(pygame.transform.scale(heat, area.size), area)


def _draw_status(surface: pygame.Surface, area: pygame.Rect, shown: Shown, title: str) -> None:
    view = shown.view
    _write(surface, area.topleft, title, TEXT, 20)
    _write(surface, (area.left, area.top + 26), _shorten(view.prompt, 52), FAINT)
    full = shown.speed == SPEEDS[-1]
    budget = "full speed" if full else f"of {shown.speed:g}: {1000 / shown.speed:.0f} ms each"
    lines = (
        f"{shown.fps:.1f} frames/s {budget}   model {view.step_ms:.0f} ms",
        f"step {view.number}   reward {view.score:g}   "
        f"temp. {shown.temperature:g}   MaskGIT steps {shown.maskgit_steps}",
    )
    for number, line in enumerate(lines):
        text = _fit(line, area.width, 14)
        _write(surface, (area.left, area.top + 48 + 20 * number), text, TEXT)


def _draw_actions(
    surface: pygame.Surface, layout: Layout, shown: Shown, keymap: Keymap, controls: Controls
) -> None:
    """One line an action: its keys, which button it was seen for, how likely it is that one."""
    current = shown.view.press.code if shown.view.press else None
    for code in range(layout.num_actions):
        row = layout.action_row(code)
        inner = row.inflate(0, -4)
        if code in (current, shown.remapped):
            colour = WARM if code == shown.remapped else ACCENT
            pygame.draw.rect(surface, RAISED, inner, border_radius=4)
            pygame.draw.rect(surface, colour, inner, 1, border_radius=4)
        keys = keymap.keys_of(f"code {code}")
        for button, chosen in controls.codes.items():
            if chosen == code and button in DIRECTIONS:
                keys += keymap.keys_of(button)
        x = row.left + 6
        for key in keys[:5]:
            x = _key_cap(surface, (x, row.top + 3), key).right + 3
        share = controls.shares.get(code, 0.0)
        name = _fit(controls.name(code), 128, 14)
        _write(surface, (row.left + 160, row.top + 4), name, TEXT if share else FAINT)
        bar = pygame.Rect(row.left + 290, row.top + 9, 90, 6)
        pygame.draw.rect(surface, RAISED, bar, border_radius=3)
        bar.width = round(bar.width * share)
        pygame.draw.rect(surface, ACCENT, bar, border_radius=3)


def _draw_real(surface: pygame.Surface, area: pygame.Rect, shown: Shown, keymap: Keymap) -> None:
    text = f"the real game, same buttons ({keymap.label('real game')}: the keys instead)"
    _write(surface, area.topleft, text, FAINT)
    view = shown.view
    assert view.real_HWC is not None
    side = min(area.width, area.height - 20)
    if side <= 0:
        return
    whole = view.real_HWC.shape[0]
    side = side // whole * whole or side
    square = pygame.Rect(area.left, area.top + 20, side, side)
    _blit_frame(surface, square, view.real_HWC)
    pygame.draw.rect(surface, LINE, square.inflate(2, 2), 1)
    if view.real_ended:
        how = {"coin": "reached the coin", "death": "died", "time": "time is up"}
        _badge(surface, (square.left + 6, square.top + 6), f"ended: {how[view.real_ended]}")


def _draw_keys(surface: pygame.Surface, area: pygame.Rect, keymap: Keymap) -> None:
    """What else there is to press, in two columns."""
    lines = [(keymap.keys_of(name), text) for name, text in COMMANDS.items() if name != "confirm"]
    lines = [(keys, text) for keys, text in lines if keys]
    per_column = (len(lines) + 1) // 2
    step = min(20, area.height // per_column)
    for number, (keys, text) in enumerate(lines):
        x = area.left + number // per_column * (area.width // 2)
        y = area.top + number % per_column * step
        cap = _key_cap(surface, (x, y), keys[0])
        room = area.width // 2 - (cap.right - x) - 8
        _write(surface, (cap.right + 5, y + 1), _fit(text, room, 12), FAINT, 12)


def _draw_futures(
    surface: pygame.Surface, layout: Layout, shown: Shown, controls: Controls
) -> None:
    if shown.futures_AHWC is None:
        _write(surface, layout.strip.topleft, "dreaming ahead...", FAINT)
        return
    for action, frame_HWC in enumerate(shown.futures_AHWC):
        area = layout.future(action)
        _blit_frame(surface, area, frame_HWC)
        pygame.draw.rect(surface, LINE, area.inflate(2, 2), 1)
        first = controls.names.get(action, ("",))[0]
        label = _fit(f"{action + 1} {first}", area.width, 13)
        _write(surface, (area.left, area.bottom + 3), label, TEXT, 13)
        if shown.ends_A is not None and shown.ends_A[action]:
            _badge(surface, (area.left + 2, area.top + 2), "ends")
    right = layout.future(len(shown.futures_AHWC) - 1).right + 12
    text = f"{BRANCH_STEPS} steps of each; press or click the one to take"
    for number, line in enumerate(_wrap(text, layout.strip.right - right, 13)):
        _write(surface, (right, layout.strip.top + 4 + 18 * number), line, FAINT, 13)


def _draw_palette(surface: pygame.Surface, layout: Layout, shown: Shown, keymap: Keymap) -> None:
    assert shown.canvas is not None
    for number, (name, colour) in enumerate(shown.canvas.palette.items()):
        area = layout.colour(number)
        pygame.draw.rect(surface, colour, area, border_radius=4)
        chosen = name == shown.canvas.colour
        pygame.draw.rect(surface, ACCENT if chosen else LINE, area, 2, border_radius=4)
        _write(surface, (area.left, area.bottom + 6), f"{number + 1} {name}", TEXT, 13)
    _write(
        surface,
        (layout.strip.left, layout.strip.top + 86),
        f"left button paints, right button picks a colour; {keymap.label('rewind')} clears, "
        f"{keymap.label('confirm')} plays it, {keymap.label('quit')} leaves",
        FAINT,
    )


def _draw_rewind(surface: pygame.Surface, area: pygame.Rect, shown: Shown, keymap: Keymap) -> None:
    """How much of the episode can be returned to, and where we are."""
    bar = pygame.Rect(area.left, area.top + 10, area.width, 6)
    pygame.draw.rect(surface, RAISED, bar, border_radius=3)
    oldest = shown.oldest
    here = bar.left + round(
        bar.width * (shown.view.number - oldest) / max(1, shown.newest - oldest)
    )
    done = pygame.Rect(bar.left, bar.top, max(0, here - bar.left), bar.height)
    pygame.draw.rect(surface, WARM if shown.rewound is not None else ACCENT, done, border_radius=3)
    pygame.draw.circle(surface, TEXT, (here, bar.centery), 6)
    x = area.left
    for command in ("rewind", "pause", "branch", "paint", "new start", "quit"):
        if x > area.right - 110:
            break
        cap = _key_cap(surface, (x, area.top + 36), keymap.label(command))
        x = _write(surface, (cap.right + 5, area.top + 37), COMMANDS[command], FAINT, 13).right + 14
    hint = "drop an image or a video on the window to start from it; click an action to remap it"
    _write(surface, (area.left, area.top + 68), _fit(hint, area.width, 13), FAINT, 13)


def _draw_message(surface: pygame.Surface, area: pygame.Rect, message: str) -> None:
    lines = _wrap(message, area.width - 40, 15)
    height = 20 * len(lines) + 14
    box = pygame.Rect(area.left + 8, area.bottom - height - 8, area.width - 16, height)
    shade = pygame.Surface(box.size, pygame.SRCALPHA)
    shade.fill((10, 12, 16, 225))
    surface.blit(shade, box)
    for number, line in enumerate(lines):
        _write(surface, (box.left + 12, box.top + 8 + 20 * number), line, TEXT, 15)


def _blit_frame(surface: pygame.Surface, area: pygame.Rect, frame_HWC: np.ndarray) -> None:
    small = pygame.surfarray.make_surface(np.ascontiguousarray(frame_HWC.swapaxes(0, 1)))
    # transform.scale takes the nearest pixel, so frames stay crisp.
    surface.blit(pygame.transform.scale(small, area.size), area)


def _badge(surface: pygame.Surface, at: tuple[int, int], text: str) -> pygame.Rect:
    image = _text(text, BACKGROUND, 13)
    box = image.get_rect(topleft=at).inflate(12, 6)
    box.topleft = at
    pygame.draw.rect(surface, WARM, box, border_radius=4)
    surface.blit(image, image.get_rect(center=box.center))
    return box


def _key_cap(surface: pygame.Surface, at: tuple[int, int], key: str) -> pygame.Rect:
    image = _text(LABELS.get(key, key), TEXT, 12)
    box = pygame.Rect(*at, max(18, image.get_width() + 10), 18)
    pygame.draw.rect(surface, RAISED, box, border_radius=4)
    pygame.draw.rect(surface, LINE, box, 1, border_radius=4)
    surface.blit(image, image.get_rect(center=box.center))
    return box


def _write(
    surface: pygame.Surface, at: tuple[int, int], text: str, colour: Any, size: int = 14
) -> pygame.Rect:
    return surface.blit(_text(text, colour, size), at)


def _wrap(text: str, width: int, size: int) -> list[str]:
    """Lines of whole words; of a word that is too long, its beginning."""
    lines = [""]
    for word in (_fit(word, width, size) for word in text.split()):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font(size).size(longer)[0] > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _fit(text: str, width: int, size: int) -> str:
    """As much of the text as there is room for."""
    while text and _font(size).size(text)[0] > width:
        text = text[:-1]
    return text


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else "..." + text[3 - length :]


@lru_cache(maxsize=512)
def _text(text: str, colour: Any, size: int) -> pygame.Surface:
    return _font(size).render(text, True, colour)


@lru_cache
def _font(size: int) -> pygame.font.Font:
    # pygame's own: there on every machine.
    return pygame.font.Font(None, round(size * 1.5))
