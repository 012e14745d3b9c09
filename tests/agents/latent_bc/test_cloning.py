"""Learning to act from videos: expert, labels, clone, map, comparison."""

import warnings
from dataclasses import astuple, replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
import torch

import genie_env  # noqa: F401  (registers GenieEnv-v0)
from agents.config import (
    CloneConfig,
    CloningConfig,
    CloningScoreConfig,
    ExpertConfig,
    PlanConfig,
)
from agents.expert import mistakes, reach, record_expert, walk
from agents.latent_bc.clone import DecidedClips, clone, logits_of, true_buttons
from agents.latent_bc.controller import Controller, RealActionWrapper, fit_controller
from agents.latent_bc.evaluate import _done, evaluate
from agents.latent_bc.label import Labels, label, open_videos
from agents.latent_bc.learn import SPAN, Footage, LabelledSet, Lesson, learn, shown
from agents.latent_bc.mapping import (
    MAP_KINDS,
    ActionMap,
    count_codes,
    fit_linear,
    fit_map,
    plain_button_index,
)
from agents.latent_bc.policy import RealPolicy
from agents.latent_bc.report import ORACLE, PLAIN, read_scores
from agents.networks import NOT_KNOWN, NetworkConfig, Past, Policy, draw
from agents.plan import Planner, Try, Worth, plan_ways
from agents.score import Levels, frames_env, solved
from genie_env.envs.coinrun import LEFT, NOOP, PLAIN_BUTTONS, RIGHT, RIGHT_JUMP
from genie_env.envs.coinrun_state import Body
from genie_env.world_model import WorldModel
from training.data.clip_store import ClipStore, ClipWriter, has_labels, load_labels, write_meta
from training.data.videos import export_store

TINY = CloneConfig(channels=(4, 4), steps=3, batch_size=8)
QUICK = PlanConfig(at_once=32)


@pytest.fixture(scope="module")
def levels():
    return Levels("full", "easy", 0, 10)


@pytest.fixture(scope="module")
def ways(levels):
    return plan_ways(levels.states, levels.look, levels.difficulty, 3, QUICK)


@pytest.fixture(scope="module")
def expert(levels, tmp_path_factory):
    return ExpertConfig(
        tmp_path_factory.mktemp("expert"), difficulties=("easy",), num_levels=levels.count,
        shard_levels=6, handovers=1, plan=QUICK,
    )  # fmt: skip


@pytest.fixture(scope="module")
def demonstrations(expert):
    return record_expert(expert)["easy"].paths[0]


@pytest.fixture(scope="module")
def model():
    return WorldModel.from_pretrained("coinrun")


def follows(ways, levels):
    """Which levels are solved by pressing what is known, from their start."""
    step = np.zeros(len(ways), np.int64)

    def follow(obs, worlds, begin):
        step[worlds] = 0 if begin else step[worlds] + 1
        return np.array(
            [ways[w][step[w]] if ways[w] is not None and step[w] < len(ways[w]) else NOOP
             for w in worlds]
        )  # fmt: skip

    return solved(follow, lambda count: frames_env(levels, 3, count), levels)


def test_planned_ways_lead_to_the_coin(levels, ways):
    known = [level for level, way in enumerate(ways) if way is not None]
    assert len(known) >= 8
    assert np.flatnonzero(follows(ways, levels)).tolist() == known
    pressed = np.concatenate([ways[level] for level in known])
    # Mostly it runs, and it jumps now and then.
    assert (pressed == RIGHT).mean() > 0.6 and (pressed == RIGHT_JUMP).any()


def test_a_plan_begins_anywhere(levels, ways):
    known = [level for level, way in enumerate(ways) if way is not None]
    starts = [levels.states[level] for level in known]
    before = np.array([NOOP, LEFT])
    elsewhere = reach(starts, [before] * len(known), levels, 3)
    assert all(a not in (b, None) for a, b in zip(elsewhere, starts, strict=True))
    found = plan_ways(elsewhere, levels.look, levels.difficulty, 3, QUICK)
    whole = [None] * levels.count
    for level, way in zip(known, found, strict=True):
        whole[level] = None if way is None else np.r_[before, way]
    assert follows(whole, levels).sum() == sum(way is not None for way in found) >= 0.7 * len(known)
    # A level that is over has no such state.
    assert reach(starts[:1], [ways[known[0]]], levels, 3) == [None]


def test_what_cannot_be_got_past_is_given_up(levels, ways):
    """Who may look only a step ahead of a wall or a saw finds no way past it."""
    blind = replace(QUICK, before=1, safe=4, ahead=12)
    found = plan_ways(levels.states, levels.look, levels.difficulty, 3, blind)
    assert sum(way is None for way in found) > sum(way is None for way in ways)
    with pytest.raises(ValueError, match="ahead=13; accepted: .* ahead >= before .* = 14"):
        replace(QUICK, ahead=13)


def test_an_expert_knows_what_is_on_the_screen():
    """A jump at x = 10 that ends at 15 ends badly; one that ends at 17 might not, for all it knows,
    and one that comes down in sight, with room to do something, is better."""
    planner = Planner(replace(QUICK, every=2, sight=6.0, room=2), frame_skip=3)
    here, up, down = Body(10, 1, 0.5, 0), Body(13, 5, 0.5, 0.7), Body(15, 1, 0, 0)

    def worth(*bodies, ended):
        jump = Try(b"", [here, *bodies], np.full(12, RIGHT), ended=ended)
        return planner._worth(jump, past=11)

    assert worth(up, ended=3) is Worth.BAD
    assert worth(up, Body(16, 4, 0.5, -0.7), ended=5) is Worth.UNKNOWN
    assert worth(up, down, ended=6) is Worth.BAD
    assert worth(up, down, Body(15.4, 1, 0, 0), ended=7) is Worth.LANDS
    assert worth(up, down, ended=None) is Worth.GOOD
    assert worth(Body(10.5, 5, 0, 0.7), Body(10.5, 1, 0, 0), ended=None) is Worth.BAD


def test_demonstrations_end_at_the_coin(demonstrations, levels, ways, expert):
    store = ClipStore(demonstrations, 1)
    assert len(store.shards) == 2 and has_labels([demonstrations])
    assert store.meta["frame_skip"] == 3
    labels = [load_labels(*shard) for shard in store.shards]
    assert all((some.outcomes == 1).all() for some in labels)
    begun, begins = set(), {}
    for row, (shard, start, length) in enumerate(store.segments.tolist()):
        some = slice(start, start + length)
        (level,) = set(labels[shard].level_seeds[some].tolist())
        rewards = labels[shard].rewards[some].tolist()
        assert rewards == [0.0] * (length - 1) + [10.0]
        if level not in begun:
            begun.add(level)
            assert (labels[shard].actions[some] == ways[level]).all()
            (frames,) = walk([levels.states[level]], [ways[level]], levels, 3)
            assert (store.segment(row) == frames).all()
            begins[level] = frames[0]
        else:
            # Handed over on the way: it begins elsewhere.
            assert (store.segment(row)[0] != begins[level]).any()
    assert begun == {level for level, way in enumerate(ways) if way is not None}
    assert len(store.segments) > len(begun)


def test_the_expert_takes_over_where_a_novice_fails(expert, levels, tmp_path):
    """Somebody who presses right and nothing else dies, or stands before the first wall."""
    novice = Policy(NetworkConfig(channels=(4, 4)), len(PLAIN_BUTTONS))
    with torch.no_grad():
        novice.network.out.bias[PLAIN_BUTTONS.index(RIGHT)] = 99.0
    failed = mistakes(RealPolicy(novice), levels, 3)
    assert len(failed) >= 8
    assert all((pressed == RIGHT).all() and len(pressed) <= 100 for pressed in failed.values())
    whole = [failed.get(level) for level in range(levels.count)]
    assert not follows(whole, levels)[list(failed)].any()

    novice.save(tmp_path / "novice")
    config = replace(expert, out=tmp_path / "data", novice=tmp_path / "novice")
    store = record_expert(config)["easy"]
    labels = [load_labels(*shard) for shard in store.shards]
    shown = np.array([labels[shard].level_seeds[start] for shard, start, _ in store.segments])
    assert set(shown) <= set(failed) and len(set(shown)) >= 6
    assert len(set(shown)) == len(shown)
    with pytest.raises(ValueError, match="another config"):
        record_expert(replace(config, novice=None))


def test_a_recording_of_the_expert_goes_on(expert, demonstrations):
    frames = demonstrations / "frames-00000.npy"
    made, whole = frames.stat().st_mtime, (demonstrations / "frames-00001.npy").read_bytes()
    (demonstrations / "frames-00001.npy").unlink()
    record_expert(expert)
    assert frames.stat().st_mtime == made
    assert (demonstrations / "frames-00001.npy").read_bytes() == whole
    with pytest.raises(ValueError, match="another config"):
        record_expert(replace(expert, handovers=5))
    with pytest.raises(ValueError, match="accepted: training levels"):
        record_expert(replace(expert, first_level=9_999))


def test_labels_are_those_of_the_whole_episode(model, demonstrations, tmp_path):
    store = open_videos(demonstrations, model, tmp_path)
    labels = label(model, store, tmp_path / "labels.npz")
    for row in range(3):
        shard, start, length = store.segments[row]
        whole = model.infer_actions(np.array(store.segment(row))[None])[0]
        codes = labels.codes[shard][start : start + length]
        assert codes[-1] == NOT_KNOWN and (codes[:-1] >= 0).all()
        # Windows end elsewhere, and bf16 rounds otherwise in batches of another shape.
        assert (codes[:-1] == whole).mean() > 0.9
    again = label(model, store, tmp_path / "labels.npz")
    assert all((a == b).all() for a, b in zip(again.codes, labels.codes, strict=True))
    assert all((a == b).all() for a, b in zip(again.latents, labels.latents, strict=True))


def test_labels_of_another_video_are_refused(model, demonstrations, tmp_path):
    np.savez(tmp_path / "l.npz", **{"codes-0": np.zeros(4, int), "latents-0": np.zeros((4, 32))})
    with pytest.raises(ValueError, match="labels of another video"):
        label(model, ClipStore(demonstrations, 1), tmp_path / "l.npz")


def test_ordinary_videos_are_labelled_alike(model, demonstrations, tmp_path):
    export_store(demonstrations, tmp_path / "videos", max_segments=2)
    store = open_videos(tmp_path / "videos", model, tmp_path / "imported")
    codes = label(model, store).codes[0]
    assert (codes == label(model, ClipStore(demonstrations, 1)).codes[0][: len(codes)]).mean() > 0.9


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"frame_size": 32}, "32 pixels a side"), ({"fps": 15.0}, "15 frames a second")],
)
def test_video_of_another_size_or_rate_is_refused(model, tmp_path, facts, message):
    write_meta(tmp_path / "s", **{"frame_size": 64, "fps": 5.0, **facts})
    size = facts.get("frame_size", 64)
    with ClipWriter(tmp_path / "s", 0, size) as writer:
        writer.add(np.zeros((4, size, size, 3), np.uint8))
    with pytest.raises(ValueError, match=message):
        open_videos(tmp_path / "s", model, tmp_path / "imported")


def test_a_clone_learns_what_was_done(tmp_path):
    write_meta(tmp_path / "s", frame_size=16)
    rng = np.random.default_rng(0)
    done = rng.integers(3, size=300)
    frames = np.zeros((300, 16, 16, 3), np.uint8) + 20
    for n, action in enumerate(done):
        frames[n, :, 5 * action : 5 * action + 5] = 220
    with ClipWriter(tmp_path / "s", 0, 16) as writer:
        writer.add(frames)
    clips = DecidedClips(ClipStore(tmp_path / "s", 1), [done])
    unknown = np.full((300, 1), NOT_KNOWN)
    config = CloneConfig(channels=(8, 8), steps=60, batch_size=32, learning_rate=3e-3)
    policy = clone(config, 3, clips, tmp_path / "run")
    logits = policy.at(frames[:, None], unknown)
    assert (logits.argmax(-1) == done).mean() > 0.98
    policy.save(tmp_path / "saved")
    again = Policy.load(tmp_path / "saved")
    np.testing.assert_allclose(again.at(frames[:, None], unknown), logits, atol=1e-5)


def test_a_policy_sees_at_least_one_frame():
    with pytest.raises(ValueError, match="frames=0"):
        CloneConfig(frames=0)


@pytest.mark.parametrize("num_frames", [1, 2])
def test_only_who_sees_two_frames_sees_which_way_it_went(num_frames, tmp_path):
    """A bar jumps about; what is done is whether it has come from the left."""
    write_meta(tmp_path / "s", frame_size=16)
    rng = np.random.default_rng(0)
    at = rng.integers(13, size=400)
    frames = np.zeros((400, 16, 16, 3), np.uint8) + 20
    for n, x in enumerate(at):
        frames[n, :, x : x + 3] = 220
    with ClipWriter(tmp_path / "s", 0, 16) as writer:
        writer.add(frames)
    done = np.r_[0, np.diff(at) > 0].astype(np.int64)
    clips = DecidedClips(ClipStore(tmp_path / "s", 1), [done], num_frames)
    config = CloneConfig(
        channels=(8, 8), frames=num_frames, steps=150, batch_size=32, learning_rate=3e-3
    )
    policy = clone(config, 2, clips, tmp_path / "run")
    said = logits_of(policy, clips).argmax(-1)
    # From where it is alone it can only be guessed.
    guess = (at > 6).astype(np.int64)
    assert (guess == done).mean() < 0.85
    assert ((said == done).mean() > 0.93) == (num_frames == 2)


def test_st_vivit_knows_what_was_done_before_not_what_is_done_now():
    policy = Policy(NetworkConfig("st-vivit"), 4)
    # It begins with blocks that do nothing.
    torch.nn.init.normal_(policy.network.transformer.blocks[1].temporal.out.weight, std=0.1)
    frames = torch.randint(0, 255, (1, 4, 64, 64, 3), dtype=torch.uint8)
    before = torch.tensor([[0, 1, 2, 3]])
    logits = policy(frames, before)
    last = before.clone()
    last[0, -1] = 0
    assert torch.equal(policy(frames, last)[0, -1], logits[0, -1])
    last[0, 1] = 3
    assert not torch.allclose(policy(frames, last)[0, -1], logits[0, -1])
    assert torch.equal(policy(frames, last)[0, 1], logits[0, 1])


@pytest.mark.parametrize("kind", ["impala", "st-vivit"])
def test_what_did_not_change_is_not_looked_at_again(kind, monkeypatch):
    torch.manual_seed(0)
    policy = Policy(NetworkConfig(kind), 4)
    if kind == "st-vivit":
        torch.nn.init.normal_(policy.network.transformer.blocks[1].temporal.out.weight, std=0.1)
    rng = np.random.default_rng(0)
    obs, past, looked = rng.integers(0, 255, (3, 64, 64, 3), dtype=np.uint8), None, []
    plain = Policy.at

    def at(self, frames, actions):
        looked.append(len(frames))
        return plain(self, frames, actions)

    monkeypatch.setattr(Policy, "at", at)
    for step in range(12):
        if step in (6, 7):
            obs = obs.copy()
            obs[0] = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        # The third begins an episode; all do the same at every step but the second.
        logits, past = policy.logits(obs, past, np.array([False, False, step == 9]))
        expected = plain(policy, past.frames_BTHWC, past.actions_BT)
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        past = past.acted(np.array([1, step % 2, 2]))
    assert looked[0] == 3
    if kind == "impala":
        assert looked[1:] == [1, 1]  # at the sixth and seventh step
    else:
        assert sum(looked) < 12 * 3


def test_the_past_of_worlds_that_begin_anew_is_forgotten():
    frames = np.arange(4)[:, None, None, None, None] * np.ones((1, 2, 2, 2, 3))
    past = Past.of(frames[0].astype(np.uint8), 3).acted(np.array([5, 6]))
    past = past.seen(frames[1].astype(np.uint8), None).acted(np.array([7, 8]))
    past = past.seen(frames[2].astype(np.uint8), np.array([True, False]))
    assert past.frames_BTHWC[:, :, 0, 0, 0].tolist() == [[2, 2, 2], [0, 1, 2]]
    assert past.actions_BT.tolist() == [[NOT_KNOWN] * 3, [6, 8, NOT_KNOWN]]
    assert past.of_worlds(np.array([1])).actions_BT.tolist() == [[6, 8, NOT_KNOWN]]


def test_actions_are_drawn_by_their_chances():
    logits = np.log(np.tile([0.7, 0.2, 0.1], (20_000, 1)))
    drawn = draw(logits, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, [0.7, 0.2, 0.1], atol=0.01)


def labelled(count=400, num_codes=4, noise=0.1):
    """Codes 0, 1, 2 stand for left, right, right+jump; code 3 for nothing in particular."""
    rng = np.random.default_rng(0)
    codes = rng.integers(3, size=count)
    actions = np.array([LEFT, RIGHT, RIGHT_JUMP])[codes]
    actions = np.where(rng.random(count) < noise, NOOP, actions)
    logits = np.where(np.eye(num_codes)[codes] > 0, 3.0, 0.0)
    return codes, actions, logits


@pytest.mark.parametrize("kind", MAP_KINDS)
@pytest.mark.filterwarnings("ignore:no label among")
def test_maps_find_what_codes_stand_for(kind, tmp_path):
    codes, actions, logits = labelled()
    found = fit_map(kind, count_codes(codes, actions, 4), actions, logits)
    names = [LEFT, RIGHT, RIGHT_JUMP]
    chances = found.chances(np.where(np.eye(4)[:3] > 0, 3.0, 0.0), np.arange(3))
    assert [PLAIN_BUTTONS[a] for a in chances.argmax(-1)] == names
    np.testing.assert_allclose(chances.sum(-1), 1)
    again = ActionMap.from_json(found.to_json())
    np.testing.assert_array_equal(again.chances(logits, codes), found.chances(logits, codes))


def test_a_code_without_labels_gets_what_is_commonest_with_a_warning():
    codes, actions, logits = labelled(noise=0.0)
    with pytest.warns(UserWarning, match=r"latent actions \[3\]"):
        found = fit_map("dictionary", count_codes(codes, actions, 4), actions, logits)
    common = np.bincount(plain_button_index(actions), minlength=6) / len(actions)
    np.testing.assert_allclose(found.chances(logits[:1], np.array([3]))[0], common)


def test_bad_maps_are_refused():
    codes, actions, logits = labelled()
    counts = count_codes(codes, actions, 4)
    with pytest.raises(ValueError, match="at least one"):
        fit_map("effects", counts, actions[:0], logits[:0])
    with pytest.raises(ValueError, match="at least one"):
        count_codes(codes[:0], actions[:0], 4)
    with pytest.raises(ValueError, match=r"counts \(3, 6\)"):
        fit_map("effects", counts[:3], actions, logits)
    with pytest.raises(ValueError, match="unknown map 'guess'"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_map("guess", counts, actions, logits)
    with pytest.raises(ValueError, match="accepted: as many"):
        RealPolicy(Policy(NetworkConfig(channels=(4,)), 8))
    with pytest.raises(ValueError, match="temperature=0; accepted: above 0"):
        RealPolicy(Policy(NetworkConfig(channels=(4,)), 6), temperature=0)


def test_a_cool_policy_is_surer_of_itself():
    policy = Policy(NetworkConfig(channels=(4,)), len(PLAIN_BUTTONS))
    with torch.no_grad():
        policy.network.out.bias.zero_()
        policy.network.out.weight.zero_()
        policy.network.out.bias[PLAIN_BUTTONS.index(RIGHT)] = 1.0
    obs = np.zeros((2_000, 64, 64, 3), np.uint8)
    for temperature in (1.0, 0.5, 0.1):
        pressed, _ = RealPolicy(policy, seed=0, temperature=temperature).predict(obs)
        # Of six buttons, one is likelier than each of the others.
        expected = np.exp(1 / temperature) / (np.exp(1 / temperature) + 5)
        assert (pressed == RIGHT).mean() == pytest.approx(expected, abs=0.04)


def test_a_linear_fit_is_that_of_its_loss():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    y = (x @ np.array([2.0, -1.0, 0.0]) > 0).astype(int)
    weight, bias = fit_linear(x, y, 2)
    assert ((x @ weight + bias).argmax(-1) == y).mean() > 0.97
    heavy, _ = fit_linear(x, y, 2, decay=1e4)
    assert np.abs(heavy).max() < 0.1 * np.abs(weight).max()


def test_what_shows_a_button_stays_within_its_episode():
    codes = np.array([1, 0, NOT_KNOWN, 1, NOT_KNOWN])
    latents = np.array([[5.0], [6.0], [9.0], [7.0], [9.0]])
    none, five, six, seven = [0, 0, 0], [5, 0, 1], [6, 1, 0], [7, 0, 1]
    found = shown(latents, codes, 2).reshape(5, len(SPAN), 3)
    for k, expected in (
        (-1, [none, five, six, none, seven]),
        (0, [five, six, none, seven, none]),
        (1, [six, none, none, none, none]),
        (3, [none] * 5),
    ):
        assert found[:, SPAN.index(k)].tolist() == expected


@pytest.mark.filterwarnings("ignore:no label among")
def test_learn_score_and_go_on(demonstrations, tmp_path):
    config = CloningConfig(tmp_path / "bc", videos=(demonstrations,), labels=40, clone=TINY)
    policy = learn(config)
    obs = np.zeros((2, 64, 64, 3), np.uint8)
    pressed, _ = policy.predict(obs, deterministic=True)
    assert pressed.shape == (2,) and set(pressed) <= set(PLAIN_BUTTONS)
    again = RealPolicy.load(config.run / "policy")
    assert (again.predict(obs, deterministic=True)[0] == pressed).all()
    assert policy.predict(obs[0])[0] in PLAIN_BUTTONS
    with pytest.raises(ValueError, match="accepted"):
        policy.predict(np.zeros((2, 32, 32, 3), np.uint8))
    assert Controller.load(config.run / "policy" / "controller.npz").bias_K.shape == (8,)

    score = CloningScoreConfig(
        "10000-10003", ("easy",), labels=(5, 20), draws=2, retrained_labels=(20,)
    )
    found = evaluate(config, score)
    draws = {(row.method, row.labels): len(row.draws) for row in found["easy"]}
    assert draws["latent policy, effects", "20"] == draws[PLAIN, "5"] == 2
    assert draws[ORACLE, "all"] == draws["videos labelled by inverse dynamics", "20"] == 1
    assert draws["always right+jump", "0"] == 1
    assert all(row.solved.count == 4 for row in found["easy"])
    assert read_scores(config.run / "score.json") == found
    assert (config.run / "score.png").stat().st_size > 1_000
    assert "| latent policy, dictionary | 5 | 2 |" in (config.run / "score.md").read_text()

    kept = sorted(p.stat().st_mtime for p in config.run.rglob("*.safetensors"))
    beside = tmp_path / "beside.json"
    beside.write_text((config.run / "score.json").read_text().replace('"easy"', '"hard"'))
    assert set(evaluate(config, replace(score, beside=(beside,)))) == {"easy", "hard"}
    assert sorted(p.stat().st_mtime for p in config.run.rglob("*.safetensors")) == kept
    few = evaluate(config, replace(score, methods=("alone",)))["easy"]
    named = {row.method for row in few}
    assert {PLAIN, ORACLE} < named and not any("latent policy" in method for method in named)
    with pytest.raises(ValueError, match="another config"):
        Lesson(replace(config, seed=3))
    with pytest.raises(ValueError, match="another config"):
        Lesson(replace(config, labelled=(demonstrations,)))


@pytest.mark.filterwarnings("ignore:no label among")
def test_videos_decoded_with_few_labels_teach_buttons(demonstrations, tmp_path):
    config = CloningConfig(
        tmp_path / "bc", videos=(demonstrations,), labels=40, map="relabel", clone=TINY
    )
    policy = learn(config)
    assert policy.action_map is None and policy.policy.num_actions == len(PLAIN_BUTTONS)
    again = RealPolicy.load(config.run / "policy")
    obs = np.zeros((1, 64, 64, 3), np.uint8)
    assert again.predict(obs, deterministic=True)[0] == policy.predict(obs, deterministic=True)[0]
    # The pictures and the map stay, so does what is known of both.
    latent = learn(replace(config, map="dictionary"))
    assert latent.policy.num_actions == 8
    assert len({p.fingerprint() for p in (policy, latent, RealPolicy(policy.policy, seed=9))}) == 3


def test_levels_that_are_not_for_training_are_refused(tmp_path):
    write_meta(tmp_path / "s", frame_size=64, fps=5.0)
    with ClipWriter(tmp_path / "s", 0, 64) as writer:
        labels = {"actions": np.ones(4), "rewards": np.zeros(4), "level_seeds": np.full(4, 20_003)}
        writer.add(np.zeros((4, 64, 64, 3), np.uint8), labels)
    lesson = Lesson(CloningConfig(tmp_path / "bc", videos=(tmp_path / "s",), clone=TINY))
    with pytest.raises(ValueError, match="shows level 20003; accepted: training levels"):
        lesson.footage  # noqa: B018


def test_labels_do_not_depend_on_the_windows(model, demonstrations, monkeypatch):
    store = ClipStore(demonstrations, 1)
    whole = label(model, store).codes[0]
    monkeypatch.setattr("agents.latent_bc.label.NEW", 5)
    assert (label(model, store).codes[0] == whole).mean() > 0.97


def test_too_few_labels_and_none_at_all(demonstrations, tmp_path):
    lesson = Lesson(CloningConfig(tmp_path / "bc", videos=(demonstrations,), clone=TINY))
    with pytest.raises(ValueError, match=r"labels=1000000; accepted: 1 to"):
        lesson.draw_labelled(1_000_000, 0)
    with pytest.raises(ValueError, match="labels=0"):
        lesson.draw_labelled(0, 0)
    some = lesson.draw_labelled(12, 0)
    assert some.places.shape == (12, 3) and (some.codes_X >= 0).all()
    frames, buttons = lesson.labelled_clips(some).batch(np.arange(12))
    assert frames.shape == (12, 1, 64, 64, 3)
    assert (buttons[:, 0] == plain_button_index(some.actions_X)).all()

    bare = tmp_path / "bare"
    export_store(demonstrations, bare, max_segments=2)
    lesson = Lesson(CloningConfig(tmp_path / "bc2", videos=(bare,), clone=TINY))
    with pytest.raises(ValueError, match="no true actions beside"):
        lesson.draw_labelled(5, 0)
    # Labels of other levels than the videos show.
    lesson = Lesson(
        CloningConfig(tmp_path / "bc3", videos=(bare,), labelled=(demonstrations,), clone=TINY)
    )
    assert len(lesson.draw_labelled(5, 0).codes_X) == 5


def test_doubtful_labels_are_asked_for(tmp_path):
    """Two buttons that latents all but tell apart, one of them rare: that is where labels go."""
    rng = np.random.default_rng(0)
    rare = rng.random(4_000) < 0.05
    latents = np.stack([rng.normal(0, 1, 4_000), 2.0 * rare + rng.normal(0, 0.5, 4_000)], 1)

    def draw(choose, seed):
        lesson = Lesson(CloningConfig(tmp_path / choose, videos=(), clone=TINY, choose=choose))
        lesson.labelled = [SimpleNamespace(labels=Labels([np.zeros(4_000, int)], [latents]))]
        places = np.stack([np.zeros(4_000, int), np.zeros(4_000, int), np.arange(4_000)], 1)
        lesson._all_labelled = places, np.where(rare, PLAIN_BUTTONS[0], PLAIN_BUTTONS[2])
        lesson._shown = [[latents]]
        return lesson.draw_labelled(100, seed)

    some = draw("doubtful", 0)
    assert len(set(some.places[:, 2])) == len(some.actions_X) == 100
    assert (some.places == draw("doubtful", 0).places).all()
    assert (some.places != draw("doubtful", 1).places).any()

    def share_of_rare(choose):
        return np.mean([draw(choose, s).actions_X == PLAIN_BUTTONS[0] for s in range(5)])

    assert share_of_rare("doubtful") > 3 * share_of_rare("evenly")


def test_what_was_asked_for_is_not_counted(tmp_path):
    """Half of the labels are rare buttons; the map still knows what is common in the videos."""
    rng = np.random.default_rng(0)
    rare = rng.random(4_000) < 0.05
    latents = np.stack([rng.normal(0, 1, 4_000), 2.0 * rare + rng.normal(0, 0.5, 4_000)], 1)
    shown = np.c_[latents, np.zeros((4_000, 8))]
    button = np.where(rare, PLAIN_BUTTONS[0], PLAIN_BUTTONS[2])
    labels = Labels([np.zeros(4_000, int)], [latents])
    some = np.r_[np.flatnonzero(rare)[:50], np.flatnonzero(~rare)[:50]]
    places = np.stack([0 * some, 0 * some, some], 1)
    asked = LabelledSet(np.zeros(100, int), latents[some], button[some], places)
    share = {}
    for choose in ("evenly", "doubtful"):
        lesson = Lesson(CloningConfig(tmp_path / choose, videos=(), clone=TINY, choose=choose))
        lesson.footage = lesson.labelled = [SimpleNamespace(labels=labels)]
        lesson._all_labelled = places.repeat(40, 0), button
        lesson._shown = [[shown]]
        count_KA = lesson._counts(asked)
        share[choose] = count_KA[0, 0] / count_KA.sum()
    assert share["evenly"] == 0.5 and share["doubtful"] < 0.2
    # Few labels read worse than they count.
    few = LabelledSet(*(column[45:55] for column in astuple(asked)))
    assert lesson._counts(few)[0, 0] == 5


def test_clips_whose_action_nobody_knows_are_left_out(demonstrations):
    store = ClipStore(demonstrations, 1)
    nothing = [np.full(len(store.shard_frames(s)), NOT_KNOWN) for s in range(len(store.shards))]
    actions = [shard_N.copy() for shard_N in nothing]
    actions[0][1] = 4
    clips = DecidedClips(store, actions, 2)
    frames_BT, actions_BT = clips.batch(np.array([0]))
    assert len(clips) == 1 and actions_BT.tolist() == [[NOT_KNOWN, 4]]
    assert (frames_BT[0] == store.shard_frames(0)[:2]).all()
    with pytest.raises(ValueError, match="no action is known"):
        DecidedClips(store, nothing)
    with pytest.raises(ValueError, match="the store has"):
        DecidedClips(store, actions[:-1])


def test_a_button_means_another_code_in_another_situation():
    rng = np.random.default_rng(0)
    actions = rng.choice([LEFT, RIGHT], 300)
    flying = rng.choice([-1.0, 1.0], 300)
    codes = np.where(flying > 0, 2, (actions == RIGHT).astype(int))
    before_XE = np.stack((flying, rng.normal(size=300)), 1)
    controller = fit_controller(actions, before_XE, codes, 4)
    assert (controller.codes(actions, before_XE) == codes).mean() > 0.98
    with pytest.raises(ValueError, match="no labelled transition"):
        fit_controller(actions[:0], before_XE[:0], codes[:0], 4)


def test_a_dream_is_driven_by_real_buttons(tiny_model):
    width = tiny_model.latent_actions.quantizer.latent_dim
    num_codes, num_features = tiny_model.config.num_actions, 6 + width + 6 * width
    weight = np.zeros((num_features, num_codes))
    # The button alone decides: its place among the six.
    weight[np.arange(6), np.arange(6)] = 1.0
    size = tiny_model.config.frame_size
    prompt = np.zeros((size, size, 3), np.uint8)
    env = RealActionWrapper(
        gym.make("GenieEnv-v0", model=tiny_model, prompt=prompt),
        Controller(weight, np.zeros(num_codes)),
    )
    env.reset(seed=0)
    for button in (LEFT, RIGHT, RIGHT_JUMP):
        obs, _, _, _, info = env.step(button)
        assert info["latent_action"] == PLAIN_BUTTONS.index(button)
        assert env.observation_space.contains(obs)
    with pytest.raises(ValueError, match="ints from 0 to 14"):
        env.step(15)
    env.close()
    with pytest.raises(TypeError, match="accepted: GenieEnv"):
        RealActionWrapper(gym.make("CartPole-v1"), Controller(weight, np.zeros(num_codes)))


def test_a_clip_begins_as_a_game_does(demonstrations):
    """Before an episode's first frame there is that frame again, and nothing was done."""
    store = ClipStore(demonstrations, 1)
    done = [np.arange(len(store.shard_frames(s))) % 5 for s in range(len(store.shards))]
    actions = done[0]
    clips = DecidedClips(store, done, 4)
    _, start, length = store.segments[1]
    frames_BT, actions_BT = clips.batch(np.array([start + 1]))
    shown = store.shard_frames(0)[[start, start, start, start + 1]]
    assert length > 2 and (frames_BT[0] == shown).all()
    assert actions_BT[0].tolist() == [NOT_KNOWN, NOT_KNOWN, actions[start], actions[start + 1]]
    past = Past.of(shown[:1], 4).seen(shown[:1], None).acted(actions[start : start + 1])
    past = past.seen(shown[3:], None)
    assert (past.frames_BTHWC == frames_BT).all()
    last_only = DecidedClips(store, done, 4, last_only=True)
    assert last_only.batch(np.array([start + 1]))[1][0, :3].tolist() == [NOT_KNOWN] * 3


def test_an_action_that_nobody_wrote_down_is_none(tmp_path):
    write_meta(tmp_path / "s", frame_size=64)
    with ClipWriter(tmp_path / "s", 0, 64) as writer:
        actions = np.array([NOOP, RIGHT, -1])
        labels = {"actions": actions, "rewards": np.zeros(3), "level_seeds": np.zeros(3)}
        writer.add(np.zeros((3, 64, 64, 3), np.uint8), labels)
    pressed = true_buttons(ClipStore(tmp_path / "s", 1))[0]
    assert pressed.tolist() == [0, PLAIN_BUTTONS.index(RIGHT), NOT_KNOWN]


def test_a_common_action_is_meant_rather_than_a_rare_one():
    codes = np.zeros(31, int)
    actions = np.r_[np.full(30, RIGHT), NOOP]
    found = fit_map("effects", count_codes(codes, actions, 2), actions, np.zeros((31, 2)))
    assert PLAIN_BUTTONS[found.chances(np.zeros((1, 2)), np.array([0]))[0].argmax()] == RIGHT


def test_inverse_dynamics_say_what_was_done_at_the_frame_before(tmp_path):
    write_meta(tmp_path / "s", frame_size=64)
    for shard, lengths in enumerate(((3, 2), (4,))):
        with ClipWriter(tmp_path / "s", shard, 64) as writer:
            for length in lengths:
                shown = np.arange(length, dtype=np.uint8)[:, None, None, None]
                writer.add(np.broadcast_to(shown, (length, 64, 64, 3)).copy())

    class Counts(Policy):
        """Says the number that the last frame shows."""

        def at(self, frames_BTHWC, actions_BT):
            assert frames_BTHWC.shape[1] == 4 and (actions_BT == NOT_KNOWN).all()
            return np.eye(6)[frames_BTHWC[:, -1, 0, 0, 0]]

    store = ClipStore(tmp_path / "s", 1)
    codes = [np.array([7, 7, NOT_KNOWN, 7, NOT_KNOWN]), np.array([7, 7, 7, NOT_KNOWN])]
    footage = Footage(store, Labels(codes, []))
    done = _done(Counts(NetworkConfig("st-vivit"), 6), footage)
    assert [d.tolist() for d in done] == [[1, 2, -1, 1, -1], [1, 2, 3, -1]]
