"""COCO average precision against its definition, written as plain loops."""

import bisect
import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pose_jax import keypoints
from pose_jax.metrics import coco_box_ap, coco_keypoint_ap, oks

KEYPOINT_KEYS = "AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl".split()
BOX_KEYS = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
THRESHOLDS = np.linspace(0.5, 0.95, 10)
ALL, SMALL = (0, 1e10), (0, 32**2)
MEDIUM, LARGE = (32**2, 96**2), (96**2, 1e10)
SIGMAS_14 = tuple(np.linspace(0.03, 0.11, 14))


# The definition.


def loop_oks(person, detection, sigmas):
    x, y, v = (person["keypoints"][i::3] for i in range(3))
    px, py = (detection["keypoints"][i::3] for i in range(2))
    left, top, width, height = person["bbox"]
    total = count = 0
    for i, sigma in enumerate(sigmas):
        if person["num_keypoints"] > 0:
            if v[i] == 0:
                continue
            dx, dy = px[i] - x[i], py[i] - y[i]
        else:  # How far it is outside the doubled box.
            dx = max(0, left - width - px[i]) + max(0, px[i] - (left + 2 * width))
            dy = max(0, top - height - py[i]) + max(0, py[i] - (top + 2 * height))
        total += math.exp(
            -(dx * dx + dy * dy) / (2 * person["area"] * (2 * sigma) ** 2)
        )
        count += 1
    return total / count


def loop_iou(item, detection):
    (ax, ay, aw, ah), (bx, by, bw, bh) = item["bbox"], detection["bbox"]
    width = min(ax + aw, bx + bw) - max(ax, bx)
    height = min(ay + ah, by + bh) - max(ay, by)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (bw * bh if item["iscrowd"] else aw * ah + bw * bh - shared)


def loop_image(truth, found, similarity, threshold, area, ignored):
    """Matches of one image: [(score, is match, is ignored)] and how many to find."""
    low, high = area
    truth = [(t, ignored(t) or not low <= t["area"] <= high) for t in truth]
    truth = [t for t in truth if not t[1]] + [t for t in truth if t[1]]
    taken = set()
    outcome = []
    for detection in found:
        best, at = min(threshold, 1 - 1e-10), None
        for i, (item, ignore) in enumerate(truth):
            if i in taken and not item["iscrowd"]:
                continue
            if at is not None and ignore and not truth[at][1]:
                break  # No match is given up for one that is ignored.
            value = similarity(item, detection)
            if value >= best:
                best, at = value, i
        if at is None:
            skip = not low <= detection["area"] <= high
        else:
            skip = truth[at][1]
            taken.add(at)
        outcome.append((detection["score"], at is not None, skip))
    return outcome, sum(not ignore for _, ignore in truth)


def loop_curve(truth, results, similarity, threshold, area, limit, ignored):
    """AP and recall at one threshold, of one area range; None: nothing to find."""
    outcome, to_find = [], 0
    for image in sorted(image["id"] for image in truth["images"]):
        here = [t for t in truth["annotations"] if t["image_id"] == image]
        found = [r for r in results if r["image_id"] == image]
        found = sorted(found, key=lambda r: -r["score"])[:limit]
        matches, n = loop_image(here, found, similarity, threshold, area, ignored)
        outcome += matches
        to_find += n
    if to_find == 0:
        return None
    outcome = sorted(outcome, key=lambda o: -o[0])
    right = wrong = 0
    recall, precision = [], []
    for _, match, skip in outcome:
        right += match and not skip
        wrong += not match and not skip
        recall.append(right / to_find)
        precision.append(right / (right + wrong) if right + wrong else 0.0)
    for i in reversed(range(len(precision) - 1)):
        precision[i] = max(precision[i], precision[i + 1])
    points = []
    for r in np.linspace(0, 1, 101):
        i = bisect.bisect_left(recall, r)
        points.append(precision[i] if i < len(precision) else 0.0)
    return sum(points) / 101, recall[-1] if recall else 0.0


def loop_mean(which, *args, thresholds=THRESHOLDS, area=ALL, limit, ignored):
    curves = [loop_curve(*args, t, area, limit, ignored) for t in thresholds]
    values = [curve[which] for curve in curves if curve is not None]
    return sum(values) / len(values) if values else -1.0


def loop_keypoint_ap(truth, results, sigmas, limit=20):
    def extent(values):
        return max(values) - min(values)

    results = [
        {**r, "area": extent(r["keypoints"][0::3]) * extent(r["keypoints"][1::3])}
        for r in results
    ]
    args = (truth, results, lambda person, found: loop_oks(person, found, sigmas))
    rest = {
        "limit": limit,
        "ignored": lambda t: t["iscrowd"] or t["num_keypoints"] == 0,
    }
    return {
        f"{name}{key}": loop_mean(which, *args, **options, **rest)
        for which, name in enumerate(("AP", "AR"))
        for key, options in {
            "": {},
            "50": {"thresholds": THRESHOLDS[:1]},
            "75": {"thresholds": THRESHOLDS[5:6]},
            "m": {"area": MEDIUM},
            "l": {"area": LARGE},
        }.items()
    }


def loop_box_ap(truth, results):
    results = [{**r, "area": r["bbox"][2] * r["bbox"][3]} for r in results]
    args = (truth, results, loop_iou)

    def mean(which, limit=100, **options):
        ignored = lambda t: t["iscrowd"]
        return loop_mean(which, *args, limit=limit, ignored=ignored, **options)

    values = [
        mean(0),
        mean(0, thresholds=THRESHOLDS[:1]),
        mean(0, thresholds=THRESHOLDS[5:6]),
        *(mean(0, area=area) for area in (SMALL, MEDIUM, LARGE)),
        *(mean(1, limit=limit) for limit in (1, 10, 100)),
        *(mean(1, area=area) for area in (SMALL, MEDIUM, LARGE)),
    ]
    return dict(zip(BOX_KEYS, values, strict=True))


# Annotations with everything the definition has a rule for.

SIDES = ((20, 60), (32, 32), (31.5, 32), (96, 96), (96, 97), (64, 80), (150, 200))
AREAS = (0.5 * 32**2, 32**2, 32**2 - 1e-6, 96**2, 96**2 + 1e-6, 4000.0, 3e4)


def make_person(rng, image, k):
    left, top = rng.uniform(0, 200, 2)
    width, height = SIDES[rng.integers(len(SIDES))]
    points = rng.uniform((left, top), (left + width, top + height), (k, 2))
    points[0], points[1] = (left, top), (left + width, top + height)
    visibility = rng.choice([0, 1, 2], k, p=[0.3, 0.3, 0.4])
    visibility *= rng.random() > 0.2
    points[visibility == 0] = 0
    return {
        "image_id": image,
        "category_id": 1,
        "keypoints": np.column_stack([points, visibility]).ravel().tolist(),
        "num_keypoints": int((visibility > 0).sum()),
        "bbox": [left, top, width, height],
        "area": float(rng.choice([width * height, AREAS[rng.integers(len(AREAS))]])),
        "iscrowd": int(rng.random() < 0.2),
    }


def make_result(rng, image, people, k):
    """Near one of the people, or nowhere; scores are few, so that they tie."""
    if people and rng.random() < 0.8:
        person = people[rng.integers(len(people))]
        points = np.reshape(person["keypoints"], (k, 3))[:, :2]
        box = np.array(person["bbox"])
    else:
        box = np.array([*rng.uniform(0, 200, 2), *SIDES[rng.integers(len(SIDES))]])
        points = rng.uniform(box[:2], box[:2] + box[2:], (k, 2))
        points[0], points[1] = box[:2], box[:2] + box[2:]
    noise = rng.choice([0, 1, 3, 10, 40])
    points = points + rng.normal(size=points.shape) * noise
    box = box + np.abs(rng.normal(size=4)) * noise / 3
    return {
        "image_id": image,
        "category_id": 1,
        "keypoints": np.column_stack([points, np.ones(k)]).ravel().tolist(),
        "bbox": box.tolist(),
        "score": float(rng.choice([0.1, 0.25, 0.5, 0.75, rng.random()])),
    }


@st.composite
def data(draw, k=17):
    """Images of 0 to 5 people and 0 to 30 detections, ids in no order."""
    counts = st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 3, 8, 30]))
    images = draw(st.lists(counts, min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ids = [int(i) for i in rng.permutation(100)[: len(images)]]
    annotations, results = [], []
    for image, (people, detections) in zip(ids, images, strict=True):
        people = [make_person(rng, image, k) for _ in range(people)]
        for i in range(1, len(people)):
            if rng.random() < 0.3:  # One label twice: similarities tie, at 1 too.
                same = {f: people[i - 1][f] for f in ("keypoints", "num_keypoints")}
                people[i].update(same, bbox=people[i - 1]["bbox"])
        annotations += people
        results += [make_result(rng, image, people, k) for _ in range(detections)]
    order = rng.permutation(len(annotations))
    annotations = [{**annotations[i], "id": n} for n, i in enumerate(order, 7)]
    truth = {
        "images": [{"id": i, "width": 640, "height": 480} for i in ids],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    return truth, [results[i] for i in rng.permutation(len(results))]


def assert_same(got, want):
    assert list(got) == list(want)
    for key, value in want.items():
        assert type(got[key]) is float
        assert abs(got[key] - value) < 1e-12, (key, got[key], value)


@settings(max_examples=50, deadline=None)
@given(data())
def test_keypoint_ap_is_its_definition(case):
    truth, results = case
    want = loop_keypoint_ap(truth, results, keypoints.COCO.sigmas)
    assert_same(coco_keypoint_ap(truth, results), want)


@settings(max_examples=25, deadline=None)
@given(data(k=14), st.sampled_from([1, 5, 20, 25]))
def test_keypoint_ap_with_other_sigmas_and_limits(case, limit):
    truth, results = case
    got = coco_keypoint_ap(truth, results, sigmas=SIGMAS_14, max_detections=limit)
    assert_same(got, loop_keypoint_ap(truth, results, SIGMAS_14, limit))


@settings(max_examples=40, deadline=None)
@given(data(k=2))
def test_box_ap_is_its_definition(case):
    assert_same(coco_box_ap(*case), loop_box_ap(*case))


@settings(max_examples=25, deadline=None)
@given(data())
def test_the_two_similarities_are_one(case):
    truth, results = case
    pairs = [(t, r) for t in truth["annotations"] for r in results]
    pairs = [(t, r) for t, r in pairs if t["num_keypoints"] > 0][:20]
    pairs += [pairs[0]] * (20 - len(pairs)) if pairs else []
    if not pairs:
        return
    true = np.reshape([t["keypoints"] for t, _ in pairs], (20, 17, 3))
    pred = np.reshape([r["keypoints"] for _, r in pairs], (20, 17, 3))
    area = np.array([t["area"] for t, _ in pairs])
    sigmas = keypoints.COCO.sigmas
    got = oks(pred[..., :2], true[..., :2], true[..., 2].astype(int), area, sigmas)
    want = [loop_oks(t, r, sigmas) for t, r in pairs]
    np.testing.assert_allclose(got, want, atol=1e-4)


# Fixed cases.


def one_case(k=17, seed=0):
    """Two people found exactly, one of each size; no crowd."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image, area in ((5, 50.0**2), (3, 120.0**2)):
        points = np.column_stack([rng.uniform(0, 100, (k, 2)), np.full(k, 2)])
        person = {
            "id": image,
            "image_id": image,
            "category_id": 1,
            "keypoints": points.ravel().tolist(),
            "num_keypoints": k,
            "bbox": [0.0, 0.0, 100.0, 100.0],
            "area": area,
            "iscrowd": 0,
        }
        annotations.append(person)
        fields = ("image_id", "category_id", "keypoints", "bbox")
        results.append({**{f: person[f] for f in fields}, "score": 0.5})
    truth = {
        "images": [{"id": 5}, {"id": 3}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": annotations,
    }
    return truth, results


def test_perfect_results_score_one_in_this_order():
    truth, results = one_case()
    assert_same(coco_keypoint_ap(truth, results), dict.fromkeys(KEYPOINT_KEYS, 1.0))
    want = {**dict.fromkeys(BOX_KEYS, 1.0), "APs": -1.0, "ARs": -1.0}
    assert_same(coco_box_ap(truth, results), want)


def test_nothing_found_is_zero_and_nothing_to_find_is_minus_one():
    truth, results = one_case()
    assert coco_keypoint_ap(truth, []) == dict.fromkeys(KEYPOINT_KEYS, 0.0)
    assert coco_box_ap(truth, [])["AP"] == 0.0
    empty = {**truth, "annotations": []}
    for found in (results, []):
        assert coco_keypoint_ap(empty, found) == dict.fromkeys(KEYPOINT_KEYS, -1.0)
        assert coco_box_ap(empty, found) == dict.fromkeys(BOX_KEYS, -1.0)


def test_files_and_content_are_the_same(tmp_path, capsys):
    truth, results = one_case()
    before = copy.deepcopy((truth, results))
    paths = tmp_path / "truth.json", tmp_path / "results.json"
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    for metric in (coco_keypoint_ap, coco_box_ap):
        want = metric(truth, results)
        assert metric(*paths) == want
        assert metric(*map(str, paths)) == want
        assert metric(paths[0], tuple(results)) == want
    assert (truth, results) == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("metric", [coco_keypoint_ap, coco_box_ap])
@pytest.mark.parametrize("ids", [(0, 1), (0, 0), (None, None)])
def test_annotation_ids_do_not_matter(metric, ids):
    truth, results = one_case()
    want = metric(truth, results)
    for person, i in zip(truth["annotations"], ids, strict=True):
        person["id"] = i
        if i is None:
            del person["id"]
    assert metric(truth, results) == want


def test_missing_crowd_flags_and_counts_are_filled_in():
    truth, results = one_case()
    results[0]["score"] = 0.9
    truth["annotations"][1]["keypoints"][2::3] = [0] * 17  # No person is labelled.
    truth["annotations"][1]["num_keypoints"] = 0
    want = coco_keypoint_ap(truth, results)
    assert want["AP"] == pytest.approx(1.0) and want["APl"] == -1.0
    for person in truth["annotations"]:
        del person["iscrowd"], person["num_keypoints"]
    assert coco_keypoint_ap(truth, results) == want


def test_a_box_in_the_results_changes_no_keypoint_ap():
    truth, results = one_case()
    stray = copy.deepcopy(results[0])
    # Tiny in its keypoints, large in its box: no medium person, so not a medium error.
    stray["keypoints"] = [300.0, 300.0, 1.0] * 17
    stray.update(bbox=[0, 0, 50, 50], score=0.99)
    got = coco_keypoint_ap(truth, [*results, stray])
    assert got["APm"] == pytest.approx(1.0) and got["AP"] < 0.9
    del stray["bbox"]
    assert coco_keypoint_ap(truth, [*results, stray]) == got


def test_ap_without_sigmas_is_refused_not_guessed():
    truth, results = one_case(k=14)
    with pytest.raises(ValueError, match=r"14 keypoints needs sigmas.*which need none"):
        coco_keypoint_ap(truth, results)
    ap = coco_keypoint_ap(truth, results, sigmas=SIGMAS_14)
    assert_same(ap, dict.fromkeys(KEYPOINT_KEYS, 1.0))
    # By the names alone, where nothing else tells.
    truth["categories"][0]["keypoints"] = list(keypoints.LSP.names)
    with pytest.raises(ValueError, match="sigmas"):
        coco_keypoint_ap({**truth, "annotations": []}, [])
    with pytest.raises(ValueError, match="51 numbers"):
        coco_keypoint_ap(truth, results, sigmas=keypoints.COCO.sigmas)


def change(place, index, **fields):
    def apply(truth, results):
        target = truth["annotations"] if place == "truth" else results
        for name, value in fields.items():
            if value is None:
                del target[index][name]
            else:
                target[index][name] = value

    return apply


NAN = float("nan")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("results", 1, image_id=77), "result 1.*77"),
        (change("results", 1, image_id="3"), "result 1.*'3'"),
        (change("results", 1, keypoints=[1.0] * 48), "result 1.*51 numbers.*48"),
        (change("results", 1, keypoints=[NAN] * 51), "result 1.*not finite"),
        (change("results", 1, score=NAN), "result 1.*score.*finite"),
        (change("results", 1, score=None), 'result 1.*"score"'),
        (change("results", 1, keypoints=None), 'result 1.*"keypoints"'),
        (change("results", 1, category_id=None), 'result 1.*"category_id"'),
        (change("truth", 0, keypoints=[1.0] * 48), "annotation 5.*51 numbers"),
        (change("truth", 0, keypoints=None), 'annotation 5.*"keypoints"'),
        (change("truth", 0, area=None), 'annotation 5.*"area"'),
        (change("truth", 0, area=NAN), "annotation 5.*area"),
        (change("truth", 0, bbox=[1.0, 2.0]), "annotation 5.*bbox"),
        (lambda truth, results: truth.pop("images"), '"images"'),
        (lambda truth, results: truth.pop("categories"), '"categories"'),
        (lambda truth, results: truth.pop("annotations"), '"annotations"'),
    ],
)
def test_bad_input_is_named(spoil, message):
    truth, results = one_case()
    spoil(truth, results)
    with pytest.raises(ValueError, match=message):
        coco_keypoint_ap(truth, results, sigmas=keypoints.COCO.sigmas)


def test_bad_boxes_files_and_options_are_named(tmp_path):
    truth, results = one_case()
    with pytest.raises(ValueError, match=r"result 0.*bbox.*4 numbers"):
        coco_box_ap(truth, [{**results[0], "bbox": [1.0, 2.0, 3.0]}])
    with pytest.raises(ValueError, match=r"result 0.*77"):
        coco_box_ap(truth, [{**results[0], "image_id": 77}])
    with pytest.raises(ValueError, match="max_detections"):
        coco_keypoint_ap(truth, results, max_detections=0)
    path = tmp_path / "wrapped.json"
    path.write_text(json.dumps({"annotations": results}))
    with pytest.raises(ValueError, match="list"):
        coco_keypoint_ap(truth, path)
    with pytest.raises(ValueError, match="sigmas must be"):
        coco_keypoint_ap(truth, results, sigmas=[0.0] * 17)
    missing, broken = tmp_path / "missing.json", tmp_path / "broken.json"
    broken.write_text("{")
    for path in (missing, broken):
        with pytest.raises(ValueError, match=path.name):
            coco_keypoint_ap(truth, path)
        with pytest.raises(ValueError, match=path.name):
            coco_box_ap(path, results)


def test_box_ap_of_the_published_detections_is_the_known_value(real_data):
    """The detector file of Simple Baselines and HRNet, on 390 images of val2017."""
    folder = real_data / "coco"
    found = coco_box_ap(
        folder / "annotations" / "person_keypoints_val2017_annotations_only.json",
        folder
        / "person_detection_results"
        / "COCO_val2017_detections_AP_H_56_person.json",
    )
    known = {"AP": 0.588, "AP50": 0.855, "AP75": 0.664, "APs": 0.404, "APm": 0.646}
    for name, value in {**known, "APl": 0.742, "AR100": 0.704, "ARs": 0.524}.items():
        assert found[name] == pytest.approx(value, abs=6e-4), name
