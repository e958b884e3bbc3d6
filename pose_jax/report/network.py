"""Section "Inside the network": the panels that the method declares."""

from __future__ import annotations

from pose_jax.report import html
from pose_jax.report.html import tag
from pose_jax.report.look import People

ACROSS = 3
"""Pictures per line."""


def network(people: People) -> html.Section | None:
    """Builds the section; None if the method declares no panels."""
    content = []
    for panel, rows in people.panels:
        pairs = zip(people.shown, rows, strict=True)
        figures = [_figure(people, place, pictures) for place, pictures in pairs]
        content += [tag("h3", panel.title), tag("p", panel.caption, class_="aside")]
        content.append(tag("div", *figures, class_="people large"))
    return html.section("network", "Inside the network", *content) if content else None


def _figure(people: People, place: int, pictures) -> html.Html:
    name = people.name(place)
    if people.table.labelled:
        name += f": error {people.mean_error(place):.1f} px"
    cells = [
        tag("div", html.picture(picture, f"{name}: {title}"), tag("span", title))
        for title, picture in pictures
    ]
    lines = [
        tag("div", *cells[i : i + ACROSS], class_="pictures")
        for i in range(0, len(cells), ACROSS)
    ]
    return tag("figure", *lines, tag("figcaption", name), class_="inspected")
