"""Keys as data: what they mean, how they are changed, and what held ones ask for."""

import json

import pytest

from genie_env.play.controls import Controls
from genie_env.play.keymap import COMMANDS, KEYS, Keymap, Press, press_of

CODES = {"none": 1, "left": 2, "right": 3, "jump": 4, "right+jump": 5}


def test_every_command_has_a_key_and_every_key_a_meaning():
    assert set(COMMANDS) <= set(KEYS.values())
    keymap = Keymap()
    assert keymap.commands(["3", "nothing", "w"]) == ["code 2", "jump"]
    assert set(keymap.keys_of("left")) == {"left", "a"}
    assert keymap.label("rewind") == "bksp" and keymap.label("code 30") == "?"


@pytest.mark.parametrize(
    ("commands", "press"),
    [
        ([], None),
        (["rewind"], None),
        (["left"], Press(2, "left")),
        (["left", "right"], Press(3, "right")),  # the last one wins
        (["jump", "right"], Press(5, "right+jump")),
        (["left", "jump"], Press(4, "jump")),  # not measured together
        (["left", "code 7", "code 6"], Press(6)),
    ],
)
def test_held_commands_ask_for_one_action(commands, press):
    assert press_of(commands, CODES) == press


def test_a_keymap_survives_its_file(tmp_path):
    changed = Keymap().with_key("x", "code 3").with_key("a", "jump")
    changed.write(tmp_path / "keys.json")
    assert json.loads((tmp_path / "keys.json").read_text()) == {"x": "code 3", "a": "jump"}
    assert Keymap.read(tmp_path / "keys.json") == changed


def test_a_key_can_be_freed(tmp_path):
    (tmp_path / "keys.json").write_text('{"escape": null}')
    keymap = Keymap.read(tmp_path / "keys.json")
    assert "escape" not in keymap.keys and keymap.keys["p"] == "pause"
    keymap.write(tmp_path / "again.json")
    assert Keymap.read(tmp_path / "again.json") == keymap


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "no JSON object"),
        ('{"x": "fly"}', "key 'x' means 'fly'; accepted: 'code 0' and so on, left"),
        ('{"x": "code -1"}', "accepted"),
        ('{"x": 3}', "means 3"),
    ],
)
def test_bad_keymaps(tmp_path, text, message):
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        Keymap.read(tmp_path / "keys.json")


def test_controls_name_codes_by_the_button_they_are_commonest_for():
    measured = {"none": (0.7, 0.28, 0.02), "left": (0.1, 0.9, 0.0), "right": (0.7, 0.29, 0.01)}
    controls = Controls.of(measured, 3)
    assert controls.codes == {"none": 0, "left": 1, "right": 0} and controls.idle == 0
    # What is hardly ever seen on the ground has no name.
    assert controls.names == {0: ("none", "right"), 1: ("left",)}
    assert controls.shares[0] == pytest.approx(0.7 / 1.5)
    assert [controls.name(code) for code in range(3)] == ["none / right", "left", "?"]
    nothing = Controls.of({}, 3)
    assert nothing.codes == {} and nothing.names == {} and nothing.idle == 0
