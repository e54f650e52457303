"""What every measure answers: the value of one entry, and of a block of entries.

A measure is defined on a pair of rows and sped up on blocks. Where the block is a matrix product
with a monotone correction, the measure offers it as its *GEMM form*:

    nearness(i, j) = A_i . B_j + s_i + t_j          larger is nearer
    value(i, j)    = correct(nearness(i, j))        monotone, elementwise

`prepare` computes A (or B) and the additive term once; selection, refinement, low precision and
accelerators work on nearness alone, and the value is computed once, at the end, for the few pairs
that survive.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures.rows import Prepared, Rows, as_float32, as_indices, as_rows
from simdist.types import Array, Float32, Ids, Json

if TYPE_CHECKING:
    from simdist.measures.in_place import InPlace

__all__ = ["Measure", "Prepared", "Rows", "Traits"]

# Rows gathered at a time by the default `pairs_at` (bytes).
_GATHER_NBYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Traits:
    """What may be assumed about a measure. `low` and `high` bound its values (may be infinite)."""

    kind: Literal["similarity", "distance"]
    symmetric: bool = True
    psd: bool = False  # the similarity matrix is positive semi-definite
    metric: bool = False  # the triangle inequality holds, and only equal rows are at distance 0
    low: float = -np.inf
    high: float = np.inf
    zero_rows: bool = True  # False: a row of zeros has no value (cosine)
    gemm: bool = False  # has the GEMM form of the module docstring
    negative_type: bool = False  # a distance whose exp(-distance / scale) is psd (Schoenberg 1938)
    shift_invariant: bool = False  # f(x + c, y + c) = f(x, y), for any c [d]


class Measure(ABC):
    """What entry (i, j) of the matrix contains. Subclasses are frozen dataclasses: their fields are
    the whole configuration and enter the fingerprint through `spec`.

    A new measure gives `name`, `traits` and

    - `pair` alone: everything works, one Python call an entry; or
    - `pair` and `block`: everything works at the block's speed, listed pairs one call each; or
    - `pair`, `represent` and `correct`, with `traits.gemm`: everything runs at GEMM speed.

    `pairs` may be overridden where listed pairs should be faster or more precise than that. A
    dataclass with slots is rebuilt by its decorator: call a parent's method by its class, not by
    `super()`. Law tests: `simdist.testing.MeasureLaws`.

    Every method that takes rows takes them raw ([n, d] float16, float32 or float64, finite) or
    `Prepared` by this same measure, and returns float32. InputError where rows do not fit.

    name: how configs and errors call it.
    version: raise it when the meaning of the values changes; old fingerprints then no longer match.
    """

    __slots__ = ()

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What may be assumed; a plain class attribute `traits = Traits(...)` will do."""

    @abstractmethod
    def pair(self, x: Array, y: Array) -> float:
        """The definition, in float64, on raw points. x, y: [d]. The oracle of every other method;
        need not be fast."""

    def prepare(self, X: Rows) -> Prepared:
        """Rows made ready once, for any number of blocks. X: [n, d] -> vectors [n, d] float32.

        Prepared rows come back as they are. InputError where a row is not finite, or has no value
        (zeros under cosine), with its number.
        """
        if isinstance(X, Prepared):
            return X
        return self.represent(as_rows(X, of=self.name))

    def represent(self, X: Array) -> Prepared:
        """The part of `prepare` that is the measure's own: A and s of the GEMM form.

        X: [n, d] float16, float32 or float64, already checked to be finite. Default: float32, no
        terms.
        """
        return Prepared(as_float32(X, of=self.name))

    def block(self, X: Rows, Y: Rows) -> Float32:
        """Values of all pairs. X: [n, d], Y: [m, d] -> [n, m]."""
        if self.traits.gemm:
            return self.correct(self.nearness(X, Y))
        A, B = self.both(X, Y)
        points = [b.astype(np.float64) for b in B.vectors]
        values = [[self.pair(a.astype(np.float64), b) for b in points] for a in A.vectors]
        return np.array(values, dtype=np.float32).reshape(len(A), len(B))

    def pairs(self, X: Rows, Y: Rows) -> Float32:
        """Values row by row. X: [n, d], Y: [n, d] -> [n]: entry i between X_i and Y_i.

        One fixed kernel: a pair has the same bits in any company and in either order, which no
        GEMM promises.
        """
        A, B = self.matched(X, Y)
        if self.traits.gemm:
            from simdist.compiled import distances  # noqa: PLC0415  numba comes with the first call

            order = np.arange(len(A))
            nearness = distances.dots(A.vectors, order, B.vectors, order)
            return self.correct(_add_terms(nearness, A.terms, B.terms))
        rows = zip(A.vectors.astype(np.float64), B.vectors.astype(np.float64), strict=True)
        return np.array([self.pair(a, b) for a, b in rows], dtype=np.float32)

    def pairs_at(self, X: Rows, rows: Array, Y: Rows, columns: Array) -> Float32:
        """Values of listed pairs: `pairs(X[rows], Y[columns])` without gathering them all.

        rows, columns: [p] integers into X and Y -> [p].
        """
        A, B = self.both(X, Y)
        rows, columns = self.listed(A, rows, B, columns)
        step = max(1, _GATHER_NBYTES // (8 * A.vectors.shape[1]))
        parts = [
            self.pairs(A.take(rows[start : start + step]), B.take(columns[start : start + step]))
            for start in range(0, len(rows), step)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def in_place(self, rows: Float32) -> InPlace:
        """Rows that stay as they lie in memory, [n, d] float32, finite, C-contiguous: prepared when
        they are asked for."""
        from simdist.measures.in_place import InPlace  # noqa: PLC0415  it speaks of this

        return InPlace(self, rows)

    def diag(self, X: Rows) -> Float32:
        """Values of rows with themselves. X: [n, d] -> [n]."""
        return self.pairs(X, X)

    def nearness(self, X: Rows, Y: Rows) -> Float32:
        """What selection sorts by, larger is nearer. X: [n, d], Y: [m, d] -> a new [n, m].

        With `traits.gemm` exactly A @ B.T + s + t of the prepared rows; otherwise the values, of a
        distance negated.
        """
        if not self.traits.gemm:
            values = self.block(X, Y)
            return values if self.traits.kind == "similarity" else np.negative(values)
        A, B = self.both(X, Y)
        # The same array on both sides reaches BLAS as syrk: half the work, and exactly symmetric.
        product: Float32 = A.vectors @ B.vectors.T
        return _add_terms(product, None if A.terms is None else A.terms[:, None], B.terms)

    def correct(self, nearness: Float32) -> Float32:
        """Nearness to values, elementwise and monotone; any shape. Values lie within the traits'
        bounds, whatever the rounding of nearness."""
        return nearness if self.traits.kind == "similarity" else np.negative(nearness)

    def surrogate(self) -> Measure:
        """The measure under which partitions form cells; it takes this one's prepared rows as raw.

        A measure with a GEMM form whose neighbours are this one's neighbours, by and large: what it
        misses costs work, never recall. The default follows from the traits:
        simdist.measures.surrogates.
        """
        from simdist.measures.surrogates import default_surrogate  # noqa: PLC0415  it imports this

        return default_surrogate(self)

    def spec(self) -> dict[str, Json]:
        """The measure as JSON: `resolve(measure.spec()) == measure`. Enters fingerprints.

        ConfigError where the class is not a frozen dataclass, or a field is not JSON.
        """
        cls = type(self)
        params = cls.__dict__.get("__dataclass_params__")
        if params is None or not params.frozen:
            raise ConfigError(
                f"measure {cls.__qualname__} is not a frozen dataclass, so its configuration "
                f"cannot enter a fingerprint. Put @dataclass(frozen=True, slots=True) above it."
            )
        shipped = cls.__module__.partition(".")[0] == "simdist"
        spec: dict[str, Json] = {
            "name": self.name if shipped else f"{cls.__module__}:{cls.__qualname__}"
        }
        if self.version != 1:
            spec["version"] = self.version
        # A dataclass by the check above, which a type checker cannot follow.
        for field in fields(self):  # type: ignore[arg-type]
            spec[field.name] = _as_json(
                getattr(self, field.name), f"{cls.__qualname__}.{field.name}"
            )
        return spec

    def both(self, X: Rows, Y: Rows) -> tuple[Prepared, Prepared]:
        """Two sets of rows prepared (once, where they are one object), their columns agreeing.

        The first line of a `block` of your own.
        """
        A = self.prepare(X)
        B = A if Y is X else self.prepare(Y)
        if A.vectors.shape[1] != B.vectors.shape[1]:
            raise InputError(
                f"{self.name} compares rows of one dimension; got X {A.vectors.shape} and "
                f"Y {B.vectors.shape}, [rows, columns]."
            )
        if (A.terms is None) != (B.terms is None):
            raise InputError(
                f"{self.name} was given rows prepared by another measure: one side carries terms, "
                f"the other none. Prepare both with this measure."
            )
        return A, B

    def matched(self, X: Rows, Y: Rows) -> tuple[Prepared, Prepared]:
        """As `both`, with as many rows on either side. The first line of a `pairs` of your own."""
        A, B = self.both(X, Y)
        if len(A) != len(B):
            raise InputError(
                f"{self.name}.pairs goes row by row and needs as many rows on both sides; got "
                f"{len(A)} and {len(B)}. For all pairs use block, for listed ones pairs_at."
            )
        return A, B

    def listed(self, A: Prepared, rows: Array, B: Prepared, columns: Array) -> tuple[Ids, Ids]:
        """Listed pairs checked against the rows they index. -> two int64 [p]."""
        rows = as_indices(rows, len(A), of=f"{self.name}.pairs_at")
        columns = as_indices(columns, len(B), of=f"{self.name}.pairs_at")
        if len(rows) != len(columns):
            raise InputError(
                f"{self.name}.pairs_at needs a column for every row; got {len(rows)} rows and "
                f"{len(columns)} columns."
            )
        return rows, columns


def _add_terms(nearness: Float32, s: Float32 | None, t: Float32 | None) -> Float32:
    """Adds the terms in place; they broadcast to nearness."""
    if s is not None:
        nearness += s
    if t is not None:
        nearness += t
    return nearness


def _as_json(value: Any, where: str) -> Json:
    if isinstance(value, Measure):
        return value.spec()
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    if isinstance(value, tuple | list):
        return [_as_json(item, where) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _as_json(item, where) for key, item in value.items()}
    raise ConfigError(
        f"measure field {where} holds a {type(value).__qualname__}, which JSON cannot say. "
        f"Use numbers, strings, booleans, None, measures, and tuples of them."
    )
