import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from training.evaluation.report import curve_png, matrix_png, write_report
from training.evaluation.sections import Estimate, Figure, Row, Section, strips_png

HOSTILE = '<script>alert("1")</script> a|b & "c"\n../../d'
NAN = float("nan")
STRIP = strips_png(np.random.default_rng(0).integers(0, 255, (2, 3, 8, 8, 3), dtype=np.uint8))
SECTIONS = [
    Section(
        "Prediction",
        "From 4 frames.",
        [
            Row("PSNR: plain", Estimate(28.713, 28.412, 29.01, 128), "dB", {"floor": 17.25}),
            Row("PSNR: full", Estimate(24.5, 23.0, 26.0, 64), "dB", {"floor": 15.0}),
            Row("coins found", Estimate(0.5, 0.25, 0.75, 8), beside={"frames with one": 37.0}),
            Row("saws found", Estimate(NAN, NAN, NAN, 0), beside={"chance": NAN}),
        ],
        [Figure("strip", "Real above dreamt.", STRIP)],
    ),
    Section(HOSTILE, HOSTILE, [Row(HOSTILE, Estimate(1, 0, np.float32(2), 3), HOSTILE)]),
]


class Page(HTMLParser):
    """Text, images, links and tags of a page; closed in the order in which they were opened."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.images, self.links, self.ids, self.text = [], [], [], [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.images += [attributes["src"]] if tag == "img" else []
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "not" / "there"
    write_report(folder, "A <model>", {"levels": "1 & 2"}, SECTIONS)
    return folder


@pytest.fixture(scope="module")
def html(report):
    return (report / "report.html").read_text()


def test_json_holds_everything_and_no_nan(report):
    def refuse(name):
        raise AssertionError(name)

    content = json.loads((report / "report.json").read_text(), parse_constant=refuse)
    assert content["title"] == "A <model>" and content["summary"] == {"levels": "1 & 2"}
    first, second = content["sections"]
    assert first["protocol"] == "From 4 frames."
    assert first["rows"][0] == {
        "name": "PSNR: plain",
        "value": 28.713,
        "low": 28.412,
        "high": 29.01,
        "count": 128,
        "unit": "dB",
        "beside": {"floor": 17.25},
    }
    assert first["rows"][3]["value"] is None and first["rows"][3]["beside"] == {"chance": None}
    assert second["title"] == second["rows"][0]["name"] == HOSTILE
    (figure,) = first["figures"]
    assert (report / figure["file"]).read_bytes() == STRIP


def test_markdown_rows(report):
    lines = (report / "report.md").read_text().splitlines()
    assert "| PSNR: plain | 28.71 [28.41, 29.01] dB | floor 17.25 |" in lines
    assert "| coins found | 0.50 [0.25, 0.75] | frames with one 37 |" in lines
    assert "| saws found | not measured | chance not measured |" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {4}
    assert "From 4 frames." in lines


def test_page_shows_every_interval_protocol_and_gap(html):
    page = Page(html)
    for text in ("[28.41, 29.01]", "[23.00, 26.00]", "[0.25, 0.75]", "[0.00, 2.00]"):
        assert text in page.text
    for text in ("A <model>", "From 4 frames.", "floor\u00a017.25", "not measured", HOSTILE):
        assert text in page.text
    assert not re.search(r"\bnan\b", html, re.IGNORECASE)


def test_page_refers_to_nothing_outside(html):
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags
    assert "http:" not in html and "https:" not in html and "url(" not in html
    for link in page.links:
        assert link.startswith("data:image/png;base64,") or link[1:] in page.ids


def test_page_holds_every_figure(tmp_path):
    pngs = [STRIP, curve_png({"a": np.arange(3)}, "x", "y"), matrix_png(np.eye(2), "ab", "cd")]
    figures = [Figure("same/name", "caption", png) for png in pngs]
    write_report(tmp_path, "title", {}, [Section("one", "", [], figures), Section("two", "", [])])
    html = (tmp_path / "report.html").read_text()
    assert len(set(Page(html).images)) == 3
    # Strips keep their pixels, plots are scaled.
    assert html.count('class="frames"') == 1 and html.count('class="plot"') == 2
    assert sorted(path.read_bytes() for path in tmp_path.glob("*.png")) == sorted(pngs)


def test_a_report_of_nothing(tmp_path):
    write_report(tmp_path, "title", {}, [])
    assert json.loads((tmp_path / "report.json").read_text())["sections"] == []
    Page((tmp_path / "report.html").read_text())


def decoded(png, tmp_path):
    path = tmp_path / "plot.png"
    path.write_bytes(png)
    return np.asarray(Image.open(path).convert("RGBA"))


def test_plots_are_opaque_and_take_nan(tmp_path):
    y = np.array([1.0, NAN, 3.0])
    curve = curve_png(
        {"y": y, "x, y": (np.arange(3), y), "band $1": (np.arange(3), y, y - 1, y + 1)}, "x", "y"
    )
    matrix = matrix_png(np.array([[NAN, 1.0], [-2.0, 0.0]]), ["a", "b"], ["c", "d"], "{:+.1f}")
    nothing = matrix_png(np.full((1, 2), NAN), ["a"], ["c", "d"])
    for png in (curve, matrix, nothing):
        picture = decoded(png, tmp_path)
        assert picture.shape[1] == 1400
        assert (picture[..., 3] == 255).all() and (picture[0, 0] == 255).all()


@pytest.mark.parametrize(
    "curve",
    [(np.arange(3), np.arange(2)), (np.arange(3),) * 3, np.zeros((2, 2))],
    ids=["lengths", "three parts", "2-D"],
)
def test_curves_of_a_wrong_shape(curve):
    with pytest.raises(ValueError, match="series 'bad' of shapes"):
        curve_png({"bad": curve}, "x", "y")


def test_a_matrix_with_a_name_too_few():
    with pytest.raises(ValueError, match="one name each"):
        matrix_png(np.eye(2), ["a"], ["b", "c"])
