"""The proof that codes control players: that it is measured, and can fail."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from genie_env import cli
from genie_env.world_model.two_player import TwoPlayerModel
from training.data.clip_store import ClipStore
from training.data.duels import DuelConfig, record_duels
from training.evaluation.sections import Row, Section, bootstrap
from training.evaluation.two_player.bars import OWN, Bar, bars_table
from training.evaluation.two_player.driven import RealGames, interventions_section
from training.evaluation.two_player.evaluate import HELD_OUT, read_two_player
from training.evaluation.two_player.sections import codes_section
from training.evaluation.two_player.variations import play_changed
from training.evaluation.two_player.watch import (
    NUM_SEEN,
    along_of,
    in_order,
    learn_actions,
    mean_information,
    middles,
    watch,
    watch_trained_on,
)
from training.run_two_player import TwoPlayerRun, train_two_player


@pytest.fixture(scope="module")
def watched():
    return watch(TwoPlayerModel.from_pretrained("duel"), "duel", 16, HELD_OUT)


def test_the_shipped_model_steers_both_players(watched):
    meaning = learn_actions(watched)
    rows = {row.name: row for row in codes_section(watched, meaning).rows}
    own = rows["NMI of a code and its player's action"]
    assert own.estimate.value > 0.5 > 10 * own.beside["shuffled"]
    assert rows["NMI of a code and the other player's action"].estimate.value < 0.1
    assert rows["NMI of a code and the way that its paddle goes"].estimate.value > 0.5
    assert rows["actions told by one map for all games"].estimate.value > 0.8


def test_codes_that_mean_nothing_are_found_out(watched):
    codes = np.random.default_rng(0).integers(3, size=watched.codes_BMS.shape)
    senseless = replace(watched, codes_BMS=codes)
    rows = {r.name: r for r in codes_section(senseless, learn_actions(watched)).rows}
    assert rows["NMI of a code and its player's action"].estimate.value < 0.05
    assert rows["actions told by one map for all games"].estimate.value < 0.5


def test_labels_are_of_games_that_were_trained_on(tmp_path):
    store = ClipStore(record_duels(DuelConfig(str(tmp_path), num_games=100, shard_games=100)), 16)
    model = TwoPlayerModel.from_pretrained("duel")
    seen = watch_trained_on(model, 2)
    assert (seen.frames_BTHWC[:, :16] == store.clips(seen.kept_B)).all()


def test_swapped_players_are_found_out(watched):
    swapped = replace(watched, codes_BMS=watched.codes_BMS[..., ::-1])
    rows = {r.name: r for r in codes_section(swapped, learn_actions(watched)).rows}
    assert rows["NMI of a code and its player's action"].estimate.value < 0.1
    assert rows["NMI of a code and the other player's action"].estimate.value > 0.5


def test_the_shipped_model_moves_who_is_made_to_move():
    model = TwoPlayerModel.from_pretrained("duel")
    meaning = learn_actions(watch_trained_on(model, 16))
    rows = interventions_section(model, meaning, 6, HELD_OUT).rows
    assert [row.estimate.value > 0.8 for row in rows] == [True] * 3
    # Whose codes mean the opposite goes the other way.
    wrong = interventions_section(model, np.take((0, 2, 1), meaning), 6, HELD_OUT).rows
    assert [row.estimate.value < 0.7 for row in wrong] == [True] * 3


def test_changed_games_differ_in_nothing_else():
    (frames, truth), (other, told) = (play_changed(3, 5, drift=drift) for drift in (0, 1.5))
    assert (truth.players == told.players).all() and (truth.actions == told.actions).all()
    np.testing.assert_array_equal(truth.balls, told.balls)
    assert (frames != other).any((2, 3, 4)).all()


def test_order_and_axis():
    upright = np.array([[[[50, 10, 53, 25], [5, 30, 8, 45]]]], float)
    lying = np.array([[[[10, 2, 25, 5], [30, 55, 45, 58]]]], float)
    boxes = np.concatenate([upright, lying])
    assert along_of(boxes).ravel().tolist() == [1, 0]
    boxes = boxes.repeat(NUM_SEEN, 1)
    anywhere = np.zeros((2, 2, 2))
    assert in_order(boxes, anywhere).tolist() == [[1, 0], [0, 1]]


def test_either_may_be_first_where_one_is_as_much_above_as_beside():
    boxes = np.array([[[[5, 5, 8, 20], [55, 54, 58, 69]]]], float).repeat(NUM_SEEN, 1)
    places = middles(boxes)[:, -1]
    assert in_order(boxes, places).tolist() == [[0, 1]]
    assert in_order(boxes, places[:, ::-1]).tolist() == [[1, 0]]


def test_information_of_a_perfect_and_a_useless_code():
    perfect = np.broadcast_to(np.eye(3) * 5, (4, 2, 3, 3))
    assert mean_information(perfect) == pytest.approx(1)
    assert mean_information(np.ones((4, 2, 3, 3))) == pytest.approx(0)


def test_a_real_game_that_is_over_stands_still():
    games = RealGames("cooperative_pong", 2, seed=0)
    assert games.frames_BTHWC.shape == (2, NUM_SEEN, 64, 64, 3)
    for _ in range(150):
        frames, boxes = games.step(np.zeros((2, 2), int))
    over = np.isnan(boxes).all((1, 2))
    assert over.any()
    assert (games.step(np.zeros((2, 2), int))[0] == frames)[over].all()


def test_the_command_writes_a_report(tmp_path, capsys):
    arguments = ["--games", "duel", "--num-games", "4", "--num-driven", "2",
                 "--num-varied", "3", "--out", str(tmp_path)]  # fmt: skip
    cli.main(["eval-two-player", *arguments])
    found = json.loads((tmp_path / "duel" / "report.json").read_text())
    titles = [section["title"] for section in found["sections"]]
    assert titles == [
        "duel: Where the players are",
        "duel: Codes and what was done",
        "duel: One code changed",
        "duel: What is left to say",
        "duel: Driven",
        "duel: Made to move",
        "duel: Variations",
        "duel: Known limits",
    ]
    left = {row["name"]: row["value"] for row in found["sections"][3]["rows"]}
    assert left["both codes"] < left["nobody's code"] < left["both shuffled"]
    table = (tmp_path / "two-players.md").read_text()
    assert table in capsys.readouterr().out
    assert "| duel | both within 4 px, each on its side | >= 0.95 |" in table
    # A report that is there is shown without measuring anything again.
    arguments = ["--model", "--beside", str(tmp_path / "duel"), "--out", str(tmp_path / "again")]
    cli.main(["eval-two-player", *arguments])
    assert (tmp_path / "again" / "two-players.md").read_text() == table


def test_a_folder_without_a_report_is_no_report(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"report\.json is not there"):
        read_two_player(tmp_path)


def test_bars_are_met_or_not():
    def sections(value, ceiling):
        beside = {"true displacement": ceiling}
        return [Section("codes", "", [Row(OWN, bootstrap(np.full(4, value)), beside=beside)])]

    found = {
        "good": {"duel": sections(0.9, 1.0), "atari_pong": sections(0.5, 0.6)},
        "poor": {"duel": sections(0.8, 1.0), "atari_pong": sections(0.5, 0.7)},
        "blind": {"duel": []},
    }
    rows = [line.split(" | ") for line in bars_table(found).splitlines()[2:]]
    assert rows == [
        ["| duel", OWN, ">= 0.85", "0.900", "0.800 (not)", "-", "1 of 3 |"],
        ["| duel", "the same of true displacement", "", "1.000", "1.000", "-", "|"],
        ["| atari_pong", OWN, ">= 0.8 of the ceiling", "0.500", "0.500 (not)", "-", "1 of 3 |"],
        ["| atari_pong", "the same of true displacement", "", "0.600", "0.700", "-", "|"],
    ]
    assert Bar(2, at_most=True).met(Row("", bootstrap(np.full(4, 2.0))))
    assert not Bar(2, at_most=True).met(Row("", bootstrap(np.full(4, 2.1))))


def test_training_ends_with_a_model_and_goes_on_only_as_it_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["collect-duels", "--out", "games", "--num-games", "6", "--shard-games", "6"])
    command = ["train-two-player", "--run", "run", "--data", "games"]
    tiny = ["loop.steps=3", "loop.batch_size=2", "loop.compile=false"]
    tiny += ["model.width=8", "model.reach=2"]
    cli.main([*command, "--change", *tiny])
    first = TwoPlayerModel.from_pretrained("run/model", dtype=torch.float32)
    assert first.config.width == 8
    cli.main([*command, "--change", *tiny])

    further = ["train-two-player", "--run", "further", "--data", "games", "--change", *tiny]
    still = ["loop.learning_rate=0", "loop.final_learning_rate=0", "start_from=run/model"]
    cli.main([*further, *still])
    second = TwoPlayerModel.from_pretrained("further/model", dtype=torch.float32)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    with pytest.raises(SystemExit, match="start_from=run/model has TwoPlayerConfig"):
        cli.main([*further[:2], "other", *further[3:], *still, "model.num_codes=4"])
    with pytest.raises(ValueError, match="begun with another config"):
        train_two_player(TwoPlayerRun(), tmp_path / "run", [tmp_path / "games"], [])
