"""Which key means what, as data. A player's own keymap is a JSON file of the same kind.

Key names are pygame's (`pygame.key.name`): "a", "1", "left", "space", "left shift", "f5".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

DIRECTIONS = ("left", "right", "jump")
"""Held together they are one button of the real game: "left+jump"."""

COMMANDS = {
    "rewind": "rewind (hold)",
    "pause": "pause",
    "single step": "one step",
    "restart": "start over",
    "new start": "another start",
    "save": "save this moment",
    "load": "back to the saved",
    "branch": "what if: all actions",
    "uncertainty": "where it is unsure",
    "real game": "the real game",
    "paint": "paint a start",
    "agent": "the agent plays",
    "record": "record, then write",
    "keep": "keep to train on",
    "slower": "slower",
    "faster": "faster",
    "cooler": "less chance",
    "hotter": "more chance",
    "fewer steps": "fewer MaskGIT steps",
    "more steps": "more MaskGIT steps",
    "confirm": "play the painting",
    "quit": "quit, or back",
}
"""What can be asked for besides acting, and how the panel says it."""

KEYS: dict[str, str] = {
    **{str(code + 1): f"code {code}" for code in range(8)},
    "left": "left",
    "a": "left",
    "right": "right",
    "d": "right",
    "up": "jump",
    "w": "jump",
    "space": "jump",
    "backspace": "rewind",
    "p": "pause",
    ".": "single step",
    "r": "restart",
    "n": "new start",
    "f5": "save",
    "f9": "load",
    "b": "branch",
    "u": "uncertainty",
    "g": "real game",
    "c": "paint",
    "tab": "agent",
    "f2": "record",
    "f3": "keep",
    "-": "slower",
    "=": "faster",
    "[": "cooler",
    "]": "hotter",
    "k": "fewer steps",
    "l": "more steps",
    "return": "confirm",
    "escape": "quit",
}


LABELS = {"backspace": "bksp", "return": "enter", "escape": "esc"}
"""Key names as they are shown."""


def _known(command: str) -> bool:
    kind, _, number = command.partition(" ")
    if kind == "code":
        return number.isascii() and number.isdigit()
    return command in COMMANDS or command in DIRECTIONS


@dataclass(frozen=True)
class Keymap:
    """keys: key name -> command: "code 3", one of `DIRECTIONS` or of `COMMANDS`.

    Raises ValueError for a command that there is not.
    """

    keys: Mapping[str, str] = field(default_factory=lambda: dict(KEYS))

    def __post_init__(self) -> None:
        for key, command in self.keys.items():
            if not isinstance(command, str) or not _known(command):
                raise ValueError(
                    f"key {key!r} means {command!r}; accepted: 'code 0' and so on, "
                    f"{', '.join((*DIRECTIONS, *COMMANDS))}"
                )

    @classmethod
    def read(cls, path: str | Path) -> Keymap:
        """The usual keys, changed by a JSON file {"key": "command", "other key": null}; null frees
        a key. Raises FileNotFoundError, ValueError."""
        try:
            changes = json.loads(Path(path).read_text())
        except ValueError as error:
            raise ValueError(f"keymap {path} is no JSON: {error}") from error
        if not isinstance(changes, dict):
            raise ValueError(f'keymap {path} is no JSON object of {{"key": "command"}}')
        keys = {**KEYS, **changes}
        return cls({key: command for key, command in keys.items() if command is not None})

    def write(self, path: str | Path) -> None:
        """For `read`: what differs from the usual keys."""
        changes: dict[str, str | None] = {
            key: command for key, command in self.keys.items() if KEYS.get(key) != command
        }
        changes |= {key: None for key in KEYS if key not in self.keys}
        Path(path).write_text(json.dumps(changes, indent=2) + "\n")

    def with_key(self, key: str, command: str) -> Keymap:
        """The same with one key meaning something else."""
        return replace(self, keys={**self.keys, key: command})

    def keys_of(self, command: str) -> list[str]:
        return [key for key, meaning in self.keys.items() if meaning == command]

    def label(self, command: str) -> str:
        """The first key of a command as it is shown; "?" without one."""
        key = next(iter(self.keys_of(command)), "?")
        return LABELS.get(key, key)

    def commands(self, held: Sequence[str]) -> list[str]:
        """What the held keys mean, the key that went down last at the end."""
        return [self.keys[key] for key in held if key in self.keys]


@dataclass(frozen=True)
class Press:
    """What a player asked for in one step."""

    code: int
    """Latent action."""
    button: str | None = None
    """Of the real game, where directions were held: "left+jump"."""


def press_of(commands: Sequence[str], controls: Mapping[str, int]) -> Press | None:
    """What held commands ask for; None if they ask for nothing that is known.

    controls: button -> latent action, of "none", "left", "right", "jump", "left+jump" and
    "right+jump" those that are known. The code whose key went down last goes before directions.
    """
    codes = [int(command.removeprefix("code ")) for command in commands if command[:5] == "code "]
    if codes:
        return Press(codes[-1])
    parts = [command for command in commands if command in ("left", "right")][-1:]
    if "jump" in commands:
        parts.append("jump")
    # Of two directions that are not known together, the jump.
    for button in ("+".join(parts), *reversed(parts)):
        if button in controls:
            return Press(controls[button], button)
    return None
