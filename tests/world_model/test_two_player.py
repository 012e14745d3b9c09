"""Two players from video alone: what is foreseen, found, steered and read back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genie_env.envs import duel
from genie_env.world_model import CheckpointError, WorldModel, WorldModelConfig
from genie_env.world_model.two_player import (
    DuelState,
    Foreseen,
    PlayersNotSeenError,
    TwoPlayerConfig,
    TwoPlayerModel,
)
from training.data.duels import DuelConfig, play_games
from training.two_player import TwoPlayerLossConfig, TwoPlayerStage

TINY = TwoPlayerConfig(width=8, reach=3)


@pytest.fixture(scope="module")
def model():
    return TwoPlayerModel.from_pretrained("duel")


@pytest.fixture(scope="module")
def games():
    return play_games(12, 16, DuelConfig(""), seed=500_000 << 32)


def seen(*players, size=64, frames=3):
    """As if paddles of 9 pixels were seen there that may go up or down; a code acts on one end
    more than on the other."""
    newest = torch.full((frames, 3, size, size), -1.0)
    explained, by_code = torch.zeros(frames, size, size), torch.zeros(frames, size, size)
    for x, y in players:
        newest[..., max(0, y - 4) : y + 5, x - 1 : x + 2] = 1
        explained[:, max(0, y - 7) : y + 8, x - 3 : x + 4] = 0.8
        by_code[:, max(0, y - 7) : y, x - 1 : x + 2] = 9.0
        by_code[:, y : y + 8, x - 1 : x + 2] = 3.0
    nothing = torch.zeros(frames, size, size)
    places = torch.full((frames, size, size, 7, 7), -20.0)
    places[..., 1:6, 3] = 0.0
    pushed = torch.full((frames, size, size, 4), 2.0)
    foreseen = Foreseen(places.flatten(3), by_code, nothing, pushed, explained, nothing)
    return newest, foreseen


def test_players_are_found_in_order_and_followed():
    tiny = TwoPlayerModel(TINY)
    for first, second in (((10, 30), (50, 20)), ((40, 12), (30, 50))):
        for pair in ((first, second), (second, first)):
            newest, foreseen = seen(*pair)
            found_RS2 = tiny.find_players(foreseen, tiny.steered(newest, foreseen))
            assert found_RS2.shape == (3, 2, 2)
            assert np.allclose(found_RS2[0], (first, second), atol=1.0)
    before = torch.tensor([[[12.0, 26.0], [48.0, 24.0]]])
    newest, foreseen = seen((10, 30), (50, 20), frames=1)
    found = tiny.follow(foreseen, tiny.steered(newest, foreseen), before)
    assert np.allclose(found[0], ((10, 30), (50, 20)), atol=1.0)
    # Where nothing is steered they stay.
    newest, foreseen = seen(frames=1)
    assert torch.equal(tiny.follow(foreseen, tiny.steered(newest, foreseen), before), before)


@pytest.mark.parametrize("players", [(), ((20, 20),)])
def test_fewer_than_two_players_are_an_error(players):
    with pytest.raises(PlayersNotSeenError, match=f"{len(players)} of 2 players can be seen"):
        tiny, (newest, foreseen) = TwoPlayerModel(TINY), seen(*players)
        tiny.find_players(foreseen, tiny.steered(newest, foreseen))


def test_a_code_reaches_its_own_player_and_nothing_else():
    tiny = TwoPlayerModel(TINY)
    _, foreseen = seen((10, 30), (50, 20), frames=2)
    players = torch.tensor([[[10.0, 30.0], [50.0, 20.0]]] * 2)
    masks = tiny.masks(foreseen, players)
    assert masks.any((2, 3)).all() and not (masks[:, 0] & masks[:, 1]).any()
    newest = torch.rand(2, 3, 64, 64)
    guesses = tiny.guesses(newest, foreseen)
    one = tiny.compose(newest, foreseen, masks, torch.tensor([[0, 1], [0, 1]]))
    other = tiny.compose(newest, foreseen, masks, torch.tensor([[2, 1], [2, 1]]))
    changed = (one != other).any(1)
    assert changed.any() and not (changed & ~masks[:, 0]).any()
    nobody = ~masks.any(1)[:, None].expand_as(newest)
    torch.testing.assert_close(one[nobody], guesses[:, 0][nobody])
    for s, code in ((0, 2), (1, 1)):
        own = masks[:, s, None].expand_as(newest)
        torch.testing.assert_close(other[own], guesses[:, 1 + code][own])


def moves_by_code(foreseen):
    """How far down or right a single bright pixel goes without a code, then under each."""
    newest = torch.full((1, 3, 64, 64), -1.0)
    newest[..., 32, 32] = 1
    guesses = TwoPlayerModel(TINY).guesses(newest, foreseen)
    line = torch.arange(64.0) - 32
    weight = (guesses[0, :, 0] + 1).clamp_min(0)
    weight = weight / weight.sum((1, 2), keepdim=True)
    return (weight.sum(2) @ line + weight.sum(1) @ line).tolist()


def may_go(*moves):
    """Logits of where pixels come from that may go so far down, (1, H, W, D)."""
    places = torch.full((1, 64, 64, 7, 7), -20.0)
    for down in moves:
        places[..., 3 - down, 3] = 0.0
    return places.flatten(3)


@pytest.mark.parametrize("slides, back, forth", [(0, 1, 1), (1, 2, 2), (0, 3, 0)])
def test_pushes_go_from_the_unforced_move_to_the_place_that_is_foretold(slides, back, forth):
    """Not to the farthest place that is likely; at a wall nowhere."""
    off = torch.zeros(1, 64, 64)
    pushed = torch.stack((off + back, off + forth, off, off), -1)
    foreseen = Foreseen(may_go(*range(-3, 4)), off + 30, off - slides, pushed, off, off)
    _, *moves = moves_by_code(foreseen)
    assert np.allclose(moves, (slides, slides - back, slides + forth), atol=0.1)


def test_nobodys_code_leaves_what_is_foretold():
    off = torch.zeros(1, 64, 64)
    foreseen = Foreseen(may_go(2), off + 30, off, off[..., None].expand(-1, -1, -1, 4), off, off)
    assert moves_by_code(foreseen)[0] == pytest.approx(2, abs=0.01)


def test_what_is_at_a_wall_is_not_foretold_to_go_on():
    torch.manual_seed(0)
    tiny = TwoPlayerModel(TINY)
    history = torch.full((1, 4, 3, 32, 32), -0.5)
    history[..., 0:9, 20:23] = 0.5
    came_from = tiny.foresight(history).came_from_BHWD[0, 2:7, 21].unflatten(-1, (7, 7))
    up, down = came_from[..., 4:, :], came_from[..., :3, :]
    assert up.max() < down.min() - 3


def test_what_is_blurred_is_made_crisp():
    crisp = torch.full((1, 3, 64, 64), -1.0)
    crisp[..., 20:40, 30:34] = 1
    blurred = (crisp.roll(1, 2) + 2 * crisp + crisp.roll(-1, 2)) / 4
    off = torch.zeros(1, 64, 64)
    stays = torch.full((1, 64, 64, 49), -20.0)
    stays[..., 24] = 0.0
    transport = TwoPlayerModel(TINY).transport
    kept, sharpened = (
        transport(
            blurred,
            Foreseen(stays, off, off, off[..., None].expand(-1, -1, -1, 4), off, off + crispness),
            torch.zeros(1, 2),
        )[:, 0]
        for crispness in (0.0, 3.0)
    )
    torch.testing.assert_close(kept, blurred, atol=1e-4, rtol=0)
    assert (sharpened - crisp).abs().sum() < 0.4 * (blurred - crisp).abs().sum()
    assert sharpened.abs().max() < 1.0001


def test_codes_are_read_back(model, games):
    """What was dreamt by codes is read as these codes."""
    frames = games[0]
    rng = np.random.default_rng(0)
    right = []
    for b in range(6):
        try:
            state = model.start(frames[b : b + 1, :8])
        except PlayersNotSeenError:
            continue
        dreamt, codes = [], rng.integers(3, size=(6, 2))
        for codes_S in codes:
            model.step(state, codes_S[None])
            dreamt.append(model.render(state))
        video = np.concatenate([frames[b : b + 1, :8], np.stack(dreamt, 1)], 1)
        right.append(model.infer_codes(video, 8)[0][0] == codes)
    assert len(right) >= 3 and np.mean(right) > 0.8


def test_nothing_depends_on_later_frames(model, games):
    frames = games[0][:1]
    whole, places = model.infer_codes(frames, 8)
    part, where = model.infer_codes(frames[:, :12], 8)
    assert (whole[:, :4] == part).all() and np.allclose(places[:, :4], where)
    # What is foretold of the ninth frame is so of any ninth frame.
    other = frames.copy()
    other[:, 8:] = 255 - other[:, 8:]
    for told, told_of_other in zip(
        model.predict(frames, whole), model.predict(other, whole), strict=True
    ):
        assert (told[:, 0] == told_of_other[:, 0]).all()
        assert (told[:, 1] != told_of_other[:, 1]).any()


def test_games_played_together_go_as_alone(model, games):
    states = [model.start(games[0][b : b + 1, :8]) for b in range(2)]
    together = DuelState.together(states)
    for codes in ([[1, 0], [2, 1]], [[0, 2], [1, 1]]):
        model.step(together, codes)
        for state, codes_S in zip(states, codes, strict=True):
            model.step(state, [codes_S])
    alone = DuelState.together(states)
    torch.testing.assert_close(together.history_BPCHW, alone.history_BPCHW, atol=0.05, rtol=0)
    torch.testing.assert_close(together.players_BS2, alone.players_BS2, atol=0.5, rtol=0)


def test_it_plays_on_as_the_game_does(model, games):
    """Codes mean stay, up or left, down or right, for both players, and steer them."""
    frames, truth = games
    moved = {code: [] for code in range(3)}
    for b in range(len(frames)):
        try:
            state = model.start(frames[b : b + 1, :8])
        except PlayersNotSeenError:
            continue
        box = truth.players[b, 0, 0]
        along = int(box[3] - box[1] > box[2] - box[0])
        for code in range(3):
            branch = state.clone()
            before = branch.players_BS2[0, :, along]
            for _ in range(3):
                model.step(branch, [[code, code]])
            moved[code] += (branch.players_BS2[0, :, along] - before).tolist()
    assert np.median(moved[duel.BACK]) < -2 < np.median(moved[duel.STAY])
    assert np.median(moved[duel.STAY]) < 2 < np.median(moved[duel.FORTH])


def test_a_stage_learns_what_comes(games):
    torch.manual_seed(0)
    stage = TwoPlayerStage(TINY, TwoPlayerLossConfig())
    clips = torch.from_numpy(games[0][:2, 5:13].copy())
    optimizer = torch.optim.AdamW(stage.parameters(), 2e-3)
    first = []
    for _ in range(20):
        total, metrics = stage(clips, progress=0.0)
        assert set(metrics) == {"foretold"}
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        first.append(float(total.detach()))
    assert np.mean(first[-3:]) < 0.95 * np.mean(first[:3])
    told = []
    for _ in range(20):
        total, metrics = stage(clips, progress=0.5)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        told.append(stage.summarize(metrics)["told"])
    assert np.mean(told[-3:]) < 0.95 * np.mean(told[:3])


def test_saved_and_loaded(tmp_path, games):
    tiny = TwoPlayerModel(TINY)
    tiny.prompts = games[0][:2, :5]
    tiny.save_pretrained(tmp_path)
    loaded = TwoPlayerModel.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.config == TINY and (loaded.prompts == tiny.prompts).all()
    with pytest.raises(CheckpointError, match="holds a two-player model; a world model is needed"):
        WorldModel.from_pretrained(tmp_path)
    WorldModel(WorldModelConfig.tiny()).save_pretrained(tmp_path / "world")
    with pytest.raises(CheckpointError, match="holds a world model; a two-player model is needed"):
        TwoPlayerModel.from_pretrained(tmp_path / "world")
    with pytest.raises(FileNotFoundError, match="accepted: a shipped name"):
        TwoPlayerModel.from_pretrained("nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"past_frames": 0}, "past_frames must be at least 1"),
        ({"num_codes": 1}, "num_codes must be at least 2"),
        ({"frame_size": 60}, "multiples of 8"),
    ],
)
def test_a_config_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_frames_and_codes_that_do_not_fit(model):
    with pytest.raises(TypeError, match="uint8"):
        model.start(np.zeros((1, 8, 64, 64, 3), np.float32))
    with pytest.raises(ValueError, match="T >= 4"):
        model.start(np.zeros((1, 3, 64, 64, 3), np.uint8))
    with pytest.raises(PlayersNotSeenError, match="0 of 2 players"):
        model.start(np.zeros((1, 8, 64, 64, 3), np.uint8))
    state = model.start(model.prompts[:1])
    with pytest.raises(ValueError, match="0 to 2"):
        model.step(state, [[0, 3]])
    with pytest.raises(ValueError, match="one a player"):
        model.step(state, [0, 1])
    with pytest.raises(ValueError, match="num_seen=9 of 9 frames"):
        model.infer_codes(np.zeros((1, 9, 64, 64, 3), np.uint8), 9)
