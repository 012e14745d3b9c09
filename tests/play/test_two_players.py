"""Two people on one keyboard: keys to steps, the way back, films, and what is drawn."""

import os

import numpy as np
import pytest
from PIL import Image

pygame = pytest.importorskip("pygame")
pytest.importorskip("pettingzoo")

from genie_env.cli import main  # noqa: E402
from genie_env.envs.two_player import GenieParallelEnv  # noqa: E402
from genie_env.play.duel import DuelGame, DuelWindow  # noqa: E402
from genie_env.world_model.two_player import TwoPlayerModel  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return TwoPlayerModel.from_pretrained("duel")


@pytest.fixture
def game(model, clock, tmp_path):
    env = GenieParallelEnv(model=model)
    yield DuelGame(env, tmp_path / "films", speed=10, seed=3, clock=clock)
    env.close()


@pytest.fixture
def steps(clock):
    def steps(game, count=1):
        for _ in range(count):
            clock.now += 0.1001
            assert game.tick()
        return game.now

    return steps


@pytest.mark.parametrize(
    ("keys", "codes"),
    [
        ([], (0, 0)),
        (["w"], (1, 0)),
        (["d"], (2, 0)),
        (["up"], (0, 1)),
        (["a", "right"], (1, 2)),
        (["w", "s"], (2, 0)),
        (["x"], (0, 0)),
    ],
)
def test_each_player_has_keys_of_its_own(game, model, steps, keys, codes):
    env = GenieParallelEnv(model=model)
    env.reset(seed=3)
    for key in keys:
        game.key_down(key)
    for _ in range(3):
        expected = env.step(dict(zip(env.possible_agents, codes, strict=True)))[0]["player_0"]
        np.testing.assert_array_equal(steps(game).frame_HWC, expected)


def test_a_tap_between_two_steps_counts_once(game, steps):
    game.key_down("s")
    game.key_up("s")
    assert steps(game).action == {"player_0": 2, "player_1": 0}
    assert steps(game).action == {"player_0": 0, "player_1": 0}


def test_no_step_before_it_is_due_or_while_it_stands(game, clock, steps):
    steps(game)
    clock.now += 0.05
    assert not game.tick() and 0 < game.wait() <= 0.05
    game.key_down("p")
    clock.now += 1
    assert not game.tick()
    game.key_down("p")
    steps(game)
    assert game.number == 2


def test_backspace_runs_backwards_and_the_same_keys_lead_on(game, steps):
    game.key_down("w")
    frames = [game.now.frame_HWC, *(steps(game).frame_HWC for _ in range(12))]
    game.key_down("backspace")
    for number in range(11, 2, -1):
        np.testing.assert_array_equal(steps(game).frame_HWC, frames[number])
    game.key_up("backspace")
    np.testing.assert_array_equal(steps(game).frame_HWC, frames[4])
    game.key_down("backspace")
    steps(game, 9)
    assert game.number == 0


def test_the_same_start_again_and_another(game, steps):
    first = game.now.frame_HWC
    second = steps(game).frame_HWC
    game.key_down("r")
    np.testing.assert_array_equal(game.now.frame_HWC, first)
    np.testing.assert_array_equal(steps(game).frame_HWC, second)
    game.key_down("n")
    assert game.number == 0 and (game.now.frame_HWC != first).any()


def test_what_is_recorded_is_written(game, steps, tmp_path):
    game.key_down("f2")
    steps(game, 4)
    game.key_down("f2")
    with Image.open(tmp_path / "films" / "played-001.gif") as film:
        assert film.n_frames == 5
    game.key_down("f2")
    game.close()
    assert (tmp_path / "films" / "played-002.gif").exists()


def test_a_video_that_cannot_be_played_is_said(game, steps, tmp_path):
    before = game.prompt
    game.drop(str(tmp_path / "none.png"))
    assert "none.png" in game.message and game.prompt == before
    Image.new("RGB", (64, 64)).save(tmp_path / "still.png")
    game.drop(str(tmp_path / "still.png"))
    assert "frames" in game.message
    game.drop(str(tmp_path))
    assert "is a folder" in game.message
    steps(game)


def test_the_window_shows_the_frame_and_tells_the_game(game, steps, monkeypatch):
    monkeypatch.setitem(os.environ, "SDL_VIDEODRIVER", "dummy")
    window = DuelWindow(game, "test")
    steps(game, 20)
    window.draw()
    shown = pygame.surfarray.array3d(window.screen.subsurface(window.world)).swapaxes(0, 1)
    np.testing.assert_array_equal(shown[::8, ::8], game.now.frame_HWC)
    assert window.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_w))
    assert game.pressed == ["w"]
    window.handle(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    assert game.pressed == []
    for key in (pygame.K_w, pygame.K_ESCAPE):
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
    window.run()
    assert not game.running and game.pressed == ["w", "escape"]


def test_the_command_tells_one_kind_of_model_from_the_other(monkeypatch):
    monkeypatch.setitem(os.environ, "SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(DuelWindow, "run", lambda window: window.draw())
    main(["play", "--model", "duel", "--seed", "0"])
    with pytest.raises(SystemExit, match="--keep, --keymap|--keymap, --keep"):
        main(["play", "--model", "duel", "--keep", "x", "--keymap", "y"])
    with pytest.raises(SystemExit, match="speed=0"):
        main(["play", "--model", "duel", "--speed", "0"])
