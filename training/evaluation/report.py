"""The report of an evaluation as JSON, Markdown, PNG and one HTML page that needs nothing else;
and the plots in it.

Shapes: R rows and K columns of a matrix.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.sections import Estimate, Figure, Row, Section

Curve = np.ndarray | tuple[np.ndarray, ...]

NOT_MEASURED = "not measured"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444")
"""Okabe and Ito's, told apart by colour-blind readers; the palest left out."""
_PLOT_STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "figure.facecolor": "white",
}
_BAR_WIDTH = 120


def write_report(out: Path, title: str, summary: dict[str, str], sections: list[Section]) -> None:
    """Writes report.json, report.md, report.html and a PNG a figure into `out`.

    summary: what was evaluated, shown on top. The HTML holds its pictures and refers to nothing
    outside. Numbers that are not finite are null in JSON and "not measured" elsewhere.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = _file_names(sections)
    for section, names in zip(sections, files, strict=True):
        for figure, name in zip(section.figures, names, strict=True):
            (out / name).write_bytes(figure.png)
    content = _json(title, summary, sections, files)
    (out / "report.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    (out / "report.md").write_text(_markdown(title, summary, sections), encoding="utf-8")
    (out / "report.html").write_text(_html(title, summary, sections), encoding="utf-8")


def read_report(out: Path) -> list[Section]:
    """The sections that `write_report` wrote there, without figures; nan where it says null.
    Raises FileNotFoundError where there are none."""
    path = out / "report.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: {out} is no folder of a report")

    def row(found: dict[str, Any]) -> Row:
        numbers = {
            name: math.nan if found[name] is None else found[name]
            for name in ("value", "low", "high")
        }
        beside = {name: math.nan if v is None else v for name, v in found["beside"].items()}
        estimate = Estimate(**numbers, count=found["count"])
        return Row(found["name"], estimate, found["unit"], beside)

    return [
        Section(section["title"], section["protocol"], [row(each) for each in section["rows"]])
        for section in json.loads(path.read_text())["sections"]
    ]


def curve_png(series: Mapping[str, Curve], x_label: str, y_label: str) -> bytes:
    """Lines as PNG, 1400 pixels wide to be shown at half of that.

    series: name -> y, (x, y), or (x, y, low, high) with a band from low to high; all 1-D and of
    one length. NaN leave a gap. Raises ValueError for other series.
    """
    canvas, axes = _canvas(7, 3.9)
    for i, (name, curve) in enumerate(series.items()):
        parts = curve if isinstance(curve, tuple) else (np.arange(len(curve)), curve)
        arrays = [np.asarray(part, np.float64) for part in parts]
        shapes = [array.shape for array in arrays]
        if len(arrays) not in (2, 4) or len(set(shapes)) > 1 or arrays[0].ndim != 1:
            raise ValueError(
                f"series {name!r} of shapes {shapes}; accepted: y, (x, y) or (x, y, low, high), "
                "1-D and of one length"
            )
        colour = COLOURS[i % len(COLOURS)]
        style = ("-", "--", ":", "-.")[i // len(COLOURS) % 4]
        # A lone point, or one between gaps, has no line to be seen by.
        marker = "o" if len(arrays[0]) <= 24 else None
        axes.plot(arrays[0], arrays[1], style, color=colour, marker=marker, ms=4, lw=2, label=name)
        if len(arrays) == 4:
            axes.fill_between(arrays[0], *arrays[2:], color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    if len(series) > 1:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _png(canvas)


def matrix_png(
    matrix: np.ndarray,
    row_names: Sequence[str],
    column_names: Sequence[str],
    value_format: str = "{:.2f}",
) -> bytes:
    """A table of coloured cells as PNG, each with its number; NaN are grey and empty.

    matrix: (R, K). value_format: for `str.format`. Values of both signs get a scale that is white
    at 0. Raises ValueError where names and matrix do not fit.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape != (len(row_names), len(column_names)) or not matrix.size:
        raise ValueError(
            f"matrix of shape {matrix.shape} with {len(row_names)} row and {len(column_names)} "
            "column names; one name each and at least one cell are needed"
        )
    finite = matrix[np.isfinite(matrix)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    signed = low < 0 < high
    if signed:
        low, high = -max(-low, high), max(-low, high)
    canvas, axes = _canvas(7, min(12, 0.9 + 0.42 * len(row_names)))
    axes.set_facecolor("#dddddd")
    shown = np.ma.masked_invalid(matrix)
    image = axes.imshow(
        shown, cmap="PuOr" if signed else "cividis", vmin=low, vmax=high, aspect="auto"
    )
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            luminance = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114))
            axes.text(
                column,
                row,
                value_format.format(value),
                ha="center",
                va="center",
                color="black" if luminance > 0.5 else "white",
                fontsize=min(11, 90 / len(column_names)),
            )
    crowded = max(map(len, map(str, column_names))) * len(column_names) > 60
    axes.set_xticks(
        range(len(column_names)),
        _plain(column_names),
        rotation=35 if crowded else 0,
        ha="right" if crowded else "center",
    )
    axes.set_yticks(range(len(row_names)), _plain(row_names))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _png(canvas)


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    """An Agg canvas that no global state of matplotlib knows, so that nothing is left open."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    with rc_context(_PLOT_STYLE):
        plot = Plot(figsize=(width, height), dpi=200, layout="constrained")
        return FigureCanvasAgg(plot), plot.add_subplot()


def _png(canvas: Any) -> bytes:
    from matplotlib import rc_context

    file = io.BytesIO()
    with rc_context(_PLOT_STYLE):
        canvas.figure.savefig(file, format="png")
    return file.getvalue()


def _plain(names: Sequence[str]) -> list[str]:
    """Without matplotlib's formulas: a name with dollar signs is a name."""
    return [str(name).replace("$", r"\$") for name in names]


def _file_names(sections: list[Section]) -> list[list[str]]:
    """A PNG file name a figure, distinct and inside the folder whatever the figure is called."""
    taken: set[str] = set()

    def distinct(name: str) -> str:
        stem = re.sub(r"[^\w-]+", "-", name).strip("-") or "figure"
        number = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n}" not in taken)
        result = stem if stem not in taken else f"{stem}-{number}"
        taken.add(result)
        return f"{result}.png"

    return [[distinct(figure.name) for figure in section.figures] for section in sections]


def _three(row: Row) -> tuple[float, float, float]:
    return row.estimate.low, row.estimate.value, row.estimate.high


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _json(
    title: str, summary: dict[str, str], sections: list[Section], files: list[list[str]]
) -> dict[str, Any]:
    return {
        "title": title,
        "summary": summary,
        "sections": [
            {
                "title": section.title,
                "protocol": section.protocol,
                "rows": [
                    {
                        "name": row.name,
                        "value": _number(row.estimate.value),
                        "low": _number(row.estimate.low),
                        "high": _number(row.estimate.high),
                        "count": int(row.estimate.count),
                        "unit": row.unit,
                        "beside": {name: _number(value) for name, value in row.beside.items()},
                    }
                    for row in section.rows
                ],
                "figures": [
                    {"name": figure.name, "caption": figure.caption, "file": file}
                    for figure, file in zip(section.figures, names, strict=True)
                ],
            }
            for section, names in zip(sections, files, strict=True)
        ],
    }


def _decimals(row: Row) -> int:
    """As many as the size of a row's numbers leaves of interest."""
    largest = max((abs(v) for v in _three(row) if math.isfinite(v)), default=0.0)
    if largest >= 1:
        return max(0, min(2, 3 - int(math.log10(largest))))
    return min(6, 1 - math.floor(math.log10(largest))) if largest else 2


def _text(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:,.{decimals}f}"


def _beside_text(value: float, decimals: int) -> str:
    # What stands beside a share may be a count, which needs no decimals.
    return _text(value, 0 if abs(value) >= 10 and float(value).is_integer() else decimals)


def _texts(row: Row) -> tuple[str, str, str]:
    """Value, interval and what is beside a row, as text."""
    decimals, estimate = _decimals(row), row.estimate
    value = _text(estimate.value, decimals)
    measured = all(map(math.isfinite, _three(row)))
    interval = f"[{_text(estimate.low, decimals)}, {_text(estimate.high, decimals)}]"
    # No line break between a name and its number.
    others = [f"{name}\u00a0{_beside_text(other, decimals)}" for name, other in row.beside.items()]
    return value, interval if measured else "", "; ".join(others)


def _markdown(title: str, summary: dict[str, str], sections: list[Section]) -> str:
    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|")

    lines = [f"# {cell(title)}", "", *(f"* {cell(k)}: {cell(v)}" for k, v in summary.items())]
    for section in sections:
        lines += ["", f"## {cell(section.title)}", ""]
        if section.rows:
            lines += ["| | value [95% interval] | beside |", "|---|---|---|"]
        for row in section.rows:
            value, interval, beside = _texts(row)
            measured = " ".join(part for part in (value, interval, row.unit) if part)
            if value == NOT_MEASURED:
                measured = value
            lines.append(f"| {cell(row.name)} | {cell(measured)} | {cell(beside)} |")
        lines += [""] * bool(section.rows) + [cell(section.protocol)]
    return "\n".join(lines) + "\n"


_CSS = """
:root { color-scheme: light dark; --page: #fcfcfa; --text: #1d1f21; --quiet: #62676d;
  --line: #e2e2dc; --mark: #0072b2; --band: #9cc7e2; --other: #d55e00; --box: #f3f3ef; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --text: #e4e5e7; --quiet: #9aa0a6;
  --line: #2e3237; --mark: #6cb8ec; --band: #2f5f80; --other: #f0965a; --box: #1e2125; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 78rem; background: var(--page);
  color: var(--text); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "Liberation Sans", sans-serif; overflow-wrap: break-word; }
h1, h2 { font-family: Charter, "Bitstream Charter", "Sitka Text", Cambria, "Liberation Serif",
  Georgia, serif; font-weight: 600; line-height: 1.2; letter-spacing: -0.01em; }
h1 { font-size: 2.2rem; margin: 0 0 1.5rem; }
h2 { font-size: 1.45rem; margin: 0 0 1.25rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1.5rem;
  margin: 0 0 1.5rem; font-size: .95rem; }
dt { color: var(--quiet); } dd { margin: 0; }
nav ol { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; list-style: none; padding: 0;
  margin: 0 0 .75rem; }
a { color: var(--mark); text-decoration: none; } a:hover { text-decoration: underline; }
.key, .protocol, figcaption { color: var(--quiet); font-size: .85rem; line-height: 1.5; }
.key svg { vertical-align: middle; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 2rem; }
.protocol { margin: 1.25rem 0 0; }
@media (min-width: 68rem) {
  section { display: grid; grid-template-columns: minmax(0, 1fr) 17rem; column-gap: 3rem; }
  h2, .figures { grid-column: 1 / -1; }
  .protocol { margin: 0; } .protocol:only-of-type { max-width: 60rem; }
}
table { width: 100%; border-collapse: collapse; font-size: .92rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; align-self: start; }
td, th { padding: .4rem 1rem .4rem 0; text-align: left; font-weight: 400; vertical-align: baseline;
  border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-size: .8rem; }
tbody th { min-width: 9.5rem; hyphens: none; } th.group { padding-top: 1.1rem; font-weight: 600; }
.in th { padding-left: 1rem; }
td.value { font-weight: 600; white-space: nowrap; }
td.value small { font-weight: 400; font-size: 1em; color: var(--quiet); }
td.interval, td.count { white-space: nowrap; color: var(--quiet); }
td.beside { padding-right: 0; color: var(--quiet); font-size: .85rem; }
td.bar { white-space: nowrap; } td.bar svg, .key svg { display: inline-block; }
svg .axis { stroke: var(--line); } svg .band { stroke: var(--band); stroke-width: 5; }
svg .dot { fill: var(--mark); } svg .other { stroke: var(--other); stroke-width: 1.5; }
figure { margin: 2rem 0 0; }
figcaption { max-width: 60rem; margin-top: .6rem; }
.strip { overflow-x: auto; background: var(--box); border-radius: 4px; }
.frames { display: block; max-width: none; image-rendering: pixelated; }
.plot { display: block; width: 100%; max-width: 700px; height: auto; background: #fff;
  border-radius: 4px; }
@media (max-width: 44rem) {
  body { padding: 1.75rem 1rem 3rem; } h1 { font-size: 1.7rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; }
  thead { display: none; }
  table, tbody { display: block; }
  tr { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 .75rem; padding: .5rem 0;
    border-bottom: 1px solid var(--line); }
  td, th, .in th { display: block; border: 0; padding: 0; }
  tbody th, td.beside { flex-basis: 100%; } th.group { padding-top: .75rem; }
  td.beside:empty { display: none; }
  td.count::before { content: "n = "; }
}
@media print { section { break-inside: auto; } figure, tr { break-inside: avoid; } }
"""


def _html(title: str, summary: dict[str, str], sections: list[Section]) -> str:
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in summary.items())
    links = "".join(
        f'<li><a href="#section-{i}">{escape(section.title)}</a></li>'
        for i, section in enumerate(sections, 1)
    )
    bodies = "\n".join(_section_html(i, section) for i, section in enumerate(sections, 1))
    key = _bar_svg((0.25, 0.5, 0.7), (0.1,), (0, 1), 60)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{f"<dl>{facts}</dl>" if facts else ""}
<nav aria-label="Contents"><ol>{links}</ol></nav>
<p class="key">{key} value, its 95% interval, and ticks for what stands beside it; rows of a \
section that share a unit share the scale. n: independent scenes.</p>
</header>
<main>
{bodies}
</main>
</body>
</html>
"""


def _section_html(index: int, section: Section) -> str:
    figures = "".join(map(_figure_html, section.figures))
    return f"""<section id="section-{index}">
<h2>{escape(section.title)}</h2>
{_table_html(section.rows) if section.rows else ""}
<p class="protocol">{escape(section.protocol)}</p>
{f'<div class="figures">{figures}</div>' if figures else ""}
</section>"""


def _figure_html(figure: Figure) -> str:
    data = base64.b64encode(figure.png).decode()
    caption = escape(figure.caption)
    # matplotlib signs its files; everything else is film strips, pixel for pixel.
    is_plot = b"Matplotlib" in figure.png[:256]
    style = "plot" if is_plot else "frames"
    image = f'<img class="{style}" src="data:image/png;base64,{data}" alt="{caption}">'
    box = image if is_plot else f'<div class="strip" tabindex="0">{image}</div>'
    return f"<figure>{box}<figcaption>{caption}</figcaption></figure>"


def _table_html(rows: list[Row]) -> str:
    scales = {scale: _axis(rows, scale) for scale in {_scale(row) for row in rows}}
    lines = []
    # "what: of which" rows that follow one another are told apart by the second half alone.
    for what, group in groupby(rows, lambda row: row.name.rpartition(": ")[0]):
        members = list(group)
        grouped = bool(what) and len(members) > 1
        if grouped:
            lines.append(f'<tr><th class="group" colspan="6">{escape(what)}</th></tr>')
        for row in members:
            name = row.name.rpartition(": ")[2] if grouped else row.name
            lines.append(_row_html(row, name, "in" * grouped, scales[_scale(row)]))
    return (
        "<table><thead><tr><th></th><th>value</th><th>95% interval</th><th></th><th>n</th>"
        f"<th>beside</th></tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _row_html(row: Row, name: str, style: str, axis: tuple[float, float]) -> str:
    value, interval, beside = _texts(row)
    unit = f" <small>{escape(row.unit)}</small>" if row.unit and value != NOT_MEASURED else ""
    bar = _bar_svg(_three(row), row.beside.values(), axis, _BAR_WIDTH)
    return (
        f'<tr class="{style}"><th scope="row">{escape(name)}</th>'
        f'<td class="value">{value}{unit}</td><td class="interval">{interval}</td>'
        f'<td class="bar">{bar if interval else ""}</td>'
        f'<td class="count">{int(row.estimate.count)}</td>'
        f'<td class="beside">{escape(beside)}</td></tr>'
    )


def _scale(row: Row) -> tuple[str, bool]:
    """Rows of the same are drawn to one scale: the unit, and whether it can be a share."""
    return row.unit, all(0 <= v <= 1 for v in _three(row))


def _axis(rows: list[Row], scale: tuple[str, bool]) -> tuple[float, float]:
    if scale == ("", True):
        return 0.0, 1.0
    alike = [row for row in rows if _scale(row) == scale]
    estimates = [v for row in alike for v in _three(row)]
    beside = [v for row in alike for v in row.beside.values()]
    numbers = [v for v in estimates + beside if math.isfinite(v)]
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _bar_svg(
    interval: tuple[float, float, float],
    beside: Iterable[float],
    axis: tuple[float, float],
    width: int,
) -> str:
    """(low, value, high) as a band with a dot, ticks for the numbers beside it."""

    def x(number: float) -> float:
        return round(4 + (width - 8) * (number - axis[0]) / (axis[1] - axis[0]), 1)

    low, value, high = interval
    ticks = "".join(
        f'<path class="other" d="M{x(other)} 2v12"/>'
        for other in beside
        if math.isfinite(other) and axis[0] <= other <= axis[1]
    )
    return (
        f'<svg width="{width}" height="16" aria-hidden="true">'
        f'<path class="axis" d="M0 8h{width}"/>'
        f'<path class="band" d="M{x(low)} 8H{x(high)}"/>{ticks}'
        f'<circle class="dot" cx="{x(value)}" cy="8" r="3.2"/></svg>'
    )
