"""ViTPose (Xu et al., arXiv:2204.12484): a plain vision transformer and a small head.

Images [b, h, w, 3], normalized, height and width divisible by 16 -> heatmaps
[b, h/4, w/4, k]. Patches of 16x16 pixels are tokens; as the images are padded by 2 pixels,
the first patch starts at pixel -2. All tokens attend to each other in every layer
(Dosovitskiy et al., arXiv:2010.11929; GELU is exact). The head is "classic", two
transposed convolutions with norm and ReLU, then a 1x1 convolution; or "simple": ReLU,
bilinear interpolation by 4, and a 3x3 convolution.

Parameters below backbone are named as in transformers' VitPose, with a tree level for every
dot. The head's are called deconv_layers and head, as in `simple_baseline`.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from pose_jax.models.layers import Conv, DType, Norm, check_input
from pose_jax.models.simple_baseline import Deconvolutions

PATCH = 16
"""Pixels of the input from one token to the next."""
_EPSILON = 1e-6

_trunc = nn.initializers.truncated_normal(0.02)


class Dense(nn.Module):
    """A linear layer with "kernel" [in, out] and "bias" [out]."""

    features: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", _trunc, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x @ kernel.astype(self.dtype) + bias.astype(self.dtype)[None, None]


class SelfAttention(nn.Module):
    """Scaled dot products of all tokens [b, n, d]; softmax in float32."""

    heads: int
    dtype: DType

    @nn.compact
    def __call__(self, x):
        b, n, d = x.shape
        query, key, value = (
            Dense(d, self.dtype, name=name)(x).reshape(b, n, self.heads, -1)
            for name in ("query", "key", "value")
        )
        logits = jnp.einsum("bqhd,bkhd->bhqk", query, key).astype(jnp.float32)
        weights = jax.nn.softmax(logits * (d // self.heads) ** -0.5)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), value)
        return mixed.reshape(b, n, d)


class Output(nn.Module):
    """The projection after attention."""

    dtype: DType

    @nn.compact
    def __call__(self, x):
        return Dense(x.shape[-1], self.dtype, name="dense")(x)


class Attention(nn.Module):
    """Attention and its projection."""

    heads: int
    dtype: DType

    @nn.compact
    def __call__(self, x):
        x = SelfAttention(self.heads, self.dtype, name="attention")(x)
        return Output(self.dtype, name="output")(x)


class MLP(nn.Module):
    """Two linear layers with GELU between them, four times as wide inside."""

    dtype: DType

    @nn.compact
    def __call__(self, x):
        y = Dense(4 * x.shape[-1], self.dtype, name="fc1")(x)
        return Dense(x.shape[-1], self.dtype, name="fc2")(nn.gelu(y, approximate=False))


class Layer(nn.Module):
    """A transformer layer: attention and MLP, each after a norm and with a residual."""

    heads: int
    dtype: DType

    @nn.compact
    def __call__(self, x):
        norm = partial(nn.LayerNorm, epsilon=_EPSILON, dtype=self.dtype)
        y = norm(name="layernorm_before")(x)
        x = x + Attention(self.heads, self.dtype, name="attention")(y)
        return x + MLP(self.dtype, name="mlp")(norm(name="layernorm_after")(x))


class PatchEmbeddings(nn.Module):
    """Tokens [b, h/16, w/16, features] of an image."""

    features: int
    dtype: DType

    @nn.compact
    def __call__(self, images):
        return Conv(
            self.features, PATCH, PATCH, padding=2, use_bias=True, dtype=self.dtype,
            kernel_init=_trunc, name="projection",
        )(images)  # fmt: skip


class Embeddings(nn.Module):
    """Tokens with their positions.

    "position_embeddings" [1, 1 + rows * columns, features]: the first is added to all
    tokens (it belonged to the class token of the classifier), the others to their own. For
    inputs of another size, these are interpolated (cubic).
    """

    features: int
    grid: tuple[int, int]
    dtype: DType

    @nn.compact
    def __call__(self, images):
        x = PatchEmbeddings(self.features, self.dtype, name="patch_embeddings")(images)
        b, h, w, d = x.shape
        rows, columns = self.grid
        shape = (1, 1 + rows * columns, d)
        positions = self.param("position_embeddings", _trunc, shape)
        own = positions[:, 1:].reshape(1, rows, columns, d)
        if (h, w) != (rows, columns):
            own = jax.image.resize(own, (1, h, w, d), "cubic")
        own = own + positions[:, :1, None]
        return (x + own.astype(self.dtype)).reshape(b, h * w, d)


class Encoder(nn.Module):
    """The transformer layers, named layer/0, layer/1, ..."""

    layers: int
    heads: int
    dtype: DType
    remat: bool

    @nn.compact
    def __call__(self, x):
        return Layers(self.layers, self.heads, self.dtype, self.remat, name="layer")(x)


class Layers(nn.Module):
    """A numbered list of layers."""

    layers: int
    heads: int
    dtype: DType
    remat: bool

    @nn.compact
    def __call__(self, x):
        layer = nn.remat(Layer) if self.remat else Layer
        for i in range(self.layers):
            x = layer(self.heads, self.dtype, name=str(i))(x)
        return x


class Transformer(nn.Module):
    """The backbone: images -> maps of tokens [b, h/16, w/16, features]."""

    features: int
    layers: int
    heads: int
    grid: tuple[int, int]
    dtype: DType
    remat: bool

    @nn.compact
    def __call__(self, images):
        b, h, w, _ = images.shape
        x = Embeddings(self.features, self.grid, self.dtype, name="embeddings")(images)
        x = Encoder(self.layers, self.heads, self.dtype, self.remat, name="encoder")(x)
        x = nn.LayerNorm(epsilon=_EPSILON, dtype=self.dtype, name="layernorm")(x)
        return x.reshape(b, h // PATCH, w // PATCH, self.features)


class ViTPose(nn.Module):
    """Heatmaps from a vision transformer.

    Attributes:
      num_keypoints: channels of the output.
      features: channels of a token.
      layers: number of transformer layers.
      heads: attention heads of a layer; they divide `features`.
      simple: the head without transposed convolutions.
      norm: of the classic head: "batch", "frozen" or "group"; "none" for the simple one.
        The transformer has layer norms.
      dtype: of the computation; parameters and output are float32.
      remat: recompute the layers in the backward pass, to save memory.
      grid: (rows, columns) of the tokens that have a learned position.
      deconv_features: channels of each deconvolution of the classic head.
    """

    num_keypoints: int
    features: int = 768
    layers: int = 12
    heads: int = 12
    simple: bool = False
    norm: Literal["batch", "frozen", "group", "none"] = "batch"
    dtype: DType = jnp.float32
    remat: bool = False
    grid: tuple[int, int] = (16, 12)
    deconv_features: int = 256

    @nn.compact
    def __call__(self, images, train: bool = False):
        check_input(images, divisor=PATCH)
        if self.features % self.heads:
            raise ValueError(
                f"heads must divide features; got {self.heads} and {self.features}."
            )
        x = Transformer(
            self.features, self.layers, self.heads, self.grid, self.dtype, self.remat,
            name="backbone",
        )(images)  # fmt: skip
        if self.simple:
            b, h, w, d = x.shape
            x = jax.image.resize(nn.relu(x), (b, 4 * h, 4 * w, d), "linear")
        else:
            if self.norm == "none":
                raise ValueError('norm "none" is only for the simple head.')
            norm = partial(Norm, self.norm, train, dtype=self.dtype)
            x = Deconvolutions(
                self.deconv_features, self.dtype, norm, count=2, name="deconv_layers"
            )(x)
        heatmaps = Conv(
            self.num_keypoints,
            3 if self.simple else 1,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.001),
            name="head",
        )(x).astype(jnp.float32)
        return (heatmaps,) if train else heatmaps
