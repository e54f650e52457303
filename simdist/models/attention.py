"""Attention on arrays and on stored datasets: exact, chunked, memory set by the tile.

    arrays   (batch, head, rows of queries) ── one task each, on any engine ──> output, logsumexp
    stored   queries, keys, values: datasets ── stage `attention` ──> a dataset

Gradients come from the same tiles, on arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, Unpack, overload

import numpy as np

from simdist.engine.base import Engine
from simdist.engine.open import open_engine
from simdist.engine.ops import Call, map_window
from simdist.errors import ConfigError
from simdist.models.chain import Link, run_links
from simdist.models.heads import (
    Causal,
    HeadPlan,
    join_heads,
    unit_gradients,
    unit_output,
)
from simdist.models.places import PlaceOptions, borrowed, in_scratch, store_of
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.tiles.attend_back import Gradients
    from simdist.types import Array, Bools, Float64

__all__ = [
    "Attention",
    "AttentionDataset",
    "AttentionGradients",
    "attention",
    "attention_gradients",
    "attention_links",
]

DType: TypeAlias = Literal["float32", "float64"]


@dataclass(frozen=True, slots=True)
class Attention:
    """Softmax-weighted sums of values, and the logarithm of what the weights sum to.

    output: [.., heads, n, dv] (or [.., n, heads dv], see `attention`) float32, or float64 where an
        input is; 0 for a query that sees no key.
    logsumexp: [.., heads, n] float64, natural log of the sum of exp(logits); -inf for a query that
        sees no key. Results of the same queries over different keys merge by it.
    """

    output: Array
    logsumexp: Float64


class AttentionGradients(NamedTuple):
    """Of q, k, v and bias, each of its input's shape, in the output's dtype (bias: None where there
    is none)."""

    q: Array
    k: Array
    v: Array
    bias: Array | None


@dataclass(frozen=True, slots=True)
class AttentionDataset(Dataset):
    """Committed attention: see `Dataset`. Its outputs are vectors (float32), so that it can be what
    a k-NN graph is made of; `open` reads it into arrays."""

    def open(self) -> Attention:
        """All of it in memory: output [n, heads dv], logsumexp [n], or [heads, n] of several."""
        outputs: list[Array] = []
        sums: list[Array] = []
        for shard in self.shards:
            table = self.store.read_table(shard.objects["attention"], ["output", "logsumexp"])
            for name, parts in (("output", outputs), ("logsumexp", sums)):
                column = table[name].combine_chunks()
                flat = column.flatten() if name == "output" or self.heads > 1 else column
                parts.append(flat.to_numpy(zero_copy_only=False).reshape(shard.rows, -1))
        logsumexp = np.concatenate(sums).T
        one = self.heads == 1
        return Attention(np.concatenate(outputs), logsumexp[0] if one else logsumexp)

    @property
    def heads(self) -> int:
        return int(self.metrics["heads"])


def attention_links(
    name: str,
    queries: str,
    keys: str,
    values: str | None = None,
    *,
    scale: float | None = None,
    bandwidth: float | None = None,
    bias: str | None = None,
    mask: str | None = None,
    causal: Causal = False,
    exclude_self: bool = False,
    heads: int | None = None,
    kv_heads: int | None = None,
    columns: Iterable[str] = (),
    dtype: DType | None = None,
) -> tuple[Link, ...]:
    """The step that attends from the rows called `queries` to those of `keys`, mixing `values`, by
    default the keys themselves.

    bandwidth: h, of logits -|q - k|^2 / (2 h^2) instead of scaled products. exclude_self: query i
    does not see key i. Others: see `attention`.
    """
    from simdist.stages.attention import AttentionConfig, AttentionStage  # noqa: PLC0415

    if kv_heads is not None and heads is None:
        raise ConfigError(f"kv_heads={kv_heads} without heads: give both")
    config = AttentionConfig(
        scale=scale,
        bandwidth=bandwidth,
        bias=bias,
        mask=mask,
        causal="upper_left" if causal is True else (causal or None),
        exclude_self=exclude_self,
        heads=heads or 1,
        kv_heads=kv_heads or heads or 1,
        values=(columns,) if isinstance(columns, str) else tuple(columns),
        dtype=dtype or "float32",
    )
    inputs = {"queries": queries, "keys": keys, "values": values or keys}
    return (Link(name, AttentionStage(), config, inputs),)


class AttentionOptions(PlaceOptions, total=False):
    """Keyword options of `attention`, for its typed overloads."""

    scale: float | None
    causal: Causal
    heads: int | None
    kv_heads: int | None
    columns: Iterable[str]
    dtype: DType | None


@overload
def attention(
    q: Dataset,
    k: Dataset,
    v: Dataset,
    *,
    bias: str | None = ...,
    mask: str | None = ...,
    **options: Unpack[AttentionOptions],
) -> AttentionDataset: ...
@overload
def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    bias: Array | None = ...,
    mask: Bools | None = ...,
    **options: Unpack[AttentionOptions],
) -> Attention: ...
def attention(
    q: Array | Dataset,
    k: Array | Dataset,
    v: Array | Dataset,
    *,
    scale: float | None = None,
    bias: Array | str | None = None,
    mask: Bools | str | None = None,
    causal: Causal = False,
    heads: int | None = None,
    kv_heads: int | None = None,
    columns: Iterable[str] = (),
    dtype: DType | None = None,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Attention | AttentionDataset:
    """softmax(scale q k^T + bias) v, exactly, without ever holding an [n, m] matrix.

    q: [.., h, n, d], k: [.., g, m, d], v: [.., g, m, dv] arrays of float16, 32 or 64 (or without
        the axis of heads) -> Attention. Leading axes broadcast. Grouped queries: h may be a
        multiple of g, and head i attends to keys of head i // (h / g); g = 1 is multi-query.
        Or three vectors datasets (v of as many rows as k) -> AttentionDataset.
    heads, kv_heads: given, heads lie side by side in the last axis instead: q [.., n, heads d],
        k [.., m, kv_heads d], v [.., m, kv_heads dv], and so does the output, [.., n, heads dv].
        So they do in datasets.
    scale: of the products; by default 1 / sqrt(d).
    bias: added to logits, broadcasts to [.., h, n, m]; [m] is one number per key. -inf masks.
        Of datasets: the name of a kept column of the keys.
    mask: broadcasts likewise; False where a query does not see a key. Of datasets: a kept column.
    causal: True or "upper_left": query i sees keys 0..i (as PyTorch's is_causal); "lower_right":
        the last query sees all keys, query i keys 0..i + m - n. Positions are global rows.
    columns: of datasets: kept numeric columns of v that are mixed, instead of its vectors.
    dtype: "float32" or "float64", of products and output; by default float64 where an array is, and
        float32 otherwise.
    store, scratch, engine, listeners: as for `knn_graph`; arrays by default on threads of this
        process.

    `output` and `logsumexp` are always both there: no flag changes what is returned.
    In float64 within 1e-12 of the dense answer; in float32 about 1e-7 x |logit| away from it. The
    same numbers on every engine; a run on datasets that was killed goes on where it stopped.
    Raises InputError for shapes that do not fit, and for NaN, naming array, head and row.
    Cost: 2 n m (d + dv) flops a head; a task holds 2,048 queries and a tile of 1 MiB (arrays), or
    4,096 queries and 16 MiB of keys and values (datasets).
    Source: Milakov and Gimelshein 2018; Rabe and Staats 2021; Dao et al. 2022.
    """
    if isinstance(q, Dataset) or isinstance(k, Dataset) or isinstance(v, Dataset):
        given = _datasets(q, k, v, bias, mask)
        settings: dict[str, Any] = {"bias": bias, "mask": mask}
        links = attention_links(
            "attention",
            "queries",
            "keys",
            "values",
            scale=scale,
            causal=causal,
            heads=heads,
            kv_heads=kv_heads,
            columns=columns,
            dtype=dtype,
            **settings,
        )
        place = given["keys"].store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            made = run_links(links, given, store=place, engine=opened, listeners=listeners)
        return AttentionDataset.of(made["attention"])
    if columns or isinstance(bias, str) or isinstance(mask, str):
        raise ConfigError("columns are those of datasets: give arrays of values, bias and mask")
    plan = HeadPlan.of(
        q, k, v, bias, mask, causal=causal, scale=scale, heads=heads, kv_heads=kv_heads, dtype=dtype
    )
    with _opened(engine, scratch) as opened:
        return _on_arrays(plan, opened)


def _datasets(q: Any, k: Any, v: Any, bias: Any, mask: Any) -> dict[str, Dataset]:
    if not all(isinstance(data, Dataset) for data in (q, k, v)):
        raise ConfigError(
            "attention takes three arrays or three stored datasets: import arrays with"
            " import_vectors, or open datasets as arrays"
        )
    for name, given in (("bias", bias), ("mask", mask)):
        if given is not None and not isinstance(given, str):
            raise ConfigError(
                f"{name} of stored keys is the name of a kept column; got {type(given).__name__}"
            )
    return {"queries": q, "keys": k, "values": v}


def _on_arrays(plan: HeadPlan, engine: Engine) -> Attention:
    """Unit by unit on the engine's workers."""
    output, logsumexp = plan.empty()
    units = {f"attention-{place}": unit for place, unit in enumerate(plan.units())}
    shared = [engine.put(array) for array in plan.arrays]
    calls = (
        Call(key, unit_output, (plan.pairs, unit, *shared), unit.nbytes)
        for key, unit in units.items()
    )
    for key, (part, sums) in map_window(engine, calls):
        unit = units[key]
        output[unit.index][unit.first : unit.last] = part
        logsumexp[unit.index][unit.first : unit.last] = sums
    return Attention(plan.given(output), plan.given_rows(logsumexp))


def attention_gradients(
    q: Array,
    k: Array,
    v: Array,
    d_output: Array,
    attended: Attention,
    *,
    d_logsumexp: Array | None = None,
    scale: float | None = None,
    bias: Array | None = None,
    mask: Bools | None = None,
    causal: Causal = False,
    heads: int | None = None,
    kv_heads: int | None = None,
    workers: int | None = None,
) -> AttentionGradients:
    """Gradients of `attention`, from the same tiles: of sum(d_output * output).

    q, k, v, scale, bias, mask, causal, heads, kv_heads: as they were given to `attention`.
    d_output: of the shape of the output; d_logsumexp: of the logsumexp's, where a loss uses it.
    attended: what `attention` returned; its weights are computed again, none was kept.
    workers: threads of this process; by default the cpus it may use.

    A bias for each pair has a gradient as large as itself.
    Raises as `attention` does. Cost: 2.5 times its flops; a task holds gradients of a head's keys.
    Source: Dao et al. 2022.
    """
    plan = HeadPlan.of(
        q, k, v, bias, mask, causal=causal, scale=scale, heads=heads, kv_heads=kv_heads
    )
    results = plan.results(d_output, attended.output, attended.logsumexp, d_logsumexp)
    found = [np.zeros(array.shape) for array in plan.arrays[: 4 if plan.pairs.bias else 3]]
    units = {f"gradients-{place}": unit for place, unit in enumerate(plan.back_units())}
    waiting: dict[str, Gradients] = {}
    turn = iter(units)
    following = next(turn, None)
    with open_engine("local", workers=workers) as opened:
        calls = (
            Call(key, unit_gradients, (plan.pairs, unit, results, *plan.arrays), unit.nbytes)
            for key, unit in units.items()
        )
        for key, part in map_window(opened, calls):
            waiting[key] = part
            while following in waiting:  # in plan order, so that sums round the same every time
                plan.add(found, units[following], waiting.pop(following))
                following = next(turn, None)
    dq, dk, dv, *more = (array.astype(plan.dtype) for array in found)
    if plan.split:
        dq, dk, dv = (join_heads(array) for array in (dq, dk, dv))
    of_bias = None if bias is None else more[0].reshape(np.shape(bias))
    return AttentionGradients(dq, dk, dv, of_bias)


@contextmanager
def _opened(engine: Engine | str | None, scratch: Store | str | None) -> Iterator[Engine]:
    """The caller's engine, or one for the length of the call. Threads of this process need no
    scratch: arrays are shared as they are."""
    if isinstance(engine, Engine):
        yield engine
    elif scratch is None and engine in (None, "local"):
        with open_engine("local") as opened:
            yield opened
    else:
        with in_scratch(scratch, engine) as (_, opened):
            yield opened
