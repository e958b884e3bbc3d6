"""Ids of images: whole numbers, whatever the files have."""

import pytest

from pose_jax.data import ids


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["12", "3", "0"], [12, 3, 0]),
        (["0001", "0002"], [1, 2]),
        (["0001", "1"], [1, 2]),
        (["b", "a", "7"], [1, 2, 3]),
        (["²²", "5"], [1, 2]),
        (["٣", "5"], [1, 2]),
        (["-4", "5"], [1, 2]),
        ([str(2**63 - 1)], [2**63 - 1]),
        ([str(2**63)], [1]),
        ([], []),
    ],
)
def test_numbers_are_the_texts_own_or_count(texts, expected):
    assert ids.numbers(texts) == expected


def test_images_are_found_by_id_its_digits_or_the_stem_of_their_file():
    known = ids.ImageIds([5, 7], ["a/x.jpg", "y.png"])
    assert known.numbers == [5, 7] and not known.are_text
    assert [known(own) for own in (5, "7", "x", "y", 6, "²", "x.jpg")] == [
        5, 7, 5, 7, None, None, None,
    ]  # fmt: skip
    texts = ids.ImageIds(["0001", "1", "b"], ["p/b.jpg", "q/b.jpg", "c.jpg"])
    assert texts.numbers == [1, 2, 3] and texts.are_text
    # The stem of two files is none; an id counts before a stem.
    assert [texts(own) for own in ("0001", "1", 1, "b", "c")] == [1, 2, 2, 3, 3]
    assert ids.ImageIds(["b", "c"], ["p/d.jpg", "q/d.jpg"])("d") is None
