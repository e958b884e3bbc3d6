"""Self-contained HTML files: elements, tables, charts and a style sheet.

Pages have no external links and no scripts; pictures are embedded. All markup is created by
`tag`, which escapes all text that is not markup.
"""

from __future__ import annotations

import base64
import datetime
import html
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image


class Html(str):
    """Markup. All other text is escaped when it is inserted into markup."""


def safe(*parts: Any) -> Html:
    return Html(
        "".join(p if isinstance(p, Html) else html.escape(str(p)) for p in parts)
    )


def tag(name: str, *content: Any, **attributes: Any) -> Html:
    """Makes an element; `class_` and `aria_label` become class and aria-label."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value != ""
    )
    return Html(f"<{name}{words}>{safe(*content)}</{name}>")


def picture(image: np.ndarray, alt: str) -> Html:
    """Makes an image element with embedded pixels."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=85, subsampling=0)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    h, w = image.shape[:2]
    return Html(
        f'<img src="{source}" width="{w}" height="{h}" alt="{html.escape(alt)}">'
    )


def table(
    head: Sequence[Any], rows: Iterable[Sequence[Any] | Html], class_: str = "numbers"
) -> Html:
    """Makes a table, which scrolls horizontally if it is wider than the page."""
    made = [cells if isinstance(cells, Html) else row(cells) for cells in rows]
    heads = (tag("th", breakable(cell), scope="col") for cell in head)
    top = tag("thead", tag("tr", *heads)) if head else ""
    whole = tag("table", top, tag("tbody", *made), class_=class_)
    return tag("div", whole, class_="wide")


def breakable(name: str, after: str = "@") -> Html:
    """Allows line breaks in a name, for narrow screens."""
    return Html(html.escape(name).replace(after, f"{after}<wbr>"))


def row(cells: Sequence[Any], class_: str = "") -> Html:
    first = tag("th", cells[0], scope="row")
    return tag("tr", first, *(tag("td", cell) for cell in cells[1:]), class_=class_)


def facts(given: Mapping[str, Any]) -> Html:
    return table((), given.items(), class_="words")


class Section(Html):
    """Markup of a section of a page.

    Attributes:
      link: a link to the section.
    """

    link: Html


def section(name: str, title: str, *content: Any) -> Section:
    """Makes a section; content that is not markup becomes paragraphs."""
    parts = [p if isinstance(p, Html) else tag("p", p, class_="aside") for p in content]
    made = Section(tag("section", tag("h2", title), *parts, id=name))
    made.link = tag("a", title, href=f"#{name}")
    return made


def details(words: str, *content: Any) -> Html:
    """Makes content that is collapsed below a summary."""
    return tag("details", tag("summary", words), *content)


def figure(
    class_: str, pictures: Iterable[Html], name: str, facts: Iterable[str]
) -> Html:
    """Makes a figure of pictures side by side, with a name and facts as caption."""
    caption = tag("figcaption", tag("b", name), " ", " · ".join(facts))
    shown = tag("div", *pictures, class_="pictures")
    return tag("figure", shown, caption, class_=class_)


def number(value: Any) -> str:
    """Formats the value of a metric or a setting."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float | np.number):
        value = float(value)
        whole = value.is_integer() and abs(value) < 1e15
        return f"{value:.0f}" if whole else f"{value:.4g}"
    return json.dumps(value, default=str)


def clock(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z")


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


# -------------------------------------------------------------------------------- charts

INK = "#010203"  # Replaced by the text color of the page, in light and dark mode.
COLOURS = (
    "#3b82f6", "#e8790c", "#10a37f", "#e5484d", "#8e5be8", "#0ea5b7", "#c2588f",
    "#84912a", "#7c8594", "#b7791f",
)  # fmt: skip
_STYLE = {
    "svg.fonttype": "none",  # Keeps text as text.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def chart(title: str, draw: Callable[[Any], None], height: float = 2.4) -> Html:
    """Converts the matplotlib axes drawn by `draw` to markup in the colors of the page."""
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure  # No display, no global state of pyplot.

    style: Any = {**_STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4, height), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        silent = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=silent)
    svg = text.getvalue()
    # Inline SVG: no prologue, no namespaces, no ids, which would repeat in every chart.
    svg = svg[svg.index("<svg") :].strip().replace(INK, "currentColor")
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    label = f'<svg role="img" aria-label="{html.escape(title)}"'
    svg = svg.replace("<svg", label, 1)
    return tag("figure", tag("figcaption", title), Html(svg), class_="chart")


# ---------------------------------------------------------------------------------- page


def page(
    name: str,
    kind: str,
    subtitle: str,
    sections: Sequence[Section],
    notes: Iterable[str] = (),
) -> str:
    """Makes a document of sections, with links to them and notes at the top."""
    body = tag(
        "main",
        tag("h1", name),
        tag("p", subtitle, class_="subtitle"),
        *(tag("p", note, class_="note") for note in notes),
        tag("nav", *(section.link for section in sections)),
        *sections,
    )
    return document(f"{name}: pose_jax {kind}", body)


def document(title: str, body: Html) -> str:
    """Makes a complete HTML file."""
    head = safe(
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        Html(f"<style>{_CSS}</style>"),
    )
    whole = tag("html", tag("head", head), tag("body", body), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


_CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #5c6672; --paper: #fff;
  --panel: #f4f6f8; --line: #d9dee4; --mark: #fff3c9; --link: #1d5fd0; --warn: #b3540a;
  --left: #e8790c; --right: #1d84e0; --middle: #2fa355; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ed; --dim: #9aa5b1;
  --paper: #14171b; --panel: #1d2127; --line: #353c45; --mark: #453a10; --link: #7db0ff;
  --warn: #f0a04b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 1.9rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.2rem 0 .5rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .5rem; }
p { margin: .4rem 0; max-width: 75ch; overflow-wrap: anywhere; }
.subtitle, .aside { color: var(--dim); }
.subtitle { max-width: none; }
.note { border-left: 4px solid var(--warn); background: var(--panel);
  padding: .5rem .8rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .8rem 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 1rem 0 .6rem; }
.tile { background: var(--panel); border-radius: 8px; padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.7rem; line-height: 1.2; }
.tile span { color: var(--dim); font-size: .85rem; }
.wide { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: separate; border-spacing: 0; font-size: .87rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
thead th { color: var(--dim); font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; white-space: nowrap; }
.numbers td, .numbers thead th:not(:first-child) { text-align: right; }
.numbers thead th { max-width: 9em; }
.numbers th:first-child { position: sticky; left: 0; background: var(--paper); }
@media (max-width: 600px) { th, td { padding: .2rem .4rem; }
  tbody th { white-space: normal; } .words th { overflow-wrap: break-word; } }
.words td { overflow-wrap: anywhere; }
tr.pair th, tr.pair td { border-bottom-width: 2px; }
.config td { overflow-wrap: break-word; }
details .config tr.changed { background: var(--mark); }
.joint { white-space: nowrap; }
.dot { display: inline-block; width: .6em; height: .6em; border-radius: 50%;
  margin-right: .5em; background: var(--middle); }
.dot.left { background: var(--left); } .dot.right { background: var(--right); }
figure { margin: 0; break-inside: avoid; }
figcaption { color: var(--dim); font-size: .85rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; display: block; }
.charts { display: grid; gap: 18px 22px;
  grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); }
.charts.large { grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); }
.chart svg { width: 100%; height: auto; }
.chart figcaption { color: var(--ink); font-weight: 600; }
.people { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(270px, 100%), 1fr)); }
.people.large { grid-template-columns: repeat(auto-fill, minmax(min(370px, 100%), 1fr)); }
.pictures { display: flex; gap: 4px; align-items: flex-start; }
.pictures img { display: block; min-width: 0; max-width: 100%; height: auto;
  border-radius: 4px; }
.person .pictures img { flex: 0 1 auto; width: calc(50% - 2px); }
.inspected .pictures { flex-wrap: wrap; }
.inspected .pictures > div { flex: 1 1 100px; min-width: 0; max-width: 180px; }
.inspected span { color: var(--dim); font-size: .8rem; }
pre { background: var(--panel); padding: .7rem .9rem; border-radius: 8px;
  overflow-x: auto; font-size: .82rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.key td:last-child, .key thead th:last-child { text-align: left; color: var(--dim);
  max-width: none; min-width: 16em; }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--link); }
@media print { main { max-width: none; padding: 0; } nav { display: none; }
  body { font-size: 11px; } .wide { overflow: visible; } h2 { break-after: avoid; } }
"""
