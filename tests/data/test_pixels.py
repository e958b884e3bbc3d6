"""Image files as pixels: depth, EXIF orientation, damage; the frame of annotations."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from pose_jax import data
from pose_jax.data import canvas, pixels
from pose_jax.data.table import from_boxes
from pose_jax.errors import ConfigError, InputError
from pose_jax.keypoints import COCO


def oriented(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.fixture(scope="module")
def gray():
    small = np.random.default_rng(0).integers(0, 256, (4, 6), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((36, 24)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "suffix", "options"),
    [
        ("RGB", "png", {}),
        ("RGB", "tif", {}),
        ("L", "tif", {}),
        ("L", "tif", {"compression": "tiff_lzw"}),
        ("I;16", "tif", {}),
        ("I;16", "png", {}),
        ("RGB", "webp", {"lossless": True}),
    ],
)
def test_pixels_are_those_stored_and_turned_they_are_those_shown(
    gray, orientation, mode, suffix, options, tmp_path
):
    stored = np.asarray(Image.fromarray(gray).convert("RGB"))
    image = Image.fromarray(gray.astype(np.uint16) * 257)
    image = image if mode == "I;16" else Image.fromarray(gray).convert(mode)
    path = tmp_path / f"image.{suffix}"
    image.save(path, exif=oriented(orientation), **options)
    picture = pixels.read(path, path)
    assert picture.orientation == orientation
    np.testing.assert_array_equal(picture.pixels, stored)
    tagged = Image.fromarray(stored)
    tagged.getexif()[0x0112] = orientation
    shown = np.asarray(ImageOps.exif_transpose(tagged))
    np.testing.assert_array_equal(pixels.turned(picture.pixels, orientation), shown)
    assert pixels.sizes(path, path) == ((36, 24), orientation)
    assert pixels.upright_size((36, 24), orientation) == shown.shape[1::-1]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bits_are_scaled_to_8(suffix, tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(values).save(path)
    found = pixels.read(path, path).pixels
    np.testing.assert_array_equal(found[..., 0], np.round(values / 257))
    assert (found == found[..., :1]).all()


def test_white_is_zero_where_the_file_says_so(tmp_path):
    path = tmp_path / "image.tif"
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(path, tiffinfo={262: 0})
    assert pixels.read(path, path).pixels[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: Image.fromarray(np.zeros((5, 4), np.int32)).save(p), "32 bits"),
        (lambda p: Image.fromarray(np.zeros((5, 4), np.float32)).save(p), "floats"),
        (lambda p: p.write_bytes(b"text"), "unknown format"),
        (lambda p: p.write_bytes(b""), "unknown format"),
        (lambda p: p.mkdir(), "directory"),
        (lambda p: None, "no such file"),
    ],
)
def test_what_is_no_image_of_8_or_16_bits_is_one_line(damage, says, tmp_path):
    path = tmp_path / "image.tif"
    damage(path)
    with pytest.raises(InputError, match=says) as caught:
        pixels.read(path, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damage_after_the_first_frame_is_found_where_frames_are_counted(gray):
    frames, pages = [Image.fromarray(gray)] * 3, io.BytesIO()
    frames[0].save(pages, "TIFF", save_all=True, append_images=frames[1:])
    assert pixels.read(pages, "x", count_frames=True).frames == 3
    whole = pages.getvalue()
    cut = io.BytesIO(whole[: len(whole) * 2 // 3])
    assert pixels.read(cut, "x").pixels.shape == (24, 36, 3)
    with pytest.raises(InputError, match=r"^x cannot be read"):
        pixels.read(cut, "x", count_frames=True)


STORED, UPRIGHT = (4, 3), (3, 4)


@pytest.mark.parametrize(
    ("orientation", "annotated", "exif", "expected"),
    [
        (1, STORED, "auto", (False, False)),
        (6, STORED, "auto", (False, False)),
        (6, UPRIGHT, "auto", (True, False)),
        (3, STORED, "auto", (False, True)),  # A half turn: both have this size.
        (3, STORED, "apply", (True, False)),
        (3, STORED, "ignore", (False, False)),
        (6, UPRIGHT, "apply", (True, False)),
        (6, STORED, "apply", "3x4 .*orientation 6"),
        (6, UPRIGHT, "ignore", "4x3 .*orientation 6"),
        (1, UPRIGHT, "auto", "^4x3$"),
        (6, (9, 9), "auto", "4x3 or 3x4"),
        (6, None, "auto", (False, True)),
        (6, None, "apply", (True, False)),
        (1, None, "auto", (False, False)),
        (1, None, "apply", (False, False)),
    ],
)
def test_the_annotated_size_decides_the_frame(orientation, annotated, exif, expected):
    arguments = STORED, orientation, annotated, exif
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            pixels.turns(*arguments)
    else:
        assert pixels.turns(*arguments) == expected


def test_boxes_without_annotations_refer_to_the_pixels_that_exif_says(
    gray, tmp_path, caplog
):
    path = tmp_path / "image.png"
    Image.fromarray(gray).save(path, exif=oriented(6))
    for exif, size, warnings in (("apply", [24, 36], 0), ("auto", [36, 24], 1)):
        caplog.clear()
        table = from_boxes([path], None, keypoints=COCO, exif=exif)
        assert table.image_sizes.tolist() == [size]
        assert canvas.decode(table, 0).shape == (*size[::-1], 3)
        assert table.boxes_xyxy.tolist() == [[0, 0, *size]]
        assert len(caplog.messages) == warnings


def test_the_option_of_a_data_set_decides(monkeypatch):
    table = from_boxes([np.zeros((4, 4, 3), np.uint8)], None, keypoints=COCO)
    own = data.DataSet(lambda root, split: table)
    monkeypatch.setitem(data.DATASETS, "own", own)
    source = data.SourceConfig("own", "", "", exif="apply")
    assert data.load(source).exif == "apply"
    assert data.load(data.SourceConfig("own", "", "")).exif == table.exif
    with pytest.raises(ConfigError, match='exif must be one of "auto"'):
        data.SourceConfig("own", "", "", exif="yes")
