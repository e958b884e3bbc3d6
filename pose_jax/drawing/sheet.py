"""Contact sheets: many images in one, and PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from pose_jax import writing
from pose_jax.drawing._pixels import as_uint8
from pose_jax.drawing.maps import heatmap_overlay
from pose_jax.drawing.people import draw_boxes, draw_pose
from pose_jax.geometry import Alignment
from pose_jax.keypoints import KeypointSet

_PAPER = (24, 24, 28)
_INK = (230, 230, 230)


def sheet(
    images: Sequence[np.ndarray],
    columns: int,
    titles: Sequence[str] | None = None,
    *,
    gap: int = 6,
) -> np.ndarray:
    """Arranges images in rows of `columns`, each with a line of text under it.

    Cells are as large as the largest image; smaller ones are centered.
    """
    if columns < 1:
        raise ValueError(f"columns must be at least 1; got {columns}.")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"got {len(titles)} titles for {len(images)} images.")
    if not len(images):
        return np.full((gap, gap, 3), _PAPER, np.uint8)
    images = [as_uint8(image) for image in images]
    columns = min(columns, len(images))
    line = 16 if titles is not None else 0
    cell_w = max(image.shape[1] for image in images)
    cell_h = max(image.shape[0] for image in images)
    rows = -(-len(images) // columns)
    width = columns * (cell_w + gap) + gap
    height = rows * (cell_h + line + gap) + gap
    paper = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=12)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        x = gap + column * (cell_w + gap)
        y = gap + row * (cell_h + line + gap)
        h, w = image.shape[:2]
        paper.paste(
            Image.fromarray(image), (x + (cell_w - w) // 2, y + (cell_h - h) // 2)
        )
        if titles is not None:
            text = titles[i]
            while text and draw.textlength(text, font) > cell_w:
                text = text[:-1]
            draw.text((x, y + cell_h + 1), text, fill=_INK, font=font)
    return np.array(paper)


def preview_sheet(
    preview: Mapping[str, np.ndarray],
    keypoint_set: KeypointSet | None,
    *,
    columns: int = 4,
    alignment: Alignment = "stride",
) -> np.ndarray:
    """Draws training examples: inputs with labels, and their targets.

    Args:
      preview: from `Phase.preview`: "input" [b, h, w, 3] in [0, 1], "points_xy" [b, k, 2]
        and "visibility" [b, k] in its frame, "targets" [b, h', w', k] where there are
        maps. For a detector: "boxes_xyxy" [b, n, 4] in its frame and "kind" [b, n], 0
        none, 1 person, 2 crowd region.
      keypoint_set: keypoint set of the k channels; None for a detector.
      columns: images in a row of the sheet.
      alignment: of targets and input.

    Returns:
      uint8 [H, W, 3]: each cell is an input with its skeleton, and beside it the targets
      overlaid on the input; or an input with its boxes, at most 480 pixels long.
    """
    cells = []
    for i, image in enumerate(preview["input"]):
        if keypoint_set is None:
            kind = preview["kind"][i]
            cell = draw_boxes(
                image,
                np.zeros((0, 4)),
                truth_xyxy=preview["boxes_xyxy"][i][kind > 0],
                crowd=kind[kind > 0] == 2,
                scale=min(1.0, 480 / max(image.shape[:2])),
            )
        else:
            points_xy, visibility = preview["points_xy"][i], preview["visibility"][i]
            cell = draw_pose(image, points_xy, keypoint_set, visibility=visibility)
            if "targets" in preview:
                targets = preview["targets"][i]
                maps = heatmap_overlay(image, targets, alignment=alignment)
                cell = np.concatenate([cell, maps], axis=1)
        cells.append(cell)
    return sheet(cells, columns)


SOFTWARE = "pose_jax"
"""What PNG files of this package name as their software."""


def save_png(path: Path | str, image: np.ndarray) -> None:
    """Writes [h, w, 3] as PNG, completely or not at all; its folder is created."""
    info, content = PngInfo(), io.BytesIO()
    info.add_text("Software", SOFTWARE)
    Image.fromarray(as_uint8(image)).save(content, format="PNG", pnginfo=info)
    writing.write(path, content.getvalue())
