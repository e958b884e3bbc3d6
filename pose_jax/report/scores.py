"""Sections "Scores" (key metrics) and "Metrics" (all metrics)."""

from __future__ import annotations

from typing import Any, NamedTuple

from pose_jax.evaluation import text
from pose_jax.report import html
from pose_jax.report.files import Files
from pose_jax.report.html import tag

KEY_METRICS = {
    "AP": "COCO keypoint average precision, mean over OKS thresholds from 0.50 to 0.95.",
    "AP50": "AP at an OKS threshold of 0.50.",
    "AP75": "AP at an OKS threshold of 0.75.",
    "PCK@0.2": "Fraction of keypoints within 0.2 torso lengths of the ground truth.",
    "PCK@0.1@box": "Fraction of keypoints whose distance from the ground truth is at most "
    "0.1 of the diagonal of the person's box.",
    "PCKh@0.5": "Fraction of keypoints within half a head size of the ground truth.",
    "PCP@0.5": "Fraction of limbs with both ends within half the limb's length of the "
    "ground truth.",
    "pixel_error": "Mean distance of keypoints from the ground truth, in image pixels; "
    "lower is better.",
    "box_AP": "COCO box average precision, mean over IoU thresholds from 0.50 to 0.95.",
    "box_AP50": "box_AP at an IoU threshold of 0.50.",
    "box_AP75": "box_AP at an IoU threshold of 0.75.",
    "box_AR": "COCO box average recall, mean over the same IoU thresholds.",
}
"""Definitions of the key metrics in one sentence, by name with threshold."""


class Scores(NamedTuple):
    """Metrics side by side, for one box source.

    Attributes:
      columns: the last evaluation of the training, then the decoders of RUN/eval.
      rows: the values of all columns by full name of the metric; None for missing values.
    """

    columns: list[str]
    rows: dict[str, list[Any]]


def key_metric(name: str) -> str:
    """Returns the key in KEY_METRICS of a metric's full name, or ""."""
    name = f"{text.whole(name)}@"
    return next((key for key in KEY_METRICS if name.startswith(f"{key}@")), "")


def scores(files: Files) -> list[Scores]:
    """Returns all measured metrics, grouped by box source."""
    when, trained = files.scores()
    columns = {("", when): trained, **files.evaluations}
    # Manifests are sorted; evaluations and the log have the order of the evaluator.
    measured = [*files.evaluations.values(), *files.log]
    names = [name for values in measured for name in values if text.is_metric(name)]
    present = {name for values in columns.values() for name in values}
    sources = {source for source, _ in files.evaluations}
    by_source: dict[str, list[str]] = {}
    for name in dict.fromkeys([*names, *sorted(present)]):
        if name in present:
            source = next((part for part in name.split("@")[1:] if part in sources), "")
            by_source.setdefault(source, []).append(name)
    result = []
    for group in by_source.values():
        used = [key for key in columns if not columns[key].keys().isdisjoint(group)]
        rows = {name: [columns[key].get(name) for key in used] for name in group}
        result.append(Scores([title for _, title in used], rows))
    return result


def key_table(files: Files) -> html.Section:
    """Builds section "Scores"."""
    found, order = scores(files), ["", *KEY_METRICS]
    keys = {n: key for s in found for n in s.rows if (key := key_metric(n))}
    if found and not keys:
        keys = dict.fromkeys(list(found[0].rows)[:5], "")
    content: list[Any] = []
    for columns, rows in found:
        made = [
            [html.breakable(name), *map(html.number, rows[name]), meaning]
            for name in sorted(rows.keys() & keys, key=lambda n: order.index(keys[n]))
            for meaning in [KEY_METRICS.get(keys[name], text.formula(name))]
        ]
        if made:
            head = ["metric", *columns, "meaning"]
            content.append(html.table(head, made, class_="numbers key"))
    if not content:
        content = ["No metrics logged yet."]
    elif any("@" in name for name in keys):
        content.append("The box source is part of the name of each metric.")
    if files.manifest is not None and not files.evaluations:
        content.append("`pose-jax eval --run RUN --decoder A,B` compares decoders.")
    return html.section("scores", "Scores", *content)


def all_metrics(files: Files) -> html.Section:
    """Builds section "Metrics": a table per box source, with decoders side by side."""
    found = scores(files)
    names = [name for _, rows in found for name in rows]
    if not names:
        return html.section("metrics", "Metrics", "No metrics logged yet.")
    content = [
        html.table(
            ["metric", *columns],
            [[html.breakable(n), *map(html.number, row)] for n, row in rows.items()],
        )
        for columns, rows in found
    ]
    formulas = {text.base(n): f for n in names if (f := text.formula(n))}
    if formulas:
        content += [tag("h3", "Definitions"), html.facts(formulas)]
    words = f"All metrics ({len(names)})"
    return html.section("metrics", "Metrics", html.details(words, *content))
