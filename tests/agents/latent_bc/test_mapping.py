"""From latent actions to real ones by a few labels."""

import numpy as np
import pytest

from agents.latent_bc.mapping import learn_dictionary, plain_button
from genie_env.envs import coinrun
from genie_env.envs.coinrun import JUMP, LEFT, NOOP, PLAIN_BUTTONS, RIGHT, RIGHT_JUMP


def test_plain_buttons_do_what_the_others_do():
    names = [coinrun.ACTION_MEANINGS[b][0] for b in plain_button(np.arange(15))]
    assert names[:9] == [
        "LEFT",
        "LEFT",
        "LEFT+UP",
        "NOOP",
        "NOOP",
        "UP",
        "RIGHT",
        "RIGHT",
        "RIGHT+UP",
    ]
    assert set(names[9:]) == {"NOOP"}
    assert (plain_button(np.array(PLAIN_BUTTONS)) == PLAIN_BUTTONS).all()


def test_a_rare_action_is_not_drowned_by_a_common_one():
    # Code 2 is a jump nine times in ten; but of the 1,000 steps to the right a tenth look like it.
    codes = np.array([0] * 900 + [2] * 100 + [2] * 27 + [0] * 3)
    actions = np.array([RIGHT] * 1000 + [JUMP] * 30)
    assert learn_dictionary(codes, actions, 3).tolist() == [RIGHT, RIGHT, JUMP]


def test_what_was_never_seen_together_is_not_made_up():
    # Of two jumps both were code 1; code 2 was seen with walking alone, though rarely.
    codes = np.array([0] * 97 + [2] * 3 + [1] * 2)
    actions = np.array([RIGHT] * 100 + [JUMP] * 2)
    assert learn_dictionary(codes, actions, 4).tolist() == [RIGHT, JUMP, RIGHT, RIGHT]


def test_a_clean_labelled_set_is_learnt_exactly():
    rng = np.random.default_rng(0)
    truth = np.array([NOOP, RIGHT_JUMP, LEFT, JUMP, RIGHT])
    codes = rng.integers(5, size=400)
    assert (learn_dictionary(codes, truth[codes], 5) == truth).all()


@pytest.mark.parametrize(
    ("codes", "actions", "message"),
    [
        ([], [], "at least one"),
        ([0, 1], [4], "as many of both"),
        ([0, 8], [4, 4], "accepted: 0 to 7"),
    ],
)
def test_bad_labels(codes, actions, message):
    with pytest.raises(ValueError, match=message):
        learn_dictionary(np.array(codes, int), np.array(actions, int), 8)
