"""The outcome head: what it is taught of real episodes, and what is measured of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genie_env.world_model import WorldModel, WorldModelConfig
from genie_env.world_model.dynamics import NO_ACTION
from genie_env.world_model.outcome import DEATH, NOTHING, SUCCESS, OutcomeConfig
from training import run as stages
from training.data.clip_store import ClipStore, load_labels
from training.evaluation.outcome import outcome_section
from training.evaluation.scenes import RealGame
from training.outcome import (
    Episode,
    OutcomeTraining,
    episode_features,
    labelled_episodes,
    next_outcomes,
    train_head,
    windows,
)


@pytest.fixture(scope="module")
def folders(experiment):
    return [Path(experiment.data[0].out)]


@pytest.fixture(scope="module")
def episodes(folders):
    return labelled_episodes(folders, 12)


def test_labelled_episodes_end_as_the_labels_say(folders, episodes):
    store = ClipStore(folders, 2)
    ends = np.concatenate([load_labels(folder, n).outcomes for folder, n in store.shards])
    # What follows the last frame of a recording that was cut is not known.
    cuts = [-1 if end == 0 else None for end in ends]
    by_frames = {bytes(store.segment(s)[:cut]): ends[s] for s, cut in enumerate(cuts)}
    kinds = {0: NOTHING, 1: SUCCESS, 2: DEATH, 3: NOTHING}
    for episode in episodes:
        end = by_frames[bytes(episode.frames_THWC)]
        assert kinds[end] == episode.outcome
        outcome_T = next_outcomes(episode)
        assert len(outcome_T) == len(episode.frames_THWC)
        assert outcome_T[-1] == episode.outcome and not outcome_T[:-1].any()
    assert len({bytes(e.frames_THWC) for e in episodes}) == 12
    assert len(labelled_episodes(folders, 9999)) == (store.segments[:, 2] > 2).sum()


@pytest.mark.parametrize("action", ["add", "prepend"])
def test_features_are_those_that_a_dream_commits(episodes, action):
    tiny = WorldModelConfig.tiny()
    torch.manual_seed(0)
    model = WorldModel(replace(tiny, dynamics=replace(tiny.dynamics, action=action)))
    # Longer than the context of 4 frames.
    frames = np.array(episodes[0].frames_THWC[:9])
    features_TND = episode_features(model, frames)
    tokens_BTN = model.tokenizer.encode(torch.from_numpy(frames)[None])
    codes_BT = np.concatenate(([[NO_ACTION]], model.infer_actions(frames[None])), 1)
    cache = model.dynamics.new_cache(1)
    with torch.no_grad():
        for t in range(9):
            code_B = torch.from_numpy(codes_BT[:, t])
            committed_BND = model.dynamics.commit(tokens_BTN[:, t], code_B, cache)
            torch.testing.assert_close(features_TND[t], committed_BND[0])


def test_a_dream_begins_with_the_chances_that_the_head_was_trained_to_say(ending_model, episodes):
    frames = np.array(episodes[0].frames_THWC[:4])
    state = ending_model.start(frames[None], [0])
    with torch.no_grad():
        said_O = ending_model.outcome_head(episode_features(ending_model, frames)[-1]).softmax(-1)
    torch.testing.assert_close(state.outlook_BO[0], said_O)


def test_features_from_the_middle_need_only_the_context(tiny_model, episodes):
    frames = max((e.frames_THWC for e in episodes), key=len)[:30]
    whole = episode_features(tiny_model, frames)
    # The tokenizer and the dynamics look back by their context a layer; what is cut off is little.
    late = episode_features(tiny_model, frames, 24)
    assert late.shape == whole[24:].shape
    assert (late - whole[24:]).abs().mean() < 0.05 * whole.abs().mean()
    assert episode_features(tiny_model, frames[:1]).shape == whole[:1].shape


def test_every_frame_of_an_episode_counts_alike():
    rng = np.random.default_rng(0)
    for length in (2, 16, 17, 40):
        count_T = np.zeros(length)
        draws = 3_000 if length > 16 else 1
        for _ in range(draws):
            parts = windows(length, 8, rng)
            assert parts[-1][1:] == (length, 1.0) and all(a < b for a, b, _ in parts)
            for first, end, weight in parts:
                count_T[first:end] += weight
        assert count_T / draws == pytest.approx(np.ones(length), abs=0.25)


def test_a_head_learns_a_few_episodes_by_heart_and_is_calibrated(tiny_model, episodes):
    config = OutcomeTraining(steps=400, batch_size=64, weight_decay=0.0, learning_rate=1e-2)
    some = [Episode(e.frames_THWC[-8:], e.outcome) for e in episodes]
    head = train_head(tiny_model, some, config, OutcomeConfig(dropout=0.0), progress=False)
    chance_FO = torch.cat(
        [head(episode_features(tiny_model, e.frames_THWC)).softmax(-1) for e in some]
    ).detach()
    true_F = np.concatenate([next_outcomes(e) for e in some])
    for end in (SUCCESS, DEATH):
        assert float(chance_FO[:, end].sum()) == pytest.approx((true_F == end).sum(), rel=0.35)
    ends = true_F != NOTHING
    assert chance_FO[ends, 1:].sum(1).mean() > 3 * chance_FO[~ends, 1:].sum(1).mean()
    again = train_head(tiny_model, some, config, OutcomeConfig(dropout=0.0), progress=False)
    assert all(
        torch.equal(a, b) for a, b in zip(head.parameters(), again.parameters(), strict=True)
    )


def test_episodes_that_teach_no_end_are_refused(folders, monkeypatch):
    def deaths_only(folder, shard):
        labels = load_labels(folder, shard)
        return labels._replace(outcomes=np.full_like(labels.outcomes, 2))

    monkeypatch.setattr("training.outcome.load_labels", deaths_only)
    with pytest.raises(ValueError, match="none of 12 labelled episodes .* ends in success"):
        labelled_episodes(folders, 12)


def test_the_stage_adds_a_head_to_the_bundle(experiment, folders, tiny_model, tmp_path):
    with pytest.raises(FileNotFoundError, match="genie train world"):
        stages.train_outcome(experiment, tmp_path / "run", folders)
    tiny_model.save_pretrained(tmp_path / "run" / "model")
    stages.train_outcome(experiment, tmp_path / "run", folders)
    loaded = WorldModel.from_pretrained(tmp_path / "run" / "model", dtype=torch.float32)
    assert loaded.config.outcome == experiment.outcome
    theirs = tiny_model.dynamics.place_ND.bfloat16().float()
    assert torch.equal(loaded.dynamics.place_ND, theirs)
    state = loaded.start(np.zeros((2, 1, 64, 64, 3), np.uint8), [0, 1])
    assert state.outlook_BO.shape == (2, 3)
    # Of any other model too, into a folder of its own.
    started = replace(experiment, start_from=str(tmp_path / "run" / "model"))
    stages.train_outcome(started, tmp_path / "other", folders)
    assert WorldModel.from_pretrained(tmp_path / "other" / "model").config.outcome


def test_what_is_measured_of_a_head_that_knows_and_of_one_that_guesses(ending_model, monkeypatch):
    game = RealGame("plain", "easy", 10_000, 1_000, 3)
    episodes = game.episodes(12, seed=0)
    monkeypatch.setattr(game, "episodes", lambda count, seed: episodes)

    def rows(logits_of):
        ahead = iter(episodes)
        monkeypatch.setattr(
            ending_model.outcome_head, "forward", lambda features: logits_of(next(ahead))
        )
        section = outcome_section(ending_model, game, 12, 0)
        return {row.name: row.estimate.value for row in section.rows}

    def truth(episode):
        return 20.0 * torch.nn.functional.one_hot(torch.from_numpy(next_outcomes(episode)), 3)

    knows = rows(truth)
    guesses = rows(lambda episode: torch.randn(len(episode.frames_THWC), 3))
    for name in ("success", "death"):
        for what in ("average precision", "precision", "recall", "expected over happened"):
            assert knows[f"{name}: {what}"] == pytest.approx(1, abs=1e-3)
        assert guesses[f"{name}: average precision"] < 0.2
        assert guesses[f"{name}: expected over happened"] > 3
