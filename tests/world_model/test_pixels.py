"""What frames say of each pixel: how far things have moved, and how much room they have."""

import numpy as np
import pytest
import torch

from genie_env.world_model.pixels import beyond, fastest, moved, room


@pytest.mark.parametrize("loud", [0.1, 1.0])
def test_how_far_things_have_moved_is_shown(loud):
    before = torch.full((2, 3, 32, 32), -0.5)
    before[:, :, 8:12, 8:12] += loud
    for right, down in ((3, 0), (0, -2)):
        after = before.roll((down, right), (2, 3))
        came = 4 * moved(before, after, 4)[0, :, 9 + down, 9 + right]
        assert np.allclose(came, (right, down), atol=0.3)
        assert moved(before, after, 4)[:, :, 22:].abs().max() < 0.01


def test_the_fastest_move_nearby_is_shown():
    moves = torch.zeros(3, 2, 2, 32, 32)
    moves[1, 0, 1, 10, 12] = -0.75
    nearby = fastest(moves.unbind(0))
    assert nearby[0, 0, 16, 6] == 0.75 and nearby[0, 0, 17, 6] == nearby[1].max() == 0


@pytest.mark.parametrize("wall", range(4))
@pytest.mark.parametrize("far", [0, 2, 6])
def test_there_is_room_up_to_the_wall(wall, far):
    """Of a paddle whose end is so far from the wall above, below, left or right of it."""
    frame = torch.full((1, 3, 32, 32), -0.5)
    frame[..., far : far + 9, 20:23] = 0.5
    frame = (frame, frame.flip(2), frame.mT, frame.mT.flip(3))[wall]
    rooms = room(frame, 4)[0]
    paddle = frame[0, 0] > 0
    assert torch.allclose(rooms[paddle][:, wall], torch.tensor(min(float(far), 4.0)), atol=0.3)
    rooms[..., wall][paddle] = 4
    # Nothing else stops anything, and what is behind the paddle is no paddle.
    assert rooms.min() > 3.7


def test_a_paddle_that_touches_the_border_behind_it_has_room_along_it():
    frame = torch.full((1, 3, 32, 32), -0.5)
    frame[..., 2:11, :2] = 0.5
    rooms = room(frame, 4)[0, 2:11, :2]
    assert torch.allclose(rooms[..., 0], torch.tensor(2.0), atol=0.3)
    assert rooms[..., 1].min() > 3.7


@pytest.mark.parametrize("loud", [0.2, 1.0])
def test_a_paddle_that_fills_its_last_row_in_part_has_the_rest_of_it_as_room(loud):
    """However loud: what a row shows is how much of it is filled."""
    frame = torch.full((1, 3, 32, 32), -0.5)
    frame[..., 24:31, 20:23] += loud
    frame[..., 31, 20:23] += 0.75 * loud
    down = room(frame, 4)[0, 24:31, 20:23, 1]
    seen = torch.tensor(3 * loud).tanh() ** 3
    assert torch.allclose(down, 4 - seen * 3.75, atol=0.3)


def test_the_gap_between_things_is_no_paddle():
    """Background below a paddle that is as high as a ball far away goes where it likes."""
    frame = torch.full((1, 3, 32, 32), -0.5)
    frame[..., 20:24, 24:28] = frame[..., 24:26, 27:28] = 0.5
    frame[..., 24:26, 5:7] = 0.5
    assert room(frame, 4)[0, 24:, 7:27].min() > 3.7


def test_moves_beyond_the_room_are_told():
    """At a wall below, with a pixel of room on the right."""
    rooms = torch.tensor((3.0, 0.0, 3.0, 1.0)).expand(1, 1, 1, 4)
    # Row by row: what comes from above goes down, what comes from the left goes right.
    assert torch.equal(
        beyond(rooms, 2)[0, 0, 0].view(5, 5),
        torch.tensor((
            (1.0, 1, 1, 1, 1),
            (1.0, 1, 1, 1, 1),
            (1.0, 0, 0, 0, 0),
            (1.0, 0, 0, 0, 0),
            (1.0, 0, 0, 0, 0),
        )),
    )  # fmt: skip
