"""Paired differences: equal models do not differ, better ones do, AP is COCO's."""

import dataclasses

import numpy as np
import pytest

from pose_jax import keypoints
from pose_jax.evaluation import compare
from pose_jax.evaluation import poses as measure
from tests.made_up import detections, make_poses, make_table


def noisy(table, size, seed):
    poses = make_poses(table)
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=poses.points_xy.shape) * size
    return dataclasses.replace(
        poses, points_xy=(poses.points_xy + noise).astype(np.float32)
    )


@pytest.mark.parametrize("kind", ["coco", "lsp", "mpii"])
def test_the_whole_sample_gives_the_metrics_of_an_evaluation(kind):
    changes = {"head_sizes": np.full(40, 40.0)} if kind == "mpii" else {}
    table = make_table(40, keypoints.SETS[kind], **changes)
    poses = noisy(table, 8, 0)
    statistics = compare.per_image(table, poses)
    metrics = measure.measure(table, poses)
    ones = np.ones((1, len(table.images)), int)
    assert set(statistics) <= set(metrics)
    assert any("@0.1" in name for name in statistics)
    for name, of in statistics.items():
        assert of(ones)[0] == pytest.approx(metrics[name], abs=1e-6), name


def test_ap_of_resampled_images_is_that_of_a_file_with_them_repeated():
    """Images drawn twice, as images of other ids, through pycocotools itself."""
    table = make_table(20)
    boxes = detections(table, np.arange(20).repeat(2), np.linspace(1, 0.1, 40))
    poses = noisy(boxes, 12, 1)
    times = np.array([2, 0, 1, 3, 0, 1, 1, 2, 0, 0])
    copies = np.arange(10).repeat(times)
    truth, results = (
        boxes.ground_truth.coco_ground_truth(),
        measure.to_results(boxes, poses),
    )
    drawn = {**truth, "images": [], "annotations": []}
    drawn_results = []
    for number, i in enumerate(copies):
        old = int(table.image_ids[i])
        drawn["images"].append({**truth["images"][i], "id": number})
        for source, into in (
            (truth["annotations"], drawn["annotations"]),
            (results, drawn_results),
        ):
            into += [{**a, "image_id": number} for a in source if a["image_id"] == old]
    expected = measure.metrics_lib.coco_keypoint_ap(drawn, drawn_results)
    statistics = compare.per_image(boxes, poses)
    for name in ("AP", "AP50", "AP75"):
        ours = statistics[f"{name}@detections"](times[None])[0]
        # Copies tie in score; which of them comes first is of no account here.
        assert ours == pytest.approx(expected[name], abs=0.01)


def test_a_model_does_not_differ_from_itself():
    table = make_table(20)
    poses = noisy(table, 8, 0)
    for found in compare.differences(table, poses, poses, samples=50):
        assert found.difference == found.low == found.high == 0


def test_a_better_model_is_seen_and_an_equal_one_is_not():
    table = make_table(80)
    worse, better, other = noisy(table, 12, 0), noisy(table, 6, 1), noisy(table, 12, 2)
    seen = {d.name: d for d in compare.differences(table, worse, better, samples=300)}
    assert seen["AP@gt_boxes"].low > 0.1 and seen["PCK@0.1@gt_boxes"].low > 0
    assert seen["pixel_error@gt_boxes"].high < 0
    same = {d.name: d for d in compare.differences(table, worse, other, samples=300)}
    pck = same["PCK@0.1@gt_boxes"]
    assert pck.low < 0 < pck.high
    text = compare.table_of([seen["AP@gt_boxes"], pck])
    assert text.count("*") == 1


def test_intervals_narrow_with_the_number_of_people():
    widths = []
    for n in (20, 320):
        table = make_table(n)
        a, b = noisy(table, 12, 0), noisy(table, 12, 1)
        (pck,) = (
            d
            for d in compare.differences(table, a, b, samples=300)
            if d.name == "PCK@0.1@gt_boxes"
        )
        widths.append(pck.high - pck.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.5)
