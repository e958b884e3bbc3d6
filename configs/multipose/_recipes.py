"""Settings shared by the COCO configs of MultiPose: those of the paper, and our choices.

Papandreou et al., CVPR 2017, arXiv:1701.01779, "G-RMI". From the paper: binary heatmaps of
radius 25 pixels at 353x257, loss weights of 4 and 1, boxes enlarged by 1.0 to 1.5 in
training and by 1.25 in evaluation. Quoted from memory: SGD with momentum 0.9 at a constant
learning rate of 0.005, 800,000 steps of 24 people, averaged weights for evaluation, and
initialization from ImageNet.

Our choices, where we know of no specification in the paper:

The loss sums are divided by the number of pixels of a map (reduction "pixel"). The paper
does not state its normalization. The sums as printed have 1.5 million terms per person, so
that updates at this learning rate would be 90,000 times as large: with ResNet-18 at 129x97
the loss was NaN in the seventh step, while it decreased with "pixel". The ratio of the two
losses is that of the sums.

The averaged weights have a decay of 0.9999, about the last 10,000 steps. The Polyak-Ruppert
mean over all iterates would still include the first ones.

The delta of the Huber loss is 1 pixel. The radius is the same fraction of the crop at all
input sizes. Only the scale is augmented: no flips, no rotation, no color changes. Trained
on train2017, 149,813 people, and evaluated on val2017; the paper has its own split, from
memory with 105,698 people, and additional private images for COCO+int.
"""

from ml_collections import ConfigDict

BATCH_SIZE = 24
EPOCH = 149_813 // BATCH_SIZE
"""Steps per epoch: labeled people of train2017, in full batches."""


def coco(*, model: str, input_size: tuple[int, int], radius: float) -> ConfigDict:
    """Config of the paper's training on COCO.

    Args:
      model: name of the network.
      input_size: (width, height).
      radius: radius of the binary heatmaps, in input pixels.
    """
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "multipose",
            "model": {"name": model, "options": {}},
            "input_size": input_size,
            "radius": radius,
            "delta": 1.0,
            "heatmap_weight": 4.0,
            "offset_weight": 1.0,
            "reduction": "pixel",
            "others": "auxiliary",
            "decoder": "hough",
            "rescoring": "pose",
            "padding": 1.25,
            # 1.25 times 0.8 to 1.2 is 1.0 to 1.5.
            "augment": {"scale": 0.2, "scale_law": "uniform"},
        }
    )
    c.data = _data("data/coco")
    # Fits all images without cropping.
    c.input = ConfigDict({"batch_size": BATCH_SIZE, "canvas_size": (640, 640)})
    c.optimizer = ConfigDict(
        {
            "name": "sgd",
            "momentum": 0.9,
            "lr": 0.005,
            "schedule": "constant",
            "ema_decay": 0.9999,
        }
    )
    c.train = ConfigDict(
        {
            "steps": 800_000,
            "eval_every_steps": 5 * EPOCH,
            "checkpoint_every_steps": EPOCH,
            "best_metric": "AP@gt_boxes",
        }
    )
    # Applied to poses in detected boxes.
    c.evaluation = ConfigDict({"nms": "oks", "nms_threshold": 0.5})
    return c


def _data(root: str) -> ConfigDict:
    source = {"name": "coco", "root": root}
    return ConfigDict(
        {
            "train": {**source, "split": "train2017"},
            "eval": {**source, "split": "val2017"},
        }
    )


def apply_variant(c: ConfigDict, variant: str) -> ConfigDict:
    """Applies a variant: "" (none), or "smoke" (two steps on data/smoke).

    "smoke" is the same for all input sizes and depths.
    """
    if variant == "smoke":
        c.method.model = ConfigDict({"name": "multipose_18", "options": {"width": 16}})
        c.method.input_size = (49, 65)
        c.method.radius = 4.8
        c.data = _data("data/smoke")
        c.input = ConfigDict({"batch_size": 4, "canvas_size": (320, 256)})
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.checkpoint_every_steps = 0
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
