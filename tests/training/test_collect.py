"""What is collected is the game as it was played, whether or not the collection was stopped."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("procgen", reason='needs the real game: pip install "genie-env[procgen]"')

from genie_env.envs.coinrun import RIGHT_JUMP, CoinRunVectorEnv
from training.data import clip_store, collect
from training.data.clip_store import (
    CUT,
    DEATH,
    SUCCESS,
    ClipStore,
    StoreFullError,
    load_labels,
)
from training.data.collect import CollectConfig, MixedPolicy


def config_for(folder, **changes):
    values = {
        "out": str(folder),
        "num_frames": 3_000,
        "shard_frames": 1_200,
        "num_envs": 8,
        "look": "plain",
        "num_levels": 50,
        "num_threads": 0,
    }
    return CollectConfig(**{**values, **changes})


def run(config):
    return collect.collect(config, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return run(config_for(tmp_path_factory.mktemp("collected")))


def test_the_store_says_what_it_holds(collected):
    store = ClipStore(collected)
    assert store.num_frames == 3_000
    assert store.meta["look"] == "plain" and store.meta["frame_skip"] == 3
    assert store.meta["fps"] == 5
    assert store.meta["source"]["mix"] == {"walker": 0.75, "runner": 0.15, "uniform": 0.1}
    assert store.clips([0, len(store) - 1]).shape == (2, 16, 64, 64, 3)


def test_segments_hold_every_frame_once_and_keep_to_one_level(collected):
    for shard in clip_store.list_shards(collected):
        segments = np.load(clip_store.segments_path(collected, shard))
        labels = load_labels(collected, shard)
        assert segments[:, 0].tolist() == [0, *np.cumsum(segments[:, 1])[:-1]]
        assert segments[:, 1].sum() == len(labels.actions)
        assert set(labels.level_seeds.tolist()) <= set(range(50))
        for (start, length), outcome in zip(segments, labels.outcomes, strict=True):
            rows = slice(start, start + length)
            assert len(set(labels.level_seeds[rows].tolist())) == 1
            assert (labels.actions[rows][:-1] >= 0).all()
            # The last action is known where it ended the episode, and not where we stopped.
            assert (labels.actions[rows][-1] >= 0) == (outcome != CUT)
            assert (labels.rewards[rows].sum() > 0) == (outcome == SUCCESS)


@pytest.mark.parametrize("frame_skip", [1, 3])
def test_labels_replayed_in_the_game_give_the_frames(tmp_path, frame_skip):
    """The action at frame i, played in that level, leads to frame i+1 of the same segment."""
    folder = run(config_for(tmp_path, num_frames=2_400, frame_skip=frame_skip, shard_frames=2_400))
    store, labels = ClipStore(folder, clip_frames=1), load_labels(folder, 0)
    replayed, ends = 0, 0
    for row in np.argsort(store.segments[:, 2])[::-1][:12]:
        _, start, length = store.segments[row]
        level = int(labels.level_seeds[start])
        env = CoinRunVectorEnv(
            1, look="plain", start_level=level, num_levels=1, frame_skip=frame_skip, num_threads=0
        )
        frames = store.segment(row)
        obs, _ = env.reset()
        if (obs[0] != frames[0]).any():
            continue  # it began after no-ops in its first hold, or the engine drew another start
        for t in range(length - 1):
            obs, reward, terminated, truncated, _ = env.step([labels.actions[start + t]])
            assert not (terminated | truncated).any()
            assert reward[0] == labels.rewards[start + t]
            np.testing.assert_array_equal(obs[0], frames[t + 1])
            replayed += 1
        if labels.outcomes[row] in (SUCCESS, DEATH):
            _, _, terminated, _, infos = env.step([labels.actions[start + length - 1]])
            assert terminated[0]
            assert infos["success"][0] == (labels.outcomes[row] == SUCCESS)
            ends += 1
    assert replayed > 50 and ends > 0


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(collected, tmp_path):
    again = run(config_for(tmp_path / "again"))
    assert contents(again) == contents(collected)
    other = run(config_for(tmp_path / "other", seed=1))
    name = "frames-00000.npy"
    assert contents(other)[name] != contents(collected)[name]


def test_shards_of_one_collection_differ(collected):
    first, second = (np.load(clip_store.frames_path(collected, k))[:1_200] for k in (0, 1))
    assert (first != second).any()


def test_killed_and_resumed_equals_never_stopped(collected, tmp_path, monkeypatch):
    config = config_for(tmp_path / "killed")
    steps = 0
    real_step = CoinRunVectorEnv.step

    def step_until_killed(self, actions):
        nonlocal steps
        steps += 1
        if steps > 200:  # in the middle of the second shard
            raise KeyboardInterrupt
        return real_step(self, actions)

    monkeypatch.setattr(CoinRunVectorEnv, "step", step_until_killed)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert clip_store.list_shards(config.out) == [0]
    monkeypatch.undo()
    assert contents(run(config)) == contents(collected)


def test_a_larger_request_extends_and_a_smaller_one_keeps(collected, tmp_path):
    folder = tmp_path / "grown"
    run(config_for(folder, num_frames=1_600))
    assert contents(run(config_for(folder))) == contents(collected)
    assert contents(run(config_for(folder, num_frames=100))) == contents(collected)


def test_another_config_in_the_same_folder_is_refused(collected):
    before = contents(collected)
    with pytest.raises(ValueError, match=r"another config.*'look': \('plain', 'full'\)"):
        run(config_for(collected, look="full"))
    assert contents(collected) == before


@pytest.mark.skipif(not clip_store.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_keeps_the_complete_shards(tmp_path):
    config = config_for(tmp_path)
    run(dataclasses.replace(config, num_frames=1_200))
    before = contents(tmp_path)
    (tmp_path / "frames-00001.npy.tmp").symlink_to("/dev/full")
    needed = f"{1_200 * 64 * 64 * 3 + 128:,} free bytes"
    with pytest.raises(StoreFullError, match=f"disk full while writing shard 1.*{needed}"):
        run(config)
    assert contents(tmp_path) == before


def play_mix(mix, num_steps=3_000, num_envs=4, redraw=0.7):
    policy = MixedPolicy(mix, redraw, num_envs, np.random.default_rng(0))
    fresh = np.zeros(num_envs, bool)
    return np.stack([policy.act(~fresh if t == 0 else fresh) for t in range(num_steps)])


def test_uniform_presses_all_15_buttons_alike():
    counts = np.bincount(play_mix({"uniform": 1}).ravel(), minlength=15)
    assert len(counts) == 15
    np.testing.assert_allclose(counts / counts.sum(), 1 / 15, atol=0.01)


def test_redraw_keeps_its_action_as_often_as_asked():
    for redraw in (0.3, 0.9):
        actions = play_mix({"jumper": 1}, redraw=redraw)
        weights = np.bincount(actions.ravel(), minlength=9) / actions.size
        assert len(weights) == 9 and weights.min() > 0.01
        assert weights[6:].sum() > 1.5 * weights[:3].sum()
        same = (actions[1:] == actions[:-1]).mean()
        by_chance = (weights**2).sum()
        assert same == pytest.approx(1 - redraw * (1 - by_chance), abs=0.02)


def test_runner_gets_further_than_uniform():
    solved = {}
    for name in ("runner", "uniform"):
        env = CoinRunVectorEnv(64, look="plain", frame_skip=3, num_threads=0)
        env.reset()
        policy = MixedPolicy({name: 1.0}, 0.7, 64, np.random.default_rng(0))
        fresh, solved[name] = np.ones(64, bool), 0
        for _ in range(150):
            *_, terminated, truncated, infos = env.step(policy.act(fresh))
            fresh = terminated | truncated
            solved[name] += int(infos["success"].sum()) if fresh.any() else 0
    assert solved["runner"] > 2 * solved["uniform"]
    assert np.bincount(play_mix({"runner": 1}).ravel()).argmax() == RIGHT_JUMP


def test_each_episode_draws_its_policy_from_the_mix():
    policy = MixedPolicy({"uniform": 1, "runner": 3}, 0.7, 2_000, np.random.default_rng(0))
    seen = np.stack([policy.act(np.full(2_000, t == 0)) for t in range(40)])
    letters = (seen >= 9).any(0)  # only "uniform" presses the six letters
    assert letters.mean() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_frames": 0}, "num_frames must be >= 1, got 0"),
        ({"shard_frames": 0}, "shard_frames"),
        ({"redraw": 0.0}, "redraw must lie in"),
        ({"mix": {"expert": 1.0}}, "among.*jumper.*runner.*uniform.*walker.*expert"),
        ({"mix": {}}, "mix must name policies"),
        ({"mix": {"uniform": 0.0}}, "positive sum"),
        ({"mix": {"uniform": 2.0, "runner": -1.0}}, "weights >= 0"),
    ],
)
def test_bad_configs_are_named(tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        config_for(tmp_path, **changes)


def test_bad_engine_arguments_leave_no_store_behind(tmp_path):
    with pytest.raises(ValueError, match="look must be one of.*dim"):
        run(config_for(tmp_path / "store", look="dim"))
    assert not (tmp_path / "store").exists()
