"""The kernels behind leaves and joins, on one core: best of several runs.

    python -m tests.bench.kernels

A tile of int8 codes beside the float32 product of the same shape, a whole leaf with its selection,
and copies of rows that lie all over a million.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from simdist.compiled.blocks import Blocks
from simdist.compiled.codes import FACTS, Room, code_nbytes, encode, leaf_top
from simdist.compiled.simd import VNNI, aligned

SHAPES = ((320, 384), (512, 384), (256, 128), (400, 1024))
REPEATS = 40
BLOCK_ROWS, BLOCKS, TAKEN = 65_536, 16, 143_000


def main() -> None:
    """Run and print."""
    print(
        f"VNNI: {VNNI}\n\n| leaf | int8 ms | float32 product alone ms | ns a pair |"
        "\n|---|---|---|---|"
    )
    with threadpool_limits(1):
        for rows, dim in SHAPES:
            integer, product = _leaf(rows, dim)
            pair = integer / rows**2 * 1e9
            print(f"| {rows} x {dim} | {1e3 * integer:.3f} | {1e3 * product:.3f} | {pair:.2f} |")
    print("\n| bytes a row | ns to copy it |\n|---|---|")
    for nbytes in (16, 128, 192, 384):
        print(f"| {nbytes} | {1e9 * _copied(nbytes):.0f} |")


def _leaf(rows: int, dim: int) -> tuple[float, float]:
    """Seconds of a leaf by codes, and of its float32 product."""
    x = np.random.default_rng(0).standard_normal((rows, dim), dtype=np.float32)
    codes = aligned(rows * code_nbytes(dim), np.int8).reshape(rows, code_nbytes(dim))
    facts = np.empty((rows, FACTS), np.float32)
    encode(x, np.zeros(dim), codes, facts)
    room, every = Room(rows, codes.shape[1]), np.arange(rows, dtype=np.int32)
    out = np.empty((rows, 10), np.int64)
    return (
        _best(lambda: leaf_top(codes, facts, every, every, room, out)),
        _best(lambda: x @ x.T),
    )


def _copied(nbytes: int) -> float:
    """Seconds for one row of a million, drawn all over it."""
    rng = np.random.default_rng(0)
    blocks = Blocks.of(
        [rng.integers(0, 9, (BLOCK_ROWS, nbytes), np.int8) for _ in range(BLOCKS)], BLOCK_ROWS
    )
    positions = rng.choice(BLOCK_ROWS * BLOCKS, TAKEN, replace=False).astype(np.int32)
    return _best(lambda: blocks.take(positions)) / TAKEN


def _best(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.thread_time()
        run()
        seconds.append(time.thread_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
