"""The demo runs as a user would run it, on a tiny model and for a few steps."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny_folder(tiny_model, tmp_path_factory) -> Path:
    """The tiny model saved with five starts to draw from."""
    size = tiny_model.config.frame_size
    rng = np.random.default_rng(0)
    kept, tiny_model.prompts = (
        tiny_model.prompts,
        rng.integers(0, 256, (5, 2, size, size, 3), dtype=np.uint8),
    )
    folder = tmp_path_factory.mktemp("tiny")
    try:
        tiny_model.save_pretrained(folder)
    finally:
        tiny_model.prompts = kept
    return folder


def test_demo(tiny_folder, tmp_path):
    out = tmp_path / "demo"
    command = [sys.executable, "examples/demo.py", "--model", str(tiny_folder)]
    command += ["--steps", "40", "--out", str(out)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "40 steps in" in done.stdout and "frames a second" in done.stdout
    with Image.open(out / "genie.gif") as gif:
        assert gif.n_frames == 11  # the start and ten actions, four worlds side by side
    with Image.open(out / "contact_sheet.png") as sheet:
        sheet.load()
