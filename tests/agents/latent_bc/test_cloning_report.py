"""What is said of plays, and kept."""

import json

import numpy as np
import pytest
from PIL import Image

from agents.latent_bc.report import (
    ALL,
    NONE,
    ORACLE,
    PLAIN,
    RIGHT_JUMP,
    Score,
    compare,
    plot,
    read_scores,
    table,
    with_others,
    write_report,
)
from training.evaluation.sections import Estimate

ALWAYS = [1] * 60 + [0] * 40


def plays():
    won = {
        (ORACLE, ALL): [ALWAYS],
        (PLAIN, "5"): [[0] * 100],
        (PLAIN, "9"): [ALWAYS],
        (RIGHT_JUMP, NONE): [ALWAYS[::-1]],
        ("ours", "5"): [ALWAYS, ALWAYS[::-1]],
        ("ours", "9"): [ALWAYS],
    }
    return {key: np.array(value, bool) for key, value in won.items()}


def test_differences_are_level_by_level():
    rows = {(score.method, score.labels): score for score in compare(plays())}
    five, nine = rows["ours", "5"], rows["ours", "9"]
    # As many as the oracle, but on other levels; as many, and on the same.
    assert five.more[ORACLE].value == pytest.approx(0) and five.more[ORACLE].high > 0.02
    assert (nine.more[ORACLE].low, nine.more[ORACLE].high) == (0, 0)
    # Beside as many labels.
    assert five.more[PLAIN].value == pytest.approx(0.6) and nine.more[PLAIN].value == 0
    assert five.draws == (0.6, 0.6) and ORACLE not in rows[ORACLE, ALL].more
    # Who has several sizes is not compared with by who has none of them.
    assert PLAIN not in rows[RIGHT_JUMP, NONE].more
    line = next(line for line in table({"easy": list(rows.values())}).splitlines() if "| 9" in line)
    assert line.startswith("| nothing but the labels | 9 | 1 | 0.600 [")


def test_a_report_is_read_again_and_rows_of_others_fill_it(tmp_path):
    found = {"easy": compare(plays())}
    write_report(tmp_path, found)
    assert read_scores(tmp_path / "score.json") == found
    other = Score("ours", "5", Estimate(0.1, 0.0, 0.2, 100))
    new = Score("ours", "50", Estimate(0.9, 0.8, 1.0, 100))
    merged = with_others(found, [{"easy": [other, new], "hard": [other]}])
    assert merged["easy"] == [*found["easy"], new] and merged["hard"] == [other]
    assert "| ours | 50 |  | 0.900 [0.800, 1.000] |" in table(merged)

    (tmp_path / "bad.json").write_text(json.dumps({"easy": [{"method": "ours"}]}))
    with pytest.raises(ValueError, match="bad.json is no score.json"):
        read_scores(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match="bad.json is no score.json"):
        read_scores(tmp_path / "bad.json")


def test_every_method_is_drawn(tmp_path):
    """A method more is a picture that differs, on either panel."""

    def drawn(*scores):
        plot(tmp_path / "p.png", {"easy": compare(plays()), "hard": list(scores)})
        return np.asarray(Image.open(tmp_path / "p.png").convert("L"), int)

    few = Score("ours", "5", Estimate(0.1, 0.0, 0.2, 100))
    level = Score("expert", ALL, Estimate(0.9, 0.8, 1.0, 100))
    assert drawn(few).shape != drawn(few, level).shape or (drawn(few) != drawn(few, level)).any()
    one, other = drawn(few, level), drawn(few, Score("expert", ALL, Estimate(0.5, 0.4, 0.6, 100)))
    assert one.shape == other.shape and (one != other).any()
