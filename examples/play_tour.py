"""Drive `genie play` as a person would, in a real window under a virtual screen, and keep pictures.

    python examples/play_tour.py [--out docs/media] [--model coinrun-plain]

Needs Xvfb and xdotool (Debian: apt-get install xvfb xdotool).
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from PIL import Image


class Screen:
    """A virtual screen: an X server without a monitor, keys and a mouse that nobody holds.

    Raises FileNotFoundError without Xvfb or xdotool.
    """

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 900)) -> None:
        for tool in ("Xvfb", "xdotool"):
            if shutil.which(tool) is None:
                raise FileNotFoundError(f"{tool} is not there: apt-get install xvfb xdotool")
        read, write = os.pipe()
        folder = Path(tempfile.mkdtemp(dir=folder))
        self._memory = folder / "Xvfb_screen0"
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{size[0]}x{size[1]}x24",
             "-fbdir", str(folder), "-nolisten", "tcp"],
            pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(write)
        with os.fdopen(read) as pipe:
            self.display = f":{pipe.readline().strip()}"

    def environment(self) -> dict[str, str]:
        """For programs that shall use this screen."""
        others = {k: v for k, v in os.environ.items() if k not in ("SDL_VIDEODRIVER", "DISPLAY")}
        return others | {"DISPLAY": self.display, "SDL_VIDEODRIVER": "x11"}

    def act(self, *arguments: object) -> str:
        """An xdotool command: "key", "b"."""
        command = ["xdotool", *map(str, arguments)]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=True
        ).stdout

    def hold(self, key: str, seconds: float) -> None:
        self.act("keydown", key)
        time.sleep(seconds)
        self.act("keyup", key)

    def picture(self) -> Image.Image:
        """What is on it now, read from the X server's own memory (an XWD file)."""
        data = self._memory.read_bytes()
        header, _, _, _, width, height = struct.unpack(">6I", data[:24])
        line_bytes, colours = struct.unpack(">I", data[48:52])[0], struct.unpack(">I", data[76:80])
        start = header + 12 * colours[0]
        pixels = np.frombuffer(data, np.uint8, line_bytes * height, start)
        bgrx = pixels.reshape(height, line_bytes)[:, : 4 * width].reshape(height, width, 4)
        return Image.fromarray(np.ascontiguousarray(bgrx[..., 2::-1]))

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()


@dataclass
class Player:
    """`genie play` in a window of that screen.

    Raises TimeoutError where no window comes, with what the program printed.
    """

    screen: Screen
    arguments: list[str]
    seconds: float = 120.0
    process: subprocess.Popen[str] = field(init=False)
    window: str = field(init=False)

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "genie_env.cli", "play", *self.arguments],
            env=self.screen.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until = time.monotonic() + self.seconds
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(subprocess.CalledProcessError):
                found = self.screen.act("search", "--onlyvisible", "--pid", self.process.pid)
                self.window = found.split()[0]
                self.screen.act("windowfocus", self.window)
                time.sleep(0.5)
                return
            time.sleep(0.1)
        self.process.kill()
        raise TimeoutError(f"no window: {self.process.communicate()[0]}")

    def press(self, *keys: str, pause: float = 0.3) -> None:
        """Keys by their X names, one after the other."""
        for key in keys:
            self.screen.act("key", key)
            time.sleep(pause)

    def picture(self) -> Image.Image:
        """Of the window alone."""
        shape = dict(
            line.split("=")
            for line in self.screen.act("getwindowgeometry", "--shell", self.window).split()
        )
        left, top, width, height = (int(shape[k]) for k in ("X", "Y", "WIDTH", "HEIGHT"))
        return self.screen.picture().crop((left, top, left + width, top + height))

    def leave(self, key: str = "Escape") -> int:
        """Quit by a key; the exit status."""
        self.press(key)
        return self.process.wait(self.seconds)


@dataclass
class Arguments:
    model: str = "coinrun-plain"
    prompt: str = "coinrun:20004"
    out: Path = Path("docs/media")
    work: Path = Path("runs/play-tour")
    """Where films, the screen's memory and the keymap go."""
    slow: float = 1.0
    """How much longer than usual to wait: for machines that are busy."""


def main(arguments: Arguments) -> None:
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    screen = Screen(arguments.work)
    slow = arguments.slow
    try:
        player = Player(
            screen,
            ["--model", arguments.model, "--prompt", arguments.prompt, "--seed", "0",
             "--out", str(arguments.work)],
        )  # fmt: skip
        # The world has run on meanwhile: to its start again, and off.
        screen.act("keydown", "Right", "key", "r")
        screen.hold("Up", 0.1 * slow)
        screen.act("keyup", "Right")
        player.picture().save(arguments.out / "play.png")
        player.press("b", pause=3.0 * slow)
        player.picture().save(arguments.out / "play_branch.png")
        player.press("Escape", "g", "u")
        screen.hold("Right", 0.5 * slow)
        player.press("p")
        player.picture().save(arguments.out / "play_uncertainty.png")
        player.press("c", "3", pause=0.5 * slow)
        for x, y in ((200, 300), (240, 300), (280, 300), (320, 260), (360, 260), (400, 220)):
            screen.act("mousemove", "--window", player.window, x, y, "click", 1)
        time.sleep(0.3 * slow)
        player.picture().save(arguments.out / "play_paint.png")
        player.press("Escape")
        status = player.leave()
        printed = player.process.stdout.read() if player.process.stdout else ""
        if status:
            raise SystemExit(f"genie play ended with {status}: {printed}")
        print(f"{arguments.out}: play.png, play_branch.png, play_uncertainty.png, play_paint.png")
    finally:
        screen.close()


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
