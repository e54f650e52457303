"""Retrieval: `retrieve`, the nearest corpus rows of queries, and `index`, which it looks into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, Unpack, overload

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures import Measure, resolve
from simdist.models.array_index import (
    ArrayIndex,
    index_array,
    passing_rows,
    retrieve_array,
)
from simdist.models.chain import Link, run_link, run_links
from simdist.models.hits import Hits, HitsDataset
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Json

__all__ = ["index", "index_links", "retrieve", "retrieve_links"]


def index_links(
    name: str,
    of: str,
    *,
    measure: Json | Measure = "cosine",
    cells: int | None = None,
    seed: int = 0,
) -> tuple[Link, ...]:
    """The steps that put the vectors called `of` into cells to look into."""
    from simdist.stages.partition import PartitionConfig, PartitionStage  # noqa: PLC0415
    from simdist.stages.search import IndexConfig, IndexStage  # noqa: PLC0415

    partition, spec = f"{name}.partition", resolve(measure).spec()
    return (
        Link(partition, PartitionStage(), PartitionConfig(spec, seed=seed), {"vectors": of}),
        Link(name, IndexStage(), IndexConfig(cells, seed), {"partition": partition}),
    )


def retrieve_links(
    name: str,
    of: str,
    corpus: str,
    *,
    k: int,
    measure: Json | Measure = "cosine",
    method: Literal["approximate", "exact"] = "approximate",
    recall: float | None = 0.95,
    where: Any = None,
    probes: int | None = None,
    cells: int | None = None,
    seed: int = 0,
) -> tuple[Link, ...]:
    """The steps that find, for the queries called `of`, their nearest rows of `corpus`."""
    from simdist.stages.search import Retrieve, SearchConfig, read_where  # noqa: PLC0415

    config = SearchConfig(
        k=k,
        measure=resolve(measure).spec(),
        method=method,
        recall=recall,
        seed=seed,
        probes=probes,
        where=None if where is None else read_where(where).to_json(),
    )
    inputs = {"queries": of, "corpus": corpus}
    if method == "exact":
        return (Link(name, Retrieve(), config, inputs),)
    made = index_links(f"{name}.index", corpus, measure=measure, cells=cells, seed=seed)
    inputs |= {"partition": made[0].name, "index": made[1].name}
    return (*made, Link(name, Retrieve(), config, inputs))


class IndexOptions(TypedDict, total=False):
    """Keyword options of `index`, for its typed overloads."""

    measure: Json | Measure
    cells: int | None
    seed: int
    store: Store | str | None
    engine: Engine | str | None
    listeners: Sequence[Listener]


@overload
def index(corpus: Dataset, **options: Unpack[IndexOptions]) -> Dataset: ...
@overload
def index(corpus: Array, **options: Unpack[IndexOptions]) -> ArrayIndex: ...
def index(
    corpus: Array | Dataset,
    *,
    measure: Json | Measure = "cosine",
    cells: int | None = None,
    seed: int = 0,
    store: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Dataset | ArrayIndex:
    """Put a corpus into cells, once, for any number of searches.

    corpus: a vectors dataset -> a dataset, committed beside it and found again by every `retrieve`
        and approximate `knn` of the same measure, cells and seed; under it lies the corpus'
        partition, which k-NN graphs use too. Or an array [n, d] -> an `ArrayIndex` in memory.
    measure: as for `knn_graph`. cells: how many; None takes 8 sqrt(n), or sqrt(n) for a measure
        without a GEMM form (manhattan). seed: draws the rows that cells are learned from.
    Cost: 6 turns of k-means over 32 rows of each cell, then n comparisons with every cell, by int8
        codes: 2 s of one core for 64,000 rows of 384 dimensions. Stored: 4 bytes a row.
    """
    chosen = resolve(measure)
    if isinstance(corpus, Dataset):
        place = corpus.store if store is None else store_of(store)
        links = index_links("index", "corpus", measure=chosen, cells=cells, seed=seed)
        with borrowed(engine, place) as opened:
            made = run_links(
                links, {"corpus": corpus}, store=place, engine=opened, listeners=listeners
            )
        return made["index"]
    with in_scratch(store, engine) as (place, opened):
        _refuse_remote(opened)
        return index_array(corpus, chosen, cells=cells, seed=seed, engine=opened)


class RetrieveOptions(PlaceOptions, total=False):
    """Keyword options of `retrieve`, for its typed overloads."""

    measure: Json | Measure | None
    method: Literal["approximate", "exact"]
    recall: float | None
    where: Any
    index: Dataset | ArrayIndex | None
    probes: int | None
    seed: int


@overload
def retrieve(
    queries: Dataset, corpus: Dataset, k: int = 10, **options: Unpack[RetrieveOptions]
) -> HitsDataset: ...
@overload
def retrieve(
    queries: Array, corpus: Array | Dataset, k: int = 10, **options: Unpack[RetrieveOptions]
) -> Hits: ...
def retrieve(
    queries: Array | Dataset,
    corpus: Array | Dataset,
    k: int = 10,
    *,
    measure: Json | Measure | None = None,
    method: Literal["approximate", "exact"] = "approximate",
    recall: float | None = 0.95,
    where: Any = None,
    index: Dataset | ArrayIndex | None = None,
    probes: int | None = None,
    seed: int = 0,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Hits | HitsDataset:
    """The nearest corpus rows of every query, at most k: lists of any length.

    queries: [m, d], corpus: [n, d] arrays -> Hits, searched in this process. Two vectors datasets
        -> HitsDataset. An array of queries and a stored corpus -> Hits; the corpus' index is stored
        beside it, the queries in `scratch`.
    k: where fewer rows may be found, lists are shorter: none is padded.
    measure: as for `knn_graph`; None takes the index's, or cosine.
    method: "approximate" looks into the cells of the corpus' index nearest to a query; "exact"
        compares everything, certified.
    recall: of the approximate method, measured on a sample of 1,000 *queries* against exact lists:
        as many cells are probed as bring the lower end of its 95 % interval there. Where no number
        does, or comparing everything is less work than measuring and probing (few queries, few rows
        that pass, an array that is not in cells yet), everything is compared: the recall is 1.
        None, with probes: nothing is measured.
    where: which rows of a stored corpus may be found, by the columns kept at its import: text such
        as 'section == "net" and year >= 2020', a list of [column, operator, value], or an
        expression of pyarrow.compute. Of an array: a mask [n] bool. What fails is never a
        candidate, so lists are the k nearest of what passes; probes are chosen for what passes.
    index: what `index` gave; None makes one where it pays, or finds it in the store.
    probes: cells that a query looks into, instead of choosing for the recall.
    store, scratch, engine, listeners: as for `knn_graph`.
    Raises InputError for rows of another dimension, rows of zeros under cosine, an empty corpus or
        no queries, an index of another corpus, a column that is not kept; ConfigError for a
        condition that cannot be read.
    Cost: m (8 sqrt(n) + rows of the cells probed) comparisons by int8 codes and 2 k + 4 for each
        query in float32; measuring takes 1,000 n comparisons.
    """
    chosen = resolve(measure if measure is not None else _measure_of(index))
    options: dict[str, Any] = {
        "k": k,
        "measure": chosen,
        "method": method,
        "recall": recall,
        "probes": probes,
        "seed": seed,
    }
    _refuse_other(index, chosen)
    if isinstance(corpus, Dataset):
        links = retrieve_links("hits", "queries", "corpus", where=where, **options)
        found = _indexed(index, corpus) if index is not None and method != "exact" else {}
        links = tuple(link for link in links if link.name not in found)
        given = {"corpus": corpus, **found}
        if isinstance(queries, Dataset):
            place = corpus.store if store is None else store_of(store)
            with borrowed(engine, place) as opened:
                given |= {"queries": queries}
                made = run_links(links, given, store=place, engine=opened, listeners=listeners)
            return HitsDataset.of(made["hits"])
        return _array_in_dataset(queries, links, given, _Way(scratch, engine, listeners))
    if isinstance(queries, Dataset):
        raise ConfigError(
            "retrieve takes stored queries only with a stored corpus: import the corpus with"
            " import_vectors, or open the queries as an array"
        )
    way = _Way(scratch, engine, listeners)
    return _arrays(queries, corpus, {**options, "index": index, "where": where}, way)


class _Way(NamedTuple):
    """Where the search of an array runs."""

    scratch: Store | str | None
    engine: Engine | str | None
    listeners: Sequence[Listener]


def _array_in_dataset(
    queries: Array, links: Sequence[Link], given: dict[str, Dataset], way: _Way
) -> Hits:
    """The hits of an array in a stored corpus: what is of the corpus is stored beside it."""
    corpus, told = given["corpus"], way.listeners
    with in_scratch(way.scratch, way.engine) as (place, opened):
        refuse_unseen(opened, place)
        *made, last = links
        found = run_links(made, given, store=corpus.store, engine=opened, listeners=told)
        found["queries"] = import_array(queries, store=place, engine=opened, listeners=told)
        hits = run_link(last, found, store=place, engine=opened, listeners=told)
        return HitsDataset.of(hits).open()


def _arrays(queries: Array, corpus: Array, options: dict[str, Any], way: _Way) -> Hits:
    """The hits of an array in an array: in this process, or through a scratch store."""
    from simdist.stages.search import SearchConfig  # noqa: PLC0415 - imports the runner

    measure: Measure = options["measure"]
    index, where = options.pop("index"), options.pop("where")
    with in_scratch(way.scratch, way.engine) as (place, opened):
        if not opened.remote:
            config = SearchConfig(**{**options, "measure": measure.spec()})
            cells = None if index is None else _of_array(index, corpus)
            return retrieve_array(
                queries,
                corpus if cells is None else cells,
                config,
                measure,
                chosen=where,
                engine=opened,
            )
        if index is not None:
            raise ConfigError(
                "index: one of an array lives in this process; import the corpus with"
                " import_vectors to search it on a cluster"
            )
        refuse_unseen(opened, place)
        rows, told = passing_rows(where, len(corpus)), way.listeners
        found = corpus if rows is None else corpus[rows]
        given = {
            "queries": import_array(queries, store=place, engine=opened, listeners=told),
            "corpus": import_array(found, store=place, engine=opened, listeners=told),
        }
        links = retrieve_links("hits", "queries", "corpus", **options)
        made = run_links(links, given, store=place, engine=opened, listeners=told)
        hits = HitsDataset.of(made["hits"]).open()
        if rows is None:
            return hits
        return replace(hits, indices=rows[hits.indices], corpus=len(corpus))


def _measure_of(index: Dataset | ArrayIndex | None) -> Json | Measure:
    """The measure an index is for; cosine without one. InputError where it is none."""
    if index is None:
        return "cosine"
    if isinstance(index, ArrayIndex):
        return index.measure
    if index.stage != "index":
        raise InputError(f"index: {index.uri} is of {index.stage}; expected what sd.index gave")
    spec: Json = index.metrics["spec"]
    return spec


def _refuse_other(index: Dataset | ArrayIndex | None, measure: Measure) -> None:
    if index is not None and (known := resolve(_measure_of(index))) != measure:
        raise InputError(
            f"index: made for {known.name} ({known.spec()}), and measure={measure.spec()} was asked"
            " for. Leave measure out, or make an index for it."
        )


def _indexed(index: Dataset | ArrayIndex, corpus: Dataset) -> dict[str, Dataset]:
    """A stored index and the partition under it, by the names links have for them."""
    if not isinstance(index, Dataset):
        raise ConfigError("index: one of an array is for an array; pass what index(dataset) gave")
    manifest = index.store.manifest(index.manifest.inputs["partition"])
    if manifest is None or manifest.inputs.get("vectors") != corpus.fingerprint:
        raise InputError(
            f"index: {index.uri} is not of {corpus.uri}. Make one of it: sd.index(corpus)"
        )
    return {"hits.index.partition": Dataset(index.store, manifest), "hits.index": index}


def _of_array(index: Dataset | ArrayIndex, corpus: Array) -> ArrayIndex:
    """The index, if it can be one of the array: of its shape, and of some of its rows."""
    if not isinstance(index, ArrayIndex):
        raise ConfigError("index: a stored one is for a stored corpus; pass what index(array) gave")
    rows, some = index.shelf.rows, slice(None, None, max(1, len(index) // 16))
    if len(corpus) != len(index) or not np.array_equal(
        index.measure.prepare(corpus[some]).vectors, rows.vectors[some]
    ):
        raise InputError(
            f"index: of {len(index)} rows, which are not those of the corpus given, shape"
            f" {np.shape(corpus)}. Make one of it: sd.index(corpus)"
        )
    return index


def _refuse_remote(engine: Engine) -> None:
    if engine.remote:
        raise ConfigError(
            f"an array is put into cells in this process, not on {engine.where}: import it with"
            " import_vectors to have it done there"
        )
