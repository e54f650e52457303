"""k nearest corpus rows of queries: `knn`, and the links it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Unpack, overload

from simdist.errors import ConfigError
from simdist.measures import Measure, resolve
from simdist.models.chain import Link, run_links
from simdist.models.graphs import GraphDataset, KnnGraph
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Json

__all__ = ["knn", "search_links"]


def search_links(
    name: str,
    of: str,
    corpus: str,
    *,
    k: int,
    measure: Json | Measure = "cosine",
    method: Literal["approximate", "exact"] = "exact",
    recall: float | None = 0.95,
    seed: int = 0,
    probes: int | None = None,
) -> tuple[Link, ...]:
    """The steps that find, for the queries called `of`, their nearest rows of `corpus`."""
    from simdist.stages.partition import PartitionConfig, PartitionStage  # noqa: PLC0415
    from simdist.stages.search import (  # noqa: PLC0415
        IndexConfig,
        IndexStage,
        KnnSearch,
        SearchConfig,
    )

    spec = resolve(measure).spec()
    config = SearchConfig(k=k, measure=spec, method=method, recall=recall, seed=seed, probes=probes)
    inputs = {"queries": of, "corpus": corpus}
    if method == "exact":
        return (Link(name, KnnSearch(), config, inputs),)
    partition, index = f"{corpus}.partition", f"{corpus}.index"
    inputs |= {"partition": partition, "index": index}
    return (
        Link(partition, PartitionStage(), PartitionConfig(spec, seed=seed), {"vectors": corpus}),
        Link(index, IndexStage(), IndexConfig(seed=seed), {"partition": partition}),
        Link(name, KnnSearch(), config, inputs),
    )


class SearchOptions(PlaceOptions, total=False):
    """Keyword options of `knn`, for its typed overloads."""

    measure: Json | Measure
    method: Literal["approximate", "exact"]
    recall: float | None
    seed: int
    probes: int | None


@overload
def knn(
    queries: Dataset, corpus: Dataset, k: int = 10, **options: Unpack[SearchOptions]
) -> GraphDataset: ...
@overload
def knn(
    queries: Array, corpus: Array, k: int = 10, **options: Unpack[SearchOptions]
) -> KnnGraph: ...
def knn(
    queries: Array | Dataset,
    corpus: Array | Dataset,
    k: int = 10,
    *,
    measure: Json | Measure = "cosine",
    method: Literal["approximate", "exact"] = "exact",
    recall: float | None = 0.95,
    seed: int = 0,
    probes: int | None = None,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> KnnGraph | GraphDataset:
    """The k nearest corpus rows of every query; two sets, nothing is excluded.

    queries: [m, d], corpus: [n, d] arrays -> KnnGraph, or two vectors datasets -> GraphDataset.
    method: "exact" (certified), or "approximate": only the cells of the corpus' stored index that
        reach the recall asked for (the lower end of its 95 % interval, measured on the queries).
        The index, and the partition under it that k-NN graphs use too, are made once and reused by
        every later search under the same measure and seed. See `retrieve`, which takes conditions.
    probes: cells a query looks into, instead of choosing for the recall.
    Other options, errors: see `knn_graph`. Cost: m n d exact; in cells some 5 % of it, and for the
        recall 1,000 n d.
    """
    links = search_links(
        "hits",
        "queries",
        "corpus",
        k=k,
        measure=measure,
        method=method,
        recall=recall,
        seed=seed,
        probes=probes,
    )
    if isinstance(queries, Dataset) and isinstance(corpus, Dataset):
        place = corpus.store if store is None else store_of(store)
        given = {"queries": queries, "corpus": corpus}
        with borrowed(engine, place) as opened:
            made = run_links(links, given, store=place, engine=opened, listeners=listeners)
        return GraphDataset.of(made["hits"])
    if isinstance(queries, Dataset) or isinstance(corpus, Dataset):
        raise ConfigError(
            "knn takes two arrays or two stored datasets: import the array with import_vectors, or"
            " open the dataset as an array"
        )
    with in_scratch(scratch, engine) as (place, opened):
        refuse_unseen(opened, place)
        given = {
            "queries": import_array(queries, store=place, engine=opened, listeners=listeners),
            "corpus": import_array(corpus, store=place, engine=opened, listeners=listeners),
        }
        made = run_links(links, given, store=place, engine=opened, listeners=listeners)
        return GraphDataset.of(made["hits"]).open()
