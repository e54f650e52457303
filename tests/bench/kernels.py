"""CPU seconds of kernel matrices and of their way back, against the product and exp inside them.

    python -m tests.bench.kernels [--rows 4096] [--columns 1024] [--dims 8,32,128]

Prints a table: milliseconds of CPU time, the best of some runs, one BLAS thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from simdist.measures import kernels

KERNELS = [
    "RBF(3.0, ard=True)",
    "Matern12(3.0)",
    "Matern32(3.0)",
    "Matern52(3.0)",
    "RationalQuadratic(3.0)",
    "Laplacian(9.0)",
    "Periodic(period=7.0)",
    "Polynomial(degree=3)",
    "ArcCosine()",
    "2.0 * RBF(3.0) + Linear(0.1)",
]


def milliseconds(run: Callable[[], object], times: int = 5) -> float:
    """The least CPU time of some runs."""
    run()
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return 1000.0 * min(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--dims", default="8,32,128")
    options = parser.parse_args()
    n, m = options.rows, options.columns
    rng = np.random.default_rng(0)
    print(f"[{n}, d] x [{m}, d], CPU ms")
    print("| kernel | d | matrix | with what the way back needs | theta | theta and rows |")
    print("|---|---|---|---|---|---|")
    for d in map(int, options.dims.split(",")):
        X, Y, C = (rng.standard_normal(shape) for shape in ((n, d), (m, d), (n, m)))
        floor = milliseconds(lambda X=X, Y=Y: X @ Y.T) + milliseconds(lambda C=C: np.exp(C))
        print(f"| X @ Y.T, exp | {d} | {floor:.1f} | | | |")
        for text in KERNELS:
            kernel = kernels.resolve(text).for_dim(d)
            _, back = kernel.matrix_and_vjp(X, Y)
            taken = (
                milliseconds(lambda k=kernel, X=X, Y=Y: k.matrix(X, Y)),
                milliseconds(lambda k=kernel, X=X, Y=Y: k.matrix_and_vjp(X, Y)),
                milliseconds(lambda back=back, C=C: back(C, inputs=False)),
                milliseconds(lambda back=back, C=C: back(C)),
            )
            print(f"| {text} | {d} | " + " | ".join(f"{each:.1f}" for each in taken) + " |")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
