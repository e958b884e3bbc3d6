"""Section "Images": the boxes of a detector and the ground truth."""

from __future__ import annotations

from pose_jax.evaluation import boxes as of_boxes
from pose_jax.report import html
from pose_jax.report.html import tag
from pose_jax.report.look import Images, kinds


def gallery(images: Images) -> html.Section:
    """Builds the section."""
    table, boxes = images.table, images.boxes
    labeled = table.ground_truth is not None
    truth = table.ground_truth or table
    people = [
        int((~truth.crowd[truth.people_of_image(int(i))]).sum()) for i in boxes.row
    ]
    words = "The data has no labels: evenly spaced predictions."
    if labeled:
        missed, false = images.false_negatives.sum(), images.false_positives.sum()
        words = (
            "Sorted by false negatives plus false positives. Boxes with a score of "
            f"{of_boxes.SURE:g} or more count, and match people at an IoU of at least 0.5; "
            f"in crowd regions they are not false positives. {sum(people) - missed} of "
            f"{sum(people)} people are detected, with {false} false positives. Predicted "
            "boxes are orange, with their scores (thin lines: not counted), ground-truth "
            "boxes green, crowd regions gray."
        )
    content = []
    for kind, places in kinds(images.order, labeled).items():
        figures = []
        for place in places:
            image = int(boxes.row[place])
            name = f"image {table.image_ids[image]}"
            facts = [f"{boxes.valid[place].sum()} boxes"]
            if labeled:
                facts = [
                    f"{people[place]} people",
                    f"{images.false_negatives[place]} false negatives",
                    f"{images.false_positives[place]} false positives",
                    *facts,
                ]
            picture = of_boxes.draw(table, boxes, image, side=400)
            picture = html.picture(picture, f"{name}: boxes")
            figures.append(html.figure("inspected", [picture], name, facts))
        content += [tag("h3", kind), tag("div", *figures, class_="people large")]
    return html.section("images", "Images", words, *content)
