"""Synthetic people with exact labels, which need no download.

`scenes` composes and writes data sets, `bodies` samples poses, `raster` renders them.
"""

ABOUT = {
    "description": "Articulated people drawn by pose_jax (`pose-jax data synth`), "
    "labeled exactly, in COCO's form.",
    "license": "Apache-2.0, as pose_jax.",
}
"""As in `DataSet.about`; the data are in COCO's format and use its reader."""
