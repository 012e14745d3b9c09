"""Designs that find two players and designs that do not: trained and measured at the smallest
size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genie_env.world_model.tokenizer import to_float
from training.data.duels import DuelConfig, play_games
from training.penalized import PenalizedConfig, PenalizedModel, PenalizedStage

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "two_players.py"


def run(folder, *arguments):
    command = [sys.executable, str(BENCHMARK), "--steps", "2", "--num-games", "3", *arguments]
    command += ["--data", "games", "--change", "model.width=8", "loop.compile=false"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    command = [sys.executable, "-m", "genie_env.cli", "collect-duels", "--out", "games"]
    command += ["--num-games", "6", "--shard-games", "6"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_recipes_are_trained_measured_and_kept(folder):
    names = ["one past frame", "penalties (the report's design)"]
    done = run(folder, "--recipes", *names)
    assert done.returncode == 0, done.stderr[-2000:]
    table = (folder / "runs" / "two-players" / "table.md").read_text()
    assert all(f"| {name} | 0 |" in table for name in names)
    kept = folder / "runs" / "two-players" / "one-past-frame-0" / "numbers.json"
    kept.write_text(json.dumps(dict.fromkeys(json.loads(kept.read_text()), 7.25)))
    assert "7.25" in run(folder, "--recipes", *names[:1]).stdout
    done = run(folder, "--recipes", "magic")
    assert "unknown recipes ['magic']; known: as shipped" in done.stderr


def test_masks_that_cost_nothing_and_masks_that_must_cover():
    frames = torch.from_numpy(play_games(24, 2, DuelConfig(""), 0)[0])
    areas = {}
    for coverage in (0.0, 5.0):
        torch.manual_seed(0)
        config = PenalizedConfig(width=16, coverage=coverage, overlap=50.0, sensitivity=0.0)
        stage = PenalizedStage(config)
        optimizer = torch.optim.AdamW(stage.parameters(), 3e-3)
        for _ in range(40):
            loss, metrics = stage(frames, progress=0.5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        areas[coverage] = float(metrics["area"])
    assert areas[0.0] < 0.01 < 0.015 < areas[5.0]


@pytest.mark.parametrize("leak", [False, True])
def test_only_a_leaking_mask_depends_on_what_comes(leak):
    torch.manual_seed(0)
    model = PenalizedModel(PenalizedConfig(width=16, masks_see_next=leak)).eval()
    frames = play_games(2, 10, DuelConfig(""), 0)[0]
    other = frames.copy()
    other[:, 9] = 255 - other[:, 9]
    shown, shown_other = (to_float(torch.from_numpy(f)).movedim(-1, 2) for f in (frames, other))
    with torch.no_grad():
        now, after, after_other = map(model.seen, (shown[:, 8], shown[:, 9], shown_other[:, 9]))
        same = torch.allclose(model.masks(now, after), model.masks(now, after_other))
    assert same is not leak
    codes, places = model.infer_codes(frames)
    assert codes.shape == (2, 2, 2) and places.shape == (2, 2, 2, 2)
    assert ((places >= 0) & (places <= 63)).all()
