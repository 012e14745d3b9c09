"""The recipe benchmark runs as its users would run it, at the smallest size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "benchmarks" / "recipes.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a debug world was trained, data and all."""
    folder = tmp_path_factory.mktemp("recipes")
    command = [sys.executable, "-m", "genie_env.cli", "train", "all", "--preset", "debug"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def run(folder, *arguments):
    command = [sys.executable, str(RECIPES), *arguments, "--preset", "debug", "--steps", "2"]
    command += ["--model", "runs/debug/model", "--num-scenes", "4"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("family", "recipe", "column"),
    [
        ("latent-actions", "action from the first step", "jump where possible"),
        ("dynamics", "action prepended", "delta-PSNR, t = 4"),
    ],
)
def test_a_recipe_is_trained_measured_and_kept(folder, family, recipe, column):
    done = run(folder, family, "--recipes", recipe)
    assert done.returncode == 0, done.stderr[-2000:]
    table = (folder / "runs" / "recipes" / family / "table.md").read_text()
    assert column in table and f"| {recipe} |" in table
    kept = folder / "runs" / "recipes" / family / recipe.replace(" ", "-") / "numbers.json"
    numbers = json.loads(kept.read_text())
    assert column in numbers
    kept.write_text(json.dumps(dict.fromkeys(numbers, 7.25)))
    again = run(folder, family, "--recipes", recipe)
    assert "7.25" in again.stdout


def test_an_unknown_recipe(folder):
    done = run(folder, "dynamics", "--recipes", "magic")
    assert done.returncode != 0
    assert "unknown recipes ['magic']; known: as shipped" in done.stderr
