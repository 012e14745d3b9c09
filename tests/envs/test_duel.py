"""Two-player games: their rules, their pictures, and what is recorded of them."""

from dataclasses import replace

import numpy as np
import pytest

from genie_env.envs.duel import BACK, FORTH, SIZE, STAY, Duel, draw_styles
from training.data.clip_store import ClipStore
from training.data.duels import DuelConfig, load_truth, play_games, record_duels


def games(count=200, seed=0, **style):
    rng = np.random.default_rng(seed)
    styles = draw_styles(rng, count)
    for name, value in style.items():
        column = getattr(styles, name)
        setattr(styles, name, np.full(column.shape, value, column.dtype))
    return Duel(styles, rng)


def all_do(game, first, second):
    return np.tile((first, second), (game.num_games, 1))


def test_each_player_moves_its_own_paddle_and_stays_inside():
    game = games(inertia=0)
    before = game.paddle.copy()
    game.step(all_do(game, FORTH, STAY))
    assert (game.paddle[:, 0] >= before[:, 0]).all() and (game.paddle[:, 1] == before[:, 1]).all()
    free = before[:, 0] + game.styles.speed[:, 0] + game.styles.length[:, 0] / 2 < SIZE
    moved = (game.paddle - before)[free, 0]
    assert free.sum() > 100 and np.allclose(moved, game.styles.speed[free, 0], atol=1e-4)
    for _ in range(60):
        game.step(all_do(game, FORTH, BACK))
    half = game.styles.length / 2
    assert np.allclose(game.paddle[:, 0], SIZE - half[:, 0])
    assert np.allclose(game.paddle[:, 1], half[:, 1])


def test_inertia_goes_on_after_the_action():
    game = games(inertia=0.5)
    game.paddle[:] = SIZE / 2
    game.step(all_do(game, FORTH, STAY))
    before = game.paddle[:, 0].copy()
    game.step(all_do(game, STAY, STAY))
    assert np.allclose(game.paddle[:, 0] - before, game.styles.speed[:, 0] / 4, atol=1e-3)


def test_some_games_begin_at_a_wall():
    game = games(1000)
    half = game.styles.length / 2
    at_wall = (game.paddle == half) | (game.paddle == SIZE - half)
    assert 0.1 < at_wall.mean() < 0.4


def test_who_roams_goes_across_too():
    game = games(roams=True)
    before, _ = game.boxes()
    across = np.where(game.styles.transposed, 1, 0)
    for _ in range(20):
        game.step(all_do(game, STAY, STAY))
        assert ((game.forward >= 0) & (game.forward <= 10)).all()
    after, _ = game.boxes()
    moved = np.abs(after - before)[np.arange(200), :, across]
    assert (moved > 0).mean() > 0.6
    still = games()
    for _ in range(20):
        still.step(all_do(still, STAY, STAY))
    assert (still.forward == 0).all()


def test_what_wanders_turns_whenever_it_likes():
    steps = []
    for wanders in (False, True):
        game = games(wanders=wanders, drift=1.0)
        places = []
        for _ in range(12):
            places.append(game.drifting[:, 1].copy())
            game.step(all_do(game, STAY, STAY))
        steps.append(np.diff(places, 2, axis=0))
    assert (steps[0] != 0).mean() < 0.1 < 0.5 < (steps[1] != 0).mean()


def test_balls_bounce_off_paddles_and_are_served_anew_behind_them():
    game = games(num_balls=1)
    game.paddle[:] = game.ball[:, 0, 1:]
    game.ball_velocity[..., 1] = 0
    flies = np.sign(game.ball_velocity[:, 0, 0])
    score = game.score.copy()
    for _ in range(40):
        game.step(all_do(game, STAY, STAY))
    half, ball = game.styles.length / 2, game.ball[:, 0]
    assert (game.score == score).all() and ((ball > 0) & (ball < SIZE)).all()
    assert (np.sign(game.ball_velocity[:, 0, 0]) != flies).any()

    game = games(num_balls=1)
    game.paddle[:] = np.where(game.ball[:, 0, 1:] > SIZE / 2, half, SIZE - half)
    game.ball_velocity[..., 1] = 0
    scored = np.zeros(game.num_games, bool)
    for _ in range(60):
        to_the_right, before = game.ball_velocity[:, 0, 0] > 0, game.score.copy()
        game.step(all_do(game, STAY, STAY))
        point = game.score != before
        # A ball that leaves on the right is a point for who plays on the left.
        assert (point[:, 0] <= to_the_right).all() and (point[:, 1] <= ~to_the_right).all()
        scored |= point.any(1)
    assert scored.mean() > 0.9


def test_pictures_show_what_the_boxes_say():
    game = games(num_balls=1, scored=False, drift=0)
    picture, (players, _) = game.render(), game.boxes()
    rows = np.arange(game.num_games)
    for player in (0, 1):
        box = players[:, player]
        x, y = ((box[:, :2] + box[:, 2:]) / 2).astype(int).T
        assert np.abs(picture[rows, y, x] - game.styles.colours[:, player]).max() < 2
    # Left-most, or top-most, is the first player.
    middle = (players[:, :, :2] + players[:, :, 2:]) / 2
    axis = game.styles.transposed.astype(int)
    assert (middle[rows, 0, axis] < middle[rows, 1, axis]).all()
    shown = game.render()
    game.styles.num_balls[:] = 0
    assert (game.render() != shown).any((1, 2, 3)).mean() > 0.95


def test_wrong_actions_are_told():
    game = games(3)
    with pytest.raises(ValueError, match=r"actions must be \(3, 2\) of 0, 1 or 2"):
        game.step(np.zeros((2, 2), int))
    with pytest.raises(ValueError, match=r"of 0, 1 or 2.*3"):
        game.step(np.full((3, 2), 3))


def test_styles_differ_and_players_redraw():
    frames, truth = play_games(100, 10, DuelConfig("x"), 0)
    assert frames.shape == (100, 10, 64, 64, 3) and frames.dtype == np.uint8
    assert truth.actions.shape == (100, 10, 2) and truth.players.shape == (100, 10, 2, 4)
    assert len(np.unique(frames[:, 0].reshape(100, -1), axis=0)) == 100
    changed = (truth.actions[:, 1:] != truth.actions[:, :-1]).mean()
    assert 0.4 < changed < 0.7  # two of three draws differ
    count = np.bincount(truth.actions.ravel(), minlength=3) / truth.actions.size
    assert count.min() > 0.25
    # What one does says nothing of what the other does.
    joint = np.zeros((3, 3))
    np.add.at(joint, tuple(truth.actions.reshape(-1, 2).T), 1)
    joint /= joint.sum()
    assert np.abs(joint - joint.sum(0) * joint.sum(1)[:, None]).max() < 0.03


def test_a_recording_goes_on_and_keeps_the_truth_apart(tmp_path):
    config = DuelConfig(str(tmp_path / "duels"), num_games=6, num_frames=5, shard_games=3)
    folder = record_duels(config)
    store = ClipStore(folder, 5)
    assert len(store) == 6 and len(store.shards) == 2
    truth = load_truth(*store.shards[1])
    assert truth.actions.shape == (15, 2) and truth.balls.shape == (15, 3, 4)
    again, expected = play_games(3, 5, config, 1 << 32)
    assert (store.clips(range(3, 6)) == again).all()
    assert (truth.players.reshape(3, 5, 2, 4) == expected.players).all()
    (folder / "frames-00001.npy").unlink()
    record_duels(config)
    assert (ClipStore(folder, 5).clips(range(3, 6)) == again).all()
    with pytest.raises(ValueError, match="games of another config"):
        record_duels(replace(config, redraw=0.5))
    with pytest.raises(ValueError, match=r"redraw must lie in \[0, 1\], got 2"):
        replace(config, redraw=2.0)
    (folder / "truth-00000.npz").unlink()
    with pytest.raises(FileNotFoundError, match="video and nothing else"):
        load_truth(folder, 0)


@pytest.mark.parametrize("game", ["cooperative_pong", "atari_pong"])
def test_real_games_are_recorded_with_their_truth(tmp_path, game):
    pytest.importorskip({"cooperative_pong": "pymunk", "atari_pong": "ale_py"}[game])
    config = DuelConfig("x", game=game, reactive=0.0)
    frames, truth = play_games(6, 12, config, 0)
    assert frames.shape == (6, 12, SIZE, SIZE, 3) and frames.dtype == np.uint8
    assert truth.actions.shape == (6, 12, 2) and not np.isnan(truth.players).any()
    middle = (truth.players[..., :2] + truth.players[..., 2:]) / 2
    assert (middle[:, :, 0, 0] < SIZE / 2).all() and (middle[:, :, 1, 0] > SIZE / 2).all()
    # The paddles are where the boxes say, and go where they are told to.
    bright = frames.astype(int).sum(-1)
    for player in (0, 1):
        x, y = np.moveaxis(middle[:, :, player].astype(int), -1, 0)
        game_index, step = np.indices(x.shape)
        assert (bright[game_index, step, y, x] != np.median(bright, (2, 3))).mean() > 0.9
        moved = np.diff(middle[:, :, player, 1], axis=1)
        does = truth.actions[:, :-1, player]
        assert moved[does == BACK].mean() < -0.3 and moved[does == FORTH].mean() > 0.3
    again, _ = play_games(6, 12, config, 0)
    assert (again == frames).all()
    assert not (frames[0, 0] == frames[1, 0]).all()


def test_unknown_games_are_told():
    with pytest.raises(ValueError, match="unknown game 'chess'; known: duel, cooperative_pong"):
        DuelConfig("x", game="chess")
