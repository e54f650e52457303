"""The Gram pass: what an inducing-point model needs of n rows, as sums over row blocks.

    K_uu + jitter I = L L^T            Whitening: once, m x m
    a_i = L^-1 k(Z, x_i)               rows in blocks of some MiB, float64
    P = sum w_i a_i a_i^T   b = sum w_i a_i y_i   ...          GramStatistics: first pass
    theta, Z  <-  gradient by a_i  <-  cotangents of P, b      KernelGradients: second pass

    gram_block, gradient_block      some rows, in one call; `kept` spares the second whitening
    GramStatistics + , tree_sum     in plan order: the same bits whoever made the parts
    spans, merge_rounds, ...        the same as rounds of a stage: states travel through the store

One pass serves sparse Gaussian processes (Titsias 2009), Nystroem kernel ridge regression and
kernel PCA. Whitened throughout: K_uu is never inverted. Kernels: `simdist.measures.kernels`. May
import runner, store, tiles, solvers, measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from simdist.runner.plan import Record, Round, Task
from simdist.solvers.cholesky import (
    JITTER,
    factored,
    factored_vjp,
    solve_lower,
    solve_lower_t,
)
from simdist.solvers.lapack import gemm, syrk
from simdist.types import Array, Float64, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.measures.kernels import Kernel
    from simdist.runner.context import Context

__all__ = [
    "Cotangents",
    "GramStatistics",
    "KernelGradients",
    "Pulled",
    "Whitening",
    "block_nbytes",
    "gradient_block",
    "gram_block",
    "inducing_gradient",
    "merge_name",
    "merge_rounds",
    "merge_statistics",
    "read_statistics",
    "span_rows",
    "spans",
    "statistics_nbytes",
    "tree_sum",
    "write_statistics",
]

BLOCK_NBYTES = 16 << 20  # of one block of whitened rows
FAN = 8  # parts that one task adds up
SPANS = 16  # tasks of a pass, where rows are many: each leaves a state of m^2 numbers in the store
LEAST_ROWS = 4096  # of a task, where there are as many
SPAN_NBYTES = 128 << 20  # of a task's rows as float64

Check = Callable[[], None]


@dataclass(frozen=True, eq=False, slots=True)
class Whitening:
    """Rows x to a = L^-1 k(Z, x), in which the prior of an inducing-point model is white.

    kernel: any `Kernel`. Z: [m, d] float64. L: [m, m] float64 lower, Fortran order.
    jitter: what was added to K_uu, relative to the mean of its diagonal.
    """

    kernel: Kernel
    Z: Float64
    L: Float64
    jitter: float

    @classmethod
    def of(cls, kernel: Kernel, Z: Array, *, jitter: float = JITTER) -> Whitening:
        """Factor K_uu. Z: [m, d]; duplicate and collinear points are fine.

        jitter: to begin with; raised where K_uu cannot be factored, and told in `jitter`.
        Raises InputError where that does not help.
        """
        Z = np.ascontiguousarray(Z, np.float64)
        found = factored(_own_matrix(kernel, Z), jitter=jitter)
        return cls(kernel, Z, found.L, found.jitter)

    @property
    def m(self) -> int:
        return len(self.Z)

    def columns(self, X: Array) -> Float64:
        """A = L^-1 K_uf of some rows. X: [r, d] -> [m, r] Fortran order, a new array."""
        K = self.kernel.matrix(X, self.Z)
        return solve_lower(self.L, np.ascontiguousarray(K, np.float64).T, overwrite=True)


@dataclass(frozen=True, eq=False, slots=True)
class GramStatistics:
    """Sums over rows, w_i = 1 where rows have no weights. `+` adds the sums of other rows.

    P: [m, m] of w a a^T. b: [m, t] of w a y. A1: [m] of w a. y1: [t] of w y. yy: [t] of w y^2.
    kk: of w k(x, x). w: of w. logw: of log w. n: rows.
    """

    P: Float64
    b: Float64
    A1: Float64
    y1: Float64
    yy: Float64
    kk: float
    w: float
    logw: float
    n: int

    def __add__(self, other: GramStatistics) -> GramStatistics:
        return GramStatistics(
            self.P + other.P,
            self.b + other.b,
            self.A1 + other.A1,
            self.y1 + other.y1,
            self.yy + other.yy,
            self.kk + other.kk,
            self.w + other.w,
            self.logw + other.logw,
            self.n + other.n,
        )

    @property
    def trace_gap(self) -> float:
        """sum of w (k(x, x) - a^T a): what the inducing points leave unexplained; at least 0."""
        return max(0.0, self.kk - float(np.trace(self.P)))


@dataclass(frozen=True, eq=False, slots=True)
class Cotangents:
    """The gradient of some f by the statistics. P: [m, m] symmetric. b: [m, t]. kk: a number."""

    P: Float64
    b: Float64
    kk: float


@dataclass(frozen=True, eq=False, slots=True)
class Pulled:
    """Cotangents taken through L once, for any number of `gradient_block`: T = L^-T (P + P^T)
    [m, m] and v = L^-T b [m, t], Fortran order."""

    T: Float64
    v: Float64
    kk: float

    @classmethod
    def of(cls, whitening: Whitening, cotangents: Cotangents) -> Pulled:
        """Cost: m^3 flops."""
        both = np.array(cotangents.P + cotangents.P.T, order="F")
        T = solve_lower_t(whitening.L, both, overwrite=True)
        v = solve_lower_t(whitening.L, np.array(cotangents.b, order="F"), overwrite=True)
        return cls(T, v, cotangents.kk)


@dataclass(frozen=True, eq=False, slots=True)
class KernelGradients:
    """df/dtheta [p] of the kernel's parameters, and df/dZ [m, d], or None where nobody asked."""

    theta: Float64
    Z: Float64 | None = None

    def __add__(self, other: KernelGradients) -> KernelGradients:
        Z = None if self.Z is None or other.Z is None else self.Z + other.Z
        return KernelGradients(self.theta + other.theta, Z)


def gram_block(
    whitening: Whitening,
    X: Array,
    Y: Array,
    *,
    weights: Array | None = None,
    kept: list[Float64] | None = None,
    check: Check | None = None,
) -> GramStatistics:
    """The statistics of some rows. X: [r, d], Y: [r, t] (or [r]), weights: [r] > 0.

    kept: an empty list, which is left with the whitened blocks for `gradient_block`: 8 r m bytes.
    check: called between blocks. Cost: 2 r m^2 flops and the kernel's; holds two blocks of 16 MiB
    and P.
    """
    Y = _columns_of(Y)
    m, t = whitening.m, Y.shape[1]
    P = np.zeros((m, m), order="F")
    b, A1 = np.zeros((m, t)), np.zeros(m)
    kk = 0.0
    w = np.ones(len(Y)) if weights is None else np.asarray(weights, np.float64)
    for rows in _blocks(len(Y), m):
        if check is not None:
            check()
        A = whitening.columns(X[rows])
        root = None
        if weights is not None:
            root = np.sqrt(w[rows])
            A *= root
        syrk(A, P)
        y = Y[rows] if root is None else Y[rows] * root[:, None]
        b += A @ y
        A1 += A.sum(axis=1) if root is None else A @ root
        kk += float(w[rows] @ whitening.kernel.diagonal(X[rows]))
        if kept is not None:
            kept.append(A)
    _mirror(P)
    return GramStatistics(
        P=P,
        b=b,
        A1=A1,
        y1=w @ Y,
        yy=w @ (Y * Y),
        kk=kk,
        w=float(w.sum()),
        logw=float(np.log(w).sum()),
        n=len(Y),
    )


def gradient_block(
    whitening: Whitening,
    X: Array,
    Y: Array,
    cotangents: Cotangents | Pulled,
    *,
    weights: Array | None = None,
    kept: Sequence[Float64] | None = None,
    inputs: bool = False,
    check: Check | None = None,
) -> KernelGradients:
    """What some rows add to the gradient, through K_uf and the diagonal; `inducing_gradient` has
    the rest.

    Arguments as `gram_block` had them; kept: what it left. inputs: whether the gradient by Z is
    wanted. Cost: 2 r m^2 flops (3 without `kept`) and the kernel's `vjp`, and m^3 where the
    cotangents are not `Pulled` yet.
    """
    Y = _columns_of(Y)
    kernel = whitening.kernel
    # K_bar = L^-T (2 P_bar A + b_bar y^T): the small factors first, one product a block.
    if isinstance(cotangents, Cotangents):
        cotangents = Pulled.of(whitening, cotangents)
    T, v = cotangents.T, cotangents.v
    nothing = np.zeros_like(whitening.Z) if inputs else None
    total = KernelGradients(np.zeros(len(kernel.theta)), nothing)
    for place, rows in enumerate(_blocks(len(Y), whitening.m)):
        if check is not None:
            check()
        root = None if weights is None else np.sqrt(np.asarray(weights, np.float64)[rows])
        y = Y[rows] if root is None else Y[rows] * root[:, None]
        if kept is None:
            A = whitening.columns(X[rows])
            if root is not None:
                A *= root
        else:
            A = kept[place]
        K_bar = np.empty(A.shape, order="F")
        gemm(v, np.asfortranarray(y), K_bar, turned=True)
        gemm(T, A, K_bar, beta=1.0)
        if root is not None:
            K_bar *= root
        through = kernel.vjp(X[rows], whitening.Z, K_bar.T, inputs=inputs)
        share = cotangents.kk * (np.ones(len(y)) if root is None else root * root)
        diagonal = kernel.vjp_diagonal(X[rows], share, inputs=False)
        total += KernelGradients(through.theta + diagonal.theta, through.Y)
    return total


def inducing_gradient(
    whitening: Whitening,
    statistics: GramStatistics,
    cotangents: Cotangents,
    *,
    inputs: bool = False,
) -> KernelGradients:
    """What K_uu adds to the gradient, once for all rows: no pass. Jitter follows the diagonal.

    Cost: some 8 m^3 flops. statistics: of all rows.
    """
    kernel, Z, L = whitening.kernel, whitening.Z, whitening.L
    outer = (cotangents.P + cotangents.P.T) @ statistics.P + cotangents.b @ statistics.b.T
    L_bar = -solve_lower_t(L, np.asfortranarray(outer), overwrite=True)
    K_bar = factored_vjp(L, L_bar)
    found = kernel.vjp(Z, Z, K_bar, inputs=inputs)
    mean = whitening.jitter * float(np.trace(K_bar)) / len(Z)
    diagonal = kernel.vjp_diagonal(Z, np.full(len(Z), mean), inputs=inputs)
    theta = found.theta + diagonal.theta
    if found.X is None or found.Y is None or diagonal.X is None:
        return KernelGradients(theta)
    return KernelGradients(theta, found.X + found.Y + diagonal.X)


Part = TypeVar("Part", GramStatistics, KernelGradients)


def tree_sum(parts: Sequence[Part]) -> Part:
    """Parts added as `merge_rounds` adds them: the same bits. Not empty."""
    level = list(parts)
    while len(level) > 1:
        level = [_summed(level[first : first + FAN]) for first in range(0, len(level), FAN)]
    return level[0]


def span_rows(n: int, m: int, d: int = 1) -> int:
    """Rows of one task of a pass over n rows of d columns with m inducing points: about n / 16, so
    many that a state of m^2 numbers is worth its way to the store, and not more than 128 MiB."""
    return max(LEAST_ROWS, 8 * m, min(-(-n // SPANS), SPAN_NBYTES // (8 * d)))


def spans(n: int, m: int, d: int = 1) -> list[tuple[int, int]]:
    """First row and end of every task of a pass."""
    size = span_rows(n, m, d)
    return [(first, min(first + size, n)) for first in range(0, n, size)]


def block_nbytes(rows: int, d: int, m: int, t: int) -> int:
    """What `gram_block` and `gradient_block` hold for some rows, their rows and targets included:
    four blocks (the kernel's intermediates among them), five matrices of m x m."""
    r = min(rows, _block_rows(m))
    return 8 * (rows * (2 * d + 2 * t + 2) + 5 * r * (m + d) + 5 * m * m + 4 * m * (t + d))


def statistics_nbytes(m: int, t: int) -> int:
    """Of one `GramStatistics`."""
    return 8 * (m * m + m * (t + 1) + 2 * t + 4)


def write_statistics(context: Context, found: GramStatistics) -> dict[str, ObjectRef]:
    """Leave statistics in the store: objects of a record, under "P" and "sums"."""
    sums = np.concatenate(
        [
            np.column_stack([found.b, found.A1]).ravel(),
            found.y1,
            found.yy,
            [found.kk, found.w, found.logw, float(found.n)],
        ]
    )
    return {
        "P": context.write_array("gram", np.ascontiguousarray(found.P)),
        "sums": context.write_array("gram-sums", sums),
    }


def read_statistics(context: Context, objects: Mapping[str, ObjectRef]) -> GramStatistics:
    """What `write_statistics` left."""
    P, sums = context.load(objects["P"]), context.load(objects["sums"])
    m = len(P)
    t = (len(sums) - m - 4) // (m + 2)
    table = sums[: m * (t + 1)].reshape(m, t + 1)
    y1, yy, (kk, w, logw, n) = (
        sums[-2 * t - 4 : -t - 4],
        sums[-t - 4 : -4],
        sums[-4:],
    )
    b, A1 = np.array(table[:, :t]), np.array(table[:, t])
    return GramStatistics(P, b, A1, y1, yy, float(kk), float(w), float(logw), round(float(n)))


def merge_rounds(name: str, count: int, nbytes: int) -> Iterator[Round]:
    """The rounds that add up `count` records of round `name`, FAN by FAN, in plan order.

    nbytes: of one state. The last one has one task: `merge_name`. None where count is 1. Tasks are
    of kind "merge"; `merge_statistics` computes them.
    """
    level, source = 0, name
    while count > 1:
        groups = [(first, min(first + FAN, count)) for first in range(0, count, FAN)]
        made = f"{name}-sum{level}"
        yield Round(
            made,
            tuple(
                Task(
                    f"{made}-{place:05d}",
                    "merge",
                    {"of": source, "first": first, "last": last},
                    3 * nbytes + (16 << 20),
                )
                for place, (first, last) in enumerate(groups)
            ),
        )
        level, source, count = level + 1, made, len(groups)


def merge_name(name: str, count: int) -> str:
    """The round whose one record is the sum of `count` records of round `name`."""
    level = 0
    while count > 1:
        count = -(-count // FAN)
        level += 1
    return name if level == 0 else f"{name}-sum{level - 1}"


def merge_statistics(context: Context, task: Task) -> Record:
    """Compute a task of `merge_rounds`."""
    args: Mapping[str, Json] = task.args
    total: GramStatistics | None = None
    for record in context.records(args["of"])[args["first"] : args["last"]]:
        context.check()
        part = read_statistics(context, record.objects)
        total = part if total is None else total + part
    assert total is not None  # a group has at least one record
    return Record(task.key, write_statistics(context, total))


def _own_matrix(kernel: Kernel, Z: Float64) -> Float64:
    """K_uu, symmetric to the last bit."""
    K = np.asarray(kernel.matrix(Z, Z), np.float64)
    return 0.5 * (K + K.T)


def _block_rows(m: int) -> int:
    return max(256, BLOCK_NBYTES // (8 * m))


def _blocks(n: int, m: int) -> Iterator[slice]:
    size = _block_rows(m)
    for first in range(0, n, size):
        yield slice(first, min(first + size, n))


def _columns_of(Y: Array) -> Float64:
    Y = np.asarray(Y, np.float64)
    return Y[:, None] if Y.ndim == 1 else Y


def _mirror(P: Float64, step: int = 1024) -> None:
    """The lower triangle onto the upper one, in place."""
    for first in range(0, len(P), step):
        last = min(first + step, len(P))
        P[first:last, last:] = P[last:, first:last].T
        corner = P[first:last, first:last]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T


def _summed(parts: Sequence[Part]) -> Part:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
