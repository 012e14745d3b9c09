"""The real game keeps its contract: levels, seeds, ends, exact states, errors."""

import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("procgen", reason='needs the real game: pip install "genie-env[procgen]"')

from genie_env.envs.coinrun import (
    ACTION_MEANINGS,
    NOOP,
    NUM_ACTIONS,
    RIGHT,
    RIGHT_JUMP,
    CoinRunVectorEnv,
    level_starts,
)


def make(num_envs=4, **kwargs):
    return CoinRunVectorEnv(num_envs, **{"num_threads": 0, **kwargs})


def rollout(env, actions_TB):
    """Everything `step` returned, stacked; final_obs apart because it is ragged."""
    steps, finals = [], []
    for action_B in actions_TB:
        *arrays, infos = env.step(action_B)
        steps.append((*arrays, infos["level_seed"]))
        finals += [f for f in infos.get("final_obs", []) if f is not None]
    return [np.stack(column) for column in zip(*steps, strict=True)], finals


def random_actions(num_steps, num_envs, seed=0):
    return np.random.default_rng(seed).integers(NUM_ACTIONS, size=(num_steps, num_envs))


def assert_same_rollout(one, two):
    for a, b in zip(one[0], two[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(one[1]) == len(two[1])
    for a, b in zip(one[1], two[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_spaces_and_metadata():
    env = make(3, frame_skip=3, render_mode="rgb_array")
    obs, infos = env.reset()
    assert obs.shape == (3, 64, 64, 3) and obs.dtype == np.uint8
    assert env.observation_space.contains(obs)
    assert env.action_space.contains(env.action_space.sample())
    assert env.single_action_space == gym.spaces.Discrete(15)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert env.metadata["render_fps"] == 5
    assert infos["_level_seed"].all()
    np.testing.assert_array_equal(np.stack(env.render()), obs)
    assert ACTION_MEANINGS[RIGHT_JUMP] == ("RIGHT+UP", 1, 1)


@pytest.mark.parametrize("difficulty", ["easy", "hard"])
@pytest.mark.parametrize(("start", "count"), [(20_000, 3), (0, 1), (7, 50)])
def test_levels_stay_in_their_range(difficulty, start, count):
    env = make(16, difficulty=difficulty, start_level=start, num_levels=count, frame_skip=4)
    _, infos = env.reset()
    seen = set(infos["level_seed"].tolist())
    ended = 0
    for _ in range(120):
        *_, infos = env.step(np.full(16, RIGHT_JUMP))
        seen |= set(infos["level_seed"].tolist())
        if "prev_level_seed" in infos:
            ended += infos["_prev_level_seed"].sum()
            seen |= set(infos["prev_level_seed"][infos["_prev_level_seed"]].tolist())
    assert ended > 16
    assert seen <= set(range(start, start + count))
    assert len(seen) > count // 2


def test_same_seed_same_frames_other_seed_others():
    actions = random_actions(60, 4)
    runs, firsts = [], []
    for seed in (3, 3, 4):
        env = make(seed=seed)
        firsts.append(env.reset()[0])
        runs.append(rollout(env, actions))
    np.testing.assert_array_equal(firsts[0], firsts[1])
    assert_same_rollout(runs[0], runs[1])
    assert (firsts[0] != firsts[2]).any()


def test_reset_reseeds_and_always_starts_afresh():
    env, other = make(seed=5), make(seed=1)
    first, first_infos = env.reset()
    actions = random_actions(30, 4)
    expected = rollout(env, actions)

    other.reset()
    again, _ = other.reset(seed=5)  # a reset seed means what the constructor's means
    np.testing.assert_array_equal(first, again)
    assert_same_rollout(expected, rollout(other, actions))

    # Without a seed: new levels, at their first frame, and reproducible as a sequence.
    second, second_infos = env.reset()
    assert (second_infos["level_seed"] != first_infos["level_seed"]).any()
    np.testing.assert_array_equal(second, other.reset()[0])
    for level, shown in zip(second_infos["level_seed"], second, strict=True):
        fresh = make(1, start_level=int(level), num_levels=1)
        np.testing.assert_array_equal(shown, fresh.reset()[0][0])


def test_running_out_of_time_is_truncated_and_nothing_else_is():
    env = make(2, frame_skip=10)
    env.reset()
    for step in range(1, 101):
        _, _, terminated, truncated, infos = env.step(np.array([NOOP, RIGHT_JUMP]))
        assert truncated[0] == (step == 100) and not terminated[0]
        if terminated[1]:
            assert step < 100 and infos["_success"].tolist() == [False, True]
    assert not infos["success"][0] and infos["_success"][0]


def test_success_is_the_coin_and_death_is_not():
    env = make(32, num_levels=200)
    env.reset()
    outcomes = {True: 0, False: 0}
    for _ in range(250):
        _, reward, terminated, truncated, infos = env.step(np.full(32, RIGHT_JUMP))
        for b in np.flatnonzero(terminated):
            assert infos["success"][b] == (reward[b] > 0)
            outcomes[bool(infos["success"][b])] += 1
        assert not truncated.any()
        assert (reward[~terminated] == 0).all()
    assert min(outcomes.values()) > 3


def test_autoreset_shows_the_next_level_and_keeps_the_last_frame():
    env = make(16)
    previous, infos = env.reset()
    level = infos["level_seed"]
    ends = 0
    for _ in range(200):
        obs, _, terminated, truncated, infos = env.step(np.full(16, RIGHT_JUMP))
        done = terminated | truncated
        for b in np.flatnonzero(done):
            ends += 1
            np.testing.assert_array_equal(infos["final_obs"][b], previous[b])
            assert infos["prev_level_seed"][b] == level[b]
            # What is shown is the first frame of the level that `level_seed` names.
            fresh = make(1, start_level=int(infos["level_seed"][b]), num_levels=1)
            np.testing.assert_array_equal(obs[b], fresh.reset()[0][0])
        if done.any():
            np.testing.assert_array_equal(infos["_final_obs"], done)
            assert all(infos["final_obs"][b] is None for b in np.flatnonzero(~done))
        previous, level = obs, infos["level_seed"]
    assert ends >= 5


def test_frame_skip_is_the_same_game_with_held_actions():
    held, single = make(8, frame_skip=3), make(8)
    held.reset(), single.reset()
    alive = np.ones(8, bool)
    for action_B in random_actions(60, 8):
        obs, reward, terminated, truncated, _ = held.step(action_B)
        total, ended = np.zeros(8), np.zeros(8, bool)
        for _ in range(3):
            single_obs, part, done, out, _ = single.step(np.where(ended, NOOP, action_B))
            total += np.where(ended, 0, part)
            ended |= done | out
        np.testing.assert_array_equal(obs, single_obs)
        np.testing.assert_array_equal(reward, total)
        np.testing.assert_array_equal(terminated | truncated, ended)
        alive &= ~ended
    assert not alive.all()


@pytest.mark.parametrize("frame_skip", [1, 3])
def test_restored_states_repeat_everything(frame_skip):
    env = make(6, frame_skip=frame_skip, difficulty="hard")
    env.reset()
    rollout(env, random_actions(40, 6))
    states = env.get_states()
    actions = random_actions(500 // frame_skip, 6, seed=1)
    expected = rollout(env, actions)
    assert expected[0][2].any()  # levels ended in it, so the choice of the next is restored too

    shown, infos = env.set_states(states)
    assert env.get_states() == states
    assert_same_rollout(expected, rollout(env, actions))

    # Another env, seed and range of levels: the state carries all of it.
    other = make(6, frame_skip=frame_skip, difficulty="hard", seed=9, start_level=500)
    other.reset()
    other_shown, other_infos = other.set_states(states)
    np.testing.assert_array_equal(shown, other_shown)
    np.testing.assert_array_equal(infos["level_seed"], other_infos["level_seed"])
    assert_same_rollout(expected, rollout(other, actions))


def test_a_restored_world_still_truncates_on_time():
    env = make(1, frame_skip=50)
    env.reset()
    for _ in range(15):
        env.step([NOOP])
    state = env.get_states()
    env.reset()
    env.set_states(state)
    assert [bool(env.step([NOOP])[3][0]) for _ in range(5)] == [False] * 4 + [True]


def test_restoring_some_worlds_leaves_the_others():
    env = make(4)
    env.reset()
    states = env.get_states()
    moved, *_ = rollout(env, np.full((8, 4), RIGHT_JUMP))[0]
    shown, _ = env.set_states([states[3]], worlds=[1])
    np.testing.assert_array_equal(shown[[0, 2, 3]], moved[-1][[0, 2, 3]])
    copy = env.set_states([states[3]], worlds=[3])[0]
    np.testing.assert_array_equal(copy[1], copy[3])


def test_looks_differ_and_play_the_same_game():
    plain, full = (make(8, look=look, difficulty="hard") for look in ("plain", "full"))
    (a, a_infos), (b, b_infos) = plain.reset(), full.reset()
    np.testing.assert_array_equal(a_infos["level_seed"], b_infos["level_seed"])
    assert (a != b).mean() > 0.2
    actions = random_actions(100, 8)
    (_, *a_rest), (_, *b_rest) = rollout(plain, actions)[0], rollout(full, actions)[0]
    for one, two in zip(a_rest, b_rest, strict=True):
        np.testing.assert_array_equal(one, two)


def test_actions_do_what_their_names_say():
    """Buttons that move do, and the six letters are no-ops."""
    env = make(8, look="plain", start_level=3, num_levels=1)
    start, _ = env.reset()
    states = env.get_states()
    ahead = [env.step(np.full(8, RIGHT_JUMP))[0] for _ in range(8)][-1]
    env.set_states(states)
    still = [env.step(np.full(8, NOOP))[0] for _ in range(8)][-1]
    assert (ahead != start).any() and (ahead != still).any()
    env.set_states(states)
    letters = [env.step(np.full(8, 9 + b % 6))[0] for b in range(8)][-1]
    np.testing.assert_array_equal(letters, still)


def test_returned_arrays_are_the_callers_own():
    env = make(2, render_mode="rgb_array")
    obs, _ = env.reset()
    kept = obs.copy()
    obs[:] = 0
    np.testing.assert_array_equal(np.stack(env.render()), kept)
    frame, *_ = env.step(np.array([NOOP, NOOP]))
    second = frame.copy()
    env.step(np.array([RIGHT_JUMP, RIGHT_JUMP]))
    np.testing.assert_array_equal(frame, second)


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"num_envs": 0}, ValueError, "num_envs must be >= 1, got 0"),
        ({"num_envs": 2.0}, TypeError, "num_envs must be an int"),
        ({"look": "dark"}, ValueError, "look.*full.*plain.*dark"),
        ({"difficulty": "extreme"}, ValueError, "difficulty.*easy.*hard.*extreme"),
        ({"num_levels": 0}, ValueError, "num_levels must be > 0, got 0.*start_level"),
        ({"num_levels": -1}, ValueError, "num_levels"),
        ({"start_level": -1}, ValueError, "start_level must be >= 0, got -1"),
        ({"start_level": 2**31 - 5}, ValueError, "start_level \\+ num_levels"),
        ({"frame_skip": 0}, ValueError, "frame_skip must be >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be in"),
        ({"render_mode": "human"}, ValueError, "render_mode.*human"),
    ],
)
def test_bad_arguments_are_named(kwargs, error, says):
    with pytest.raises(error, match=says):
        make(**kwargs)


def test_bad_calls_are_named():
    env = make(2)
    with pytest.raises(gym.error.ResetNeeded, match="reset.*step"):
        env.step([NOOP, NOOP])
    with pytest.raises(gym.error.ResetNeeded):
        env.get_states()
    with pytest.raises(TypeError, match="seed must be an int"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match=r"unknown reset options \['level'\]; accepted: 'states'"):
        env.reset(options={"level": 3})
    env.reset()
    with pytest.raises(ValueError, match=r"\[0, 15\), got 4 to 15"):
        env.step([NOOP, 15])
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        env.step([NOOP] * 3)
    with pytest.raises(TypeError, match="integers, got dtype float64"):
        env.step([0.0, 1.0])

    states = env.get_states()
    with pytest.raises(ValueError, match="expected 2 states.*got 1"):
        env.set_states(states[:1])
    with pytest.raises(ValueError, match=r"worlds must be in \[0, 1\], got 2"):
        env.set_states(states[:1], worlds=[2])
    with pytest.raises(ValueError, match="distinct"):
        env.set_states(states, worlds=[1, 1])
    damaged = states[0][:-1] + bytes([states[0][-1] ^ 1])
    for bad in (b"", b"x" * 100, damaged, states[0][:-20]):
        with pytest.raises(ValueError, match="cannot restore"):
            env.set_states([bad, states[1]])
    plain = make(2, look="plain")
    plain.reset()
    with pytest.raises(ValueError, match="state is of.*full.*plain"):
        plain.set_states(states)

    env.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.step([NOOP, NOOP])


def test_missing_engine_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "procgen", None)
    with pytest.raises(ImportError, match=r'pip install "genie-env\[procgen\]"'):
        make()


def test_level_starts_are_each_levels_first_frame():
    states = level_starts("plain", "easy", 20_000, 5)
    env = CoinRunVectorEnv(5, look="plain", start_level=20_000, num_levels=5)
    frames, infos = env.reset(options={"states": states})
    assert infos["level_seed"].tolist() == list(range(20_000, 20_005))
    drawn, infos = env.reset(seed=4)
    for frame, level in zip(drawn, infos["level_seed"], strict=True):
        assert np.array_equal(frame, frames[level - 20_000])
    with pytest.raises(ValueError, match="expected 5 states"):
        env.reset(options={"states": states[:2]})
    env.close()


def test_where_the_agent_is():
    env = CoinRunVectorEnv(4, look="plain", start_level=20_000, num_levels=4)
    env.reset(seed=0)
    before = [env.agent_body(state) for state in env.get_states()]
    for _ in range(4):
        env.step(np.full(4, RIGHT))
    after = [env.agent_body(state) for state in env.get_states()]
    for start, end in zip(before, after, strict=True):
        assert 0 < start.x < end.x < start.x + 4 and end.y <= start.y + 0.1
        assert start.stands and start.speed_x == 0 < end.speed_x <= 0.5
    env.step(np.full(4, RIGHT_JUMP))
    assert not any(env.agent_body(state).stands for state in env.get_states())
    with pytest.raises(ValueError, match="cannot restore"):
        env.agent_body(b"nothing")
    env.close()
