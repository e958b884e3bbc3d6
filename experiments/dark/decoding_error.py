"""Sub-pixel error of the decoders of Gaussian heatmaps.

    python -m experiments.dark.decoding_error [--out experiments/dark] [--maps 8192]

Writes decoding_error.png, and decoding_error.json with all its numbers and more; prints the
main ones. No network is used: the heatmaps are targets of 64x48 pixels with a Gaussian at a
uniformly random position, with or without noise. Errors are Euclidean distances in heatmap
pixels; all decoders get the same heatmaps. "Interior" is at least 14 px from all edges, so
that the widest blur stays inside the heatmap. Unless stated otherwise, sigma is 2 and known
to the decoders.

Noise is given by its standard deviation, as a fraction of the peak. White noise is
independent in each pixel. Errors of networks are smoother: smooth noise is white noise
blurred with the sigma of the target and rescaled to the same standard deviation.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

from pose_jax.codecs import gaussian

SIZE = (48, 64)  # (width, height)
SIGMA = 2.0
INTERIOR = 14.0
CHUNK = 1024  # Heatmaps per batch, 13 MB.
SEED = 0
STATISTICS = ("mean", "median", "p95", "over_5px")

BINS = np.arange(0, 8, 0.5)  # Lower bounds of bins of the distance from the edge.
NOISES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
SIGMAS = (0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
FACTORS = (0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
KINDS = {
    "clean": {},
    "white_5": {"noise": 0.05},
    "smooth_5": {"noise": 0.05, "smooth": True},
}

# Lines of decoders that agree coincide: the lower one is thicker.
STYLES = {
    "argmax": {"color": "#4d4d4d", "lw": 2},
    "quarter shift, second": {"color": "#86c982", "lw": 2},
    "quarter shift, sign": {"color": "#1b7837", "lw": 2},
    "DARK, no blur": {"color": "#c05cb8", "lw": 2},
    "DARK, paper": {"color": "#f7a738", "lw": 5},
    "DARK, robust": {"color": "#0b3c8c", "lw": 1.8},
}
FLOOR = 1e-4  # Smaller errors are drawn as this.


def decoders(sigma: float) -> dict[str, Callable]:
    """Returns the decoders, configured for this sigma."""
    dark = gaussian.decode_dark
    functions = (
        gaussian.decode_argmax,
        functools.partial(gaussian.decode_shift, rule="second"),
        functools.partial(gaussian.decode_shift, rule="sign"),
        functools.partial(dark, kernel_size=1, variant="paper"),
        functools.partial(dark, sigma=sigma, variant="paper"),
        functools.partial(dark, sigma=sigma, variant="robust"),
    )
    return dict(zip(STYLES, functions, strict=True))


def interior_points(n: int) -> np.ndarray:
    high = np.array(SIZE) - 1 - INTERIOR
    return np.random.default_rng(SEED).uniform(INTERIOR, high, (n, 2))


def edge_points(n: int, low: float, high: float) -> np.ndarray:
    """Samples points whose distance from the nearest edge (outermost pixel centers) is in
    [low, high]."""
    rng = np.random.default_rng(SEED)
    distance, far = rng.uniform(low, high, n), rng.random(n) < 0.5
    across, down = (length - 1 - 2 * distance for length in SIZE)
    along = rng.uniform(
        0, across + down
    )  # Position along two sides of the inner frame.
    horizontal = along < across
    x = np.where(horizontal, along, np.where(far, across, 0))
    y = np.where(horizontal, np.where(far, down, 0), along - across)
    return np.stack([x, y], axis=-1) + distance[:, None]


def noise_maps(n: int, part: int, blur: float | None) -> np.ndarray:
    """Returns noise [n, h, w, 1] with standard deviation 1, equal in all conditions."""
    rng = np.random.default_rng((SEED, part))
    noise = rng.standard_normal((n, SIZE[1], SIZE[0], 1), dtype=np.float32)
    if blur is None:
        return noise
    noise = ndimage.gaussian_filter(noise, blur, axes=(1, 2), mode="wrap")
    return noise / noise.std()


def measure(
    points_xy: np.ndarray,
    *,
    sigma: float = SIGMA,
    told: float | None = None,
    noise: float = 0.0,
    smooth: bool = False,
    biased: bool = False,
) -> dict[str, dict[str, float]]:
    """Computes errors by decoder and statistic.

    Args:
      points_xy: [n, 2], the true points.
      sigma: sigma of the targets, heatmap pixels.
      told: sigma of the decoders' blur; None: that of the targets.
      noise: standard deviation, as a fraction of the peak.
      smooth: use noise as smooth as the targets.
      biased: round the center to the nearest pixel and cut off the Gaussian at three sigma.
    """
    errors = {name: [] for name in STYLES}
    parts = math.ceil(len(points_xy) / CHUNK)
    for part, places in enumerate(np.array_split(points_xy, parts)):
        places = jnp.asarray(places[:, None], jnp.float32)
        cutoff = 3 if biased else None
        maps = gaussian.encode(
            places, size=SIZE, sigma=sigma, quantize=biased, cutoff=cutoff
        )
        if noise:
            maps += noise * noise_maps(len(places), part, sigma if smooth else None)
        for name, decode in decoders(told or sigma).items():
            difference = np.asarray(decode(maps)[0]) - np.asarray(places)
            errors[name].append(np.linalg.norm(difference, axis=-1).ravel())
    return {name: _statistics(np.concatenate(parts)) for name, parts in errors.items()}


def _statistics(errors: np.ndarray) -> dict[str, float]:
    errors = errors.astype(np.float64)
    found = (
        np.mean(errors),
        np.median(errors),
        np.percentile(errors, 95),
        np.mean(errors > 5),
    )
    return {s: float(f"{v:.4g}") for s, v in zip(STATISTICS, found, strict=True)}


def measure_all(n: int) -> dict[str, dict]:
    """Returns {curve: {"x": values, "errors": {decoder: {statistic: values}}}}."""
    inside = interior_points(n)
    rings = [edge_points(n, low, low + 0.5) for low in BINS]
    curves = {}

    def add(curve: str, x, conditions: list[dict]) -> None:
        found = [measure(**{"points_xy": inside, **c}) for c in conditions]
        curves[curve] = {
            "x": list(x),
            "errors": {
                name: {s: [f[name][s] for f in found] for s in STATISTICS}
                for name in STYLES
            },
        }

    for kind, noise in KINDS.items():
        places = [{"points_xy": ring, **noise} for ring in rings]
        add(f"distance_{kind}", (BINS + 0.25).tolist(), places)
        add(f"sigma_{kind}", SIGMAS, [{"sigma": s, **noise} for s in SIGMAS])
        add(f"blur_{kind}", FACTORS, [{"told": f * SIGMA, **noise} for f in FACTORS])
    for kind, smooth in (("white", False), ("smooth", True)):
        add(f"noise_{kind}", NOISES, [{"noise": s, "smooth": smooth} for s in NOISES])
    add("encoding", ("unbiased", "biased"), [{"biased": b} for b in (False, True)])
    return curves


# Curve, title and observation of each panel, by rows of the figure.
PANELS = (
    (
        ("distance_clean", "Near the edge, no noise", "paper's DARK is biased inwards"),
        (
            "distance_white_5",
            "Near the edge, 5% white noise",
            "robust works up to the edge",
        ),
        ("encoding", "Encoding of the targets", "no decoder undoes the rounding"),
    ),
    (
        ("noise_white", "White noise", "DARK's blur averages it out"),
        ("noise_smooth", "Smooth noise", "DARK's blur doubles its effect"),
        ("sigma_clean", "Sigma of the target, no noise", "exact, except the smallest"),
    ),
    (
        ("blur_white_5", "Wrong blur, 5% white noise", "best: sigma of the target"),
        ("blur_smooth_5", "Wrong blur, 5% smooth noise", "best: no blur"),
        (
            "sigma_white_5",
            "Sigma of the target, 5% white noise",
            "DARK's blur grows with it",
        ),
    ),
)
X_LABELS = {
    "distance": "distance from the edge, heatmap px",
    "noise": "noise, % of the peak",
    "sigma": "sigma of the target, heatmap px",
    "blur": "sigma of the blur / sigma of the target",
}


def draw(curves: dict[str, dict], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(12, 11), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # No display, no global state of pyplot.
    figure.get_layout_engine().set(hspace=0.05, wspace=0.04)
    grid = figure.subplots(3, 3)
    for cells, row in zip(PANELS, grid, strict=True):
        for (name, title, shown), axes in zip(cells, row, strict=True):
            axes.set_title(f"{title}\n", fontsize=12, fontweight="bold", loc="left")
            axes.text(0, 1.03, shown, fontsize=11, transform=axes.transAxes)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=10)
            if name == "encoding":
                _draw_bars(axes, curves[name])
            else:
                _draw_lines(axes, curves[name], name)
        row[0].set_ylabel("error, heatmap px", fontsize=11)
    handles = [Line2D([], [], label=name, **style) for name, style in STYLES.items()]
    handles += [
        Line2D([], [], color="black", lw=2, label="mean"),
        Line2D([], [], color="black", lw=1.2, ls=":", label="median"),
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=len(handles),
        fontsize=11,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.3,
    )
    figure.align_ylabels(grid[:, 0])
    canvas.draw()
    # A palette reduces the file size by two thirds.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _draw_lines(axes, curve: dict, name: str) -> None:
    kind = name.split("_")[0]
    logarithmic = name.endswith("_clean")
    x = np.array(curve["x"])
    if kind == "noise":
        x = 100 * x
    for decoder, style in STYLES.items():
        for statistic, look in (("mean", {}), ("median", {"lw": 1.2, "ls": ":"})):
            errors = np.array(curve["errors"][decoder][statistic])
            if logarithmic:
                errors = np.maximum(errors, FLOOR)
            axes.plot(x, errors, **{**style, **look})
    axes.grid(axis="y", alpha=0.25)
    axes.set_xlabel(X_LABELS[kind], fontsize=11)
    if kind in ("sigma", "blur"):
        axes.set_xscale("log")
        axes.set_xticks(x, [f"{value:g}" for value in x])
        axes.minorticks_off()
    if logarithmic:
        axes.set_yscale("log")
        axes.set_ylim(0.8 * FLOOR, 1.5)
        ticks = (1e-3, 0.01, 0.1, 1)
        axes.set_yticks([FLOOR, *ticks], [f"≤ {FLOOR:.4f}", *map("{:g}".format, ticks)])
    else:
        axes.set_ylim(0, {"distance": 0.6, "noise": 1.2}.get(kind, 1))
    if name == "distance_clean":
        for decoder, place in (("paper", (3.9, 0.02)), ("robust", (0.2, 1.4e-4))):
            color = STYLES[f"DARK, {decoder}"]["color"]
            axes.text(*place, decoder, fontsize=11, color=color, fontweight="bold")
    if name == "noise_smooth":
        far = curve["errors"]["argmax"]["over_5px"][-1]
        note = (
            f"at {x[-1]:g}%, {far:.1%} of maps have the\npeak elsewhere: means increase"
        )
        axes.text(0.03, 0.8, note, fontsize=10, transform=axes.transAxes)


def _draw_bars(axes, curve: dict) -> None:
    group = len(STYLES) + 1
    for i, (decoder, style) in enumerate(STYLES.items()):
        for j, mean in enumerate(curve["errors"][decoder]["mean"]):
            place = group * j + i
            axes.barh(place, mean, color=style["color"], height=0.85)
            text = f" {mean:.2f}" if mean >= 0.005 else " 0.00"
            axes.text(mean, place, text, va="center", fontsize=10)
    middle = (len(STYLES) - 1) / 2
    labels = ("true\npoint:\nunbiased", "nearest\npixel:\nbiased")
    axes.set_yticks([middle, middle + group], labels, fontsize=11)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 0.5)
    axes.set_xlabel("mean error, heatmap px, no noise", fontsize=11)


def table(curves: dict[str, dict]) -> str:
    rows = [
        ("no noise", "noise_white", 0.0),
        ("5% white noise", "noise_white", 0.05),
        ("20% white noise", "noise_white", 0.2),
        ("5% smooth noise", "noise_smooth", 0.05),
        ("20% smooth noise", "noise_smooth", 0.2),
        ("0 to 0.5 px from the edge", "distance_clean", 0.25),
        ("1 to 1.5 px", "distance_clean", 1.25),
        ("2 to 2.5 px", "distance_clean", 2.25),
        ("4 to 4.5 px", "distance_clean", 4.25),
        ("0 to 0.5 px, 5% white noise", "distance_white_5", 0.25),
        ("2 to 2.5 px, 5% white noise", "distance_white_5", 2.25),
        ("0 to 0.5 px, 5% smooth noise", "distance_smooth_5", 0.25),
        ("sigma 1", "sigma_clean", 1.0),
        ("sigma 4, 5% white noise", "sigma_white_5", 4.0),
        ("blur half as wide", "blur_clean", 0.5),
        ("blur half as wide, 5% white noise", "blur_white_5", 0.5),
        ("blur twice as wide, 5% white noise", "blur_white_5", 2.0),
        ("blur half as wide, 5% smooth noise", "blur_smooth_5", 0.5),
        ("biased targets", "encoding", "biased"),
    ]
    lines = [
        f"| mean / median / 95% | {' | '.join(STYLES)} |",
        f"| --- |{' --- |' * len(STYLES)}",
    ]
    for label, curve, x in rows:
        at = curves[curve]["x"].index(x)
        cells = []
        for errors in curves[curve]["errors"].values():
            values = (errors[s][at] for s in ("mean", "median", "p95"))
            cells.append(" / ".join(_short(value) for value in values))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    if value < 1e-5:
        return "0"
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.2g}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("experiments/dark"))
    parser.add_argument("--maps", type=int, default=8192, help="heatmaps per number")
    arguments = parser.parse_args(argv)
    # Equal batches are compiled only once.
    parts = math.ceil(arguments.maps / CHUNK)
    n = math.ceil(arguments.maps / parts) * parts

    curves = measure_all(n)
    settings = {
        "size": SIZE,
        "maps": n,
        "sigma": SIGMA,
        "interior": INTERIOR,
        "unit": "heatmap pixels",
        "seed": SEED,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    with open(arguments.out / "decoding_error.json", "w") as file:
        json.dump({"settings": settings, "curves": curves}, file)
        file.write("\n")
    draw(curves, arguments.out / "decoding_error.png")
    print(f"error in heatmap pixels over {n} heatmaps, 0 if below 0.00001\n")
    print(table(curves))


if __name__ == "__main__":
    main()
