"""What can be done in a world: step, rewind, save, branch, with the real game beside it."""

import numpy as np
import pytest

from genie_env.envs.single import GenieEnv
from genie_env.play.controls import Controls
from genie_env.play.keymap import Press
from genie_env.play.session import Session
from genie_env.play.timeline import Moment, Timeline


class Counter:
    """A world of one number, its luck included: each step adds what the last one left."""

    def __init__(self):
        self.value, self.kept = 1, 0

    def step(self, action):
        self.value = self.value * 3 + action

    def get_state(self):
        self.kept += 1
        return self.value

    def set_state(self, saved):
        self.value = saved


def play(timeline, world, actions):
    values = []
    for action in actions:
        world.step(action)
        timeline.add(Moment(np.array(world.value), action))
        values.append(world.value)
    return values


def test_a_timeline_returns_to_every_moment_by_few_states():
    world = Counter()
    timeline = Timeline([world], lambda action, _: world.step(action), every=4)
    timeline.add(Moment(np.array(world.value), None))
    values = [1, *play(timeline, world, range(20))]
    assert world.kept == 6
    for number in (19, 18, 12, 3, 0):
        moment = timeline.return_to(number)
        assert world.value == values[number] == moment.frame_HWC
        assert timeline.newest == number
    assert play(timeline, world, range(20))[-1] == values[-1]


def test_a_timeline_forgets_what_is_too_long_ago():
    world = Counter()
    timeline = Timeline([world], lambda action, _: world.step(action), every=2, most=3)
    timeline.add(Moment(np.array(1), None))
    play(timeline, world, range(9))
    assert timeline.oldest == 4
    with pytest.raises(IndexError, match="moment 3; to be had: 4 to 9"):
        timeline.return_to(3)
    timeline.return_to(4)


def test_a_long_episode_forgets_its_beginning():
    world = Counter()
    timeline = Timeline([world], lambda action, _: world.step(action), every=4, longest=16)
    timeline.add(Moment(np.array(1), None))
    values = [1, *play(timeline, world, [1] * 30)]
    assert timeline.newest == 30 and len(timeline.last()) <= 16
    with pytest.raises(IndexError, match="moment 2; to be had"):
        timeline[2]
    assert timeline[25].frame_HWC == values[25]
    for number in (29, timeline.oldest):
        assert timeline.return_to(number).frame_HWC == world.value == values[number]


def test_steps_are_those_of_the_environment(session, env):
    state = env.get_state()
    view = session.step(Press(3))
    assert view.number == 1 and view.press == Press(3) and not view.by_agent
    env.set_state(state)
    frame_HWC, *_, info = env.step(3)
    np.testing.assert_array_equal(view.frame_HWC, frame_HWC)
    assert view.uncertainty_hw.mean() == pytest.approx(info["token_entropy"], rel=1e-5)


def test_without_a_press_the_world_idles(session, controls):
    assert session.step().press == Press(controls.idle, "none")


def test_rewinding_and_going_on_gives_the_same_world(session):
    frames = [session.step(Press(code % 8)).frame_HWC for code in range(21)]
    session.return_to(10)
    assert session.view.number == 10
    np.testing.assert_array_equal(session.view.frame_HWC, frames[9])
    again = [session.step(Press(code % 8)).frame_HWC for code in range(10, 21)]
    np.testing.assert_array_equal(again, frames[10:])
    np.testing.assert_array_equal(session.seen(3).frame_HWC, frames[2])


def test_rewinding_goes_through_changes_of_the_sampling(session, env):
    session.step(Press(1))
    env.sample_with(temperature=0.0, maskgit_steps=1)
    session.step(Press(2))
    env.sample_with(temperature=1.5, maskgit_steps=3)
    third = session.step(Press(3)).frame_HWC
    session.step(Press(4))
    session.return_to(3)
    np.testing.assert_array_equal(session.view.frame_HWC, third)
    fourth = session.step(Press(4)).frame_HWC
    assert env.sample_with().steps == 3
    session.return_to(3)
    np.testing.assert_array_equal(session.step(Press(4)).frame_HWC, fourth)


def test_restart_gives_the_same_start_with_the_same_luck(session):
    first = [session.step(Press(2)).frame_HWC for _ in range(3)]
    session.restart()
    assert session.view.number == 0
    np.testing.assert_array_equal([session.step(Press(2)).frame_HWC for _ in range(3)], first)


def test_a_saved_moment_can_be_loaded_twice(session):
    with pytest.raises(ValueError, match="no moment was saved"):
        session.load()
    session.step(Press(1))
    session.save()
    after = session.step(Press(5)).frame_HWC
    for _ in range(2):
        session.load()
        np.testing.assert_array_equal(session.step(Press(5)).frame_HWC, after)


def test_futures_are_what_would_happen_and_change_nothing(session):
    session.step(Press(1))
    futures_AHWC, ended_A = session.futures(2)
    assert len(futures_AHWC) == len(ended_A) == session.controls.num_actions
    assert not ended_A.any()
    session.step(Press(6))
    np.testing.assert_array_equal(session.step(Press(6)).frame_HWC, futures_AHWC[6])


def test_an_agent_sees_the_last_frames_and_acts(env, controls):
    seen = []

    def policy(frames_THWC):
        seen.append(frames_THWC)
        return 6

    session = Session(env, controls, policy)
    session.start(seed=0)
    views = [session.step() for _ in range(18)]
    assert all(view.by_agent and view.press.code == 6 for view in views)
    assert [len(frames) for frames in seen] == [*range(1, 17), 16, 16]
    np.testing.assert_array_equal(seen[-1][-1], views[-2].frame_HWC)
    assert not session.idle().by_agent


def test_an_ended_world_stays(session, env):
    env._settings.rewards.of = lambda worlds: (np.array([10.0]), np.array([True]))
    view = session.step(Press(1))
    assert view.ended == "coin" and view.score == 10
    assert session.step(Press(2)) is view
    session.restart()
    assert session.view.ended is None and session.view.score == 0


def test_a_kept_episode_is_training_data(env, controls, tiny_model, tmp_path):
    from training.data.clip_store import ClipStore
    from training.data.played import keeper_of

    keep = keeper_of(tmp_path / "played", tiny_model.config)
    session = Session(env, controls, keep=keep)
    session.start(seed=0)
    with pytest.raises(ValueError, match="nothing to keep"):
        session.keep()
    for code in (1, 2, 3):
        session.step(Press(code))
    assert "4 frames" in session.keep()
    session.step(Press(4))
    session.keep()  # more of the same episode
    first = session.frames()
    session.restart()
    session.step(Press(7))
    session.keep()
    store = ClipStore(tmp_path / "played", 2)
    assert [len(store.segment(row)) for row in range(len(store.segments))] == [5, 2]
    np.testing.assert_array_equal(store.segment(0), first)
    np.testing.assert_array_equal(store.segment(1), session.frames())
    assert np.load(tmp_path / "played" / "codes-00000.npy").tolist() == [1, 2, 3, 4]
    assert store.meta["frame_skip"] == tiny_model.config.frame_skip
    # Another sitting goes on behind it.
    keep_again = keeper_of(tmp_path / "played", tiny_model.config)
    assert "segment 2" in keep_again(first, np.array([1, 2, 3, 4]), 1)


def test_a_store_of_other_frames_takes_no_episode(tiny_model, tmp_path):
    from training.data.clip_store import write_meta
    from training.data.played import keeper_of

    write_meta(tmp_path, frame_size=32, source={"kind": "played"})
    with pytest.raises(ValueError, match="32 pixels"):
        keeper_of(tmp_path, tiny_model.config)
    write_meta(tmp_path, frame_size=64, source={"kind": "coinrun"})
    with pytest.raises(ValueError, match="not played"):
        keeper_of(tmp_path, tiny_model.config)


def test_nobody_keeps_without_a_folder(session):
    with pytest.raises(ValueError, match="--keep FOLDER"):
        session.keep()


@pytest.fixture
def on_a_level(tiny_model, controls):
    pytest.importorskip("procgen")
    session = Session(GenieEnv("coinrun:20001", tiny_model, reward="none"), controls)
    session.start(seed=0)
    yield session
    session.close()


def test_the_real_game_does_the_same_beside_the_dream(on_a_level):
    start = on_a_level.view.real_HWC
    assert start.shape == (64, 64, 3)
    views = [on_a_level.step(Press(3, "right")) for _ in range(6)]
    assert (views[-1].real_HWC != start).any()
    # The measured name of a code is the button it presses.
    on_a_level.restart()
    by_code = [on_a_level.step(Press(3)) for _ in range(6)]
    np.testing.assert_array_equal(by_code[-1].real_HWC, views[-1].real_HWC)
    on_a_level.return_to(2)
    np.testing.assert_array_equal(on_a_level.view.real_HWC, views[1].real_HWC)
    again = [on_a_level.step(Press(3, "right")) for _ in range(4)]
    np.testing.assert_array_equal(again[-1].real_HWC, views[-1].real_HWC)


def test_a_real_episode_that_ended_stays_at_its_last_frame(on_a_level):
    for _ in range(120):
        view = on_a_level.step(Press(5, "right+jump"))
        if view.real_ended:
            break
    assert view.real_ended in ("coin", "death")
    np.testing.assert_array_equal(on_a_level.step(Press(2, "left")).real_HWC, view.real_HWC)
    on_a_level.restart()
    assert on_a_level.view.real_ended is None


def test_a_saved_moment_brings_its_own_start_and_real_game_back(on_a_level, env):
    for _ in range(4):
        saved = on_a_level.step(Press(3, "right"))
    on_a_level.save()
    twin = on_a_level._twin
    frame_HWC = np.full((64, 64, 3), 99, np.uint8)
    assert on_a_level.start(frame_HWC).real_HWC is None
    on_a_level.start("coinrun:20002")
    view = on_a_level.load()
    assert view.prompt == "coinrun:20001"
    np.testing.assert_array_equal(view.real_HWC, saved.real_HWC)
    start = on_a_level.restart()
    assert start.prompt == "coinrun:20001" and start.number == 0
    again = [on_a_level.step(Press(3, "right")) for _ in range(4)][-1]
    np.testing.assert_array_equal(again.frame_HWC, saved.frame_HWC)
    np.testing.assert_array_equal(again.real_HWC, saved.real_HWC)
    # Real games that nothing leads back to are closed.
    assert on_a_level._twins == [twin]
    on_a_level.close()
    assert on_a_level._twins == [] and twin._env.closed


def test_an_agent_remembers_across_a_load(env, controls):
    seen = []
    session = Session(env, controls, lambda frames_THWC: seen.append(frames_THWC) or 1)
    session.start(seed=0)
    before = [session.step().frame_HWC for _ in range(3)]
    session.save()
    session.load()
    session.step()
    assert len(seen[-1]) == 4
    np.testing.assert_array_equal(seen[-1][1:], before)


def test_a_start_without_a_level_has_no_real_game(session):
    assert session.view.real_HWC is None


def test_nothing_measured_still_plays(env):
    session = Session(env, Controls.of({}, 8))
    session.start(seed=0)
    assert session.step().press.code == 0
