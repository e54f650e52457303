"""Exact attention over a block of keys: two matrix products a tile, and one pass between them.

    output_i    = sum_j exp(s_ij - L_i) v_j
    logsumexp_i = L_i = log sum_j exp(s_ij)            s_ij = scale <q_i, k_j> + bias_j + bias_ij

             K^T ───────────────┐
    Q ──┬─> logits [512, 512] ──┼─> peaks, exp, sums ──> weights ──> weights @ V ──> state
        │      (about an L2)    │   simdist.compiled.attend
        └─ next keys ───────────┘

What `simdist.tiles.Softmax` is for any measure, at the rate of the products alone. States are the
same (`SoftmaxState`, float64) and merge the same way: in any order, over any cuts of the keys.

Products, weights and their sums within a tile are float32, or float64 where an input is. float32
logits round relative to their size, about 1e-7 |s| (as in any float32 attention): where they reach
hundreds, take float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures.rows import as_rows
from simdist.tiles.fold import Check
from simdist.tiles.shape import Tile, cuts
from simdist.tiles.softmax import SoftmaxState, empty
from simdist.types import Array, Bools, Float64, Ids

__all__ = [
    "Logits",
    "Problem",
    "attend",
    "attend_nbytes",
    "causal_limits",
    "gaussian",
    "gaussian_shift",
    "key_mask",
    "pair_part",
    "working_dtype",
]

ENTRIES = 512 * 512  # of a tile: 1 MiB of float32, about a core's L2
ROWS = 512  # of queries: as many as a product needs to run at its best rate
COLUMNS = 4096  # of keys, where there are few queries: sums within a tile are float32


@dataclass(frozen=True, eq=False)
class Logits:
    """What is exponentiated for query i (of n) and key j (of m), beside the product.

    scale: of <q_i, k_j>. key_bias: [m], added to key j's logits; -inf masks a key.
    bias: added, of a shape that broadcasts to [n, m]; mask: likewise, False where i does not see j.
    limits: [n] how many keys, from the first on, row i sees; `causal_limits` makes them.
    own: [n] the key that row i does not see, -1 for none: a row's own, in leave-one-out sums.
    """

    scale: float = 1.0
    key_bias: Array | None = None
    bias: Array | None = None
    mask: Bools | None = None
    limits: Ids | None = None
    own: Ids | None = None

    def rows(self, cut: slice) -> Logits:
        """Those of some queries."""
        return replace(
            self,
            bias=_cut(self.bias, -2, cut),
            mask=_cut(self.mask, -2, cut),
            limits=None if self.limits is None else self.limits[cut],
            own=None if self.own is None else self.own[cut],
        )


def causal_limits(first_row: int, rows: int, first_key: int, keys: int, *, shift: int = 0) -> Ids:
    """How many of keys first_key..first_key + keys each row sees, [rows], where row p sees key j
    if j <= p + shift. Positions are global."""
    seen = np.arange(first_row, first_row + rows) + shift + 1 - first_key
    return np.asarray(seen.clip(0, keys), np.int64)


def key_mask(mask: Bools) -> Array:
    """The key bias that masks keys: 0 where True, -inf where False. [m] bool -> [m] float32."""
    return np.where(mask, np.float32(0), np.float32(-np.inf))


def gaussian(K: Array, bandwidth: float) -> Logits:
    """Logits -|q - k|^2 / (2 h^2), up to a term of each query that `gaussian_shift` gives.

    K: [m, d]; bandwidth: h > 0. The square is taken apart, |q|^2 - 2 <q, k> + |k|^2, so move the
    points near the origin first where they lie far from it (the same shift for queries and keys),
    and take float64 where |q| |k| / h^2 is in the hundreds.
    """
    if not 0.0 < bandwidth < np.inf:
        raise ConfigError(f"bandwidth={bandwidth}: expected a number above 0")
    squares: Float64 = np.einsum("ij,ij->i", K, K, dtype=np.float64)
    return Logits(1.0 / bandwidth**2, squares / (-2.0 * bandwidth**2))


def gaussian_shift(Q: Array, bandwidth: float) -> Float64:
    """[n] what is to be added to the logsumexp of `gaussian` logits: -|q|^2 / (2 h^2)."""
    squares: Float64 = np.einsum("ij,ij->i", Q, Q, dtype=np.float64)
    return squares / (-2.0 * bandwidth**2)


def attend(
    Q: Array,
    K: Array,
    V: Array | None,
    logits: Logits | None = None,
    *,
    start: SoftmaxState | None = None,
    tile: Tile | None = None,
    check: Check | None = None,
) -> SoftmaxState:
    """Fold keys and their values into the states of queries; never more than one tile exists.

    Q: [n, d], K: [m, d], V: [m, dv] float16, float32 or float64; None where only sums are wanted
        (dv is 0). m may be 0.
    logits: scale, biases and masks; by default <q, k> as it is.
    start: the state to go on from (not written to). tile: by default 512 x 512, wider for fewer
        rows. check: called between tiles; raises (`Cancelled`) to stop.
    Returns the state; `simdist.tiles.softmax.attended(state, dtype)` is output and logsumexp.
    Raises InputError for rows that do not fit or are not finite, naming the first one.
    """
    logits = logits or Logits()
    problem = Problem.of(Q, K, V, logits, tile)
    dv = 0 if problem.V is None else problem.V.shape[1]
    state = empty(len(problem.Q), dv) if start is None else _copy(start)
    if not len(problem.Q) or not len(problem.K):
        return state
    product = np.empty((problem.tile.rows, dv), problem.dtype)
    decay = np.empty(problem.tile.rows)
    for i in cuts(0, len(problem.Q), problem.tile.rows):
        _fold_rows(problem, i, state, product, decay, check)
    return state


def _fold_rows(
    problem: Problem,
    i: slice,
    state: SoftmaxState,
    product: Array,
    decay: Float64,
    check: Check | None,
) -> None:
    """All keys into the states of some rows."""
    from simdist.compiled.attend import rescale, weigh  # noqa: PLC0415  numba at the first call

    peak, total, weighted = (field[i] for field in state)
    rows = len(peak)
    queries, limits, own = problem.queries(i), problem.limits[i], problem.own[i]
    for j in problem.columns(i):
        if check is not None:
            check()
        tile = problem.tile_of(queries, i, j)
        columns = j.stop - j.start
        bias = problem.bias(j)
        weigh(tile, j.start, columns, bias, limits, own, peak, total, decay[:rows])
        if problem.V is not None:
            out = np.matmul(tile[:, :columns], problem.V[j], out=product[:rows])
            rescale(weighted, decay[:rows], out)


@dataclass(frozen=True, eq=False)
class Problem:
    """Checked inputs of one dtype, and the buffer in which tile after tile is made."""

    Q: Array
    K: Array
    V: Array | None
    logits: Logits
    tile: Tile
    buffer: Array
    padded: Array | None  # key biases, and zeros for the padding of the last tile
    limits: Ids  # [n]
    own: Ids  # [n]

    @property
    def dtype(self) -> Any:
        return self.buffer.dtype

    @property
    def values(self) -> Array:
        """V, where it must be there."""
        if self.V is None:
            raise ConfigError("attention backwards needs values: its gradients are those of output")
        return self.V

    @classmethod
    def of(
        cls, Q: Array, K: Array, V: Array | None, logits: Logits, tile: Tile | None = None
    ) -> Problem:
        """InputError where anything does not fit."""
        from simdist.compiled.attend import LANES  # noqa: PLC0415  numba at the first call

        dtype = working_dtype(Q, K, *([] if V is None else [V]))
        Q, K = _rows(Q, dtype, "queries"), _rows(K, dtype, "keys")
        V = None if V is None else _rows(V, dtype, "values")
        if Q.shape[1] != K.shape[1] or (V is not None and len(V) != len(K)):
            raise InputError(
                f"attention: queries {Q.shape}, keys {K.shape}, values "
                f"{None if V is None else V.shape}, [rows, columns]; expected as many columns of "
                "queries as of keys, and a row of values for every key"
            )
        _refuse(Q, K, logits)
        shape = _shape(len(Q), len(K), dtype) if tile is None else tile.within(len(Q), len(K))
        width = -(-shape.columns // LANES) * LANES
        padded = None
        if logits.key_bias is not None:
            padded = np.zeros(len(K) + width, dtype)
            padded[: len(K)] = logits.key_bias
        limits = np.full(len(Q), len(K)) if logits.limits is None else logits.limits
        own = np.full(len(Q), -1) if logits.own is None else logits.own
        buffer = np.empty(shape.rows * width, dtype)
        return cls(Q, K, V, logits, shape, buffer, padded, _ids(limits), _ids(own))

    def queries(self, i: slice) -> Array:
        """Queries, times the scale: a product with keys gives logits."""
        scaled: Array = self.Q[i] * self.dtype.type(self.logits.scale)
        return scaled

    def columns(self, i: slice) -> list[slice]:
        """The tiles of these rows, without those that none of them sees."""
        most = min(len(self.K), int(self.limits[i].max(initial=0)))
        return list(cuts(0, most, self.tile.columns))

    def bias(self, j: slice) -> Array | None:
        """Biases of these keys and of the padding behind them."""
        return None if self.padded is None else self.padded[j.start :]

    def tile_of(self, queries: Array, i: slice, j: slice) -> Array:
        """Logits of rows i and keys j in the buffer, [rows, width]: with the biases and masks of
        pairs; those of keys and of rows come on the way."""
        rows, columns = len(queries), j.stop - j.start
        width = len(self.buffer) // self.tile.rows
        tile = self.buffer[: rows * width].reshape(rows, width)
        logits = tile[:, :columns]
        np.matmul(queries, self.K[j].T, out=logits)
        more = self.logits
        if more.bias is not None:
            logits += pair_part(more.bias, i, j).astype(self.dtype, copy=False)
        if more.mask is not None:
            np.copyto(logits, -np.inf, where=~pair_part(more.mask, i, j))
        return tile


def working_dtype(*arrays: Array) -> Any:
    """float64 where any of them is, else float32."""
    wide = any(array.dtype == np.float64 for array in arrays)
    return np.dtype(np.float64 if wide else np.float32)


def attend_nbytes(n: int, m: int, d: int, dv: int, itemsize: int = 4) -> int:
    """Bytes `attend` holds at most: n queries, m keys, beside its inputs (the states among them).

    Inputs that are not of the working dtype and contiguous are copied: count those yourself.
    """
    shape = _shape(n, m, np.dtype(np.float32 if itemsize == 4 else np.float64))
    width = shape.columns + 16
    tile = shape.rows * (width + 2 * dv + d)
    return 8 * n * (dv + 6) + itemsize * (tile + 2 * m + width) + (64 << 10)


def _shape(n: int, m: int, dtype: Any) -> Tile:
    """A tile for so many queries: wider where they are few, so that its cost is the products'."""
    entries = ENTRIES * 4 // dtype.itemsize
    rows = max(1, min(ROWS, n))
    return Tile(rows, min(entries // rows, COLUMNS)).within(n, m)


def _ids(given: Array) -> Ids:
    return np.ascontiguousarray(given, np.int64)


def _rows(X: Array, dtype: Any, what: str) -> Array:
    return np.ascontiguousarray(as_rows(X, of=f"attention ({what})"), dtype)


def _cut(array: Any, axis: int, cut: slice) -> Any:
    """Some rows or columns of what broadcasts to a matrix."""
    if array is None or array.ndim < -axis or array.shape[axis] == 1:
        return array
    return array[(..., cut, slice(None)) if axis == -2 else (..., cut)]


def pair_part(array: Array, i: slice, j: slice) -> Array:
    """A view of rows i and columns j of what broadcasts to a matrix."""
    part: Array = _cut(_cut(array, -2, i), -1, j)
    return part


def _copy(state: SoftmaxState) -> SoftmaxState:
    return SoftmaxState(*(np.array(field, order="C") for field in state))


def _refuse(Q: Array, K: Array, logits: Logits) -> None:
    """InputError where biases, masks or limits do not fit, or a logit could overflow."""
    shape = len(Q), len(K)
    if not np.isfinite(logits.scale):
        raise ConfigError(f"scale={logits.scale}: expected a finite number")
    for name, length in (("key_bias", shape[1]), ("limits", shape[0]), ("own", shape[0])):
        given = getattr(logits, name)
        if given is not None and given.shape != (length,):
            raise InputError(f"{name} of shape {given.shape}: expected ({length},)")
    most = 0.0
    for name in ("bias", "mask"):
        given = getattr(logits, name)
        if given is None:
            continue
        try:
            fits = np.broadcast_shapes(given.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"{name} of shape {given.shape} does not broadcast to {shape}, [queries, keys]"
            )
    for name in ("key_bias", "bias"):
        given = getattr(logits, name)
        if given is not None:
            most += _largest(given, name)
    most += abs(logits.scale) * _longest(Q) * _longest(K)
    limit = float(np.finfo(Q.dtype).max) / 8
    if most > limit:
        raise InputError(
            f"attention: logits may reach {most:.3g}, beyond what {Q.dtype} products hold "
            f"({limit:.3g}): scale the rows or biases down, or give float64"
        )


def _longest(X: Array) -> float:
    """The largest length of a row."""
    with np.errstate(over="ignore"):
        square = float(np.einsum("ij,ij->i", X, X).max(initial=0.0))
    if not np.isfinite(square):  # beyond float32, or float64: the rows are finite
        largest = float(np.abs(X).max())
        return largest * float(X.shape[1] ** 0.5)
    return float(square**0.5)


def _largest(bias: Array, name: str) -> float:
    """Of a bias' magnitudes that are not -inf. InputError for NaN and +inf."""
    high = float(np.max(bias, initial=-np.inf))
    if np.isnan(high) or high == np.inf:
        broken = ~(bias < np.inf)
        place = tuple(int(index) for index in np.argwhere(broken)[0])
        raise InputError(
            f"{name} is {bias[place]} at {place}: expected finite numbers, or -inf to mask"
        )
    low = float(np.min(bias, initial=0.0, where=bias > -np.inf))
    return max(abs(low), abs(high) if high > -np.inf else 0.0)
