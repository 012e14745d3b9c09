"""The game without a window: keys and time in, what is shown out."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from genie_env.play.game import SPEEDS, _neighbour
from genie_env.play.keymap import Keymap


def tap(game, key):
    game.key_down(key)
    game.key_up(key)


def test_the_world_runs_by_itself_at_its_pace(make_game, clock):
    game = make_game(speed=10.0)
    for _ in range(100):
        clock.now += 0.01
        game.tick()
    assert 9 <= game.shown.view.number <= 11
    assert game.shown.fps == pytest.approx(10, rel=0.15)


def test_at_full_speed_every_finished_step_begins_the_next(make_game, clock):
    game = make_game()
    for _ in range(20):
        clock.now += 0.001
        game.tick()
    assert game.shown.view.number >= 18


def test_no_two_steps_at_once_after_a_pause(make_game, clock):
    game = make_game(speed=1.0)
    for _ in range(130):
        clock.now += 0.01
        game.tick()
    tap(game, "p")
    clock.now += 50
    game.tick()
    tap(game, "p")
    number = game.session.newest
    for _ in range(80):
        clock.now += 0.01
        game.tick()
    assert game.session.newest == number + 1


def test_held_keys_act_until_they_are_let_go(make_game, run, controls):
    game = make_game()
    game.key_down("d")
    run(game, 2)
    assert game.shown.view.press.button == "right"
    game.key_down("1")
    run(game, 2)
    assert game.shown.view.press.code == 0
    game.key_up("1")
    game.key_up("d")
    run(game, 2)
    assert game.shown.view.press.code == controls.idle


def test_the_key_that_went_down_last_counts_at_once(make_game, run):
    game = make_game()
    game.key_down("a")
    run(game, 2)
    under_way = game.session.newest
    game.key_down("d")
    run(game, 3)
    assert game.session.seen(under_way + 1).press.button == "right"


def test_a_tap_between_two_steps_counts(make_game, run, executor):
    game = make_game()
    executor.later = True
    game.tick()  # a step is under way
    tap(game, "7")
    executor.waiting()
    executor.later = False
    run(game, 2)
    assert 6 in [game.session.seen(n).press.code for n in range(1, game.shown.view.number + 1)]


def test_taps_while_nothing_runs_are_not_played_later(make_game, run, controls):
    game = make_game(policy=lambda frames_THWC: 0)
    run(game, 1)
    tap(game, "p")
    run(game)
    tap(game, "7")
    tap(game, "c")
    tap(game, "a")
    tap(game, "escape")
    tap(game, "p")
    run(game, 2)
    played = {game.session.seen(n).press.code for n in range(1, game.session.newest + 1)}
    assert 6 not in played and 2 not in played


def test_keys_are_answered_while_the_model_is_slow(make_game, executor):
    game = make_game()
    executor.later = True
    game.tick()
    tap(game, "p")
    assert game.shown.paused and game.wait() <= 0.05
    number = game.shown.view.number
    assert not game.tick() and game.shown.view.number == number
    executor.waiting()
    assert game.tick() and game.shown.view.number == number + 1


def test_what_is_shown_is_the_frame_that_the_action_made(make_game, run):
    game = make_game(policy=None)
    game.key_down("4")
    run(game, 2)
    view = game.shown.view
    assert view.press.code == 3
    # By hand, from the same start.
    env = game.session.env
    env.reset(seed=0)
    expected = [env.step(3)[0] for _ in range(view.number)][-1]
    np.testing.assert_array_equal(view.frame_HWC, expected)


def test_paused_it_does_nothing_but_single_steps(make_game, run):
    game = make_game()
    run(game, 3)
    tap(game, "p")
    run(game)
    number = game.shown.view.number
    assert game.wait() >= 0.2  # sleeps
    run(game)
    assert game.shown.view.number == number
    tap(game, ".")
    run(game)
    assert game.shown.view.number == number + 1 and game.shown.paused
    tap(game, "p")
    run(game, 2)


def test_rewind_runs_backwards_and_goes_on_from_there(make_game, run, clock):
    game = make_game()
    run(game, 12)
    number = game.shown.view.number
    game.key_down("backspace")
    seen = []
    for _ in range(60):
        clock.now += 0.01
        game.tick()
        seen.append(game.shown.view.number)
    assert seen[-1] < number - 5
    assert all(b in (a, a - 1) for a, b in pairwise(seen))
    assert game.shown.rewound == seen[-1]
    tap(game, "p")
    game.key_up("backspace")
    run(game)
    assert game.shown.view.number == seen[-1] == game.session.view.number
    assert game.shown.rewound is None


@pytest.mark.parametrize("key", ["f5", "f3", "b", "c", ".", "f2"])
def test_commands_while_rewinding_mean_what_is_shown(make_game, run, clock, key):
    kept = []
    game = make_game(keep=lambda frames, codes, episode: kept.append(len(frames)) or "kept")
    run(game, 16)
    game.key_down("backspace")
    for _ in range(20):
        clock.now += 0.01
        game.tick()
    shown = game.shown.view.number
    tap(game, "p")
    tap(game, key)
    game.key_up("backspace")
    run(game)
    assert game.session.newest == shown + (key == ".")
    if key == "f3":
        assert kept == [shown + 1]
    if key == "f5":
        tap(game, "f9")
        run(game)
        wanted = game.session.view.frame_HWC
        np.testing.assert_array_equal(game.shown.view.frame_HWC, wanted)


def test_rewinding_stops_at_the_start(make_game, run, clock):
    game = make_game()
    run(game, 3)
    game.key_down("backspace")
    for _ in range(100):
        clock.now += 0.02
        game.tick()
    assert game.shown.view.number == 0


def test_branches_are_shown_and_the_chosen_one_comes_true(make_game, run):
    game = make_game()
    run(game, 2)
    tap(game, "p")
    run(game)
    tap(game, "b")
    run(game)
    futures_AHWC = game.shown.futures_AHWC
    assert game.shown.mode == "branch" and len(futures_AHWC) == 8
    assert game.shown.ends_A is not None and not game.shown.ends_A.any()
    before = futures_AHWC
    tap(game, "]")  # the strip follows
    run(game)
    tap(game, "[")
    run(game)
    np.testing.assert_array_equal(game.shown.futures_AHWC, before)
    tap(game, "6")
    run(game)
    assert game.shown.mode == "play"
    np.testing.assert_array_equal(game.shown.view.frame_HWC, futures_AHWC[5])
    tap(game, "b")
    run(game)
    tap(game, "b")
    assert game.shown.mode == "play" and game.shown.futures_AHWC is None


def test_the_strip_is_of_what_is_shown_although_a_step_was_under_way(make_game, run, executor):
    game = make_game()
    executor.later = True
    game.tick()
    tap(game, "b")
    executor.waiting()
    executor.later = False
    run(game)
    expected, _ = game.session.futures(4)
    np.testing.assert_array_equal(game.shown.futures_AHWC, expected)


def test_save_load_restart_and_new_start(make_game, run):
    game = make_game()
    tap(game, "f9")
    run(game, 1)
    assert "no moment was saved" in game.shown.message
    run(game, 3)
    tap(game, "p")
    run(game)
    tap(game, "f5")
    run(game)
    saved = game.shown.view.frame_HWC
    tap(game, ".")
    tap(game, "f9")
    run(game)
    np.testing.assert_array_equal(game.shown.view.frame_HWC, saved)
    tap(game, "r")
    run(game)
    assert game.shown.view.number == 0
    tap(game, "n")
    run(game)
    assert game.shown.view.number == 0


def test_sampling_and_speed_change_live(make_game, run, env):
    game = make_game()
    tap(game, "p")
    run(game)
    for key in ("]", "]", "l", "l", "k", "["):
        tap(game, key)
    run(game)
    assert (game.shown.temperature, game.shown.maskgit_steps) == (1.25, 3)
    assert (env.sample_with().temperature, env.sample_with().steps) == (1.25, 3)
    tap(game, "-")
    assert game.shown.speed == SPEEDS[-2]
    tap(game, "=")
    assert game.shown.speed == SPEEDS[-1]


def test_a_speed_of_nothing(make_game):
    with pytest.raises(ValueError, match="speed=0"):
        make_game(speed=0)


def test_neighbours():
    assert _neighbour((1, 2, 5), 2, +1) == 5 and _neighbour((1, 2, 5), 3, -1) == 2
    assert _neighbour((1, 2, 5), 5, +1) == 5 and _neighbour((1, 2, 5), 1, -1) == 1


def test_painting_a_start(make_game, run):
    game = make_game()
    tap(game, "c")
    run(game)
    assert game.shown.mode == "paint"
    before = game.shown.canvas.frame_HWC.copy()
    tap(game, "backspace")
    assert not game.shown.canvas.frame_HWC.any()
    game.shown.canvas.frame_HWC[:] = before
    tap(game, "4")
    assert game.shown.canvas.colour == "coin"
    game.paint(0.5, 0.5)
    game.paint(1.2, -0.1)  # beside the frame
    changed = (game.shown.canvas.frame_HWC != before).any(-1)
    assert 0 < changed.sum() <= 16
    assert tuple(game.shown.canvas.frame_HWC[32, 32]) == game.shown.canvas.palette["coin"]
    game.pick(0.0, 0.0)
    assert game.shown.canvas.palette["picked"] == tuple(before[0, 0])
    painted = game.shown.canvas.frame_HWC.copy()
    tap(game, "return")
    run(game, 1)
    assert game.shown.mode == "play" and game.shown.canvas is None
    again, _ = game.session.env.reset(options={"prompt": painted})
    np.testing.assert_array_equal(game.session.seen(0).frame_HWC, again)


def test_a_dropped_image_is_the_next_start(make_game, run, tmp_path):
    image = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "dropped.png")
    game = make_game()
    run(game, 2)
    game.drop(str(tmp_path / "dropped.png"))
    run(game, 3)
    assert game.shown.view.prompt.endswith("dropped.png")


def test_a_dropped_file_that_is_no_image_changes_nothing(make_game, run, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    game = make_game()
    run(game, 2)
    tap(game, "p")
    run(game)
    frame = game.shown.view.frame_HWC
    game.drop(str(tmp_path / "bad.png"))
    run(game)
    assert "no readable image" in game.shown.message
    np.testing.assert_array_equal(game.shown.view.frame_HWC, frame)


def test_an_agent_plays_until_a_key_takes_over(make_game, run):
    game = make_game(policy=lambda frames_THWC: 7)
    run(game, 2)
    assert game.shown.view.by_agent and game.shown.view.press.code == 7
    tap(game, "2")
    run(game, 3)
    assert not game.shown.agent and not game.shown.view.by_agent
    tap(game, "tab")
    run(game, 2)
    assert game.shown.view.by_agent


def test_no_agent_to_hand_over_to(make_game):
    game = make_game()
    tap(game, "tab")
    assert "--agent" in game.shown.message and not game.shown.agent


def test_recording_writes_what_was_played(make_game, run, tmp_path):
    game = make_game()
    tap(game, "f2")
    run(game, 5)
    assert game.shown.recording >= 5
    count = game.shown.recording
    tap(game, "p")
    tap(game, "f2")
    run(game)
    path = tmp_path / "films" / "played-001.gif"
    assert str(path) in game.shown.message
    with Image.open(path) as film:
        assert film.n_frames == count and film.size == (256, 256)


def test_films_can_be_mp4(make_game, run, tmp_path):
    pytest.importorskip("av")
    game = make_game(film="mp4")
    tap(game, "f2")
    run(game, 3)
    tap(game, "p")
    tap(game, "f2")
    run(game)
    assert (tmp_path / "films" / "played-001.mp4").stat().st_size > 0


def test_a_film_just_ended_is_written_although_the_player_leaves(
    make_game, run, executor, tmp_path
):
    game = make_game()
    tap(game, "f2")
    run(game, 3)
    executor.later = True
    clock_job = game._job
    tap(game, "f2")
    tap(game, "escape")
    assert not game.running and clock_job is game._job
    game.close()
    assert (tmp_path / "films" / "played-001.gif").exists()


def test_a_film_that_cannot_be_written_is_not_lost(make_game, run, tmp_path):
    game = make_game()
    (tmp_path / "films").write_text("a file where the folder should be")
    tap(game, "f2")
    run(game, 3)
    tap(game, "p")
    tap(game, "f2")
    run(game)
    assert "films" in game.shown.message and game.shown.recording >= 3
    (tmp_path / "films").unlink()
    tap(game, "f2")
    run(game)
    assert (tmp_path / "films" / "played-001.gif").exists()


def test_a_pause_does_not_slow_a_film(make_game, clock, run):
    game = make_game(speed=25.0)
    tap(game, "f2")
    run(game, 10)
    tap(game, "p")
    run(game)
    clock.now += 60
    tap(game, "p")
    run(game, 10)
    assert game._film_fps() == pytest.approx(25, rel=0.2)


def test_closing_writes_the_film_under_way(make_game, run, tmp_path):
    game = make_game()
    tap(game, "f2")
    run(game, 2)
    game.close()
    assert (tmp_path / "films" / "played-001.gif").exists()


def test_a_clicked_action_gets_the_next_key(make_game, run, tmp_path):
    game = make_game(keymap_file=tmp_path / "keys.json")
    game.remap(6)
    assert "action 7" in game.shown.message
    tap(game, "x")
    game.key_down("x")
    run(game, 2)
    assert game.shown.view.press.code == 6
    assert Keymap.read(tmp_path / "keys.json").keys["x"] == "code 6"
    for key in ("escape", "p"):
        meant = game.keymap.keys[key]
        game.remap(5)
        tap(game, key)
        assert game.shown.mode == "play" and game.running
        assert game.keymap.keys[key] == meant
    assert "p is taken: pause" in game.shown.message


def test_a_keymap_that_cannot_be_written_is_told(make_game, run, tmp_path):
    game = make_game(keymap_file=tmp_path / "none" / "keys.json")
    tap(game, "p")
    run(game)
    game.remap(6)
    tap(game, "x")
    run(game)
    assert "keys.json" in game.shown.message and game.keymap.keys["x"] == "code 6"


def test_a_step_that_fails_pauses_the_world(make_game, run):
    calls = []

    def policy(frames_THWC):
        calls.append(1)
        raise RuntimeError("out of memory")

    game = make_game(policy=policy)
    for _ in range(20):
        game.tick()
    assert len(calls) == 1 and game.shown.paused and "out of memory" in game.shown.message


def test_what_fails_leaves_the_mode_alone(make_game, run):
    game = make_game()
    tap(game, "c")
    tap(game, "f3")
    tap(game, "f9")
    run(game)
    assert game.shown.mode == "paint" and "no moment was saved" in game.shown.message


def test_actions_that_there_are_not(make_game, env, clock, executor, tmp_path):
    from genie_env.play.controls import Controls
    from genie_env.play.game import Game
    from genie_env.play.session import Session

    session = Session(env, Controls.of({}, 3))
    game = Game(session, Keymap(), tmp_path, executor=executor, clock=clock)
    tap(game, "7")
    assert "3 actions" in game.shown.message
    tap(game, "d")
    assert "nobody measured" in game.shown.message
    game.close()


def test_an_end_is_told_and_the_world_waits(make_game, run, env):
    game = make_game()
    run(game, 1)
    env._settings.rewards.of = lambda worlds: (np.array([0.0]), np.array([True]))
    run(game, 1)
    run(game)
    assert game.shown.view.ended == "death" and "died" in game.shown.message
    assert game.wait() >= 0.2
    del env._settings.rewards.of
    tap(game, "b")
    assert game.shown.mode == "play"
    game.key_down("backspace")
    game.tick()
    assert "died" not in game.shown.message
    game.key_up("backspace")
    tap(game, "r")
    run(game, 2)
    assert game.shown.view.ended is None and "died" not in game.shown.message


def test_toggles_and_quit(make_game, run):
    game = make_game()
    tap(game, "u")
    assert game.shown.uncertainty
    tap(game, "g")
    tap(game, "g")
    assert "coinrun:LEVEL" in game.shown.message
    tap(game, "c")
    tap(game, "escape")
    assert game.running and game.shown.mode == "play"
    tap(game, "escape")
    assert not game.running
