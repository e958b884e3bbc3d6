"""Cost of one picture through `pose_jax.load`, compared with a full batch.

    python -m experiments.benchmarks.one_picture --run RUN [--repeats 5] [--many 32]

Prints seconds of processor time for 1 picture and for `--many` (the batch of most runs),
the least of the repeats after compilation, their ratio, and the number of compilations.
"""

import argparse
import time

import numpy as np

import pose_jax


def seconds(people, images, repeats: int) -> float:
    people(images)
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        people(images)
        best = min(best, time.process_time() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", required=True, help="run directory of a pose method")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--many", type=int, default=32)
    arguments = parser.parse_args()
    people = pose_jax.load(arguments.run)
    pixels = np.random.default_rng(0).integers(0, 255, (480, 360, 3), np.uint8)
    one, many = (
        seconds(people, [pixels] * n, arguments.repeats) for n in (1, arguments.many)
    )
    print(f"1 picture {one:.3f} s, {arguments.many} pictures {many:.3f} s")
    print(f"1/{many / one:.1f}; {people.predictor.traces} compilations")


if __name__ == "__main__":
    main()
