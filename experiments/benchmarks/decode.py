"""Speed and error of the Gaussian decoders, compared with the published per-keypoint loop.

    python -m experiments.benchmarks.decode [--people N] [--repeats 10]

Prints milliseconds for 32 people (17 keypoints each) on maps of 64x48 and 128 on 96x72,
with peaks anywhere and as networks place them, and the ratio to the loop, which is NumPy
code for one keypoint at a time, with blur by OpenCV if it is installed, otherwise by SciPy
with the same kernel. All are timed in turns, and the best time of each counts; `jnp.max`
over the same maps stands beside them. Then prints the median / 95th percentile of the error
in heatmap pixels by the distance of the true point from an edge, or from both edges of a
corner.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from pose_jax.codecs import gaussian

try:
    import cv2
except ImportError:
    cv2 = None
    from scipy import ndimage

KERNEL_SIZE = 11
SIZES = {(48, 64): 2.0, (72, 96): 3.0}  # (width, height): sigma of the targets
DISTANCES = (0.5, 1, 1.5, 2, 3, 4, 6, 8)
DECODERS = {
    "argmax": gaussian.decode_argmax,
    "shift": gaussian.decode_shift,
    "dark, paper": lambda m: gaussian.decode_dark(m, variant="paper"),
    "dark, robust": gaussian.decode_dark,
}


def blur(one_map: np.ndarray) -> np.ndarray:
    if cv2 is not None:
        return cv2.GaussianBlur(
            one_map, (KERNEL_SIZE, KERNEL_SIZE), 0, borderType=cv2.BORDER_CONSTANT
        )
    kernel = np.exp(-((np.arange(KERNEL_SIZE) - KERNEL_SIZE // 2) ** 2) / 8)
    kernel /= kernel.sum()
    down = ndimage.correlate1d(one_map, kernel, axis=0, mode="constant")
    return ndimage.correlate1d(down, kernel, axis=1, mode="constant")


def published_loop(maps: np.ndarray) -> np.ndarray:
    """Decodes [b, k, h, w] -> [b, k, 2] with layout and steps of the published code."""
    b, k, h, w = maps.shape
    peaks = maps.reshape(b, k, -1).argmax(axis=2)
    points = np.stack([peaks % w, peaks // w], axis=-1).astype(np.float32)
    for i in range(b):
        for j in range(k):
            one_map = maps[i, j]
            smooth = blur(one_map)
            smooth *= one_map.max() / smooth.max()
            log = np.log(np.maximum(smooth, 1e-10))
            x, y = int(points[i, j, 0]), int(points[i, j, 1])
            if not (1 < x < w - 2 and 1 < y < h - 2):
                continue
            dx = 0.5 * (log[y, x + 1] - log[y, x - 1])
            dy = 0.5 * (log[y + 1, x] - log[y - 1, x])
            dxx = 0.25 * (log[y, x + 2] - 2 * log[y, x] + log[y, x - 2])
            dyy = 0.25 * (log[y + 2, x] - 2 * log[y, x] + log[y - 2, x])
            dxy = log[y + 1, x + 1] - log[y - 1, x + 1]
            dxy = 0.25 * (dxy - log[y + 1, x - 1] + log[y - 1, x - 1])
            if dxx * dyy - dxy**2 != 0:
                hessian = np.array([[dxx, dxy], [dxy, dyy]])
                points[i, j] -= np.linalg.inv(hessian) @ np.array([dx, dy])
    return points


def noisy_maps(rng, points, size, sigma, noise):
    maps = gaussian.encode(jnp.asarray(points, jnp.float32), size=size, sigma=sigma)
    return maps + noise * rng.standard_normal(maps.shape).astype(np.float32)


def seconds(function, *args) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def placed(rng, people: int, size, how: str) -> np.ndarray:
    """Returns points [people, 17, 2]: anywhere on the map, or as networks place them, a
    normal distribution around the middle that leaves 4% within 5 pixels of an edge."""
    extent = np.array(size) - 1
    if how == "uniform":
        return rng.uniform(0, 1, (people, 17, 2)) * extent
    points = (0.5 + 0.17 * rng.standard_normal((people, 17, 2))) * extent
    return np.clip(points, 0, extent)


def speed(people: int | None, repeats: int) -> None:
    print(f"milliseconds; the loop: {'OpenCV' if cv2 else 'SciPy'}")
    rng = np.random.default_rng(0)
    for (size, sigma), count in zip(SIZES.items(), (32, 128), strict=True):
        count = people or count
        for how in ("uniform", "network"):
            points = placed(rng, count, size, how)
            maps = noisy_maps(rng, points, size, sigma, 0.02)
            few = np.ascontiguousarray(np.moveaxis(maps[:4], -1, 1))
            decoders = {name: jax.jit(decode) for name, decode in DECODERS.items()}
            decoders["jnp.max"] = jax.jit(lambda m: jnp.max(m, axis=(1, 2)))
            best = dict.fromkeys(["loop", *decoders], np.inf)
            for decode in decoders.values():
                jax.block_until_ready(decode(maps))
            for _ in range(repeats):
                loop = seconds(published_loop, few) * count / len(few)
                best["loop"] = min(best["loop"], loop)
                for name, decode in decoders.items():
                    best[name] = min(best[name], seconds(decode, maps))
            print(f"{size[1]}x{size[0]}, {count} people, peaks {how}")
            for name, t in best.items():
                print(
                    f"  {name:12} {1e3 * t:8.2f} ms {best['loop'] / t:7.1f}x the loop"
                )
            robust = best["dark, robust"]
            print(
                f"  robust: {robust / best['dark, paper']:.2f} of paper, "
                f"{robust / best['jnp.max']:.1f} of jnp.max"
            )


def error(n: int = 400) -> None:
    rng = np.random.default_rng(0)
    decoders = {name: jax.jit(decode) for name, decode in DECODERS.items()}
    for size, sigma in SIZES.items():
        for noise in (0.0, 0.05):
            print(f"\nerror, {size[1]}x{size[0]}, sigma {sigma:g}, noise {noise:.0%}")
            print("distance       " + "".join(f"{name:>15}" for name in decoders))
            for corner in (False, True):
                for distance in DISTANCES:
                    d = np.maximum(distance + rng.uniform(-0.2, 0.2, (n, 1, 1)), 0.5)
                    inner = rng.uniform(12, np.array(size) - 13, (n, 1, 2))
                    points = np.where([corner, True], d, inner)
                    maps = noisy_maps(rng, points, size, sigma, noise)
                    row = f"{distance:<5} {'corner' if corner else 'edge':9}"
                    for decode in decoders.values():
                        off = np.linalg.norm(decode(maps)[0] - points, axis=-1)
                        median, p95 = np.percentile(off, [50, 95])
                        row += f"{median:8.3f} /{p95:5.2f}"
                    print(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, help="instead of 32 and 128")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--speed-only", action="store_true", help="no errors")
    arguments = parser.parse_args()
    speed(arguments.people, arguments.repeats)
    if not arguments.speed_only:
        error()


if __name__ == "__main__":
    main()
