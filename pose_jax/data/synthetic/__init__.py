"""Synthetic people with exact labels, so that nothing has to be downloaded.

`scenes` composes and writes data sets, `bodies` poses people, `raster` draws them.
"""

ABOUT = {
    "description": "Articulated people drawn by pose_jax (`pose-jax data synth`), "
    "labelled exactly, in COCO's form.",
    "license": "Apache-2.0, as pose_jax.",
}
"""As `DataSet.about`: such data are in COCO's form, and have no reader of their own."""
