"""`genie play` as a person meets it: a real window on a virtual screen, keys and a mouse."""

import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stable_baselines3 import PPO

from genie_env.envs.single import GenieEnv
from training.data.clip_store import ClipStore

pytestmark = pytest.mark.skipif(
    not (shutil.which("Xvfb") and shutil.which("xdotool")),
    reason="needs a virtual screen: apt-get install xvfb xdotool",
)
EXAMPLE = Path(__file__).parents[2] / "examples" / "play_tour.py"


@pytest.fixture(scope="module")
def tour():
    spec = importlib.util.spec_from_file_location("play_tour", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["play_tour"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("driven")
    tiny_model.save_pretrained(folder / "model")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "start.png")
    env = GenieEnv(noise, tiny_model, reward="none")
    PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu").save(folder / "agent.zip")
    return folder


@pytest.fixture(scope="module")
def player(tour, folder):
    screen = tour.Screen(folder)
    player = tour.Player(screen, [
        "--model", str(folder / "model"), "--prompt", str(folder / "start.png"), "--seed", "0",
        "--out", str(folder / "films"), "--keep", str(folder / "kept"), "--keymap",
        str(folder / "keys.json"), "--agent", str(folder / "agent.zip"), "--temperature", "1",
    ])  # fmt: skip
    yield player
    player.process.kill()
    screen.close()


def until(condition, seconds=20.0):
    """Waits: a virtual screen on a busy machine has no pace that could be counted on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def pixels(player):
    return np.asarray(player.picture()).astype(int)


def changes(player, before):
    return until(lambda: (pixels(player) != before).any())


def settled(player):
    """The picture once it stays as it is, messages gone."""
    last = [pixels(player)]

    def still():
        time.sleep(0.25)
        before, last[0] = last[0], pixels(player)
        return (before == last[0]).all()

    assert until(still)
    return last[0]


def test_every_key_does_what_it_says(player, folder):
    # The agent plays by itself at first.
    assert changes(player, pixels(player))
    player.press("p")
    paused = settled(player)
    for key in (
        "period",
        "u",
        "bracketright",
        "bracketleft",
        "l",
        "k",
        "minus",
        "equal",
        "r",
        "period",
        "n",
    ):
        before = settled(player)
        player.press(key)
        assert changes(player, before), key
    assert not (settled(player) == paused).all()

    player.press("F5", "period")
    before = settled(player)
    player.press("F9")
    assert changes(player, before)

    before = settled(player)
    player.press("b")
    assert changes(player, before)
    player.press("3")  # one of the futures
    player.press("c")
    before = settled(player)
    player.screen.act("mousemove", "--window", player.window, 200, 300, "click", 1)
    assert changes(player, before)
    player.press("Escape", "g")

    player.press("F2")
    player.press("p", pause=1.0)
    player.screen.hold("d", 0.5)
    player.press("Tab")
    player.press("F2")
    assert until((folder / "films" / "played-001.gif").exists)
    player.press("F3")
    assert until((folder / "kept" / "meta.json").exists)
    assert until(lambda: list((folder / "kept").glob("codes-*.npy")))
    assert ClipStore(folder / "kept", 2).num_frames >= 2

    player.press("p")
    standing = settled(player)
    player.screen.hold("BackSpace", 0.6)
    rewound = settled(player)
    assert (rewound != standing).any()

    # The first line of the table of actions.
    player.screen.act("mousemove", "--window", player.window, 700, 16 + 96 + 12, "click", 1)
    player.press("x")
    assert until((folder / "keys.json").exists)
    assert json.loads((folder / "keys.json").read_text()) == {"x": "code 0"}

    assert player.leave() == 0
    assert "Traceback" not in player.process.stdout.read()


def test_leaving_in_the_middle_of_a_film_writes_it(tour, folder):
    screen = tour.Screen(folder)
    try:
        player = tour.Player(screen, [
            "--model", str(folder / "model"), "--prompt", str(folder / "start.png"),
            "--out", str(folder / "late"),
        ])  # fmt: skip
        player.press("F2", pause=0.5)
        assert player.leave() == 0  # while the world runs
        assert (folder / "late" / "played-001.gif").exists()
        assert "Traceback" not in player.process.stdout.read()
    finally:
        screen.close()
