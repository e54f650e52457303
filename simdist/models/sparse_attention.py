"""Attention over the keys that matter, with a certificate per query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from simdist.engine.ops import Call, map_window
from simdist.errors import ConfigError, InputError
from simdist.measures.rows import as_rows
from simdist.models.chain import Link, run_links
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.stages.sparse_attention import SparseAttentionStage, SparseConfig
from simdist.stages.sparse_attention.config import EXACT_ABOVE
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.stages.sparse_attention.fold import Certified
    from simdist.store.store import Store
    from simdist.types import Array, Bools, Float64, Ids

__all__ = [
    "SparseAttention",
    "SparseAttentionDataset",
    "open_sparse_attention",
    "sparse_attention",
    "sparse_attention_links",
]

SAMPLED_NBYTES = 128 << 20  # of the logits of sampled queries


@dataclass(frozen=True, slots=True, eq=False)
class SparseAttention:
    """What `sparse_attention` returns.

    output: [n, dv] averages of values, float32 (float64 where an input is).
    logsumexp: [n, 2] float64, bounds of log sum_j exp(scale q.k_j).
    tau: [n] the weights used are within so much of softmax's, in total variation, rounding
        included: |output - exact| <= 2 tau max |v|, and in each column c <= 2 tau max |v_c|.
    error: [n] a tighter bound of |output - exact|, in units of the values.
    keys: [n] keys looked at in full precision. certified: [n] tau is within the tolerance.
    fell_back: [n] all keys were taken, because that is cheaper.
    sampled, least: [s] some queries, and the fewest keys that leave out no more than the tolerance.
    """

    output: Array
    logsumexp: Float64
    tau: Float64
    error: Float64
    keys: Ids
    certified: Bools
    fell_back: Bools
    sampled: Ids
    least: Ids

    @property
    def missed(self) -> Ids:
        """Queries whose tau is not certain to be within the tolerance."""
        return np.flatnonzero(~self.certified)

    @property
    def ratio(self) -> float:
        """Keys of the sampled queries over the fewest that would do; NaN where none was sampled."""
        needed = int(self.least.sum())
        return float(self.keys[self.sampled].sum()) / needed if needed else float("nan")

    def __len__(self) -> int:
        return len(self.output)

    def __repr__(self) -> str:
        keys = float(self.keys.mean()) if len(self) else 0.0
        return (
            f"SparseAttention({len(self)} queries, {keys:.1f} keys each, {self.ratio:.2f} x the"
            f" fewest; {int(self.certified.sum())} certified, {int(self.fell_back.sum())} exact)"
        )


@dataclass(frozen=True, slots=True)
class SparseAttentionDataset(Dataset):
    """Committed sparse attention: see `Dataset`. Shards are Parquet (row, id, output or the columns
    by name, certificate); `metrics` has certified, missed, fell_back, keys_per_query, tau, ..."""

    def open(self) -> SparseAttention:
        """All of it in memory."""
        return open_sparse_attention(self)


def open_sparse_attention(dataset: Dataset) -> SparseAttention:
    """Committed sparse attention as arrays."""
    tables = [dataset.store.read_table(shard.objects["attention"]) for shard in dataset.shards]
    metrics = dataset.metrics

    def column(name: str) -> Array:
        return np.concatenate([table[name].to_numpy() for table in tables])

    if metrics["columns"]:
        output = np.stack([column(name) for name in metrics["columns"]], axis=1)
    else:
        flat = [table["output"].combine_chunks().flatten().to_numpy() for table in tables]
        output = np.concatenate(flat).reshape(dataset.rows, metrics["width"])
    return SparseAttention(
        output=output,
        logsumexp=np.stack([column("logsumexp_low"), column("logsumexp_high")], axis=1),
        **{name: column(name) for name in ("tau", "error", "keys", "certified", "fell_back")},
        sampled=np.array(metrics.get("sampled", []), np.int64),
        least=np.array(metrics.get("least", []), np.int64),
    )


def sparse_attention_links(
    name: str,
    of: str,
    keys: str,
    values: str | None,
    config: SparseConfig,
) -> tuple[Link, ...]:
    """The step that averages values over keys for the queries called `of`. values: a name, or None
    where the config names columns of the keys."""
    inputs = {"queries": of, "keys": keys}
    if values is not None:
        inputs["values"] = values
    return (Link(name, SparseAttentionStage(), config, inputs),)


class SparseOptions(PlaceOptions, total=False):
    """Keyword options of `sparse_attention`, for its typed overloads."""

    tolerance: float
    budget: int | None
    scale: float | None
    exact_above: float
    exclude_self: bool
    sample: int
    seed: int


@overload
def sparse_attention(
    q: Dataset, k: Dataset, v: Dataset | Sequence[str], **options: Unpack[SparseOptions]
) -> SparseAttentionDataset: ...
@overload
def sparse_attention(
    q: Array, k: Array, v: Array, **options: Unpack[SparseOptions]
) -> SparseAttention: ...
def sparse_attention(
    q: Array | Dataset,
    k: Array | Dataset,
    v: Array | Dataset | Sequence[str],
    *,
    tolerance: float = 1e-2,
    budget: int | None = None,
    scale: float | None = None,
    exact_above: float = EXACT_ABOVE,
    exclude_self: bool = False,
    sample: int = 32,
    seed: int = 0,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> SparseAttention | SparseAttentionDataset:
    """Attention over only the keys that matter, and a bound on what the others would have changed.

    q: [n, d], k: [m, d], v: [m, dv] arrays -> SparseAttention; or stored vectors, v vectors too or
        names of columns kept beside the keys -> SparseAttentionDataset: numbers are averaged, of
        text the shares of its classes are given.
    tolerance: softmax mass that may be left out of each query's average, at most.
    budget: keys in full precision for each query at most; those with the highest bounds come first.
        Queries it does not suffice for keep what they have, and are not certified.
    scale: logits are scale q.k_j; by default 1 / sqrt(d). For unit rows at a temperature T, 1 / T.
    exact_above: share of the keys above which all of them are taken, in matrix products, because
        that is cheaper than one by one: 1/4 by default, 1 never, 0 always.
    exclude_self: query i does not see key i, for a set that attends to itself.
    sample, seed: for how many queries the fewest keys that would do are counted, and which.
    store, scratch, engine, listeners: as for `knn_graph`.

    How. All keys are scanned as int8 codes; each logit s_j gets an upper bound u_j, by Cauchy and
    Schwarz on what codes leave out. Keys are scored in full precision, highest bound first, until
    the rest is certain to be light. With S the keys scored, Z = sum over S of exp(s_j), T' what the
    others weigh and T = sum over the others of exp(u_j) >= T',

        tau = T' / (Z + T') <= T / (Z + T).

    The output is the mean mu_S of the values of S under the softmax over S; the exact one is
    (1 - tau) mu_S + tau mu_rest. So error = tau (mu_S - mu_rest), and

        |error| <= tau (|output| + max |v|) <= 2 tau max |v|.

    Rounding (of codes, bounds, dot products, exp, sums, and of the output to float32) is part of
    `tau` and `error`, by worst-case bounds: no tolerance below about 1e-7 is ever certified in
    float32. Queries that take all keys have the rounding alone; they use float64 products where
    float32 might round away more than the tolerance.

    Raises InputError for shapes that do not fit and for NaN, with its row; ConfigError for settings
    that make no sense. Without keys the output is 0 and logsumexp -inf.
    Cost: an int8 product of n m d, and about 4 (d + dv) flops a key scored, at the rate of memory;
    codes of k take 2 m d bytes.
    Source: the identity is that of certified top-k attention (arXiv 2512.07647).
    """
    names = _column_names(v)
    stored = [isinstance(x, Dataset) for x in (q, k)]
    if any(stored) != all(stored) or (names is None and isinstance(v, Dataset) != stored[0]):
        raise ConfigError(
            "sparse_attention takes three arrays or three stored datasets (of the values, names of"
            " columns will do): import the arrays with import_vectors, or open the datasets"
        )
    if names is not None and not stored[0]:
        raise ConfigError(
            f"values {list(names)} are names of columns, which arrays do not have: pass v [m, dv]"
        )
    dim = int(q.metrics["dim"]) if isinstance(q, Dataset) else np.shape(q)[-1]
    config = SparseConfig(
        scale=float(dim) ** -0.5 if scale is None else float(scale),
        tolerance=float(tolerance),
        budget=budget,
        exact_above=float(exact_above),
        exclude_self=bool(exclude_self),
        sample=int(sample),
        columns=names or (),
        seed=seed,
    )
    if isinstance(q, Dataset) and isinstance(k, Dataset):
        given = {"queries": q, "keys": k} | ({"values": v} if isinstance(v, Dataset) else {})
        place = k.store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            return _run(given, config, place, opened, listeners)
    rows = _checked(q, k, v, exclude_self=exclude_self)
    if not len(rows[0]) or not len(rows[1]):
        return _of_nothing(*rows)
    return _of_arrays(rows, config, scratch, engine, listeners)


def _column_names(v: Any) -> tuple[str, ...] | None:
    if isinstance(v, str):
        return (v,)
    if isinstance(v, Sequence) and len(v) and all(isinstance(name, str) for name in v):
        return tuple(v)
    return None


def _run(
    given: dict[str, Any],
    config: SparseConfig,
    store: Store,
    engine: Engine,
    listeners: Sequence[Listener],
) -> SparseAttentionDataset:
    values = "values" if "values" in given else None
    links = sparse_attention_links("attention", "queries", "keys", values, config)
    made = run_links(links, given, store=store, engine=engine, listeners=listeners)
    return SparseAttentionDataset.of(made["attention"])


def _checked(q: Any, k: Any, v: Any, *, exclude_self: bool) -> tuple[Array, Array, Array]:
    """Queries, keys and values as float32 or float64, fitting one another; one object stays one."""
    found: dict[int, Array] = {}
    for X, what in ((q, "queries"), (k, "keys"), (v, "values")):
        if id(X) not in found:
            rows = as_rows(X, of=f"sparse_attention ({what})")
            dtype = np.float64 if rows.dtype == np.float64 else np.float32
            found[id(X)] = np.ascontiguousarray(rows, dtype)
    rows, keys, values = found[id(q)], found[id(k)], found[id(v)]
    if rows.shape[1] != keys.shape[1] or len(keys) != len(values):
        raise InputError(
            f"sparse_attention: queries {rows.shape}, keys {keys.shape}, values {values.shape},"
            " [rows, columns]; expected as many columns of queries as of keys, and a row of values"
            " for every key"
        )
    if exclude_self and len(rows) != len(keys):
        raise ConfigError(
            f"exclude_self: query i does not see key i; got {len(rows)} queries and"
            f" {len(keys)} keys"
        )
    return rows, keys, values


def _of_nothing(q: Array, k: Array, v: Array) -> SparseAttention:
    """No queries, or no keys: an average of nothing is 0."""
    n = len(q)
    zeros = np.zeros(n)
    return SparseAttention(
        output=np.zeros((n, v.shape[1]), np.result_type(q, k, v)),
        logsumexp=np.full((n, 2), -np.inf),
        tau=zeros,
        error=zeros,
        keys=np.zeros(n, np.int64),
        certified=np.ones(n, bool),
        fell_back=np.zeros(n, bool),
        sampled=np.empty(0, np.int64),
        least=np.empty(0, np.int64),
    )


def _of_arrays(
    rows: tuple[Array, Array, Array],
    config: SparseConfig,
    scratch: Store | str | None,
    engine: Engine | str | None,
    listeners: Sequence[Listener],
) -> SparseAttention:
    """In this process, or through a scratch store where the engine's workers are elsewhere."""
    with in_scratch(scratch, engine) as (place, opened):
        if not opened.remote:
            return _here(rows, config, opened)
        refuse_unseen(opened, place)
        given = {
            role: import_array(array, store=place, engine=opened, listeners=listeners)
            for role, array in zip(("queries", "keys", "values"), rows, strict=True)
        }
        return _run(given, config, place, opened, listeners).open()


def _here(
    rows: tuple[Array, Array, Array], config: SparseConfig, engine: Engine
) -> SparseAttention:
    """Blocks of queries on the threads of a local engine; what the stage does, without a store."""
    from simdist.stages.sparse_attention.block import joined  # noqa: PLC0415 - numba
    from simdist.stages.sparse_attention.sources import sub_rows  # noqa: PLC0415 - numba

    q, k, v = rows
    work = _Work.of(q, k, v, config)
    size = sub_rows(len(k))
    cuts = [np.arange(first, min(first + size, len(q))) for first in range(0, len(q), size)]
    nbytes = 4 * size * len(k) + 16 * size * (q.shape[1] + v.shape[1] + 4096)
    calls = [
        Call(f"block-{number:06d}", work.attend, (cut,), nbytes=min(nbytes, engine.memory))
        for number, cut in enumerate(cuts)
    ]
    if len(calls) == 1:
        parts = [(cuts[0], work.attend(cuts[0]))]
    else:
        found = dict(map_window(engine, calls))
        parts = [(cut, found[call.key]) for cut, call in zip(cuts, calls, strict=True)]
    whole = joined(len(q), parts)
    sampled, least = work.least()
    fields = ("output", "logsumexp", "tau", "error", "keys", "certified", "fell_back")
    return SparseAttention(
        **{name: getattr(whole, name) for name in fields}, sampled=sampled, least=least
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """Arrays, coded once, that every block looks at."""

    q: Array
    panel: Any
    pilot: Any
    centre: Float64
    facts: Any
    config: SparseConfig
    dtype: type

    @classmethod
    def of(cls, q: Array, k: Array, v: Array, config: SparseConfig) -> _Work:
        from simdist.compiled.twice_coded import encode  # noqa: PLC0415 - numba at the first call
        from simdist.stages.sparse_attention.bounds import KeyFacts  # noqa: PLC0415
        from simdist.stages.sparse_attention.fold import PILOT  # noqa: PLC0415
        from simdist.stages.sparse_attention.queries import Panel  # noqa: PLC0415
        from simdist.stages.sparse_attention.sources import MANY  # noqa: PLC0415

        few = np.unique(np.linspace(0, len(k) - 1, PILOT).astype(np.int64))
        centre = k[few].mean(axis=0, dtype=np.float64)
        coded = encode(k, centre)
        panel = Panel.of(coded, k, v)
        pilot = panel.take(few) if len(k) >= MANY * len(few) else None
        dtype = np.result_type(q, k, v).type
        return cls(q, panel, pilot, centre, KeyFacts.of(coded, k, v), config, dtype)

    def attend(self, rows: Ids) -> Certified:
        from simdist.stages.sparse_attention.block import attend_block  # noqa: PLC0415

        queries = self._queries(rows)
        return attend_block(queries, [self.panel], self.pilot, self.config)

    def least(self) -> tuple[Ids, Ids]:
        """A sample of the queries, and the fewest keys of each."""
        from simdist.stages.sparse_attention.fold import least_keys, logits_of  # noqa: PLC0415

        n, m = len(self.q), len(self.panel.keys)
        size = min(self.config.sample, n, max(SAMPLED_NBYTES // (8 * m), 1))
        rng = np.random.default_rng(self.config.seed)
        rows = np.sort(rng.choice(n, size, replace=False)).astype(np.int64)
        if not size:
            return rows, rows
        logits = logits_of(self._queries(rows), self.panel.keys)
        return rows, least_keys(logits, self.config.tolerance)

    def _queries(self, rows: Ids) -> Any:
        from simdist.stages.sparse_attention.queries import Queries  # noqa: PLC0415

        return Queries.of(
            self.q[rows],
            self.centre,
            self.facts,
            self.config,
            single=self.dtype == np.float32,
            parts=1,
            own=rows if self.config.exclude_self else None,
        )
