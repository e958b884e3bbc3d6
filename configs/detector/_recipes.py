"""Settings shared by the COCO configs of the detector.

The paper is MultiPose (Papandreou et al., CVPR 2017, arXiv:1701.01779, "G-RMI"), whose
detector is a Faster R-CNN for people only. Its input has 800 x 1200 pixels (or 600 x 900,
"fast"), box NMS has an IoU threshold of 0.6. Quoted from memory: SGD with momentum 0.9 at
3e-4, divided by 10 after 800,000 steps and again after 1,000,000, asynchronously on nine
GPUs, initialized from ImageNet.

Our choices: eight images per step; 1,200,000 steps, to give the last learning rate enough
steps; anchors with sides of 64 to 512 pixels and three aspect ratios, as in the TensorFlow
detectors of that time; the thresholds of Faster R-CNN (arXiv:1506.01497); horizontal flips;
frozen BatchNorm statistics from ImageNet, because a batch of eight is small. Canvases are
640x480, 480x640 and 640x640: each bucket has one input size, and most COCO images fill it.
"""

from ml_collections import ConfigDict

BATCH_SIZE = 8
EPOCH = 64_115 // BATCH_SIZE
"""Steps per epoch: images of train2017 with a person, in full batches."""


def coco(*, model: str, anchor_scales: tuple[tuple[float, ...], ...]) -> ConfigDict:
    """Config of a person detector on COCO.

    Args:
      model: name of the network.
      anchor_scales: anchor sizes for each feature map, in input pixels.
    """
    c = ConfigDict()
    c.seed = 0
    c.method = ConfigDict(
        {
            "name": "detector",
            "model": {"name": model, "norm": "frozen", "options": {"remat": True}},
            "size": (800, 1200),
            "buckets": ((640, 480), (480, 640), (640, 640)),
            "max_people": 32,
            "anchor_scales": anchor_scales,
            "anchor_aspects": (0.5, 1.0, 2.0),
            "box_nms": 0.6,
            "augment": {"flip": 0.5},
        }
    )
    c.data = _data("data/coco")
    c.input = ConfigDict({"batch_size": BATCH_SIZE})
    c.optimizer = ConfigDict(
        {
            "name": "sgd",
            "momentum": 0.9,
            "lr": 3e-4,
            "schedule": "steps",
            "drop_steps": (800_000, 1_000_000),
        }
    )
    c.train = ConfigDict(
        {
            "steps": 1_200_000,
            "eval_every_steps": 5 * EPOCH,
            "checkpoint_every_steps": EPOCH,
        }
    )
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
    """Applies a variant: "" (none), or "smoke" (two steps of ResNet-18 on data/smoke)."""
    if variant == "smoke":
        kind = "fpn_18" if "fpn" in c.method.model.name else "18"
        c.method.model = ConfigDict(
            {
                "name": f"faster_rcnn_{kind}",
                "norm": "frozen",
                "options": {"width": 8, "features": 16, "head_features": 16},
            }
        )
        c.method.size = (96, 120)
        c.method.buckets = ((320, 256),)
        c.method.pre_nms = c.method.test_pre_nms = 50
        c.method.post_nms = c.method.test_post_nms = 20
        c.data = _data("data/smoke")
        c.input = ConfigDict({"batch_size": 4})
        c.optimizer.schedule = "constant"
        c.optimizer.drop_steps = ()
        c.train.steps = 2
        c.train.eval_every_steps = 1
        c.train.checkpoint_every_steps = 0
    elif variant:
        raise ValueError(f"no variant {variant!r}; there is 'smoke'.")
    return c
