"""Settings shared by the DeepPose configs: the network and the optimizer of the paper.

Toshev & Szegedy, CVPR 2014: AlexNet at 220x220, dropout 0.6, batch size 128, Adagrad at
5e-4, three stages of the same network. The paper trained for days on a hundred machines and
does not give a number of steps; it is our choice.
"""

from ml_collections import ConfigDict

STEPS = 20_000
"""Steps of each stage."""


def paper(data: ConfigDict, *, sigma: float, stop_metric: str = "") -> ConfigDict:
    """Config of the paper's network on a data set.

    Args:
      data: the section `data`.
      sigma: side of a joint's crop, in diameters of the pose.
      stop_metric: a stage that does not improve it ends the cascade, as in the paper on 50
        held-out people; "" trains all stages, for evaluation on a test set.
    """
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "deeppose",
            "model": {"name": "deeppose"},
            "input_size": (220, 220),
            "stages": 3,
            "sigma": sigma,
            "augment": {"flip": 0.5, "translation": 0.1},
        }
    )
    c.data = data
    c.input = ConfigDict({"batch_size": 128, "canvas_size": (640, 640)})
    c.optimizer = ConfigDict({"name": "adagrad", "lr": 5e-4})
    c.train = ConfigDict(
        {
            "steps": STEPS,
            "eval_every_steps": 1000,
            "checkpoint_every_steps": 1000,
            "stop_metric": stop_metric,
        }
    )
    return c


def apply_variant(c: ConfigDict, variant: str) -> ConfigDict:
    """Applies a variant: "" (none), or "smoke" (two steps per stage, on data/smoke)."""
    if variant == "smoke":
        source = {"name": "coco", "root": "data/smoke"}
        c.data = ConfigDict(
            {
                "train": {**source, "split": "train2017"},
                "eval": {**source, "split": "val2017"},
            }
        )
        c.method.model.options = ConfigDict({"width": 6, "features": 16})
        c.method.input_size = (64, 64)
        c.method.stages = 2
        c.input = ConfigDict({"batch_size": 4, "canvas_size": (320, 256)})
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.checkpoint_every_steps = 0
        c.train.stop_metric = ""
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
