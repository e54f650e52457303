"""Rows made by formula: the same for the same seed, whatever piece of them is asked for.

    manifold(1_000_000, 128, 16)[:5000] == manifold(5000, 128, 16)
    manifold(1000, 128, 16, start=4000)  is rows 4000..4999 of the same endless sequence

Sequences come in blocks of `BLOCK` rows, each with its own generator keyed by (seed, block), so a
million rows can be written file by file without ever being held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simdist.errors import ConfigError
from simdist.types import Float32, Ids

__all__ = [
    "BLOCK",
    "Labelled",
    "clusters",
    "constant_columns",
    "duplicates",
    "hub_gaussian",
    "manifold",
    "two_far_clusters",
]

BLOCK = 4096  # rows made together; part of the definition: another size gives other rows
SHAPE = 0  # keys of generators that are not a block's
ROWS = 1


class Labelled(NamedTuple):
    """Rows [n, d] and the number of the cluster each was drawn from [n]."""

    rows: Float32
    labels: Ids


def manifold(
    n: int, d: int, intrinsic_dim: int, *, seed: int = 0, noise: float = 0.01, start: int = 0
) -> Float32:
    """Rows `start` to `start + n` of a curved manifold of chosen dimension: [n, d] float32.

        z ~ N(0, I_r),   x = sin(z A + b) B + noise * N(0, I_d)

    with r = intrinsic_dim, A [r, d] ~ N(0, 1 / r), b uniform on the circle and B [d, d] a random
    rotation times sqrt(2), so that a coordinate varies by about 1. The map is smooth and, for d
    well above 2 r, one to one: neighbourhoods have dimension r, while the rows span all d.
    Nearest-neighbour estimators find r to a few percent without noise.
    noise: standard deviation per coordinate. At 0.01 it stays below the distance of nearest
    neighbours for r >= 8 up to 1e7 rows; for small r it is what they see, unless it is 0.

    Raises ConfigError unless 1 <= intrinsic_dim <= d.
    """
    if not 1 <= intrinsic_dim <= d:
        raise ConfigError(
            f"manifold needs 1 <= intrinsic_dim <= d, got intrinsic_dim={intrinsic_dim}, d={d}"
        )
    shape = np.random.default_rng([seed, SHAPE])
    A = (shape.standard_normal((intrinsic_dim, d)) / np.sqrt(intrinsic_dim)).astype(np.float32)
    b = shape.uniform(0, 2 * np.pi, d).astype(np.float32)
    rotation, _ = np.linalg.qr(shape.standard_normal((d, d)))
    B = (rotation * np.sqrt(2)).astype(np.float32)  # sin of a spread phase has variance 1/2

    def block(rng: np.random.Generator) -> Float32:
        z = rng.standard_normal((BLOCK, intrinsic_dim), dtype=np.float32)
        phase = z @ A
        phase += b
        rows: Float32 = np.sin(phase, out=phase) @ B
        if noise:
            rows += np.float32(noise) * rng.standard_normal((BLOCK, d), dtype=np.float32)
        return rows

    return _blocks(block, n, d, seed, start)


def clusters(
    n: int, d: int, centers: int, *, seed: int = 0, spread: float = 0.3, start: int = 0
) -> Labelled:
    """Rows `start` to `start + n` drawn from Gaussian clusters of unequal size.

    Centres are N(0, I_d); a cluster's share falls as 1 / rank, as in most real data; rows scatter
    around their centre with standard deviation `spread` per coordinate. ConfigError unless
    centers >= 1.
    """
    if centers < 1:
        raise ConfigError(f"clusters needs centers >= 1, got {centers}")
    shape = np.random.default_rng([seed, SHAPE])
    middle = shape.standard_normal((centers, d), dtype=np.float32)
    share = 1 / np.arange(1, centers + 1)
    limits = np.cumsum(share / share.sum())

    def labels_of(rng: np.random.Generator) -> Ids:
        drawn = np.searchsorted(limits, rng.random(BLOCK), side="right")
        return np.minimum(drawn, centers - 1).astype(np.int64)

    def block(rng: np.random.Generator) -> Float32:
        labels = labels_of(rng)
        scatter = rng.standard_normal((BLOCK, d), dtype=np.float32)
        return middle[labels] + np.float32(spread) * scatter

    rows = _blocks(block, n, d, seed, start)
    first = start // BLOCK
    numbers = range(first, -(-(start + n) // BLOCK))
    labels = [labels_of(np.random.default_rng([seed, ROWS, number])) for number in numbers]
    joined = np.concatenate(labels) if labels else np.empty(0, np.int64)
    return Labelled(rows, joined[start - first * BLOCK :][:n])


def duplicates(n: int, d: int, *, share: float, seed: int = 0) -> Float32:
    """Gaussian rows of which `share` (0 to 1) are exact copies of one of the others: [n, d].

    Copies go to a few popular rows and to many rare ones (a row's copies fall as 1 / rank), in
    shuffled order: cells of identical vectors, which no partition can split.
    """
    rng = np.random.default_rng([seed, ROWS])
    distinct = max(1, n - round(n * share))
    rows = rng.standard_normal((distinct, d), dtype=np.float32)
    rank = 1 / np.arange(1, distinct + 1)
    copies = rng.choice(distinct, size=n - distinct, p=rank / rank.sum())
    order = np.concatenate([np.arange(distinct), copies])[:n]
    return np.ascontiguousarray(rows[rng.permutation(order)])


def two_far_clusters(n: int, d: int, *, seed: int = 0, gap: float = 1000.0) -> Labelled:
    """Two unit Gaussians, nine tenths and one tenth of the rows, `gap` apart on the first axis.

    The gap takes the bits that distances within a cluster need: float32 keeps 24.
    """
    rng = np.random.default_rng([seed, ROWS])
    labels = (rng.random(n) < 0.1).astype(np.int64)
    rows = rng.standard_normal((n, d), dtype=np.float32)
    rows[:, 0] += np.float32(gap) * labels.astype(np.float32)
    return Labelled(rows, labels)


def constant_columns(n: int, d: int, *, varying: int, seed: int = 0) -> Float32:
    """Rows that differ in their first `varying` columns only; the others hold one value each.

    With varying=0 all rows are the same.
    """
    rng = np.random.default_rng([seed, ROWS])
    rows = np.tile(rng.standard_normal(d, dtype=np.float32), (n, 1))
    rows[:, :varying] = rng.standard_normal((n, varying), dtype=np.float32)
    return rows


def hub_gaussian(n: int, d: int, *, seed: int = 0, sigma: float = 0.5) -> Float32:
    """Gaussian rows with log-normal lengths: [n, d].

    In high dimension the shortest rows lie near the middle and are neighbours of very many others
    (hubness: Radovanovic et al., 2010), while the longest win nearly every inner product: reverse
    lists of very unequal length. sigma: of the logarithm of a row's length.
    """
    rng = np.random.default_rng([seed, ROWS])
    rows = rng.standard_normal((n, d), dtype=np.float32)
    length = np.exp(np.float32(sigma) * rng.standard_normal((n, 1), dtype=np.float32))
    rows *= length
    return rows


def _blocks(
    block: Callable[[np.random.Generator], Float32], n: int, d: int, seed: int, start: int
) -> Float32:
    """Rows of the blocks that [start, start + n) touches, whole blocks computed, then cut."""
    if n < 0 or start < 0:
        raise ConfigError(f"rows are counted from 0: n={n}, start={start} must not be negative")
    out = np.empty((n, d), np.float32)
    for number in range(start // BLOCK, -(-(start + n) // BLOCK)):
        rows = block(np.random.default_rng([seed, ROWS, number]))
        first = number * BLOCK
        low, high = max(start, first), min(start + n, first + BLOCK)
        out[low - start : high - start] = rows[low - first : high - first]
    return out
