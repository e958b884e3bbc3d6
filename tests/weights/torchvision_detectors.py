"""torchvision's detectors, and what they find: written by

    python -m tests.weights.torchvision_detectors   # torchvision_outputs.npz again

where torchvision is installed. A small network with the values of `published.values`, and
the published size with random weights whose statistics are those of a picture.
"""

from pathlib import Path

import numpy as np

from tests.weights import published

STORED = Path(__file__).with_name("torchvision_outputs.npz")
SMALL = {"width": 4, "features": 8, "head_features": 16}
CLASSES = 5
SIDES = (96, 128)


def picture(size=(70, 50)):
    """A picture [h, w, 3], uint8: blocks and noise."""
    w, h = size
    blocks = (
        published.noise((-(-h // 10), -(-w // 10), 3), 1).repeat(10, 0).repeat(10, 1)
    )
    mixed = 0.8 * blocks[:h, :w] + 0.2 * published.noise((h, w, 3), 2)
    return (255 * mixed).astype(np.uint8)


def state_dict(classes=CLASSES):
    """A small detector of ResNet-18 under the published names, of the first version."""
    body = published.resnet(18, width=SMALL["width"], classes=0)
    shapes = {
        f"backbone.body.{name}": shape
        for name, shape in body.items()
        if not name.endswith("num_batches_tracked")
    }
    c, n = SMALL["features"], SMALL["head_features"]
    layers = {
        **{f"backbone.fpn.inner_blocks.{i}": (c, 4 * 2**i, 1, 1) for i in range(4)},
        **{f"backbone.fpn.layer_blocks.{i}": (c, c, 3, 3) for i in range(4)},
        "rpn.head.conv": (c, c, 3, 3),
        "rpn.head.cls_logits": (3, c, 1, 1),
        "rpn.head.bbox_pred": (12, c, 1, 1),
        "roi_heads.box_head.fc6": (n, c * 49),
        "roi_heads.box_head.fc7": (n, n),
        "roi_heads.box_predictor.cls_score": (classes, n),
        "roi_heads.box_predictor.bbox_pred": (4 * classes, n),
    }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    values = published.values(shapes)
    for name in layers:  # Of values() only those of convolutions have a useful size.
        key = f"{name}.weight"
        if len(shapes[key]) == 2:
            noise = published.noise(shapes[key], len(name)) - 0.5
            values[key] = (noise * np.sqrt(12 / shapes[key][1])).astype(np.float32)
    values["rpn.head.bbox_pred.weight"] *= np.float32(0.2)
    # Small variances, for which an epsilon matters.
    norms = [name[: -len("running_var")] for name in values if "running_var" in name]
    for name in norms:
        factor = np.float32(1e-5) / values[f"{name}running_var"][0]
        values[f"{name}running_var"][0] *= factor
        values[f"{name}weight"][0] *= np.sqrt(factor)
    return values


def small(values, classes=CLASSES):
    """The detector of `state_dict` in torchvision, its norms without epsilon."""
    import torch
    from torch import nn
    from torch.nn.functional import max_pool2d, relu
    from torchvision.models.detection import faster_rcnn
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops.feature_pyramid_network import (
        FeaturePyramidNetwork,
        LastLevelMaxPool,
    )

    from tests.weights import torch_networks

    prefix = "backbone.body."
    body = {
        name.removeprefix(prefix): torch.from_numpy(value).double()
        for name, value in values.items()
        if name.startswith(prefix)
    }
    for name in body:  # `torch_networks` has an epsilon of 1e-5.
        if name.endswith("running_var"):
            body[name] -= 1e-5
    c, n = SMALL["features"], SMALL["head_features"]

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.fpn = FeaturePyramidNetwork([4, 8, 16, 32], c, LastLevelMaxPool())
            self.out_channels = c

        def forward(self, x):
            x = x.double()
            x = torch_networks._conv(body, "conv1", x, 2)
            x = relu(torch_networks._norm(body, "bn1", x))
            x, maps = max_pool2d(x, 3, 2, padding=1), {}
            for i in range(1, 5):
                x = torch_networks._residuals(body, f"layer{i}", x, 1 if i == 1 else 2)
                maps[str(i - 1)] = x.float()
            return self.fpn(maps)

    model = faster_rcnn.FasterRCNN(
        Backbone(),
        rpn_head=RPNHead(c, 3),
        box_head=faster_rcnn.TwoMLPHead(c * 49, n),
        box_predictor=faster_rcnn.FastRCNNPredictor(n, classes),
        min_size=SIDES[0], max_size=SIDES[1], box_detections_per_img=10_000,
    )  # fmt: skip
    rest = {
        name: torch.from_numpy(value)
        for name, value in values.items()
        if not name.startswith(prefix)
    }
    # The version-1 names are those of a state dict without metadata.
    model.load_state_dict(rest, strict=True)
    return model.eval()


def people(model, image):
    """Boxes [n, 4] and scores [n] of class 1, in decreasing order of score."""
    import torch

    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    with torch.no_grad():
        (found,) = model([tensor])
    chosen = found["labels"] == 1
    return found["boxes"][chosen].numpy(), found["scores"][chosen].numpy()


if __name__ == "__main__":
    boxes_xyxy, scores = people(small(state_dict()), picture())
    print(len(scores), "people", scores[:5], boxes_xyxy[:3])
    np.savez_compressed(STORED, boxes_xyxy=boxes_xyxy[:100], scores=scores[:100])
