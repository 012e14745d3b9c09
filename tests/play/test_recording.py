"""Films of what was played, and starts painted by hand."""

import numpy as np
import pytest
from PIL import Image

from genie_env.play.canvas import BLOCK, Canvas
from genie_env.play.recording import write_film

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def test_a_gif_has_every_frame_and_the_pace(tmp_path):
    path = write_film(tmp_path / "a" / "film.gif", FRAMES, fps=10, scale=3)
    with Image.open(path) as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (5, (48, 48), 100)
        first = np.asarray(film.convert("RGB"))
    assert np.abs(first[::3, ::3].astype(int) - FRAMES[0]).mean() < 12
    np.testing.assert_array_equal(first[::3], first[1::3])


def test_an_mp4_has_every_frame(tmp_path):
    av = pytest.importorskip("av")
    path = write_film(tmp_path / "film.mp4", FRAMES.repeat(4, 1).repeat(4, 2), fps=25, scale=1)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == 25
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5 and frames[0].shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [("film.avi", FRAMES, "accepted: .gif or .mp4"), ("film.gif", FRAMES[:0], "no frame")],
)
def test_bad_films(tmp_path, name, frames, message):
    with pytest.raises(ValueError, match=message):
        write_film(tmp_path / name, frames, fps=10)


def test_a_canvas_paints_whole_blocks_on_its_own_copy():
    frame = FRAMES[0].copy()
    canvas = Canvas(frame, {"black": (0, 0, 0), "red": (255, 0, 0)})
    assert canvas.colour == "red"
    canvas.paint(0.99, 0.3)
    painted = (canvas.frame_HWC == (255, 0, 0)).all(-1)
    assert painted.sum() == BLOCK**2 and painted[4:8, 12:16].all()
    np.testing.assert_array_equal(frame, FRAMES[0])
    canvas.clear()
    assert not canvas.frame_HWC.any()
