"""The evaluation against the real engine: what it calls a thing, an effect, a hit."""

import json
from dataclasses import replace

import numpy as np
import pytest

from genie_env.envs import coinrun
from genie_env.envs.coinrun import CoinRunVectorEnv
from genie_env.world_model import WorldModel, WorldModelConfig
from training.evaluation import control, fidelity
from training.evaluation.config import SECTIONS, EvaluationConfig, parse_levels
from training.evaluation.control import Mapping, Tries, learn_mapping, retrieval_section
from training.evaluation.dreams import PROMPT_FRAMES, Dream, dream, reconstruct
from training.evaluation.drift import colours
from training.evaluation.evaluate import evaluate
from training.evaluation.scenes import BUTTONS, RealGame, effects
from training.evaluation.sections import bootstrap, share
from training.metrics import detail


@pytest.fixture(scope="module")
def game():
    game = RealGame("plain", "hard", 10_000, 1_000, 3)
    yield game
    game.close()


@pytest.fixture(scope="module")
def scenes(game):
    return game.scenes(24, 12, seed=0)


def test_bootstrap_covers_the_truth_and_narrows_with_scenes():
    rng = np.random.default_rng(0)
    few, many = bootstrap(rng.normal(3, 1, 20)), bootstrap(rng.normal(3, 1, 2_000))
    assert few.low < few.value < few.high and many.low < 3 < many.high
    assert many.high - many.low < 0.2 * (few.high - few.low)
    assert many.count == 2_000
    covered = [
        estimate.low <= 0 <= estimate.high
        for estimate in (bootstrap(rng.normal(0, 1, 40)) for _ in range(100))
    ]
    assert 85 <= sum(covered) <= 100


def test_bootstrap_of_shares_of_cases():
    counts = np.array([[1, 2], [0, 0], [3, 3]])
    assert bootstrap(counts, share).value == pytest.approx(0.8)
    assert np.isnan(share(np.zeros((2, 2))))
    with pytest.raises(ValueError, match="no scene"):
        bootstrap(np.zeros((0, 2)), share)


def test_scenes_are_what_the_engine_plays(game, scenes):
    assert scenes.frames_BTHWC.shape == (24, 12, 64, 64, 3)
    assert scenes.actions_BM.shape == (24, 11)
    assert ((scenes.levels_B >= 10_000) & (scenes.levels_B < 11_000)).all()
    again = game.scenes(24, 12, seed=0)
    assert (again.frames_BTHWC == scenes.frames_BTHWC).all()
    # From the saved state the true button gives the true next frame, to the pixel.
    frames, ended = game.play([states[5] for states in scenes.states], np.array(BUTTONS)[:, None])
    for b, action in enumerate(scenes.actions_BM[:, 5]):
        assert (frames[b, BUTTONS.index(action), 0] == scenes.frames_BTHWC[b, 6]).all()
        assert not ended[b, BUTTONS.index(action), 0]


def test_longer_plans_go_on_from_where_they_were(game, scenes):
    states = [states[0] for states in scenes.states[:3]]
    plans = scenes.actions_BM[:3, :6]
    frames, _ = game.play(states, plans)
    for b in range(3):
        assert (frames[b, b] == scenes.frames_BTHWC[b, 1:7]).all()


def test_effects_name_the_first_of_equal_frames():
    frames = np.zeros((1, 4, 2, 2, 3), np.uint8)
    frames[0, 1] = frames[0, 2] = 7
    ended = np.array([[False, False, False, True]])
    assert effects(frames, ended).tolist() == [[0, 1, 1, -1]]


@pytest.mark.parametrize("kind", ["agent", "coin", "saw", "enemy"])
def test_erasing_changes_a_small_part_of_some_frames(game, scenes, kind):
    changed = []
    for t in (0, 6, 11):
        states = [states[t] for states in scenes.states]
        for b, bare in enumerate(game.without(states, kind)):
            if bare is not None:
                differs = (bare != scenes.frames_BTHWC[b, t]).any(-1)
                changed.append(int(differs.sum()))
    if kind == "agent":
        assert len(changed) == 72 and min(changed) > 4
    assert max(changed, default=0) < 500
    if kind in ("agent", "saw"):
        assert sum(pixels > 0 for pixels in changed) >= 3


def test_erased_coins_are_where_the_yellow_was():
    env = CoinRunVectorEnv(32, look="plain", start_level=10_000, num_levels=1_000, frame_skip=3)
    env.reset(seed=3)
    seen = 0
    for _ in range(60):
        obs, *_ = env.step(np.full(32, coinrun.RIGHT_JUMP))
        for frame, state in zip(obs[:8], env.get_states()[:8], strict=True):
            yellow = (frame[..., 0] > 180) & (frame[..., 1] > 140) & (frame[..., 2] < 90)
            if yellow.sum() < 6:
                continue
            seen += 1
            bare, _ = env.set_states([env.erase(state, "coin")], [31])
            differs = (bare[31] != frame).any(-1)
            assert (differs & yellow).sum() >= 0.8 * yellow.sum()
    env.close()
    assert seen


def test_erase_refuses_what_it_does_not_know(game, scenes):
    env = game._engine(288)
    with pytest.raises(ValueError, match="unknown kind 'lava'; known: agent, coin, saw, enemy"):
        env.erase(scenes.states[0][0], "lava")
    with pytest.raises(ValueError, match="not a state"):
        env.erase(b"nothing", "coin")


def test_kept_and_found_tell_a_thing_from_its_absence(game, scenes):
    things = fidelity._contrasts(game, scenes, "agent", [3])
    assert len(things) == 24
    for b, t, there in things:
        real = scenes.frames_BTHWC[b, t]
        bare = (real - there).round().astype(np.uint8)
        assert fidelity._kept(real, real, there) == pytest.approx(1)
        assert fidelity._kept(bare, real, there) == pytest.approx(0, abs=1e-6)
        assert fidelity._found(real, real, there)
        moved = np.roll(real, (3, -2), (0, 1))
        assert fidelity._found(moved, real, there)
    lost = [
        fidelity._found((r := scenes.frames_BTHWC[b, t]) - there, r, there)
        for b, t, there in things
    ]
    assert np.mean(lost) < 0.5


def made_up_tries(codes):
    """One scene a case: all nine buttons, on the ground and in the air, codes by button."""
    plans = np.tile(np.arange(9), 2)
    grounded = np.repeat([True, False], 9)
    return Tries(np.repeat([0, 1], 9), plans, np.array(codes), grounded)


def test_mapping_is_the_commonest_target_and_code():
    ground = [0, 1, 2, 3, 4, 5, 0, 1, 2]
    air = [6, 1, 2, 6, 1, 2, 6, 1, 2]
    mapping = learn_mapping(made_up_tries(ground + air), 8)
    jump, on_ground, in_air = (mapping.to_target[name] for name in control.SPLITS)
    assert [jump[code] for code in range(6)] == [0, 0, 0, 1, 1, 1]
    assert [on_ground[code] for code in (0, 1, 2)] == [0, -1, 1]
    assert [in_air[code] for code in (6, 1, 2)] == [0, -1, 1]
    assert mapping.to_code_2P.tolist() == [ground, air]


def test_buttons_without_effect_take_their_twins_code():
    tries = Tries(
        np.zeros(4, int), np.array([0, 1, 2, 3]), np.array([5, 6, 7, 4]), np.ones(4, bool)
    )
    to_code = learn_mapping(tries, 8).to_code_2P
    assert to_code[0].tolist() == [5, 6, 7, 4, 6, 7, 5, 6, 7]
    assert to_code[1].tolist() == [0] * 9


@pytest.mark.parametrize("perfect", [True, False])
def test_retrieval_is_one_for_the_truth_and_chance_for_a_still(
    game, scenes, tiny_model, monkeypatch, perfect
):
    real, ended = game.play([states[3] for states in scenes.states], np.repeat(control.PLANS, 8, 1))
    distinct = [
        effects(real[:, :, k - 1], ended[:, :, k - 1]) == np.arange(9) for k in (1, 2, 4, 8)
    ]

    def told(world, starts, actions, **_):
        frames = real[np.any(distinct, 0)]
        if not perfect:
            frames = np.repeat(starts[:, -1:], actions.shape[1], 1)
        assert len(frames) == len(starts) == len(actions)
        return Dream(frames, np.zeros(actions.shape))

    monkeypatch.setattr(control, "dream", told)
    section = retrieval_section(
        tiny_model, game, scenes, Mapping({}, np.zeros((2, 9), np.int64)), 3, "nothing"
    )
    assert [row.name[-1] for row in section.rows] == ["1", "2", "4", "8"]
    for row in section.rows:
        if perfect:
            assert row.estimate.value == 1 and row.beside["times chance"] > 2
        else:
            # A still is nearest to one and the same future, whichever was asked for.
            assert row.estimate.value == pytest.approx(row.beside["chance"])


def test_dreams_do_not_depend_on_how_many_are_dreamt_at_once(scenes, tiny_model):
    actions = np.random.default_rng(0).integers(8, size=(5, 3))
    starts = scenes.frames_BTHWC[:5, :PROMPT_FRAMES]
    together = dream(tiny_model, starts, actions)
    apart = dream(tiny_model, starts, actions, at_once=2)
    assert (together.frames_BNHWC == apart.frames_BNHWC).all()
    assert together.frames_BNHWC.shape == (5, 3, 64, 64, 3)
    assert reconstruct(tiny_model, starts).dtype == np.uint8


def test_detail_and_colours():
    grey = np.full((2, 64, 64, 3), 100, np.uint8)
    stripes = grey.copy()
    stripes[:, :, ::2] = 110
    assert detail(grey).tolist() == [0, 0] and detail(stripes) == pytest.approx([10, 10])
    assert colours(grey).sum(1) == pytest.approx([1, 1])
    assert 0.5 * np.abs(colours(grey) - colours(255 - grey)).sum(-1) == pytest.approx([1, 1])


def test_the_whole_report(tiny_model, ending_model, tmp_path):
    config = EvaluationConfig(levels="10000-10999", num_scenes=6, num_starts=3)
    sections = evaluate(ending_model, config, tmp_path)
    assert len(sections) == len(SECTIONS)
    saved = json.loads((tmp_path / "report.json").read_text())
    assert len(saved["sections"]) == len(SECTIONS)
    for section in sections:
        assert section.protocol and section.rows
        for row in section.rows:
            if np.isfinite(row.estimate.value):
                assert row.estimate.low <= row.estimate.high
    assert "<html" in (tmp_path / "report.html").read_text()
    again = evaluate(ending_model, replace(config, sections=("retrieval",)), tmp_path / "again")
    first = next(s for s in sections if s.title == again[0].title)
    assert [row.estimate for row in first.rows] == [row.estimate for row in again[0].rows]
    with pytest.raises(ValueError, match="no outcome head"):
        evaluate(tiny_model, replace(config, sections=("drift", "outcome")), tmp_path / "none")


@pytest.mark.parametrize("levels", ["20000", "a-b", "5-4", ""])
def test_bad_levels(levels):
    with pytest.raises(ValueError, match="FIRST-LAST"):
        parse_levels(levels)


def test_levels_are_inclusive():
    assert parse_levels("20000-20999") == (20_000, 1_000)


def test_models_of_other_videos_are_refused(tmp_path):
    world = WorldModel(replace(WorldModelConfig.tiny(), look="other"))
    with pytest.raises(ValueError, match="look 'other'"):
        evaluate(world, EvaluationConfig(), tmp_path)
