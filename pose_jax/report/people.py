"""Sections "People" and "Keypoints": predictions and ground truth."""

from __future__ import annotations

import numpy as np

from pose_jax.evaluation import poses as of_poses
from pose_jax.evaluation.lengths import Length
from pose_jax.keypoints import side_of
from pose_jax.report import html
from pose_jax.report.html import tag
from pose_jax.report.look import People, kinds


def gallery(people: People) -> html.Section:
    """Builds section "People"."""
    words = "The data has no labels: evenly spaced predictions."
    if people.table.labelled:
        words = (
            "Sorted by mean error over the square root of the box area. Left picture: "
            "ground truth, right: prediction. Left keypoints are orange, right ones blue; "
            "hidden keypoints and predictions with a score below 0.2 are hollow."
        )
    content = []
    for kind, places in kinds(people.order, people.table.labelled).items():
        figures = [_person(people, place) for place in places]
        content += [tag("h3", kind), tag("div", *figures, class_="people")]
    return html.section("people", "People", words, *content)


def _person(people: People, place: int) -> html.Html:
    """Makes a figure of ground truth and prediction, with ids and errors as caption."""
    table, poses, name = people.table, people.poses, people.name(place)
    labeled = table.visibility[poses.row[place]] > 0
    shown = zip(
        ("ground truth", "prediction")[-1 - table.labelled :],
        of_poses.person(table, poses, place, side=240),
        strict=True,
    )
    pictures = [html.picture(picture, f"{name}: {what}") for what, picture in shown]
    facts = [f"score {poses.score[place]:.2f}"]
    if table.labelled:
        many = "s" if labeled.sum() > 1 else ""
        relative = people.relative[place]
        facts = [
            f"error {people.mean_error(place):.1f} px, {relative:.3f} of the box size",
            f"{labeled.sum()} labeled keypoint{many}",
            *facts,
        ]
    if people.oks is not None:
        facts.append(f"OKS {people.oks[place]:.2f}")
    return html.figure("person", pictures, name, facts)


def keypoints(people: People) -> html.Section | None:
    """Builds section "Keypoints", a table and charts of errors; None without labels."""
    length, groups = people.length, people.table.keypoints.groups
    if length is None:
        return None
    words = (
        f"{length.metric} divides errors by {length.words}; "
        f"{np.isnan(length.usable).sum()} of {len(length.usable)} people have no "
        "such length and are excluded from it. Scores are means over all people, labeled "
        "or not."
    )
    rows = []
    for group in groups.values():
        for i in group:
            name, *cells = people.keypoints[i].values()
            side = side_of(name)
            dot = tag("i", class_=f"dot {side}".strip())
            first = tag("span", dot, name, class_="joint")
            last = "pair" if i == group[-1] else ""
            rows.append(html.row([first, *map(html.number, cells)], last))
    head = [
        name.replace("_", " ") + (", px" if "error" in name else "")
        for name in people.keypoints[0]
    ]
    return html.section(
        "keypoints", "Keypoints", words, html.table(head, rows), _charts(people, length)
    )


def _charts(people: People, length: Length) -> html.Html:
    pixels = people.error[np.isfinite(people.error)]
    relative = people.error / length.usable[:, None]
    thresholds = np.linspace(0, 0.5, 101)

    def histogram(axes):
        end = max(float(np.quantile(pixels, 0.98)), 1e-6)
        axes.hist(np.minimum(pixels, end), bins=40, range=(0, end))
        axes.axvline(float(np.median(pixels)), color=html.INK, lw=1, ls=":")
        axes.set_xlabel("error, pixels (the last bar includes larger errors)")
        axes.set_ylabel("keypoints")

    def curve(axes):
        groups = people.table.keypoints.groups
        for name, group in {**groups, "all": slice(None)}.items():
            far = relative[:, group]
            known = np.sort(far[np.isfinite(far)])
            if len(known):
                within = np.searchsorted(known, thresholds, side="right") / len(known)
                style = {"lw": 2.4, "color": html.INK} if name == "all" else {"lw": 1}
                axes.plot(thresholds, 100 * within, label=name, **style)
        for threshold in length.thresholds:
            axes.axvline(threshold, color=html.INK, lw=0.8, ls=":")
        axes.set_xlabel(f"threshold, units of {length.words.split(',')[0]}")
        axes.set_ylabel(f"{length.metric}, %")
        axes.set_ylim(0, 100)
        if axes.get_legend_handles_labels()[0]:
            axes.figure.legend(loc="outside lower center", ncols=3)

    title = "errors of all labeled keypoints; the dotted line is the median"
    return tag(
        "div",
        html.chart(title, histogram, height=3.8),
        html.chart(f"{length.metric} by threshold", curve, height=3.8),
        class_="charts large",
    )
