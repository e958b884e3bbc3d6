"""Runs an export of pose_jax on a picture, without pose_jax: python run.py PICTURE."""

import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageOps

folder = pathlib.Path(__file__).parent
about = json.loads((folder / "manifest.json").read_text())
width, height = about["input_size"]
picture = Image.open(sys.argv[1]).convert("RGB")
scale = min(width / picture.width, height / picture.height)
small = ImageOps.scale(picture, scale)
canvas = np.zeros((1, height, width, 3), np.uint8)
canvas[0, : small.height, : small.width] = np.asarray(small)[:height, :width]
arrays: list[np.ndarray] = [canvas]
if about["form"] == "photographs":
    arrays.append(np.array([[small.width, small.height]], np.int32))
if about["file"].endswith(".tflite"):
    import tensorflow as tf  # Or `from ai_edge_litert.interpreter import Interpreter`.

    runner = tf.lite.Interpreter(str(folder / about["file"])).get_signature_runner()
    answer = runner(images=canvas)
elif about["file"] == "saved_model":
    import tensorflow as tf

    model = tf.saved_model.load(str(folder / about["file"]))
    answer = model.call(*arrays)
else:
    import jax.export

    content = bytearray((folder / about["file"]).read_bytes())
    answer = dict(jax.export.deserialize(content).call(*arrays))
answer = {name: np.asarray(value)[0] for name, value in answer.items()}
people = np.flatnonzero(answer.get("valid", np.ones(1, bool)))
for person in people:
    every = answer["points_xy"].reshape(-1, len(about["keypoints"]["names"]), 2)
    scores = answer["scores"].reshape(every.shape[:-1])[person]
    for name, (x, y), score in zip(
        about["keypoints"]["names"], every[person] / scale, scores, strict=True
    ):
        print(f"{name}: {x:.1f}, {y:.1f}, score {score:.3f}")
