"""What MultiPose's COCO configs share: the paper's losses and training, our choices.

Papandreou et al., CVPR 2017, arXiv:1701.01779, "G-RMI". Discs of 25 pixels at 353x257,
losses weighed 4 to 1, boxes enlarged by 1.0 to 1.5 in training and by 1.25 afterwards are
the paper's. Quoted from memory are SGD with momentum 0.9 at a constant rate of 0.005,
800,000 steps of 24 people, an average of the weights for evaluation, and a start from
ImageNet.

Our choices, where the paper says nothing that we know of:

The loss is its sums over the number of pixels of a map (reduction "pixel"). What the paper
divides by it does not state. The sums as printed have 1.5 million terms a person, and at
the rate above steps would be 90,000 times as long: ResNet-18 at 129x97 had a loss of NaN in
the seventh step with them, and one that fell with "pixel". The ratio of both losses is that
of the sums.

The average has a decay of 0.9999: of the last 10,000 steps or so. The mean of all iterates
since the first, as Polyak and Ruppert have it, would still hold the bad ones.

Huber's delta is 1 pixel. The disc has the same share of the crop at all input sizes.
Nothing but scale is varied: no mirror images, no rotation, no colours. Trained on
train2017, 149,813 people, measured on val2017; the paper has a split of its own, from
memory with 105,698 people, and for COCO+int private images beside.
"""

from ml_collections import ConfigDict

BATCH_SIZE = 24
EPOCH = 149_813 // BATCH_SIZE
"""Steps: labelled people of train2017, in full batches."""


def coco(*, model: str, input_size: tuple[int, int], radius: float) -> ConfigDict:
    """The paper's training on COCO.

    Args:
      model: name of the network.
      input_size: (width, height).
      radius: of the discs, pixels of the input.
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
            # 1.25 times 0.8 to 1.2.
            "augment": {"scale": 0.2, "scale_law": "uniform"},
        }
    )
    c.data = _data("data/coco")
    # Holds every image whole.
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
    # Of poses on a detector's boxes.
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
    """The config as it is, "", or as "smoke": two steps on data/smoke.

    The latter is the same for all input sizes and depths.
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
