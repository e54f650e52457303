"""Clusters of graphs, embeddings and vectors, and what a clustering cuts.

graph ── connected_components ─┐
  └───── spectral_embedding ───┴── spectral_clusters ──> Clusters: labels, sizes, central rows
vectors ──────────────────────────────────┘                  │
graph, labels (any) ── normalized_cut ──> NormalizedCut <────┘
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, overload

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.models.chain import Link, run_links
from simdist.models.components import components_links
from simdist.models.links import SimilarityGraph, linked
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.propagation import labels_of
from simdist.models.spectral import spectral_links
from simdist.models.vectors import import_array
from simdist.operators import LINKS
from simdist.panels import rows_between
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.models.links import Graph
    from simdist.runner import Listener
    from simdist.stages.cluster.config import Method
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Ids, Json

__all__ = [
    "Clusters",
    "ClustersDataset",
    "NormalizedCut",
    "cluster_links",
    "cut_links",
    "graph_cluster_links",
    "normalized_cut",
    "spectral_clusters",
]

MOST = 16  # eigenvalues that clusters="auto" looks at by default
Count: TypeAlias = "int | Literal['auto']"


@dataclass(frozen=True, slots=True)
class Clusters:
    """A cluster for every row, the largest cluster first.

    labels: [n] int64, 0 the largest. A component of the graph that is too small to be cut is a
        cluster of its own, numbered from `clusters` on. clusters: how many there are beside these.
    sizes: [k] int64 rows. central: [k, m] int64, the rows nearest to each cluster's center, -1
        where it has fewer. inertia: sum of squared distances to the centers; None of cluster_qr.
    choice: for clusters="auto" the number, the gaps looked at, and why; else None.
    state: "converged", or "unconverged" where k-means or the embedding spent their iterations.
    """

    labels: Ids
    clusters: int
    sizes: Ids
    central: Ids
    inertia: float | None
    choice: Json
    state: str

    def __len__(self) -> int:
        return self.clusters

    def __repr__(self) -> str:
        few = ", ".join(str(size) for size in self.sizes[:5])
        more = ", ..." if self.clusters > 5 else ""
        return f"Clusters({self.clusters} of {len(self.labels)} rows: {few}{more}; {self.state})"


@dataclass(frozen=True, slots=True)
class ClustersDataset(Dataset):
    """Committed clusters: see `Dataset`; shards have "labels" as .npy and the Parquet table (row,
    cluster), `metrics` the sizes and central rows of the largest hundred."""

    def open(self) -> Clusters:
        """All labels in memory, 8 bytes a row."""
        metrics, objects = self.metrics, self.manifest.objects
        inertia = metrics.get("inertia")
        return Clusters(
            np.array(rows_between(self, "labels", 0, self.rows)),
            int(metrics["clusters"]),
            np.array(self.store.read_array(objects["sizes"])),
            np.array(self.store.read_array(objects["central"])),
            None if inertia is None else float(inertia),
            metrics["choice"],
            str(metrics["state"]),
        )


@dataclass(frozen=True, slots=True)
class NormalizedCut:
    """What a labelling cuts through a graph. value: the sum of cut / volume over the clusters.

    clusters: [k] int64 labels, ascending. rows: [k] int64. volumes: [k] float64 sums of degrees;
    association: of those, the weight that stays inside; cuts: the rest.
    central: [k, m] int64, rows with the most weight to their own cluster, -1 where there are fewer.
    """

    value: float
    clusters: Ids
    rows: Ids
    volumes: Float64
    association: Float64
    central: Ids

    @property
    def cuts(self) -> Float64:
        """[k] weight of the edges that leave each cluster."""
        return np.maximum(self.volumes - self.association, 0.0)

    @property
    def mean_association(self) -> float:
        """The mean of association / volume, 1 where nothing is cut: 1 - value / k."""
        return 1.0 - self.value / max(len(self.clusters), 1)

    def __repr__(self) -> str:
        return f"NormalizedCut({self.value:.6f} over {len(self.clusters)} clusters)"


def cluster_links(
    name: str,
    of: str,
    clusters: Count,
    *,
    components: str | None = None,
    method: Method = "kmeans",
    normalize: bool = True,
    restarts: int = 10,
    iterations: int = 300,
    tolerance: float = 1e-5,
    seed: int = 0,
    smallest: int | None = None,
    central: int = 5,
) -> tuple[Link, ...]:
    """The step that clusters the embedding or vectors called `of`. components: of the graph that
    was embedded."""
    from simdist.stages.cluster import ClusterConfig, SpectralClusters  # noqa: PLC0415

    config = ClusterConfig(
        clusters=_count(clusters),
        method=method,
        normalize=normalize,
        restarts=restarts,
        iterations=iterations,
        tolerance=tolerance,
        seed=seed,
        smallest=smallest,
        central=central,
    )
    inputs = {"embedding": of}
    if components is not None:
        inputs["components"] = components
    return (Link(name, SpectralClusters(), config, inputs),)


def graph_cluster_links(
    name: str, of: str, clusters: Count, *, most: int = MOST, residual: float = 1e-3, **options: Any
) -> tuple[Link, ...]:
    """The steps that cluster the similarity graph called `of`: its components, an embedding in as
    many dimensions as there are to be clusters (`most` where the eigenvalues are to say), and the
    clusters. options: of `cluster_links`."""
    components, embedding = f"{name}.components", f"{name}.embedding"
    last = cluster_links(name, embedding, clusters, components=components, **options)
    count = _count(clusters)
    dim = most if count is None else count
    seed = int(options.get("seed", 0))
    return (
        *components_links(components, of),
        *spectral_links(
            embedding, of, dim=dim, components=components, tolerance=residual, seed=seed
        ),
        *last,
    )


def cut_links(name: str, of: str, labels: str, *, central: int = 5) -> tuple[Link, ...]:
    """The step that says what the labels called `labels` cut through the graph called `of`."""
    from simdist.stages.cluster import CutConfig, NormalizedCutStage  # noqa: PLC0415

    return (Link(name, NormalizedCutStage(), CutConfig(central), {"graph": of, "labels": labels}),)


def _count(clusters: Count) -> int | None:
    """The number asked for; None for "auto"."""
    if clusters == "auto":
        return None
    if isinstance(clusters, bool) or not isinstance(clusters, (int, np.integer)):
        raise ConfigError(f"clusters={clusters!r}: expected a number, or 'auto'")
    return int(clusters)


class ClusterOptions(PlaceOptions, total=False):
    """Keyword options of `spectral_clusters`, for its typed overloads."""

    method: Method
    normalize: bool | None
    most: int
    residual: float
    restarts: int
    iterations: int
    tolerance: float
    seed: int
    smallest: int | None
    central: int


@overload
def spectral_clusters(
    x: Dataset, clusters: Count = "auto", **options: Unpack[ClusterOptions]
) -> ClustersDataset: ...
@overload
def spectral_clusters(
    x: SimilarityGraph | Array | Any, clusters: Count = "auto", **options: Unpack[ClusterOptions]
) -> Clusters: ...
def spectral_clusters(
    x: Graph | Array,
    clusters: Count = "auto",
    *,
    method: Method = "kmeans",
    normalize: bool | None = None,
    most: int = MOST,
    residual: float = 1e-3,
    restarts: int = 10,
    iterations: int = 300,
    tolerance: float = 1e-5,
    seed: int = 0,
    smallest: int | None = None,
    central: int = 5,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Clusters | ClustersDataset:
    """Clusters of a graph by its smallest eigenvectors; or of an embedding, or any vectors, as they
    are.

    x: SimilarityGraph or symmetric scipy matrix -> Clusters, by way of its components and a
        spectral embedding in as many dimensions as clusters; a numpy array [n, d] -> Clusters of
        its rows. A links dataset, a spectral embedding or a vectors dataset -> ClustersDataset.
    clusters: how many; "auto" takes the number with the largest gap between its eigenvalue and the
        next, of graphs and their embeddings. `choice` tells all gaps.
    method: "kmeans": Lloyd's, from k-means++ (rows that fit one task) or k-means|| seeds; or
        "cluster_qr": pivoted QR, nothing random, needs a column for every cluster.
    normalize: rows are scaled to length 1 first (Ng, Jordan, Weiss); None: for graphs and their
        embeddings, not for vectors.
    most: eigenvalues that "auto" looks at. residual: of the embedding's eigenvectors.
    restarts, iterations, tolerance, seed: of k-means; it stops once all centers together move,
        squared, by no more than a share `tolerance` of the mean squared distance to them.
    smallest: a component of fewer rows is not cut but a cluster of its own, numbered after the
        others, an isolated node too; None: a tenth of the rows of an average cluster, at least 2.
        Of more components than clusters are asked for only the largest are in `clusters`.
    central: rows that describe a cluster. store, scratch, engine: as for `knn_graph`.

    Raises InputError where rows differ in fewer places than clusters are asked for, where
    cluster_qr lacks columns, for "auto" without eigenvalues; a RuntimeWarning, and
    `state: unconverged` in the manifest, where k-means or the embedding spent their iterations.
    Cost: the embedding's passes; then n k d restarts flops an iteration. Rounds over panels of
    rows, each committed; n d up to 4 million values are clustered by one task.
    Sources: Ng, Jordan, Weiss (NIPS 2001); Bahmani et al. (VLDB 2012); Damle, Minden, Ying (2019);
    von Luxburg (2007) on the eigengap.
    """
    options: dict[str, Any] = {
        "method": method,
        "restarts": restarts,
        "iterations": iterations,
        "tolerance": tolerance,
        "seed": seed,
        "smallest": smallest,
        "central": central,
    }
    if _is_graph(x):
        links = graph_cluster_links(
            "clusters",
            "links",
            clusters,
            most=most,
            residual=residual,
            normalize=normalize is not False,
            **options,
        )
        with linked(x, store=store, scratch=scratch, engine=engine, listeners=listeners) as at:
            given = {"links": at.links}
            made = run_links(links, given, store=at.store, engine=at.engine, listeners=listeners)
            return _clusters_as(x, made["clusters"])
    if isinstance(x, Dataset):
        given = {"rows": x, **_components_of(x)}
        components = "components" if "components" in given else None
        unit = components is not None if normalize is None else normalize
        links = cluster_links(
            "clusters", "rows", clusters, components=components, normalize=unit, **options
        )
        place = x.store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            made = run_links(links, given, store=place, engine=opened, listeners=listeners)
        return _clusters_as(x, made["clusters"])
    links = cluster_links("clusters", "rows", clusters, normalize=bool(normalize), **options)
    with in_scratch(scratch, engine) as (place, opened):
        refuse_unseen(opened, place)
        rows = import_array(np.asarray(x), store=place, engine=opened, listeners=listeners)
        made = run_links(links, {"rows": rows}, store=place, engine=opened, listeners=listeners)
        return _clusters_as(x, made["clusters"])


def _is_graph(x: Graph | Array) -> bool:
    """Whether it is a similarity graph rather than rows: a numpy array is rows."""
    if isinstance(x, Dataset):
        return x.stage in LINKS
    return isinstance(x, SimilarityGraph) or not isinstance(x, np.ndarray)


def _components_of(rows: Dataset) -> dict[str, Dataset]:
    """The components of the graph that was embedded; nothing for other vectors, which are clustered
    as they are. Raises InputError for a dataset without vectors."""
    if "dim" not in rows.metrics or any("vectors" not in shard.objects for shard in rows.shards):
        raise InputError(
            f"{rows.uri} was made by stage {rows.stage} and has no vectors: give a graph that"
            " similarity_graph or import_graph committed, or what spectral_embedding,"
            " import_vectors or propagate did"
        )
    if rows.stage != "spectral_embedding" or rows.manifest.config["time"] is not None:
        return {}  # a diffusion map has lengths of its own, which are not to be scaled away
    return {"components": rows.store.dataset(rows.manifest.inputs["components"])}


def _clusters_as(x: Graph | Array, made: Dataset) -> Clusters | ClustersDataset:
    """Arrays for arrays, the dataset for a stored one."""
    found = ClustersDataset.of(made)
    if found.metrics["state"] == "unconverged":
        what = "the embedding" if found.metrics["embedding"] == "unconverged" else "k-means"
        warnings.warn(
            f"clusters are not final: {what} has not converged. Allow more iterations, or a larger"
            " tolerance; embed with spectral_embedding first to see its residuals.",
            RuntimeWarning,
            stacklevel=3,
        )
    return found if isinstance(x, Dataset) else found.open()


def normalized_cut(
    graph: Graph,
    labels: Array | Dataset,
    *,
    central: int = 5,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> NormalizedCut:
    """What any labelling of a graph's nodes cuts: the multi-way normalised cut, and each cluster.

    graph: SimilarityGraph, symmetric scipy matrix, or links dataset (whose answer is also committed
        beside it). labels: [n] integers, -1 for a row of no cluster, or a dataset with "labels".
    central: rows that describe a cluster, those with the most weight to the rest of it.
    store, scratch, engine: as for `knn_graph`.

    value = sum over clusters of cut(C) / volume(C): 0 where no edge is cut, at most their number.
    Edges of rows labelled -1 are cut. Raises InputError for another number of labels.
    Cost: one pass over the edges. Source: Shi and Malik (PAMI 2000); Yu and Shi (ICCV 2003).
    """
    links = cut_links("cut", "graph", "labels", central=central)
    with linked(graph, store=store, scratch=scratch, engine=engine, listeners=listeners) as at:
        given = {"graph": at.links, "labels": labels_of(labels, at, listeners)}
        made = run_links(links, given, store=at.store, engine=at.engine, listeners=listeners)
        found = made["cut"]
        roles = ("labels", "rows", "volumes", "association", "central")
        arrays = [np.array(rows_between(found, role, 0, found.rows)) for role in roles]
        return NormalizedCut(float(found.metrics["normalized_cut"]), *arrays)
