"""The eigenvectors that are known: for each component the roots of its nodes' degrees.

S D^1/2 1_C = D^1/2 1_C for each component C, with eigenvalue 1, the largest there is. Blocks are
kept free of them: W - r t[C], where r are the roots and t[C] = (sum of r W over C) / (sum of r^2
over C). The sums are added up from those of the shards; a shard tells and asks only of components
that it has nodes in. Nodes without edges have r = 0, and rows of 0 in every block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.operators import ShardedCsr, degree_power
from simdist.runner.plan import Record
from simdist.types import Array, Float64, Ids, Int32, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["Nulls", "degrees_of", "write_nulls"]


def degrees_of(matrix: ShardedCsr, i: int, alpha: float) -> tuple[Float64, Float64]:
    """[rows] density d^alpha and degrees of a shard's rows, in the kernel divided by densities.

    Costs a product with one column where alpha is not 0.
    """
    degrees = np.asarray(matrix.degrees(i))
    if alpha == 0.0:
        return np.ones(len(degrees)), degrees
    thinned = matrix.product(i, lambda s: degree_power(matrix.degrees(s), -alpha))
    return degree_power(degrees, alpha), thinned * degree_power(degrees, -alpha)


def write_nulls(context: Context, labels: Ids, roots: Float64, W: Array) -> dict[str, ObjectRef]:
    """What deflation needs of a shard: its components, where each row's is among them, sums of r^2,
    and those of r W for the first block.

    labels: [rows] component of each. roots: [rows] r.
    """
    own, inverse = np.unique(labels, return_inverse=True)
    place: Int32 = inverse.astype(np.int32)
    volumes = np.bincount(place, weights=roots * roots, minlength=len(own))
    return {
        "roots": context.write_array("roots", roots),
        "labels": context.write_array("labels", own),
        "place": context.write_array("place", place),
        "volumes": context.write_array("volumes", volumes),
        "sums": context.write_array("sums", _sums(W, roots, place, len(own))),
    }


@dataclass(frozen=True, slots=True)
class Nulls:
    """The known vectors on the rows of one shard. starts: records of round `start`."""

    context: Context
    starts: Sequence[Record]
    shard: int

    @property
    def roots(self) -> Float64:
        return self.context.load(self.starts[self.shard].objects["roots"])

    def sums(self, W: Array) -> Float64:
        """[c, b] this shard's part of the sums of r W."""
        place = self.context.load(self.starts[self.shard].objects["place"])
        labels = self.context.load(self.starts[self.shard].objects["labels"])
        return _sums(W, self.roots, place, len(labels))

    def means(self, parts: Sequence[Record]) -> Float64:
        """[c, b] t[C] of each of the shard's components. parts: each shard's record with its `sums`
        of W."""
        objects = self.starts[self.shard].objects
        labels = self.context.load(objects["labels"])
        sums: Float64 | None = None
        volumes = np.zeros(len(labels))
        for start, part in zip(self.starts, parts, strict=True):
            others = self.context.load(start.objects["labels"])
            mine = np.isin(others, labels, assume_unique=True)
            at = np.searchsorted(labels, others[mine])
            theirs = self.context.load(part.objects["sums"])
            sums = np.zeros((len(labels), theirs.shape[1])) if sums is None else sums
            sums[at] += theirs[mine]
            volumes[at] += self.context.load(start.objects["volumes"])[mine]
        if sums is None:
            raise AssertionError("a graph has at least one shard")
        there = volumes > 0  # else a node without edges, and sums of 0
        sums[there] /= volumes[there, None]
        return sums

    def freed(self, W: Array, means: Float64) -> Array:
        """[rows, b] W - r t[C], in the dtype of W."""
        from simdist.compiled.deflate import subtract  # noqa: PLC0415 - numba only on workers

        place = self.context.load(self.starts[self.shard].objects["place"])
        out = np.empty_like(W)
        subtract(place, self.roots, means, W, 0, len(W), out)
        return out


def _sums(W: Array, roots: Float64, place: Int32, count: int) -> Float64:
    """[c, b] sums of r W over the rows of each of a shard's components."""
    from simdist.compiled.deflate import add_sums  # noqa: PLC0415 - numba only on workers

    sums = np.zeros((count, W.shape[1]))
    add_sums(place, roots, W, sums)
    return sums
