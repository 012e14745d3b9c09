"""Films of what was played, and starts painted by hand."""

import numpy as np
import pytest
from PIL import Image

from genie_env.play.canvas import BLOCK, Canvas
from genie_env.play.recording import write_film

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


def test_a_gif_has_every_frame_and_the_pace(tmp_path):
    path = write_film(tmp_path / "a", "gif", list(FRAMES), fps=10, scale=3)
    assert path.name == "played-001.gif"
    with Image.open(path) as film:
        assert (film.n_frames, film.size, film.info["duration"]) == (5, (48, 48), 100)
        first = np.asarray(film.convert("RGB"))
    assert np.abs(first[::3, ::3].astype(int) - FRAMES[0]).mean() < 12
    np.testing.assert_array_equal(first[::3], first[1::3])


def test_an_mp4_has_every_frame(tmp_path):
    av = pytest.importorskip("av")
    path = write_film(tmp_path, "mp4", FRAMES, fps=25)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == 25
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 5 and frames[0].shape == (64, 64, 3)


def test_no_film_takes_another_ones_place(tmp_path):
    names = [write_film(tmp_path, "gif", FRAMES, fps=10).name for _ in range(2)]
    assert names == ["played-001.gif", "played-002.gif"]
    (tmp_path / names[0]).unlink()
    assert write_film(tmp_path, "gif", FRAMES, fps=10).name == "played-003.gif"


@pytest.mark.parametrize(
    ("kind", "frames", "message"),
    [("avi", FRAMES, "accepted: gif or mp4"), ("gif", FRAMES[:0], "no frame")],
)
def test_bad_films(tmp_path, kind, frames, message):
    with pytest.raises(ValueError, match=message):
        write_film(tmp_path, kind, frames, fps=10)


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


def test_a_stroke_has_no_gaps():
    canvas = Canvas(np.zeros((64, 64, 3), np.uint8))
    canvas.paint(0.1, 0.5)
    canvas.paint(0.9, 0.5, since=(0.1, 0.5))
    assert canvas.frame_HWC[32, 8:58].any(-1).all()
