"""All kinds of findings of `data check`: severity, reason and remedy."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


class Kind(NamedTuple):
    """A kind of finding: severity, reason and remedy."""

    severity: Severity
    reason: str
    remedy: str


error, warning = partial(Kind, "error"), partial(Kind, "warning")

_FIX = "fix the annotation file"
_EXPORT = "export the data set again, with keypoints"
_RENUMBER = "renumber them in all sections"
_FETCH = "download it again, or remove it from the annotations"
_RGB = "nothing, if the image is right; else save it as RGB"
_REORDER = "reorder the names and the keypoints of all annotations"
_AREA = "write the segment's area, or about half of the box's"

KINDS: dict[str, Kind] = {
    # ------------------------------------------------------------------- files of json
    "json-missing": error("there is no such file",
        "unpack it there, or name another file"),
    "json-unreadable": error("the file cannot be opened", "correct its permissions"),
    "json-broken": error("not JSON, or truncated", "download or write it again"),
    "json-kind": error("another kind of file",
        "annotations are an object with images, annotations and categories; detections "
        "are a list of boxes"),
    "section-missing": error("a section is absent or not a list", _FIX),
    "images-empty": error("the list of images is empty", _EXPORT),
    "annotations-empty": error("there are no annotations: no one to train on, and no AP",
        f"{_EXPORT}; a test set has no annotations section at all"),
    "annotations-absent": warning("there is no annotations section: read as a test set, "
        "images without labels", "nothing, if it is one"),
    "field-missing": error("a required field is absent", _FIX),
    "field-type": error("a field has the wrong type", _FIX),
    "id-not-integer": error("ids must be integers of 64 bits; those of images may be text",
        _RENUMBER),
    "image-ids-text": warning("ids of images are text: results are written with numbers",
        _RENUMBER),
    "duplicate-image-id": error("two images have one id", _RENUMBER),
    "duplicate-annotation-id": error(
        "two annotations have one id: evaluators keep only one of them", _RENUMBER),
    "duplicate-file-name": warning(
        "two images are one file: its people are spread over both",
        "join them under one id"),
    "size-not-positive": error("width or height is below 1 or too large", _FIX),
    "unknown-image": error("annotations of images that are not listed",
        "list the images, or remove the annotations"),
    "unknown-category": warning("annotations of categories that are not listed: left out",
        "list the category, or correct category_id"),
    # -------------------------------------------------------------------- the category
    "category-unknown": error("there is no such category", "name another (--category)"),
    "category-without-keypoints": error(
        "no category names keypoints, and no annotation has any",
        "use person_keypoints_*.json, not instances_*.json"),
    "keypoints-not-named": warning("the category of people names no keypoints: those of "
        "the keypoint set are assumed, in its order", "name them there"),
    "keypoints-number": error("the category of people names no keypoints, and its "
        "annotations have another number than set coco",
        "name them there, or name a set (--keypoints)"),
    "keypoint-set": error("the category's keypoints or skeleton are not valid", _FIX),
    "several-categories": error("several categories have keypoints",
        "choose one (option `category`, --category)"),
    "keypoint-count": error("the file has another number of keypoints than the set",
        "name the keypoint set of the file (--keypoints)"),
    "keypoint-names": error("the file names other keypoints than the set",
        "name the keypoint set of the file (--keypoints), or rename them"),
    "keypoint-order": error("the file has the set's keypoints in another order",
        _REORDER),
    "keypoint-sides": error("left and right in the file are exchanged relative to the set",
        _REORDER),
    "flip-pairs": error("the set's flip pairs do not join the left_ and right_ of its "
        "names: flipped inputs would get wrong labels", "correct the keypoint set"),
    # ------------------------------------------------------------------------- people
    "no-people": warning("no annotation is of the category with keypoints",
        "is it the right file?"),
    "no-labels": warning(
        "no person has a labeled keypoint: training and evaluation are impossible",
        "is it the right file?"),
    "keypoints-length": error("keypoints are not (x, y, v) for each name of the category",
        _FIX),
    "keypoints-not-finite": error("keypoints are not finite", _FIX),
    "visibility-value": error("v is not 0, 1 or 2", _FIX),
    "visibility-binary": warning(
        "v is never 2 in the whole file: 1 may mean visible there, here it is hidden",
        "write 2 for visible, 1 for labeled and hidden, 0 for not labeled"),
    "unlabelled-coordinates": warning("people with coordinates where v is 0: not used",
        "if they are labels, give them v 1 or 2"),
    "num-keypoints": warning(
        "num_keypoints is not the number of v above 0: only pycocotools uses it",
        "recompute it from v"),
    "points-normalized": error("all coordinates lie in [0, 1]: normalized, not pixels",
        "multiply x by the image's width and y by its height"),
    "points-swapped": error("x and y look exchanged in the whole file",
        "write x first, then y"),
    "points-outside": warning(
        "labeled keypoints outside the image: used for training as they are",
        "clip them or set v to 0, if they are errors"),
    "points-mostly-outside": error(
        "most labeled keypoints are outside the image: made for another resolution?",
        "scale them to the width and height that are listed"),
    "points-outside-box": warning("people most of whose visible keypoints are outside "
        "their own box: the crop misses them",
        "are boxes and keypoints in the same pixels, and [x, y, width, height]?"),
    "torso-degenerate": warning("people whose torso is shorter than 1/50 of their "
        "extent: PCK and PDJ divide by it", "inspect them; nothing, if seen end on"),
    "pair-swapped": warning(
        "left and right of a pair contradict the other pairs in most people",
        "are the two names exchanged?"),
    "sides-mirrored": warning("the left eye is left of the right one in most faces: "
        "observer's sides, or mirrored images",
        "exchange left and right, if the person's own are meant"),
    "person-unusable": warning(
        "labeled people with too few joints for a box: not used in training and evaluation",
        "nothing, or another source of boxes"),
    # -------------------------------------------------------------------------- boxes
    "bbox-not-finite": error("bbox is not finite", _FIX),
    "bbox-empty": error("labeled people whose bbox has no width or height: never "
        "trained or predicted, but false negatives in AP", "write their real bbox"),
    "bbox-empty-unlabelled": warning("unlabeled boxes without width or height: left out",
        _FIX),
    "bbox-outside": error("boxes that lie completely outside their image",
        "write the real bbox"),
    "bbox-beyond": warning(
        "boxes that extend beyond their image: crops are filled with zeros there",
        "clip them, if they are errors"),
    "bbox-xyxy": error(
        "boxes look like [x1, y1, x2, y2]; COCO's are [x, y, width, height]",
        "subtract x1 from x2 and y1 from y2"),
    "bbox-normalized": error("all boxes lie in [0, 1]: normalized, not pixels",
        "multiply by the image's width and height"),
    "area-not-finite": error("area is not finite", _FIX),
    "area-absent": warning("people without an area: that of the box is used, about twice "
        "the segment's, and OKS becomes higher", _AREA),
    "area-not-positive": error("labeled people without a positive area, by which OKS "
        "divides: never trained or predicted, but false negatives in AP", _AREA),
    "area-tiny": warning("labeled people whose area is less than 1/100 of their box: OKS, "
        "which divides by it, is about 0 a pixel from the label; if most are, AP is about "
        "0 for every network", _AREA),
    "area-exceeds-box": warning(
        "people whose area is more than 1.5 times their box: OKS becomes too high",
        _AREA),
    "iscrowd-value": error("iscrowd is not 0 or 1", _FIX),
    # ------------------------------------------------------------------------- images
    "no-image-folder": error("there is no folder of images",
        "unpack them there, or pass the folder that holds it as ROOT"),
    "image-missing": error("listed images are not in the folder",
        'complete the folder, or pass missing="skip" to go without them'),
    "image-name-case": error("listed names and files differ in upper and lower case",
        "rename the files"),
    "image-name-folder": error(
        "listed names include a folder, or backslashes, that the files are without",
        "write the names relative to the folder of images"),
    "image-name-unicode": error("listed names and files are the same text in different "
        "Unicode forms (composed, decomposed)", "rename the files, or write their names"),
    "image-name-outside": error(
        'listed names are absolute or hold "..", and no such file is in the folder',
        "write the names relative to the folder of images"),
    "image-names-collide": warning("two listed names differ only in upper and lower case: "
        "one file on other machines", "rename one"),
    "image-empty": error("image files of 0 bytes", _FETCH),
    "image-unreadable": error("files that are not images", _FETCH),
    "image-truncated": error("image files that are truncated or damaged", _FETCH),
    "image-size": error("images whose size differs from the annotations",
        "use the original files"),
    "image-gray": warning("gray images: the value is repeated in all three channels",
        _RGB),
    "image-palette": warning("images with a palette: turned into RGB by it", _RGB),
    "image-alpha": warning(
        "images with transparency: it is dropped, the colors below show", _RGB),
    "image-cmyk": warning("CMYK images: turned into RGB without a color profile", _RGB),
    "image-16-bit": warning("images of 16 bits: scaled to 8, as gray", _RGB),
    "image-mode": warning("images that are not RGB: converted", _RGB),
    "image-range": error("images of 32-bit integers or floats, whose range is unknown",
        "save them with 8 or 16 bits"),
    "image-turned": warning("images with an EXIF orientation: annotations refer to the "
        "pixels of the listed size, and to those stored if the turned ones have it too",
        'nothing, if the examples are right; else data option exif="apply" or "ignore"'),
    "image-animated": warning("files with several frames: the first is used",
        "save that frame only"),
    # --------------------------------------------------------------------- detections
    "detection-unknown-image": warning(
        "detections in images that are not listed: left out",
        "nothing, if the file covers more images"),
    "detections-all-unknown": error("no detection is in a listed image",
        "name the detections of this split"),
    "detection-category": warning("detections of other categories than people: left out",
        "nothing, if the detector detects more than people"),
    "detections-no-people": error("no detection is of the category of people",
        "write the category_id of the annotation file"),
    "score-not-finite": error("scores are not finite", _FIX),
    "score-range": warning(
        "scores outside [0, 1]: score thresholds have another meaning",
        "are they logits?"),
    # ------------------------------------------------------------------------ readers
    "reader-refuses": error("the reader raised an error", "see the message"),
    "reader-fails": error("the reader crashed: this is a bug in pose_jax",
        "please report it"),
}  # fmt: skip
"""All kinds of findings. A report has one line per kind and file."""
