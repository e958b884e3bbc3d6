"""The checkpoints that mmpose publishes for the networks here, as rows of a table.

A row is the path without hash and date, these two, and the reported score. The first eight
digits of the SHA-256 are in the name of each file. Names state network, data set, input
size (height x width) and the targets, where they differ from the usual ones: "dark", "udp";
all of ViTPose are "udp". Rows that begin with "td-hm_" are of 1.x.
"""

from __future__ import annotations

import dataclasses
import re

FOLDER, FOLDER_0X = "v1/body_2d_keypoint/topdown_heatmap/coco", "top_down"
"""Web folders of the rows of 1.x and 0.x, below the address of the project."""

_NETWORKS = {
    "hrnet-w32": "hrnet_w32", "hrnet-w48": "hrnet_w48", "res50": "simple_baseline_50",
    "res101": "simple_baseline_101", "res152": "simple_baseline_152",
    "vitpose-small": "vitpose_small", "vitpose-base": "vitpose_base",
    "vitpose-large": "vitpose_large", "vitpose-small-simple": "vitpose_small_simple",
    "vitpose-base-simple": "vitpose_base_simple",
    "vitpose-large-simple": "vitpose_large_simple",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row says.

    Attributes:
      name: of the release.
      folder, file: where it is, below the address of the project.
      sha256: its first 8 digits.
      score: the reported AP or PCKh.
      network: the network here.
      data: "coco" or "mpii".
      size: (width, height) of the input, pixels.
      targets: "", "dark" or "udp".
    """

    name: str
    folder: str
    file: str
    sha256: str
    score: float
    network: str
    data: str
    size: tuple[int, int]
    targets: str


def parsed(row: str) -> Row:
    """Returns what a row says."""
    path, digits, score = row.split()
    folder, _, stem = path.rpartition("/")
    place = f"{FOLDER_0X}/{folder}" if folder else FOLDER
    words = stem.lower().removeprefix("td-hm_").replace("hrnet_w", "hrnet-w")
    size = re.search(r"(\d+)x(\d+)(?=$|_|-merge)", words)
    targets = re.search(r"dark|udp", words)
    assert size is not None
    network = _NETWORKS[words.split("_")[0]]
    udp = "udp" if network.startswith("vitpose") else ""
    return Row(
        name=f"mmpose_{stem}",
        folder=place,
        file=f"{stem}-{digits}.pth",
        sha256=digits.split("_")[0],
        score=float(score),
        network=network,
        data="mpii" if "mpii" in words else "coco",
        size=(int(size[2]), int(size[1])),
        targets=targets[0] if targets else udp,
    )


ROWS = (
    "augmentation/hrnet_w32_coco_256x192_coarsedropout 0f16a0ce_20210320 0.753",
    "augmentation/hrnet_w32_coco_256x192_gridmask 868180df_20210320 0.752",
    "augmentation/hrnet_w32_coco_256x192_photometric 308cf591_20210320 0.754",
    "td-hm_hrnet-w32_8xb64-210e_coco-256x192 81c58e40_20220909 0.746",
    "td-hm_hrnet-w32_8xb64-210e_coco-384x288 ca5956af_20220909 0.76",
    "td-hm_hrnet-w48_8xb32-210e_coco-256x192 0e67c616_20220913 0.756",
    "td-hm_hrnet-w48_8xb32-210e_coco-384x288 c161b7de_20220915 0.767",
    "td-hm_hrnet-w32_8xb64-210e_coco-aic-256x192-merge b05435b9_20221025 0.757",
    "td-hm_hrnet-w32_fp16-8xb64-210e_coco-256x192 f1e84e3b_20220914 0.749",
    "td-hm_hrnet-w32_dark-8xb64-210e_coco-256x192 0e00bf12_20220914 0.757",
    "td-hm_hrnet-w32_dark-8xb64-210e_coco-384x288 9bab4c9b_20220917 0.766",
    "td-hm_hrnet-w48_dark-8xb32-210e_coco-256x192 e1ebdd6f_20220913 0.764",
    "td-hm_hrnet-w48_dark-8xb32-210e_coco-384x288 39c3c381_20220916 0.772",
    "td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192 73ede547_20220914 0.762",
    "td-hm_hrnet-w32_udp-8xb64-210e_coco-384x288 9a3f7c85_20220914 0.768",
    "td-hm_hrnet-w48_udp-8xb32-210e_coco-256x192 3feaef8f_20220913 0.768",
    "td-hm_hrnet-w48_udp-8xb32-210e_coco-384x288 70d7ab01_20220913 0.773",
    "hrnet/hrnet_w32_coco_256x192 c78dce93_20200708 0.746",
    "hrnet/hrnet_w32_coco_384x288 d9f0d786_20200708 0.76",
    "hrnet/hrnet_w48_coco_256x192 b9e0b3ab_20200708 0.756",
    "hrnet/hrnet_w48_coco_384x288 314c8528_20200708 0.767",
    "hrnet/hrnet_w32_coco_256x192_dark 07f147eb_20200812 0.757",
    "hrnet/hrnet_w32_coco_384x288_dark 307dafc2_20210203 0.766",
    "hrnet/hrnet_w48_coco_256x192_dark 8cba3197_20200812 0.764",
    "hrnet/hrnet_w48_coco_384x288_dark e881a4b6_20210203 0.772",
    "hrnet/hrnet_w32_coco_256x192_fp16_dynamic 290efc2e_20210430 0.746",
    "udp/hrnet_w32_coco_256x192_udp aba0be42_20210220 0.76",
    "udp/hrnet_w32_coco_384x288_udp e97c1a0f_20210223 0.769",
    "udp/hrnet_w48_coco_256x192_udp 2554c524_20210223 0.767",
    "udp/hrnet_w48_coco_384x288_udp 0f89c63e_20210223 0.772",
    "td-hm_res50_8xb64-210e_coco-256x192 04af38ce_20220923 0.718",
    "td-hm_res50_8xb64-210e_coco-384x288 7b8db90e_20220923 0.731",
    "td-hm_res101_8xb64-210e_coco-256x192 065d3625_20220926 0.728",
    "td-hm_res152_8xb32-210e_coco-256x192 0345f330_20220928 0.736",
    "td-hm_res152_8xb32-210e_coco-384x288 7fbb906f_20220927 0.75",
    "td-hm_res50_fp16-8xb64-210e_coco-256x192 463da051_20220927 0.716",
    "td-hm_res50_dark-8xb64-210e_coco-256x192 c129dcb6_20220926 0.724",
    "td-hm_res50_dark-8xb64-210e_coco-384x288 8b90b538_20220926 0.735",
    "td-hm_res101_dark-8xb64-210e_coco-256x192 528ec248_20220926 0.733",
    "td-hm_res101_dark-8xb64-210e_coco-384x288 487d40a4_20220926 0.749",
    "td-hm_res152_dark-8xb32-210e_coco-256x192 f754df5f_20221031 0.743",
    "td-hm_res152_dark-8xb32-210e_coco-384x288 329f8454_20221031 0.757",
    "resnet/res50_coco_256x192 ec54d7f3_20200709 0.718",
    "resnet/res50_coco_384x288 e6f795e9_20200709 0.731",
    "resnet/res101_coco_256x192 6e6babf0_20200708 0.726",
    "resnet/res101_coco_384x288 8c71bdc9_20200709 0.748",
    "resnet/res152_coco_256x192 f6e307c2_20200709 0.735",
    "resnet/res152_coco_384x288 3860d4c9_20200709 0.75",
    "resnet/res50_coco_256x192_dark 43379d20_20200709 0.724",
    "resnet/res50_coco_384x288_dark 33d3e5e5_20210203 0.735",
    "resnet/res101_coco_256x192_dark 64d433e6_20200812 0.732",
    "resnet/res101_coco_384x288_dark cb45c88d_20210203 0.749",
    "resnet/res152_coco_256x192_dark ab4840d5_20200812 0.745",
    "resnet/res152_coco_384x288_dark d3b8ebd7_20210203 0.757",
    "resnet/res50_coco_256x192_fp16_dynamic 6edb79f3_20210430 0.717",
    "hrnet/hrnet_w32_mpii_256x256_dark f1601c5b_20200927 0.904",
    "hrnet/hrnet_w48_mpii_256x256_dark 0decd39f_20200927 0.905",
    "hrnet/hrnet_w32_mpii_256x256 6c4f923f_20200812 0.9",
    "hrnet/hrnet_w48_mpii_256x256 92cab7bd_20200812 0.901",
    "resnet/res50_mpii_256x256 418ffc88_20200812 0.882",
    "resnet/res101_mpii_256x256 416f5d71_20200812 0.888",
    "resnet/res152_mpii_256x256 3ecba29d_20200812 0.889",
    "td-hm_ViTPose-small_8xb64-210e_coco-256x192 62d7a712_20230314 0.739",
    "td-hm_ViTPose-base_8xb64-210e_coco-256x192 216eae50_20230314 0.757",
    "td-hm_ViTPose-large_8xb64-210e_coco-256x192 53609f55_20230314 0.782",
    "td-hm_ViTPose-small-simple_8xb64-210e_coco-256x192 4c101a76_20230314 0.736",
    "td-hm_ViTPose-base-simple_8xb64-210e_coco-256x192 0b8234ea_20230407 0.756",
    "td-hm_ViTPose-large-simple_8xb64-210e_coco-256x192 3a7ee9e1_20230314 0.78",
)
