"""Attention backwards: the same tiles again, so that a learned projection can train through it.

    p_ij = exp(s_ij - L_i)      weights, recomputed from the logsumexp instead of kept
    D_i  = <do_i, o_i> - dL_i
    dS   = p (do V^T - D)       per tile, in one pass
    dV = p^T do      dQ = scale dS K      dK = scale dS^T Q      db_j = sum_i dS_ij

(Dao et al. 2022.) Five products a tile where the way forward has two. Gradients are sums over
disjoint parts of the pairs, so those of blocks of queries or of keys add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simdist.errors import InputError
from simdist.measures.rows import as_rows
from simdist.tiles.attend import Logits, Problem, attend_nbytes, pair_part
from simdist.tiles.fold import Check
from simdist.tiles.shape import Tile, cuts
from simdist.tiles.softmax import Attended
from simdist.types import Array, Float64

__all__ = ["Gradients", "attend_back", "attend_back_nbytes"]


class Gradients(NamedTuple):
    """Of a sum of outputs and logsumexps under given cotangents; all float64.

    queries: [n, d]. keys: [m, d]. values: [m, dv]. key_bias: [m], of what is added to a key's
    logits. bias: of the shape that `Logits.bias` has; None where there is none.
    """

    queries: Float64
    keys: Float64
    values: Float64
    key_bias: Float64
    bias: Float64 | None


def attend_back(
    Q: Array,
    K: Array,
    V: Array,
    d_output: Array,
    found: Attended,
    logits: Logits | None = None,
    *,
    d_logsumexp: Array | None = None,
    tile: Tile | None = None,
    check: Check | None = None,
) -> Gradients:
    """Gradients of sum(d_output * output) + sum(d_logsumexp * logsumexp).

    Q, K, V, logits: as they were given to `attend`. found: output [n, dv] and logsumexp [n] over
    all keys (over more than these, where these are a part of them). d_output: [n, dv].
    Raises InputError for rows that do not fit or are not finite.
    """
    logits = logits or Logits()
    problem = Problem.of(Q, K, V, logits, tile)
    values = problem.values
    dtype = problem.dtype
    cotangent = _cotangent(d_output, found.output, problem)
    gaps = np.einsum("ij,ij->i", cotangent, found.output, dtype=np.float64)
    seeing = np.isfinite(found.logsumexp)
    if d_logsumexp is not None:
        gaps -= np.where(seeing, d_logsumexp, 0.0)
    # A row that sees nothing has weights exp(s - inf) = 0.
    shift = np.where(seeing, found.logsumexp, np.inf)
    sums = Gradients(
        np.zeros(problem.Q.shape),
        np.zeros(problem.K.shape),
        np.zeros(values.shape),
        np.zeros(len(problem.K)),
        None if logits.bias is None else np.zeros(logits.bias.shape),
    )
    back = _Back(problem, cotangent, shift.astype(dtype), gaps.astype(dtype), sums)
    for i in cuts(0, len(problem.Q), problem.tile.rows):
        back.fold(i, check)
    return sums


def attend_back_nbytes(n: int, m: int, d: int, dv: int, itemsize: int = 4) -> int:
    """Bytes `attend_back` holds at most beside its inputs: its results among them."""
    results = 8 * (n * d + m * (d + dv + 1))
    return 2 * attend_nbytes(n, m, d, dv, itemsize) + results + (itemsize + 8) * n * dv


def _cotangent(d_output: Array, output: Array, problem: Problem) -> Array:
    shape = (len(problem.Q), problem.values.shape[1])
    for name, given in (("d_output", d_output), ("output", output)):
        if given.shape != shape:
            raise InputError(
                f"attention backwards: {name} of shape {given.shape}; expected {shape}, a row for"
                " each query and a column for each of the values'"
            )
    return np.ascontiguousarray(as_rows(d_output, of="attention (d_output)"), problem.dtype)


@dataclass(frozen=True, eq=False)
class _Back:
    """What is summed up. cotangent: [n, dv] do. shift, less: [n] L and D, of the working dtype."""

    problem: Problem
    cotangent: Array
    shift: Array
    less: Array
    sums: Gradients

    def fold(self, i: slice, check: Check | None) -> None:
        """What some queries add to all gradients."""
        from simdist.compiled.attend import gaps, rescale  # noqa: PLC0415  numba at the first call

        problem, sums = self.problem, self.sums
        queries, cotangent, rows = problem.queries(i), self.cotangent[i], i.stop - i.start
        once = np.ones(max(rows, problem.tile.columns))
        for j in problem.columns(i):
            if check is not None:
                check()
            columns = j.stop - j.start
            tile = problem.tile_of(queries, i, j)
            gap = np.empty_like(tile)
            np.matmul(cotangent, problem.values[j].T, out=gap[:, :columns])
            seen = problem.bias(j), problem.limits[i], problem.own[i]
            gaps(tile, j.start, columns, *seen, self.shift[i], gap, self.less[i])
            weights, changes = tile[:, :columns], gap[:, :columns]
            rescale(sums.values[j], once[:columns], weights.T @ cotangent)
            rescale(sums.keys[j], once[:columns], changes.T @ queries)
            scaled = changes @ problem.K[j]
            scaled *= problem.dtype.type(problem.logits.scale)
            rescale(sums.queries[i], once[:rows], scaled)
            sums.key_bias[j] += changes.sum(axis=0)
            if sums.bias is not None:
                _add_pairs(sums.bias, i, j, changes)


def _add_pairs(bias: Float64, i: slice, j: slice, changes: Array) -> None:
    """Add the changes of pairs to those of the bias, summed along what was broadcast."""
    part = pair_part(bias, i, j)
    added = changes.astype(np.float64)
    if part.ndim < 2 or part.shape[-2] == 1:
        added = added.sum(axis=0, keepdims=part.ndim >= 2)
    if part.ndim and part.shape[-1] == 1:
        added = added.sum(axis=-1, keepdims=True)
    part += added if part.ndim else added.sum()
