"""HRNet: the published sizes, costs and names; its fusion against the definition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pose_jax import models
from pose_jax.models import cost, layers
from pose_jax.models.hrnet import FuseLayers, HRNet
from pose_jax.trees import flatten
from tests.models import networks
from tests.models.networks import slow_conv, slow_norm, slow_relu

PUBLISHED = {  # K = 17: parameters, multiply-adds at 256x192
    "hrnet_w32": (28_536_113, 7_645_003_776),
    "hrnet_w48": (63_595_745, 15_691_825_152),
}


@pytest.fixture(scope="module", params=PUBLISHED)
def published(request):
    model = models.build(request.param)
    images = jnp.zeros((1, 256, 192, 3))

    def init(key):
        return model.init(key, images, train=True)

    key = jax.random.key(0)
    macs = cost.multiply_adds(init, key)
    return request.param, macs, jax.eval_shape(init, key)


def test_size_and_cost_are_the_published_ones(published):
    name, cost, variables = published
    parameters, macs = PUBLISHED[name]
    assert networks.size(variables["params"]) == parameters
    assert cost == (macs, macs)  # no transposed convolution
    if name == "hrnet_w32":
        per_keypoint = networks.size(variables["params"]["head"]) // 17
        assert parameters - per_keypoint == 28_536_080  # MPII's 16
        assert macs / 4 == pytest.approx(1.91e9, rel=1e-3)  # at 128x96


def test_names_are_those_of_the_published_checkpoints(published):
    name, _, variables = published
    c = {"hrnet_w32": 32, "hrnet_w48": 48}[name]
    found = {
        ".".join(path[1:]): leaf.shape for path, leaf in flatten(variables).items()
    }
    # A checkpoint counts the batches of each norm, too.
    assert len(found) + sum(path.endswith(".scale") for path in found) == 1754
    expected = {
        "conv1.kernel": (3, 3, 3, 64),
        "bn2.mean": (64,),
        "layer1.0.downsample.0.kernel": (1, 1, 64, 256),
        "layer1.3.conv3.kernel": (1, 1, 64, 256),
        "transition1.0.0.kernel": (3, 3, 256, c),
        "transition1.1.0.0.kernel": (3, 3, 256, 2 * c),
        "transition2.2.0.0.kernel": (3, 3, 2 * c, 4 * c),
        "transition3.3.0.1.scale": (8 * c,),
        "stage2.0.fuse_layers.0.1.0.kernel": (1, 1, 2 * c, c),
        "stage3.3.branches.2.3.conv2.kernel": (3, 3, 4 * c, 4 * c),
        "stage3.3.fuse_layers.2.0.0.0.kernel": (3, 3, c, c),
        "stage3.3.fuse_layers.2.0.1.0.kernel": (3, 3, c, 4 * c),
        "stage4.1.fuse_layers.3.0.2.1.var": (8 * c,),
        "stage4.2.branches.3.3.bn2.bias": (8 * c,),
        "stage4.2.fuse_layers.0.3.0.kernel": (1, 1, 8 * c, c),
        "head.kernel": (1, 1, c, 17),
        "head.bias": (17,),
    }
    assert {path: found.get(path) for path in expected} == expected


def test_only_the_last_module_leaves_out_the_lower_branches(published):
    _, _, variables = published
    fused = {
        (stage, module): len(variables["params"][stage][module]["fuse_layers"])
        for stage in ("stage2", "stage3", "stage4")
        for module in variables["params"][stage]
    }
    outputs = dict.fromkeys(fused, 0)
    outputs |= {key: int(key[0][-1]) for key in fused} | {("stage4", "2"): 1}
    assert fused == outputs
    assert len(fused) == 1 + 4 + 3


def test_fusion_matches_the_definition():
    sizes = [(8, 12, 2), (4, 6, 3), (2, 3, 5)]  # h, w, channels: of each branch
    random = np.random.default_rng(0)
    maps = tuple(random.normal(size=(2, *s)).astype(np.float32) for s in sizes)
    fuse = FuseLayers(3, layers.Conv, partial(layers.Norm, "batch", False))
    variables = networks.fill(jax.eval_shape(fuse.init, jax.random.key(0), maps))

    def conv_norm(x, to, source, *step, stride=1):
        params, stats = variables["params"][to][source], variables["batch_stats"]
        stats = stats[to][source]
        for name in step:
            params, stats = params[name], stats[name]
        x = slow_conv(x, params["0"], stride)
        return slow_norm(x, params["1"], stats["1"])

    def enlarge(x, times):
        return np.kron(x, np.ones((1, times, times, 1)))

    a, b, c = maps
    down = partial(conv_norm, stride=2)
    expected = [
        a + enlarge(conv_norm(b, "0", "1"), 2) + enlarge(conv_norm(c, "0", "2"), 4),
        down(a, "1", "0", "0") + b + enlarge(conv_norm(c, "1", "2"), 2),
        down(slow_relu(down(a, "2", "0", "0")), "2", "0", "1")
        + down(b, "2", "1", "0")
        + c,
    ]
    fused = jax.jit(fuse.apply)(variables, maps)
    for found, wanted in zip(fused, expected, strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, slow_relu(wanted), atol=1e-5)


@pytest.mark.parametrize("modules", [(1, 0, 1), (1, 2)])
def test_stages_without_modules_are_refused(modules):
    with pytest.raises(ValueError, match="modules must be three"):
        networks.shapes(HRNet(2, width=4, modules=modules))
