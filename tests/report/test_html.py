"""Pages hold what is put into them, escaped, and need nothing beside themselves."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pose_jax.report import html

EVIL = """<script>alert("1")</script> & 'x'"""


class Text(HTMLParser):
    """The text and the elements of a page."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    "made",
    [
        html.tag("p", EVIL),
        html.tag("p", html.tag("b", EVIL), title=EVIL),
        html.table([EVIL], [[EVIL, 1]]),
        html.facts({EVIL: EVIL}),
        html.section("s", EVIL, EVIL),
        html.picture(np.zeros((3, 4, 3), np.uint8), EVIL),
        html.document(EVIL, html.tag("p", EVIL)),
    ],
)
def test_text_is_never_markup(made):
    seen = Text(made)
    assert not any(tag == "script" for tag, _ in seen.tags)
    in_attributes = [v for _, a in seen.tags for v in a.values()]
    assert EVIL in seen.text or EVIL in in_attributes


def test_a_chart_is_markup_without_links_or_ids():
    chart = html.chart("a < b", lambda axes: axes.plot([0, 1], [1, 2], label="<i>"))
    assert "<svg" in chart and "</svg>" in chart and html.INK not in chart
    assert "http" not in chart and not re.search(r'<g id="', chart)
    assert "a &lt; b" in chart


def test_a_page_links_to_nothing():
    page = html.document("t", html.picture(np.zeros((2, 2, 3), np.uint8), "p"))
    for _, attributes in Text(page).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (float("nan"), "–"), (3, "3"), (3.0, "3"), (0.123456, "0.1235"),
        (True, "True"), ("x", "x"), (np.float32(2.5), "2.5"), ([1, 2], "[1, 2]"),
    ],
)  # fmt: skip
def test_numbers_are_as_short_as_they_can_be(value, text):
    assert html.number(value) == text


def test_durations():
    assert html.duration(3661.4) == "1:01:01"
