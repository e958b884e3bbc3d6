"""Settings shared by the rows of DARK's tables: data, training, variants.

The file of a row has its own numbers, `coco` or `mpii` makes a config from them, and
`apply_variant` modifies it. The numbers are those of the released configs
(github.com/ilovepose/DarkPose), with these choices for all rows:

Adam has no weight decay. All labeled keypoints have the same weight: as in the released
configs, the joint weights of the keypoint sets are not used. Images are RGB; the released
SimpleBaselines and Hourglasses used BGR. Half-body crops are the upper or the lower half
with equal probability; in the released code the upper half has 69%. DARK's modulation has
the sigma of the targets, as in the paper, and a kernel size of 6 sigma - 1; rows whose
released kernel size is different mention it.
"""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict


def coco(**row) -> ConfigDict:
    """A row of the COCO table; see `_config`."""
    c = _config(people=149_813, best_metric="AP@gt_boxes", **row)
    c.data = _data("coco", "data/coco", train="train2017", valid="val2017")
    c.input.canvas_size = (640, 640)  # Fits all images without cropping.
    return c


def mpii(**row) -> ConfigDict:
    """A row of the MPII table; see `_config`."""
    c = _config(people=22_246, best_metric="PCKh@0.5@gt_boxes", **row)
    c.data = _data("mpii", "data/mpii", train="train", valid="valid")
    # For 98% of the people, it covers the largest, most rotated augmented crop.
    c.input.canvas_size = (960, 720)
    return c


def _config(
    *,
    model: str,
    input_size: tuple[int, int],
    sigma: float,
    batch_size: int,
    lr: float,
    epochs: int,
    drop_epochs: Sequence[int],
    augment: Mapping[str, float],
    people: int,
    best_metric: str,
) -> ConfigDict:
    """Config with unbiased encoding, DARK decoding and Adam.

    Args:
      model: name of the network.
      input_size: (width, height).
      sigma: sigma of the targets, heatmap pixels.
      batch_size: total batch size of all devices.
      lr: learning rate, multiplied by 0.1 at each of `drop_epochs`.
      epochs: number of epochs; an epoch has full batches only.
      drop_epochs: epochs after which the learning rate drops.
      augment: the section `method.augment`.
      people: number of labeled people in the training split.
      best_metric: metric by which the best checkpoint is kept.
    """
    epoch = people // batch_size
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "dark",
            "model": {"name": model},
            "input_size": input_size,
            "sigma": sigma,
            "encoding": "unbiased",
            "decoder": "dark",
            "alignment": "aligned",
            "flip_test": "plain",
            "augment": augment,
        }
    )
    c.input = ConfigDict({"batch_size": batch_size})
    c.optimizer = ConfigDict(
        {
            "name": "adam",
            "lr": lr,
            "schedule": "steps",
            "drop_steps": tuple(drop * epoch for drop in drop_epochs),
        }
    )
    c.train = ConfigDict(
        {
            "steps": epochs * epoch,
            "eval_every_steps": 5 * epoch,
            "checkpoint_every_steps": epoch,
            "best_metric": best_metric,
        }
    )
    return c


def _data(name: str, root: str, *, train: str, valid: str) -> ConfigDict:
    source = {"name": name, "root": root}
    return ConfigDict(
        {"train": {**source, "split": train}, "eval": {**source, "split": valid}}
    )


def apply_variant(c: ConfigDict, variant: str) -> ConfigDict:
    """Applies a variant: "biased", "smoke", or "" (none)."""
    if variant == "biased":
        # The codec of HRNet and SimpleBaseline: centers rounded to heatmap pixels, and
        # the quarter shift. Their crops are not aligned with the heatmaps, so that the
        # flip test needs a shift of one pixel. The same was chosen for Hourglass, for
        # which no such config was released.
        c.method.encoding = "biased"
        c.method.decoder = "shift"
        c.method.alignment = "stride"
        c.method.flip_test = "shift"
    elif variant == "smoke":
        _make_small(c)
    elif variant:
        raise ValueError(f"no variant {variant!r}; there are 'biased' and 'smoke'.")
    return c


_SMALL = {
    "hourglass": {"name": "hourglass_4", "options": {"width": 16, "depth": 1}},
    "hrnet": {
        "name": "hrnet_w32",
        "options": {"stem_width": 16, "modules": (1, 1, 1), "blocks": 1},
    },
    "simple": {
        "name": "simple_baseline_18",
        "options": {"width": 16, "deconv_features": 32},
    },
    "vitpose": {
        "name": "vitpose_small",
        "options": {"layers": 1, "deconv_features": 32},
    },
}
"""A small network per family, with all its kinds of layers."""


def _make_small(c: ConfigDict) -> None:
    """Changes a config to two steps on data/smoke with a small network."""
    c.method.model = _SMALL[c.method.model.name.split("_")[0]]
    c.method.input_size = (64, 64)
    c.method.sigma = 1.0
    c.data = _data("coco", "data/smoke", train="train2017", valid="val2017")
    c.input = ConfigDict({"batch_size": 4, "canvas_size": (320, 256)})
    c.optimizer.drop_steps = (1,)
    c.train.steps = 2
    c.train.eval_every_steps = 1
    c.train.checkpoint_every_steps = 0
    c.train.best_metric = "AP@gt_boxes"
