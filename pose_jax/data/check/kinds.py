"""Every kind of damage that `data check` knows: how bad it is, why, and what to do."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

Severity = Literal["error", "warning"]


class Kind(NamedTuple):
    """What can be wrong: how bad it is, what it means, what to do."""

    severity: Severity
    reason: str
    remedy: str


error, warning = partial(Kind, "error"), partial(Kind, "warning")

_FIX = "fix the annotation file"
_RENUMBER = "renumber them, in all sections alike"
_FETCH = "fetch it again, or take it out of the annotations"
_RGB = "nothing, if the picture is right; else save it as RGB"
_REORDER = "reorder the names and every annotation's keypoints alike"
_AREA = "write the segment's area, or about half of the box's"

KINDS: dict[str, Kind] = {
    # ------------------------------------------------------------------- files of json
    "json-missing": error("there is no such file",
        "unpack it there, or name another file"),
    "json-unreadable": error("the file cannot be opened", "correct its permissions"),
    "json-broken": error("not JSON, or cut short", "fetch or write it again"),
    "json-kind": error("another kind of file",
        "annotations are an object with images, annotations and categories; detections "
        "are a list of boxes"),
    "section-missing": error("a section is absent or not a list", _FIX),
    "field-missing": error("a required field is absent", _FIX),
    "field-type": error("a field has the wrong type", _FIX),
    "id-not-integer": error("ids must be integers of 64 bits", _RENUMBER),
    "duplicate-image-id": error("two images have one id", _RENUMBER),
    "duplicate-annotation-id": error(
        "two annotations have one id: evaluators keep only one of them", _RENUMBER),
    "duplicate-file-name": warning(
        "two images are one file: its people are spread over both",
        "join them under one id"),
    "size-not-positive": error("width or height is below 1, or absurd", _FIX),
    "unknown-image": error("annotations of images that are not listed",
        "list the images, or leave the annotations out"),
    "unknown-category": warning("annotations of categories that are not listed: left out",
        "list the category, or correct category_id"),
    # -------------------------------------------------------------------- the category
    "category-without-keypoints": error("no category names keypoints",
        "use person_keypoints_*.json, not instances_*.json; or name them there"),
    "several-categories": error("several categories have keypoints",
        'name one of them "person"'),
    "keypoint-count": error("the file has another number of keypoints than the set",
        "give the set that the file follows (--keypoints)"),
    "keypoint-names": error("the file names other keypoints than the set",
        "give the set that the file follows (--keypoints), or rename them"),
    "keypoint-order": error("the file has the set's keypoints in another order",
        _REORDER),
    "keypoint-sides": error("the file exchanges left and right against the set",
        _REORDER),
    "flip-pairs": error("the set's flip pairs do not join the left_ and right_ of its "
        "names: mirrored inputs would teach nonsense", "correct the keypoint set"),
    # ------------------------------------------------------------------------- people
    "no-people": warning("no annotation is of the category with keypoints",
        "is it the right file?"),
    "no-labels": warning(
        "no person has a labelled keypoint: nothing to learn from or to measure",
        "is it the right file?"),
    "keypoints-length": error("keypoints are not (x, y, v) for each name of the category",
        _FIX),
    "keypoints-not-finite": error("keypoints are not finite", _FIX),
    "visibility-value": error("v is not 0, 1 or 2", _FIX),
    "visibility-binary": warning(
        "v is never 2 in the whole file: 1 may mean visible there, here it is hidden",
        "write 2 for visible, 1 for labelled and hidden, 0 for not labelled"),
    "unlabelled-coordinates": warning("people with coordinates where v is 0: not used",
        "if they are labels, give them v 1 or 2"),
    "num-keypoints": warning(
        "num_keypoints is not the number of v above 0: pycocotools reads it, we count",
        "write it again from v"),
    "points-normalised": error("all coordinates lie in [0, 1]: normalised, not pixels",
        "multiply x by the image's width and y by its height"),
    "points-swapped": error("x and y look exchanged in the whole file",
        "write x first, then y"),
    "points-outside": warning(
        "labelled keypoints outside of the image: learned as they are",
        "clip them or give them v 0, if they are slips"),
    "points-mostly-outside": error(
        "most labelled keypoints are outside of the image: made for another resolution?",
        "scale them to the width and height that are listed"),
    "points-outside-box": warning("people most of whose visible keypoints are outside "
        "of their own box: the crop misses them",
        "are boxes and keypoints in the same pixels, and [x, y, width, height]?"),
    "torso-degenerate": warning("people whose torso is shorter than 1/50 of their "
        "extent: PCK and PDJ divide by it", "look at them; nothing, if seen end on"),
    "pair-swapped": warning(
        "left and right of a pair contradict the other pairs in most people",
        "are the two names exchanged?"),
    "sides-mirrored": warning("the left eye is left of the right one in most faces: "
        "observer's sides, or mirrored images",
        "exchange left and right, if the person's own are meant"),
    "person-unusable": warning(
        "labelled people with too few joints for a box: neither learned nor measured",
        "nothing, or another source of boxes"),
    # -------------------------------------------------------------------------- boxes
    "bbox-not-finite": error("bbox is not finite", _FIX),
    "bbox-empty": error("labelled people whose bbox has no width or height: never "
        "predicted, yet AP counts them as missed", "write their real bbox"),
    "bbox-empty-unlabelled": warning("unlabelled boxes without width or height: left out",
        _FIX),
    "bbox-outside": error("boxes that lie wholly outside of their image",
        "write the real bbox"),
    "bbox-beyond": warning(
        "boxes that go beyond their image: what is there is filled with zeros",
        "clip them, if they are slips"),
    "bbox-xyxy": error(
        "boxes look like [x1, y1, x2, y2]; COCO's are [x, y, width, height]",
        "subtract x1 from x2 and y1 from y2"),
    "bbox-normalised": error("all boxes lie in [0, 1]: normalised, not pixels",
        "multiply by the image's width and height"),
    "area-not-finite": error("area is not finite", _FIX),
    "area-not-positive": error(
        "labelled people without a positive area: OKS divides by it, AP ignores them",
        _AREA),
    "area-exceeds-box": warning(
        "people whose area is more than 1.5 times their box: OKS becomes too kind",
        _AREA),
    "iscrowd-value": error("iscrowd is not 0 or 1", _FIX),
    # ------------------------------------------------------------------------- images
    "no-image-folder": error("there is no folder of images",
        "unpack them there, or give the folder that holds it as ROOT"),
    "image-missing": error("listed images are not in the folder",
        'complete it, or go without them (missing="skip")'),
    "image-name-case": error("listed names and files differ in upper and lower case",
        "rename the files"),
    "image-name-folder": error(
        "listed names carry a folder that is not there; the files are without it",
        "write the names relative to the folder of images"),
    "image-names-collide": warning("two listed names differ in upper and lower case "
        "alone: one file on other machines", "rename one"),
    "image-empty": error("image files of 0 bytes", _FETCH),
    "image-unreadable": error("files that are no image", _FETCH),
    "image-truncated": error("image files that are cut short or damaged", _FETCH),
    "image-size": error("images of another size than the annotations say",
        "use the original files"),
    "image-grey": warning("grey images: the value is repeated in all three channels",
        _RGB),
    "image-palette": warning("images with a palette: turned into RGB by it", _RGB),
    "image-alpha": warning(
        "images with transparency: it is dropped, the colours below show", _RGB),
    "image-cmyk": warning("CMYK images: turned into RGB without a colour profile", _RGB),
    "image-16-bit": warning("images of 16 bits: the upper 8 are kept, as grey", _RGB),
    "image-mode": warning("images that are not RGB: clipped to 8 bits and converted",
        _RGB),
    "image-turned": warning(
        "images with an EXIF orientation: not applied, labels must fit the stored pixels",
        "if they were made on the turned picture, save it turned, without the tag"),
    "image-animated": warning("files of several pictures: the first is used",
        "save that one alone"),
    # --------------------------------------------------------------------- detections
    "detection-unknown-image": warning(
        "detections in images that are not listed: left out",
        "nothing, if the file covers more images"),
    "detections-all-unknown": error("no detection is in a listed image",
        "name the detections of this split"),
    "detection-category": warning("detections of other categories than people: left out",
        "nothing, if the detector finds more than people"),
    "detections-no-people": error("no detection is of the category of people",
        "write the category_id of the annotation file"),
    "score-not-finite": error("scores are not finite", _FIX),
    "score-range": warning(
        "scores outside of [0, 1]: thresholds of boxes mean something else there",
        "are they logits?"),
    # ------------------------------------------------------------------------ readers
    "reader-refuses": error("the reader does not accept it", "as the message says"),
    "reader-fails": error("the reader crashed: this is a bug in pose_jax",
        "please report it"),
}  # fmt: skip
"""All kinds of findings. A kind has one line in a report, for each file it is in."""
