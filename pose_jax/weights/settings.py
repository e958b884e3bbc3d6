"""How a published checkpoint was trained, as options of `convert.convert`.

Two sources beside the caller: the catalogue, by the file's name or SHA-256 (`of_file`), and
the text of mmpose's config, which its checkpoints contain (`of_config`). The text is parsed
as Python; single assignments of literals, and of calls of `dict` with literals, are
evaluated by `ast.literal_eval`. Nothing of it is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from pose_jax.weights.catalogue import RELEASES, SHARED, Release

NAMES = ("input_size", "sigma", "alignment", "decoder", "channels")
"""The options that a source may know."""

_MAX_TEXT = 1_000_000
_UDP = {"alignment": "aligned", "decoder": "dark"}
_DARK = {"alignment": "stride", "decoder": "dark_paper"}
_MSRA = {"alignment": "stride", "decoder": "shift"}


def of_file(
    name: str, sha256: str, network: str, releases: Mapping[str, Release] = RELEASES
) -> tuple[str, dict[str, Any]]:
    """Returns the release that a file is of, and its options.

    Args:
      name: file name.
      sha256: of the file, in hexadecimal.
      network: the network to convert to.
      releases: the known releases.

    Returns:
      The name of the release and its options; ("", {}) if there is none.
    """

    def matches(release: Release) -> bool:
        if network not in release.networks:
            return False
        return any(
            (file.sha256 and sha256.startswith(file.sha256))
            or (file.name not in SHARED and file.name == name.removesuffix(".tar"))
            for file in release.files
        )

    for known, release in releases.items():
        if matches(release):
            return known, {k: v for k, v in release.options.items() if k in NAMES}
    return "", {}


def of_config(text: str) -> dict[str, Any]:
    """Returns the options in the text of a config of mmpose 0.x or 1.x.

    Args:
      text: Python source, never executed.

    Returns:
      The options that the text states; empty for text of another kind.
    """
    values = _assignments(text)
    codec = _mapping(values.get("codec"))
    if not codec:
        codec = _mapping(_at(values, "model", "head", "decoder"))
    if codec:
        return _of_codec(codec, _at(values, "model", "data_preprocessor"))
    if "data_cfg" in values:
        return _of_data_cfg(values)
    return {}


def _of_codec(codec: Mapping[str, Any], preprocessor: Any) -> dict[str, Any]:
    """The options of mmpose 1.x."""
    kind = codec.get("type")
    if kind == "MSRAHeatmap":
        found: dict[str, Any] = dict(_DARK if codec.get("unbiased") else _MSRA)
    elif kind == "UDPHeatmap" and codec.get("heatmap_type", "gaussian") == "gaussian":
        found = dict(_UDP)
    else:
        return {}
    found |= _size_and_sigma(codec.get("input_size"), codec.get("sigma"))
    to_rgb = _mapping(preprocessor).get("bgr_to_rgb")
    if isinstance(to_rgb, bool):
        found["channels"] = "rgb" if to_rgb else "bgr"
    return found


def _of_data_cfg(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of mmpose 0.x."""
    targets: Mapping[str, Any] = {}
    pipeline = values.get("train_pipeline")
    for step in pipeline if isinstance(pipeline, list) else []:
        if _mapping(step).get("type") == "TopDownGenerateTarget":
            targets = step
    test = _mapping(_at(values, "model", "test_cfg"))
    if targets.get("target_type", "GaussianHeatmap") != "GaussianHeatmap":
        return {}  # UDP's combined targets, of three maps a keypoint.
    if test.get("use_udp") or targets.get("encoding") == "UDP":
        found: dict[str, Any] = dict(_UDP)
    else:
        unbiased = test.get("post_process") == "unbiased"
        found = dict(_DARK if unbiased else _MSRA)
    size = _mapping(values["data_cfg"]).get("image_size")
    return found | _size_and_sigma(size, targets.get("sigma"))


def _size_and_sigma(size: Any, sigma: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(size, list | tuple) and [type(n) for n in size] == [int, int]:
        found["input_size"] = tuple(size)
    if type(sigma) in (int, float) and 0 < sigma < float("inf"):
        found["sigma"] = float(sigma)
    return found


# ----------------------------------------------------------------------------- the text


def _assignments(text: str) -> dict[str, Any]:
    """Returns the values of `name = literal` at the top level of a Python text."""
    if len(text) > _MAX_TEXT:
        return {}
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return {}
    values = {}
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name):
                try:
                    values[target.id] = ast.literal_eval(_Literals().visit(node.value))
                except (ValueError, TypeError, MemoryError, RecursionError):
                    continue
    return values


class _Literals(ast.NodeTransformer):
    """Turns dict(a=1) into {"a": 1}; all other calls stay, and are no literals."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        named = [keyword.arg for keyword in node.keywords]
        is_dict = isinstance(node.func, ast.Name) and node.func.id == "dict"
        if not is_dict or node.args or None in named:
            return node
        keys: list[ast.expr | None] = [ast.Constant(name) for name in named]
        literal = ast.Dict(keys, [keyword.value for keyword in node.keywords])
        return ast.copy_location(literal, node)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _at(values: Any, *names: str) -> Any:
    for name in names:
        values = _mapping(values).get(name)
    return values
