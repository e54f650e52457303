"""k-nearest-neighbour graphs: `knn_graph`, and the links it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from simdist.measures import Measure, resolve
from simdist.models.chain import Link, run_links
from simdist.models.graphs import GraphDataset, KnnGraph
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.partitions import has_codes, matrix_in_memory
from simdist.stages.graph.config import KnnGraphConfig, KnnParams
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Json

__all__ = ["knn_graph", "knn_links"]

Method = Literal["approximate", "exact"]


def knn_links(
    name: str,
    of: str,
    *,
    k: int,
    measure: Json | Measure = "cosine",
    recall: float | None = 0.95,
    method: Method = "approximate",
    seed: int = 0,
    params: KnnParams | None = None,
    in_place: bool = False,
) -> tuple[Link, ...]:
    """The steps of a k-NN graph of the vectors called `of`: a partition and the graph over it, or
    the exact graph alone. Arguments as for `knn_graph`; in_place: as a partition takes it."""
    from simdist.stages.graph import ApproximateKnnGraph, ExactKnnGraph  # noqa: PLC0415
    from simdist.stages.partition import FANOUT, PartitionConfig, PartitionStage  # noqa: PLC0415

    spec = resolve(measure).spec()
    config = KnnGraphConfig(
        k=k, measure=spec, method=method, recall=recall, seed=seed, params=params or KnnParams()
    )
    if method == "exact":
        return (Link(name, ExactKnnGraph(), config, {"vectors": of}),)
    partition = f"{name}.partition"
    fanout = max(FANOUT, config.resolved.fanout)
    cells = PartitionConfig(spec, fanout=fanout, seed=seed, in_place=in_place)
    return (
        Link(partition, PartitionStage(), cells, {"vectors": of}),
        Link(name, ApproximateKnnGraph(), config, {"vectors": of, "partition": partition}),
    )


class KnnOptions(PlaceOptions, total=False):
    """Keyword options of `knn_graph`, for its typed overloads."""

    measure: Json | Measure
    recall: float | None
    method: Method
    seed: int
    params: KnnParams | None


@overload
def knn_graph(x: Dataset, k: int = 15, **options: Unpack[KnnOptions]) -> GraphDataset: ...
@overload
def knn_graph(x: Array, k: int = 15, **options: Unpack[KnnOptions]) -> KnnGraph: ...
def knn_graph(
    x: Array | Dataset,
    k: int = 15,
    *,
    measure: Json | Measure = "cosine",
    recall: float | None = 0.95,
    method: Method = "approximate",
    seed: int = 0,
    params: KnnParams | None = None,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> KnnGraph | GraphDataset:
    """The k nearest other rows of every row.

    x: [n, d] float16, float32 or float64 rows -> KnnGraph, or a vectors dataset -> GraphDataset.
    measure: a name ("cosine", "euclidean", ...), a mapping, or a Measure.
    recall: what the lower end of the sampled 95 % interval of recall must reach; work is added
        until it does. None takes the first graph. method="exact" looks at every pair.
    seed: draws leaders, splits and sampled rows; the same seed gives the same graph.
    params: every knob of the approximate builder, see KnnParams.
    store: where a dataset's graph is committed, by default beside x.
    scratch: where an array's intermediate data goes; by default it stays in memory and, past a
        quarter of the engine's, in a temporary folder that is removed. Name one that all workers
        reach when the engine is a cluster elsewhere.
    engine: None or "local", "dask", "ray", an address, or an open Engine.

    Raises InputError where n <= k, where the measure cannot take a row, ConfigError for settings
    that make no sense. Cost: about n log n, docs/knn.md has figures; exact: n^2 d.
    Source: overlapping partitions with dense leaves (PiPNN, arXiv 2602.21247) and
    neighbour-of-neighbour joins (Dong et al., WWW 2011).
    """
    options: dict[str, Any] = {
        "k": k,
        "measure": measure,
        "recall": recall,
        "method": method,
        "seed": seed,
        "params": params,
    }
    if isinstance(x, Dataset):
        links = knn_links("graph", "vectors", **options)
        place = x.store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            made = run_links(links, {"vectors": x}, store=place, engine=opened, listeners=listeners)
        return GraphDataset.of(made["graph"])
    with in_scratch(scratch, engine) as (place, opened):
        refuse_unseen(opened, place)
        vectors = import_array(x, store=place, engine=opened, listeners=listeners)
        in_place = has_codes(resolve(measure)) and matrix_in_memory(vectors) is not None
        links = knn_links("graph", "vectors", **options, in_place=in_place)
        made = run_links(
            links, {"vectors": vectors}, store=place, engine=opened, listeners=listeners
        )
        return GraphDataset.of(made["graph"]).open()
