"""Section "Images": the boxes of a detector beside the ground truth."""

from __future__ import annotations

from pose_jax.evaluation import boxes as of_boxes
from pose_jax.report import html
from pose_jax.report.html import tag
from pose_jax.report.look import Images, kinds


def gallery(images: Images) -> html.Section:
    """The section."""
    table, boxes = images.table, images.boxes
    labelled = table.ground_truth is not None
    truth = table.ground_truth or table
    people = [
        int((~truth.crowd[truth.people_of_image(int(i))]).sum()) for i in boxes.row
    ]
    words = "The data have no labels: predictions only, evenly spaced."
    if labelled:
        missed, false = images.false_negatives.sum(), images.false_positives.sum()
        words = (
            f"Sorted by false negatives plus false positives. A box counts from a score of "
            f"{of_boxes.SURE:g} and matches a person from an IoU of 0.5; inside a crowd "
            f"region it is no false positive. {sum(people) - missed} of {sum(people)} "
            f"people are detected, with {false} false positives. Boxes are orange, with "
            "their scores (thin: not counted); ground-truth boxes are green, crowd regions "
            "grey."
        )
    content = []
    for kind, places in kinds(images.order, labelled).items():
        figures = []
        for place in places:
            image = int(boxes.row[place])
            name = f"image {table.image_ids[image]}"
            facts = [f"{boxes.valid[place].sum()} boxes"]
            if labelled:
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
