"""Person boxes from a file: which image they belong to, and what is left out."""

import json
from pathlib import Path

import pytest

from pose_jax.data import box_file
from pose_jax.errors import ConfigError, InputError

A, B, OTHER = Path("/x/camA/1.jpg"), Path("/x/camB/1.jpg"), Path("/x/b.jpg")


def box(x, **more):
    return {"bbox": [x, 0, 5, 5], **more}


def listed(*names, boxes=(), **more):
    images = [
        {"id": i, "file_name": n, "width": 4, "height": 3}
        for i, n in enumerate(names, 7)
    ]
    return {"images": images, "annotations": list(boxes), **more}


def both(*names):
    """A box at x = 1 in the first image of the list, one at x = 2 in the second."""
    return listed(*names, boxes=[box(1, image_id=7), box(2, image_id=8)])


def read(content, images, tmp_path, **options):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(content))
    return box_file.read(path, images, **options)


def lefts(found):
    return [own[:, 0].tolist() for own in found.boxes_xyxy]


@pytest.mark.parametrize(
    ("content", "images", "expected"),
    [
        # The list of images decides, not digits in names.
        (both("10.jpg", "7.jpg"), ["/x/7.jpg", "/x/10.jpg"], [[2], [1]]),
        (both("a.jpg", "b.jpg"), ["/x/b.jpg", "/x/c.jpg"], [[2], []]),
        # Names with folders, of other systems, with other prefixes.
        (both("camA/1.jpg", "camB/1.jpg"), [B, A], [[2], [1]]),
        (both("camA\\1.jpg", "./camB//1.jpg"), [B, A], [[2], [1]]),
        (both("val/a.jpg", "val/b.jpg"), ["/y/b.jpg", "/y/a.jpg"], [[2], [1]]),
        (both("e\u0301.jpg", "b.jpg"), ["/x/\u00e9.jpg"], [[1]]),
        # camB's image is not listed: it has no box, and not that of camA.
        (both("camA/1.jpg", "b.jpg"), [A, B, OTHER], [[1], [], [2]]),
        (both("1.jpg", "camB/1.jpg"), [B], [[2]]),
        # Bare detections: by file_name, by the name, by its number.
        ([box(1, file_name="camB/1.jpg"), box(2, file_name="b.jpg")], [A, B, OTHER],
         [[], [1], [2]]),
        ([box(1, image_id=785)], ["/x/000785.jpg", "/x/a785.jpg"], [[1], []]),
        ([box(1, image_id="b"), box(2, image_id="000785")], ["/x/000785.jpg", OTHER],
         [[2], [1]]),
        ([box(1, image_id="1")], ["/x/0001.jpg", "/x/1.jpg"], [[], [1]]),
        ([box(1, image_id=22)], ["/x/\u00b2\u00b2.jpg", "/x/22.jpg"], [[], [1]]),
        ([box(1, image_id=7), box(2, image_id=7, iscrowd=1)], ["/x/7.jpg"], [[1]]),
    ],
)  # fmt: skip
def test_boxes_go_to_the_image_that_the_file_says(content, images, expected, tmp_path):
    found = read(content, [Path(image) for image in images], tmp_path)
    assert lefts(found) == expected


@pytest.mark.parametrize(
    ("content", "images", "says"),
    [
        (both("1.jpg", "2.jpg"), [A, B], "'1.jpg' could be /x/camA/1.jpg or"),
        (both("1.jpg", "1.jpg"), [A], "listed twice"),
        (both("camA/1.jpg", "camC/1.jpg"), [A, B], "'camC/1.jpg' could be /x/camB"),
        ([box(1, image_id=1)], ["/x/0001.jpg", "/x/1.jpg"], "image_id 1 could be"),
        ([box(1, image_id="x")], ["/x/x.png", "/x/x.jpg"], "image_id 'x' could be"),
        ([box(1, file_name="1.jpg")], [A, B], "'1.jpg' could be"),
        (both("a.jpg", "b.jpg"), ["/x/7.jpg"], "none of its 2 boxes"),
        ({"images": [{"id": 1}], "annotations": []}, [A], "image number 0 must have"),
        ({"images": [], "annotations": {}}, [A], "a COCO detections file"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 10**400]}], [A], "entry 0 must have"),
        ([box(1)], [A], "entry 0 must have"),
        ([None], [A], "entry 0 must have"),
    ],
)
def test_ambiguous_or_broken_is_one_line(content, images, says, tmp_path):
    with pytest.raises(InputError, match=says) as caught:
        read(content, [Path(image) for image in images], tmp_path)
    assert "boxes.json" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_left_out_is_counted(tmp_path):
    nan = float("nan")
    boxes = [
        box(1, image_id=7, score=0.9),
        box(2, image_id=7, score=0.1),
        box(3, image_id=7, score=nan),
        {"bbox": [0, 0, nan, 5], "image_id": 7},
        {"bbox": [0, 0, 0, 5], "image_id": 7},
        box(4, image_id=7, iscrowd=1),
        box(5, image_id=9),
    ]
    images = [Path("/x/7.jpg"), Path("/x/8.jpg")]
    found = read(boxes, images, tmp_path, min_score=0.5)
    assert lefts(found) == [[1], []]
    assert [own.tolist() for own in found.scores] == [[0.9], []]
    left_out, bare = found.notes
    assert (
        "6 boxes are left out (1 crowd regions, 1 empty, 2 not finite, 1 of "
        in left_out
    )
    assert "1 with a score below 0.5" in left_out
    assert "1 of 2 images have no box" in bare and "8.jpg" in bare


PEOPLE = [{"id": 1, "name": "dog"}, {"id": 2, "name": "person"}]


def of(*categories):
    return [box(c, image_id=7, category_id=c) for c in categories]


@pytest.mark.parametrize(
    ("content", "option", "expected", "left"),
    [
        (of(3, 3), None, (3, "person"), [3, 3]),
        (of(1, 3), None, (1, "person"), [1]),
        (of(1, 3), "3", (3, "person"), [3]),
        (listed("7.jpg", boxes=of(1, 2), categories=PEOPLE), None, (2, "person"), [2]),
        (listed("7.jpg", boxes=of(1, 2), categories=PEOPLE), "dog", (1, "dog"), [1]),
        (listed("7.jpg", boxes=of(1), categories=PEOPLE[:1]), None, (1, "dog"), [1]),
        ([box(1, image_id=7)], None, None, [1]),
    ],
)
def test_the_category_is_that_of_people(content, option, expected, left, tmp_path):
    found = read(content, [Path("7.jpg")], tmp_path, category=option)
    assert lefts(found) == [left]
    category = found.category
    assert (category and (category.id, category.name)) == expected


@pytest.mark.parametrize(
    ("content", "option", "says"),
    [
        (of(2, 3), None, r"several categories \(2, 3\)"),
        (of(2, 3), "5", "no category '5'"),
        (listed("7.jpg", boxes=of(1), categories=PEOPLE), "cat", "no category 'cat'"),
    ],
)
def test_several_categories_need_a_choice(content, option, says, tmp_path):
    with pytest.raises(ConfigError, match=f"{says}.*--category"):
        read(content, [Path("7.jpg")], tmp_path, category=option)


def test_sizes_and_ids_are_those_of_the_list(tmp_path):
    found = read(both("a.jpg", "b.jpg"), [OTHER, Path("/x/c.jpg")], tmp_path)
    assert (found.ids, found.sizes) == ([8, None], [(4, 3), None])
