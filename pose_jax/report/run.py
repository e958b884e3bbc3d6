"""`pose-jax report`: one HTML file with the settings, scores and errors of a run.

RUN/report.html is self-contained: no external links, no scripts, embedded pictures. It is
written for a run in any state: parts that cannot be shown (no model yet, missing data) are
reported in one line, on the page and on stderr. For a detector it shows images with boxes
instead of people, and no keypoints.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pose_jax import writing
from pose_jax.errors import ConfigError, InputError
from pose_jax.report import (
    curves,
    html,
    images,
    network,
    people,
    provenance,
    scores,
    settings,
)
from pose_jax.report import files as files_lib
from pose_jax.report.files import Files
from pose_jax.report.look import Images, People, look
from pose_jax.runs import model as model_lib


def report(
    run: Path | str,
    *,
    people: int = 500,
    data: str | None = None,
    checkpoint: str | None = None,
) -> Path:
    """Writes RUN/report.html; of a checkpoint, RUN/report_<phase>_<step>.html.

    Args:
      run: a run directory, finished or not.
      people: maximum number of evenly spaced people (for a detector, images) of the
        evaluation data to predict.
      data: another root of the evaluation data; None: from the config.
      checkpoint: a checkpoint instead of RUN/model, as in `model.load`.

    Returns:
      The path of the report.

    Raises:
      InputError: `run` is not a run directory, or cannot be written.
      ConfigError: `people` is below 1.
    """
    if people < 1:
        raise ConfigError(f"--people must be at least 1; got {people}.")
    files = files_lib.read(Path(run), checkpoint)
    writing.check(files.run, "copy the run to a folder of your own")
    notes, seen = list(files.notes), None
    if files.manifest is None:
        notes.append(files.why_no_model())
    else:
        try:
            loaded = files.loaded or model_lib.load(files.run)
            seen = look(loaded, people, data)
        except InputError as error:
            what = "people and no errors" if files.manifest["keypoints"] else "images"
            notes.append(f"No {what} are shown: {error}")
    name = files.run.resolve().name
    out = files.run / "_".join(["report", *files.checkpoint.split("/")]).rstrip("_")
    out = out.with_name(f"{out.name}.html")
    page = html.page(name, "report", subtitle(files), sections(files, seen), notes)
    writing.write(out, page)
    for note in notes:
        print(f"pose-jax: note: {note}", file=sys.stderr)
    print(f"report: {out}")
    return out


def sections(files: Files, seen: People | Images | None) -> list[html.Section]:
    """Builds all available sections, in the order of the page."""
    parts = [scores.key_table(files)]
    if isinstance(seen, Images):
        parts.append(images.gallery(seen))
    elif seen is not None:
        parts += [people.gallery(seen), network.network(seen), people.keypoints(seen)]
    parts += [
        curves.curves(files),
        scores.all_metrics(files),
        settings.config(files),
        provenance.data(files, seen),
        provenance.environment(files),
        provenance.reproduce(files),
    ]
    return [section for section in parts if section is not None]


def subtitle(files: Files) -> str:
    """Describes the run in one line."""
    section = files.config.get("method", {})
    model = section.get("model", {}).get("name")
    keypoint_set = (files.manifest or {}).get("keypoints")
    parts = [
        f"method {section.get('name', 'unknown')}",
        f"network {model}" if model else "",
        f"checkpoint {files.checkpoint}" if files.checkpoint else "",
        *(
            f"{words} {data.get('name')} {data.get('split')} in {data.get('root')}"
            for words, use in (("trained on", "train"), ("evaluated on", "eval"))
            if (data := files.data(use))
        ),
    ]
    if keypoint_set:
        parts.append(f"{len(keypoint_set['names'])} keypoints ({keypoint_set['name']})")
    return " · ".join(filter(None, parts))
