"""Poses of people in images: `pose-jax predict`, and `pose_jax.load` for use from Python.

Both use the same Predictor, canvas and decoding as evaluation. `estimator` predicts,
`inputs` finds the images and their boxes, `results` writes files, and `run` is the verb.
"""

from pose_jax.predict.estimator import Estimator as Estimator
from pose_jax.predict.estimator import People as People
from pose_jax.predict.estimator import Person as Person
from pose_jax.predict.estimator import load as load
from pose_jax.predict.run import predict_run as predict_run
