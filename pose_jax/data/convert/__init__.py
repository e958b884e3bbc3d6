"""Labelling tools' files to data sets in COCO's format, and back.

Each tool has a module with a `Tool`: a reader from its export to `form.Labels`, how its
files are recognized, the options it takes, and maybe a writer. To add one: a module, and a
line in TOOLS.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from pose_jax import writing
from pose_jax.data.convert import (
    cvat,
    dataset,
    deeplabcut,
    images,
    label_studio,
    labelme,
    predictions,
    sleap,
    yolo_pose,
)
from pose_jax.data.convert.form import (
    Labels,
    Options,
    Tool,
    check_numbers,
    option_name,
    plural,
    reading,
)
from pose_jax.errors import ConfigError, InputError, did_you_mean

TOOLS: dict[str, Tool] = {
    "coco": dataset.TOOL,
    "cvat": cvat.TOOL,
    "deeplabcut": deeplabcut.TOOL,
    "label-studio": label_studio.TOOL,
    "labelme": labelme.TOOL,
    "sleap": sleap.TOOL,
    "yolo-pose": yolo_pose.TOOL,
}

READABLE = tuple(name for name, tool in TOOLS.items() if tool.read is not None)
WRITABLE = tuple(name for name, tool in TOOLS.items() if tool.write is not None)

_SPLIT = "train"
"""The split of images whose tool has no splits."""


def from_tool(
    name: str,
    path: Path,
    out: Path,
    options: Options | None = None,
    *,
    split: str = _SPLIT,
) -> str:
    """Converts an export of a labelling tool to a data set.

    Args:
      name: the tool, one of READABLE.
      path: its file or folder.
      out: the folder to write, which must be new or empty.
      options: the tool's options.
      split: name of the split of images that are in none.

    Returns:
      What was converted and what was left out, in several lines.

    Raises:
      ConfigError: the tool does not take an option, or `out` is not new.
      InputError: the files are broken or those of another tool, have no keypoints, or none
        of their images can be found.
    """
    tool, options = _tool("--from", name, READABLE), options or Options()
    assert tool.read is not None
    _check_options(options, tool.options | {"copy"}, f"--from {name}")
    writing.check_new(out)
    _check_kind(name, path)
    with reading(path, tool.title):
        labels = tool.read(path, options)
        check_numbers(labels, path)
    _check_images(labels, path)
    labels.images = images.usable(labels.images, labels.left_out)
    joint_boxes = dataset.add_joint_boxes(labels)
    for image in labels.images:
        image.split = image.split or split
    if not any(person.labelled for image in labels.images for person in image.people):
        reasons = "; ".join(labels.left_out.lines()) or "none are labelled"
        raise InputError(f"{path}: no pose with labelled keypoints is left: {reasons}.")
    with _new_folder(out) as folder:
        lines = dataset.write_splits(labels, folder, options.copy)
    lines = [line.replace(str(folder), str(out)) for line in lines]
    if joint_boxes:
        made = plural(f"{joint_boxes} box[es] made from keypoints", joint_boxes)
        lines.append(f"{made}: metrics say @joint_boxes")
    lines += labels.notes + [f"left out: {line}" for line in labels.left_out.lines()]
    used = {image.split for image in labels.images}
    which = "" if len(used) > 1 else f" --config.data.train.split={used.pop()}"
    lines.append(f"written: {out}; in training: --config.data.train.root={out}{which}")
    return "\n".join(lines)


def to_tool(
    name: str,
    path: Path,
    out: Path,
    options: Options | None = None,
) -> str:
    """Converts predictions, or a data set, to files that a tool imports.

    Args:
      name: the tool, one of WRITABLE.
      path: what `predict` has written, or a data set in COCO's format.
      out: the folder to write, which must be new or empty.
      options: the tool's options.

    Returns:
      What was written and what was left out, in several lines.

    Raises:
      ConfigError: the tool does not take an option, or `out` is not new.
      InputError: the files are broken, or none of their images can be found.
    """
    tool, options = _tool("--to", name, WRITABLE), options or Options()
    assert tool.write is not None
    _check_options(options, tool.write_options, f"--to {name}")
    writing.check_new(out)
    if predictions.recognize(path):
        labels = predictions.read(path, options)
    elif (path / "annotations").is_dir():
        labels = dataset.read(path, options)
    else:
        raise InputError(
            f"{path} is neither a folder that `predict --out` has written nor a data set "
            "with annotations/person_keypoints_SPLIT.json."
        )
    check_numbers(labels, path)
    _check_images(labels, path)
    labels.images = images.usable(labels.images, labels.left_out)
    people = sum(len(image.people) for image in labels.images)
    with _new_folder(out) as folder:
        said = tool.write(labels, folder, options)
    said = [line.replace(str(folder), str(out)) for line in said]
    count = len(labels.images)
    first = f"{people} people or animals in {plural(f'{count} image[s]', count)}: {out}"
    left_out = [f"left out: {line}" for line in labels.left_out.lines()]
    return "\n".join([first, *said, *labels.notes, *left_out])


def _tool(option: str, name: str, known: Sequence[str]) -> Tool:
    if name not in known:
        raise ConfigError(
            f"{option} {name}: there are {', '.join(known)}.{did_you_mean(name, known)}"
        )
    return TOOLS[name]


def _check_options(options: Options, taken: frozenset[str], where: str) -> None:
    known = sorted(option_name(name) for name in taken)
    for given in options.given():
        if given not in known:
            raise ConfigError(
                f"{where} takes no {given}; it takes {', '.join(known) or 'no options'}."
            )


def _check_kind(name: str, path: Path) -> None:
    """Names the tool whose files these are, if it is another one.

    Raises:
      InputError: the files are absent, or those of another tool.
    """
    if not os.path.lexists(path):
        raise InputError(f"{path} does not exist.")
    own = TOOLS[name]
    if own.recognize is None or own.recognize(path):
        return
    for other, tool in TOOLS.items():
        if tool.recognize is not None and tool.recognize(path):
            raise InputError(
                f"{path} is not of {own.title} but of {tool.title}: use --from {other}."
            )
    if path.is_dir() and (path / "annotations").is_dir():
        raise InputError(
            f"{path} looks like COCO, which is read as it is: no conversion."
        )


def _check_images(labels: Labels, path: Path) -> None:
    """Counts images that were not found.

    Raises:
      InputError: none was found.
    """
    if not labels.missing:
        return
    count, first = len(labels.missing), ", ".join(labels.missing[:3])
    shown = first + (", ..." if count > 3 else "")
    where = ", ".join(map(str, labels.sought)) or "the export's folder"
    if not labels.images:
        raise InputError(
            f"{path}: none of its {count} images is in {where} (first: {shown}). Put them "
            "there, or name their folder by --images if the tool takes it."
        )
    labels.left_out.add(
        "image[s] not found in {where} ({shown})", count, where=where, shown=shown
    )


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yields a folder beside `out`, which becomes `out` if all went well."""
    new = out.absolute().with_name(f".{out.name}-{os.getpid()}.new")
    try:
        yield new
        try:
            if out.is_dir():  # An empty one.
                out.rmdir()
            new.rename(out.absolute())
        except OSError as error:
            raise writing.failure(out, error) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
