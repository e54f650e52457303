"""The locally optimal block method for the largest eigenpairs of a symmetric matrix.

    V  = [X  P  W]        X: Ritz vectors, P: the last directions, W: new ones, from residuals
    A V                   of these only A W is a product, the others follow from earlier ones
    V^T W, V^T A W        `moments`: sums over rows, float64; those among X and P are known
    C, C_p = next_step    the small dense problem
    X, A X, P, A P = V C, A V C, ...  `combine`: row by row

X may have more columns than W: the further ones are Ritz vectors that cost no product and make the
space larger, so that fewer passes are needed (`spare_of`).

W are residuals A X - X theta, or these through a polynomial of A (`Filter` of some degree): p(A) X
- X p(theta), which costs `degree` passes and saves as many bases. Both lie in the Krylov space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from simdist.errors import ConfigError
from simdist.solvers.chebyshev import Filter, Term
from simdist.solvers.rayleigh import rayleigh_ritz
from simdist.types import Array, Float64, Run

__all__ = [
    "LOW",
    "PRODUCT",
    "ROWS",
    "Eigenpairs",
    "Moments",
    "NextStep",
    "Projected",
    "Step",
    "combine",
    "lobpcg",
    "moments",
    "next_step",
    "spans",
    "spare_of",
]

ROWS = 1024  # of a panel that is taken to float64 at once
PIECES, PIECE_ROWS = 32, 4096  # rows side by side: as many pieces at most, none shorter
LOW = -1.0  # lower bound of the spectrum of a normalised adjacency matrix
PRODUCT = Term(1.0, 0.0, 0.0)  # a step that is a product and nothing else

Step: TypeAlias = Callable[[Term, Array, Array, Array], None]


@dataclass(frozen=True, slots=True)
class Moments:
    """Inner products of a basis V = [.. W] with its last block, over some rows or all: they add up.

    gram: [m, w] V^T W. image: [m, w] V^T A W.
    """

    gram: Float64
    image: Float64

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.image + other.image)


@dataclass(frozen=True, slots=True)
class Projected:
    """Inner products of the leading blocks [X P] with one another, as their coefficients say.

    gram: [k, k] V^T V. image: [k, k] V^T A V.
    """

    gram: Float64
    image: Float64

    @classmethod
    def none(cls) -> Projected:
        """Of no column: before the first basis."""
        return cls(np.zeros((0, 0)), np.zeros((0, 0)))

    def joined(self, new: Moments) -> Projected:
        """Those of the whole basis: these, and the ones that the last block has."""
        k = len(self.gram)
        if len(new.gram) < k:
            raise AssertionError(f"a basis of {len(new.gram)} columns has {k} known ones")

        def whole(known: Float64, found: Float64) -> Float64:
            return np.block([[known, found[:k]], [found[:k].T, found[k:]]])

        return Projected(whole(self.gram, new.gram), whole(self.image, new.image))

    def onto(self, coefficients: Float64) -> Projected:
        """Those of V @ coefficients."""
        small = (coefficients.T @ whole @ coefficients for whole in (self.gram, self.image))
        return Projected(*small)


@dataclass(frozen=True, slots=True)
class NextStep:
    """What follows from the inner products of a basis [X P W] of m columns.

    values: [q] Ritz values, largest first. vectors: [m, q] coefficients of the next X.
    directions: [m, p] of the next P, which have length 1; 0 in the rows of X.
    projected: inner products of the next X and P.
    """

    values: Float64
    vectors: Float64
    directions: Float64
    projected: Projected


@dataclass(frozen=True, slots=True)
class Eigenpairs:
    """Largest eigenpairs of A. vectors: [n, k] orthonormal. values: [k + 1], largest first, the
    last one an estimate; [k] where there is no further one.

    residuals: [k] lengths of A v - value v. passes: products with a block. rounds: bases made.
    """

    values: Float64
    vectors: Array
    residuals: Float64
    passes: int
    rounds: int
    converged: bool


def moments(V: Sequence[Array], AW: Array) -> Moments:
    """Inner products of the columns of V (blocks side by side, [rows, ...] each, W the last of
    them) with W and with A W.

    Added up in float64, whatever the blocks are. Cost: 2 rows m w multiply-adds.
    """
    width = sum(block.shape[1] for block in V)
    w = V[-1].shape[1]
    both = np.zeros((width, 2 * w))
    for first in range(0, len(AW), ROWS):
        v = _panel(V, first)
        both += v.T @ np.concatenate([v[:, width - w :], AW[first : first + ROWS]], axis=1)
    return Moments(both[:, :w], both[:, w:])


def spare_of(degree: int) -> int:
    """Further Ritz vectors beside X, in blocks: they save a tenth of the passes of the plain
    method, hardly any behind a filter."""
    return 1 if degree == 1 else 0


def next_step(found: Moments, before: Projected, *, block: int, known: int, spare: int) -> NextStep:
    """The next X and P. before: of the X and P in the basis. block: columns of P, at most.
    known: columns of X in the basis.

    X keeps (1 + spare) blocks, or as many columns as the basis has rank.
    """
    keep = (1 + spare) * block
    basis = before.joined(found)
    ritz = rayleigh_ritz(basis.gram, basis.image, keep, orthonormal=known)
    vectors, directions = ritz.coefficients, np.zeros((len(basis.gram), 0))
    if known:
        free = vectors[:, :block].copy()
        free[:known] = 0
        squares = np.einsum("ij,ij->j", free, basis.gram @ free)
        there = squares > 0
        directions = free[:, there] / np.sqrt(squares[there])
    projected = basis.onto(np.concatenate([vectors, directions], axis=1))
    return NextStep(ritz.values, vectors, directions, projected)


def combine(V: Sequence[Array], coefficients: Sequence[Float64], into: Sequence[Array]) -> None:
    """into[i] = V @ coefficients[i], computed in float64: [rows, columns of coefficients[i]].

    `into` may be among the blocks of V: a panel of rows is read before it is written.
    """
    together = np.concatenate(coefficients, axis=1)
    ends = np.cumsum([one.shape[1] for one in coefficients])
    for first in range(0, len(V[0]), ROWS):
        made = _panel(V, first) @ together
        for out, end in zip(into, ends, strict=True):
            out[first : first + ROWS] = made[:, end - out.shape[1] : end]


def spans(n: int) -> list[slice]:
    """How n rows in memory are cut for threads: a rule of n alone, so results do not depend on how
    many there are."""
    size = max(PIECE_ROWS, ROWS * -(-n // (PIECES * ROWS)))
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def lobpcg(
    step: Step,
    start: Array,
    dim: int,
    *,
    run: Run,
    tolerance: float = 1e-3,
    degree: int = 1,
    max_passes: int = 1000,
    deflate: Callable[[Array], None] = lambda block: None,
    check: Callable[[], None] = lambda: None,
) -> Eigenpairs:
    """The `dim` largest eigenpairs of a symmetric A with spectrum in [-1, 1], in memory.

    step: (term, last, before, out): out = term.product A last + term.last last + term.before
        before, of blocks [n, b]; `out` may be `before`'s own array.
    start: [n, b] with b > dim, best b = 1.5 dim; its dtype, float32 or float64, is that of all
        blocks. It is overwritten.
    run: where pieces of rows run side by side.
    tolerance: stops when the residuals of the first `dim` are at most this, or after max_passes:
        look at `converged`.
    degree: of the filter that residuals go through; 1 is the plain method, fewest passes; 8 makes
        8 passes a basis, some more in all, and a tenth of the work on bases.
    deflate: takes known eigenvectors out of a block [n, b]. check: called before each basis.

    Raises ConfigError where the block is narrower than `dim`.
    Cost, a basis of m = 3 b columns (4 b where degree=1): 6 n m b multiply-adds, and the products.
    Source: Knyazev, SIAM J. Sci. Comput. 23 (2001); Duersch et al. 2018 for the basis.
    """
    block = start.shape[1]
    if block < dim:
        raise ConfigError(f"a block of {block} columns cannot hold dim={dim} eigenvectors")
    deflate(start)
    basis = _Basis.of(step, start, run)
    known, before = 0, Projected.none()
    passes, rounds = 1, 0
    while True:
        check()
        found = next_step(basis.moments(), before, block=block, known=known, spare=spare_of(degree))
        basis.move(found)
        rounds, known, before = rounds + 1, found.vectors.shape[1], found.projected
        active = min(block, known)
        values = found.values
        residuals = basis.residuals(values[:active])[:dim]
        converged = bool(residuals.max() <= tolerance) and active >= dim
        if converged or passes + degree > max_passes:
            X = basis.X[:, :dim]
            return Eigenpairs(values[: dim + 1], X, residuals, passes, rounds, converged)
        basis.widen(step, values[:active], degree, deflate)
        passes += degree


class _Basis:
    """The blocks [X P W] and their images, which give way to the next ones where they lie."""

    def __init__(self, run: Run, W: Array, AW: Array) -> None:
        self.run, self.spans = run, spans(len(W))
        self.W, self.AW = W, AW
        self.X = self.P = self.AX = self.AP = np.empty((len(W), 0), W.dtype)

    @classmethod
    def of(cls, step: Step, W: Array, run: Run) -> _Basis:
        basis = cls(run, W, np.empty_like(W))
        step(PRODUCT, W, W, basis.AW)
        return basis

    def moments(self) -> Moments:
        def piece(i: int) -> Moments:
            rows = self.spans[i]
            return moments([block[rows] for block in (self.X, self.P, self.W)], self.AW[rows])

        first, *others = self.run(piece, len(self.spans))
        return sum(others, first)

    def move(self, found: NextStep) -> None:
        """X and P for the next ones."""
        coefficients = (found.vectors, found.directions)
        for names in (("X", "P", "W"), ("AX", "AP", "AW")):
            V = [getattr(self, name) for name in names]
            into = [
                block if block.shape[1] == one.shape[1] else self._room(one.shape[1])
                for block, one in zip(V[:2], coefficients, strict=True)
            ]

            def piece(i: int, V: Sequence[Array] = V, into: Sequence[Array] = into) -> None:
                rows = self.spans[i]
                combine([block[rows] for block in V], coefficients, [one[rows] for one in into])

            self.run(piece, len(self.spans))
            for name, made in zip(names[:2], into, strict=True):
                setattr(self, name, made)

    def residuals(self, values: Float64) -> Float64:
        """Lengths of A X - X theta, which are left in W."""
        width = len(values)
        self.W, self.AW = (self._fit(block, width) for block in (self.W, self.AW))
        theta = values.astype(self.W.dtype)

        def piece(i: int) -> Float64:
            rows, squares = self.spans[i], np.zeros(width)
            for first in range(rows.start, rows.stop, ROWS):
                some = slice(first, min(first + ROWS, rows.stop))
                R = self.AX[some, :width] - self.X[some, :width] * theta
                self.W[some] = R
                squares += np.einsum("ij,ij->j", R, R, dtype=np.float64)
            return squares

        squares: Float64 = np.sum(self.run(piece, len(self.spans)), axis=0)
        return np.sqrt(squares)

    def widen(
        self, step: Step, values: Float64, degree: int, deflate: Callable[[Array], None]
    ) -> None:
        """W: the residuals, through a filter of some degree; and its image."""
        if degree > 1:
            self._filter(step, values, degree)
        deflate(self.W)
        step(PRODUCT, self.W, self.W, self.AW)

    def _filter(self, step: Step, values: Float64, degree: int) -> None:
        """W = p(A) X - X p(theta). Two blocks take turns: a step reads the one it overwrites row
        by row."""
        width, kind = len(values), self.W.dtype.type
        damped = Filter(LOW, float(values[-1]), float(values[0]), degree)
        X = np.ascontiguousarray(self.X[:, :width])
        first, *terms = damped.terms()
        last, room = self.W, self.AW

        def begin(i: int) -> None:
            rows = self.spans[i]
            np.multiply(self.AX[rows, :width], kind(first.product), out=last[rows])
            last[rows] += X[rows] * kind(first.last)

        self.run(begin, len(self.spans))
        before = X
        for term in terms:
            step(term, last, before, room)
            before, last, room = last, room, last
        self.W, self.AW = last, room
        wanted = damped.at(values).astype(kind)

        def end(i: int) -> None:
            self.W[self.spans[i]] -= X[self.spans[i]] * wanted

        self.run(end, len(self.spans))

    def _room(self, width: int) -> Array:
        return np.empty((len(self.W), width), self.W.dtype)

    def _fit(self, block: Array, width: int) -> Array:
        return block if block.shape[1] == width else self._room(width)


def _panel(blocks: Sequence[Array], first: int) -> Float64:
    """Some rows of blocks side by side, in float64."""
    parts = [block[first : first + ROWS] for block in blocks]
    return np.concatenate(parts, axis=1, dtype=np.float64)
