"""`genie ...` as a user types it, each command with a tiny budget."""

import subprocess
import sys

import pytest

from genie_env import cli


def genie(*arguments):
    cli.main([str(a) for a in arguments])


def test_collect_train_and_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    genie("collect", "--out", "data/video", "--num-frames", 1024, "--shard-frames", 512, "--look",
          "plain", "--num-envs", 8)  # fmt: skip
    genie("train", "tokenizer", "--preset", "debug", "--run", "runs/a", "--data", "data/video")
    genie("train", "actions", "--preset", "debug", "--run", "runs/a", "--data", "data/video")
    genie("train", "world", "--preset", "debug", "--run", "runs/a", "--data", "data/video")

    import gymnasium as gym

    env = gym.make("genie_env:GenieEnv-v0", model="runs/a/model")
    obs, _ = env.reset(seed=0)
    assert env.step(7)[0].shape == obs.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "all", "--preset", "huge"), "unknown preset 'huge'; known: coinrun-plain"),
        (("eval", "--model", "nope"), "no checkpoint 'nope'; accepted: a shipped name"),
        (("eval", "--levels", "20000"), "FIRST-LAST"),
        (("eval", "--sections", "speed"), "sections ['speed']; known: tokenizer, prediction"),
        (("train", "tokenizer", "--preset", "debug", "--data", "missing"), "missing"),
        (("train", "all", "--preset", "debug", "--change", "world_loop.pace=3"), "no field 'pace'"),
        (("train", "all", "--preset", "debug", "--change", "sampling.steps=x"), "sampling.steps"),
        (("dream", "train", "--model", "nope"), "no checkpoint 'nope'"),
        (("dream", "eval", "--run", "none"), "none has no finished agent"),
        (("play", "--model", "nope"), "no checkpoint 'nope'"),
        (("play", "--prompt", "nope.png"), "'nope.png' is not there"),
        (("play", "--agent", "nope.zip"), "no agent nope.zip"),
        (("import-videos", "--videos", "missing", "--out", "x"), "missing"),
    ],
)
def test_errors_name_what_was_given(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        genie(*arguments)
    assert message in str(exit_info.value)


def test_help_needs_no_torch():
    code = (
        "import sys; from genie_env import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in (
        "collect",
        "collect-duels",
        "train",
        "eval",
        "dream",
        "play",
        "import-videos",
        "export-videos",
    ):
        assert command in done.stdout
