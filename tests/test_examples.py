"""Examples and benchmarks run as a user would run them, on a tiny model and for a few steps."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stable_baselines3 import PPO

ROOT = Path(__file__).parents[1]


def saved(model, folder: Path) -> Path:
    """A model in a folder, with five starts to draw from."""
    size = model.config.frame_size
    starts = np.random.default_rng(0).integers(0, 256, (5, 2, size, size, 3), dtype=np.uint8)
    kept, model.prompts = model.prompts, starts
    try:
        model.save_pretrained(folder)
    finally:
        model.prompts = kept
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tiny_model, tmp_path_factory) -> Path:
    return saved(tiny_model, tmp_path_factory.mktemp("tiny"))


def run(*command) -> str:
    """What a script of the repository prints."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_demo(tiny_folder, tmp_path):
    out = tmp_path / "demo"
    printed = run("examples/demo.py", "--model", tiny_folder, "--steps", 40, "--out", out)
    assert "40 steps in" in printed and "frames a second" in printed
    with Image.open(out / "genie.gif") as gif:
        assert gif.n_frames == 11  # the start and ten actions, four worlds side by side
    with Image.open(out / "contact_sheet.png") as sheet:
        sheet.load()


def test_duel(tmp_path):
    printed = run("examples/duel.py", "--steps", 2, "--out", tmp_path / "duel.png")
    assert "player_1 begins at" in printed and "9 pairs of codes" in printed
    with Image.open(tmp_path / "duel.png") as picture:
        assert picture.size == (3 * 128, 9 * 128)


def test_self_play(tmp_path):
    printed = run("examples/self_play.py", "--steps", 64, "--batch", 16, "--worlds", 2,
                  "--cycles", 4, "--episodes", 1, "--out", tmp_path / "agent.zip")  # fmt: skip
    rows = [line for line in printed.splitlines() if line.endswith("pixels from level")]
    assert [row.split(":")[0] for row in rows] == [
        "both by chance",
        "player_0 learned to be level",
        "player_1 learned to get away",
        "both learned",
    ]
    assert PPO.load(tmp_path / "agent.zip").observation_space.shape == (16 * 16 * 3 + 2,)


def test_speed(tiny_folder):
    printed = run("benchmarks/speed.py", "--model", tiny_folder, "--worlds", 1, 2, "--rounds", 1,
                  "--seconds", 0.01, "--threads", 1)  # fmt: skip
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:3]] == ["| 1", "| 2"]
    assert {row.split(" | ")[0] for row in rows[4:]} == {"| bf16", "| fp32", "| int8"}
    assert "the paper's sampler:" in printed


def test_rllib_on_two_workers(ending_model, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'genie-env[ray]'")
    folder = saved(ending_model, tmp_path / "model")
    printed = run("examples/rllib_ppo.py", "--model", folder, "--workers", 2, "--worlds", 3,
                  "--iterations", 2, "--horizon", 8, "--batch", 96)  # fmt: skip
    rows = [line for line in printed.splitlines() if line.startswith("iteration")]
    assert len(rows) == 2 and "nan" not in rows[-1]
