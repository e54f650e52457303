"""Symmetric weighted graphs of k-NN graphs: `similarity_graph`, and the link it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from simdist.errors import InputError
from simdist.models.chain import Link, run_link, run_links
from simdist.models.graphs import KnnGraph
from simdist.models.links import LinksDataset, SimilarityGraph, open_links
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store

__all__ = ["similarity_graph", "similarity_links"]

Symmetrize = Literal["union", "mutual"]
Weights = Literal["value", "binary", "self_tuning", "umap"]


def similarity_links(
    name: str,
    of: str,
    *,
    symmetrize: Symmetrize = "union",
    weights: Weights = "value",
    scale_neighbor: int = 7,
) -> tuple[Link, ...]:
    """The step that makes a similarity graph of the k-NN graph called `of`."""
    from simdist.stages.links import SimilarityConfig, SimilarityGraphStage  # noqa: PLC0415

    config = SimilarityConfig(symmetrize, weights, scale_neighbor)
    return (Link(name, SimilarityGraphStage(), config, {"graph": of}),)


class SimilarityOptions(PlaceOptions, total=False):
    """Keyword options of `similarity_graph`, for its typed overloads."""

    symmetrize: Symmetrize
    weights: Weights
    scale_neighbor: int


@overload
def similarity_graph(knn: Dataset, **options: Unpack[SimilarityOptions]) -> LinksDataset: ...
@overload
def similarity_graph(knn: KnnGraph, **options: Unpack[SimilarityOptions]) -> SimilarityGraph: ...
def similarity_graph(
    knn: KnnGraph | Dataset,
    *,
    symmetrize: Symmetrize = "union",
    weights: Weights = "value",
    scale_neighbor: int = 7,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> SimilarityGraph | LinksDataset:
    """A symmetric weighted graph of directed k-NN lists, without self-loops and duplicates.

    knn: a KnnGraph -> SimilarityGraph, or a dataset that knn_graph, append, delete or compact
        committed -> LinksDataset. Rows that were deleted are isolated nodes.
    symmetrize: "union", an edge where either row lists the other; "mutual", only where both do.
    weights:
        "value"        the similarity itself. One that is not above 0 is no edge: it is left out,
                       and `metrics["dropped"]` counts how many. Distances are refused. Where two
                       lists give a pair two values: the larger in a union, else the smaller.
        "binary"       1.
        "self_tuning"  exp(-d_ij^2 / (s_i s_j)), s the distance to neighbour `scale_neighbor` (7, at
                       most k; at least a thousandth of the row's mean distance).
        "umap"         the fuzzy simplicial set: memberships a, b of the two directions, a + b - a b
                       in a union, a b where mutual; UMAP's own with n_neighbors = k + 1.
        d is a distance's value, or what a similarity lacks of its bound (1 - cosine).
    store, scratch, engine: as for `knn_graph`.

    Raises InputError where the values are no weights of that kind (distances as "value", an
    unbounded similarity as a distance), and for what is no k-NN graph of rows among themselves.
    Cost: every edge is written, read and sorted once; 32 bytes an edge between the rounds.
    Sources: Zelnik-Manor & Perona, NIPS 2004; McInnes et al., arXiv 1802.03426.
    """
    options: dict[str, Any] = {
        "symmetrize": symmetrize,
        "weights": weights,
        "scale_neighbor": scale_neighbor,
    }
    links = similarity_links("links", "graph", **options)
    run: dict[str, Any] = {"listeners": listeners}
    if isinstance(knn, Dataset):
        place = knn.store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            made = run_links(links, {"graph": knn}, store=place, engine=opened, **run)
        return LinksDataset.of(made["links"])
    with in_scratch(scratch, engine) as (place, opened):
        refuse_unseen(opened, place)
        graph = _import_lists(knn, place, opened, listeners)
        made = run_links(links, {"graph": graph}, store=place, engine=opened, **run)
        return open_links(made["links"])


def _import_lists(
    knn: KnnGraph, store: Store, engine: Engine, listeners: Sequence[Listener]
) -> Dataset:
    """Lists in memory as a dataset."""
    from simdist.stages.links import ImportLists, write_lists  # noqa: PLC0415

    if not isinstance(knn, KnnGraph):
        raise InputError(
            f"similarity_graph takes a k-NN graph (KnnGraph, or a dataset of one), got"
            f" {type(knn).__name__}: for edges and matrices there is import_graph"
        )
    if knn.corpus is not None:
        raise InputError(
            "a similarity graph is made of rows among themselves (knn_graph); these are the nearest"
            f" of {knn.corpus} rows of another set"
        )
    config = write_lists(knn.indices, knn.values, knn.deleted, knn.measure, store)
    link = Link("graph", ImportLists(), config, {})
    return run_link(link, {}, store=store, engine=engine, listeners=listeners)
