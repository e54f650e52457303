"""Spectral embeddings and diffusion maps of similarity graphs, and the links they are made of."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from simdist.errors import InputError
from simdist.models.chain import Link, run_links
from simdist.models.components import components_links
from simdist.models.links import Graph, linked
from simdist.models.places import PlaceOptions
from simdist.operators import degree_power
from simdist.stages.spectral.config import Laplacian, Solver, SpectralConfig
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.types import Array, Bools, Float64

__all__ = [
    "SpectralDataset",
    "SpectralEmbedding",
    "diffusion_map",
    "open_spectral",
    "spectral_embedding",
    "spectral_links",
]

SMALLEST = 1e-6  # eigenvalue of S by which an embedding can be continued to new points


@dataclass(frozen=True, slots=True)
class SpectralEmbedding:
    """Eigenvectors of a normalised Laplacian, its null space left out.

    vectors: [n, dim] float32 (float64 where the tolerance asked for it). The entry of largest
        magnitude in a column is positive, of equal ones that of the lower node. Rows of nodes
        without edges are 0. Within a group of nearly equal eigenvalues only the space they span is
        determined, not the single columns.
    eigenvalues: [dim] of the Laplacian, ascending, between 0 and 2.
    residuals: [dim] length of S v - value v, v of length 1; an eigenvalue is no further off.
    eigengap: distance from the last eigenvalue to the next one, as far as the next one is known;
        None where there is none.
    passes: products of the matrix with a block of dim + guards columns.
    converged: whether all residuals are within the tolerance that was asked for.
    degrees: [n] float64, of the kernel whose eigenvectors these are. density: [n] what the weights
        were divided by, d^alpha. alpha, laplacian: as asked.
    """

    vectors: Array
    eigenvalues: Float64
    residuals: Float64
    eigengap: float | None
    passes: int
    converged: bool
    degrees: Float64
    density: Float64
    alpha: float
    laplacian: Laplacian

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def isolated(self) -> Bools:
        """[n] whether a node has no edge, so that its row is 0."""
        return np.equal(self.degrees, 0)

    def transform(self, affinities: Any) -> Float64:
        """Where new points lie in the embedding, by their affinities to the n nodes (Nystroem).

        affinities: [m, n] scipy sparse matrix or array, at least 0: the weights that edges of the
            new points would have, made as those of the graph were. An edge to a point of its own
            row, which the graph leaves out, is to be left out here too.
        Returns [m, dim] float64: 1 / (1 - eigenvalue) times the mean of the neighbours' rows,
        weighted by affinity, which for a node of the graph is its own row up to the residual. A
        point without affinity gets 0, as isolated nodes have.

        Raises InputError for another shape, for a negative weight or NaN, and where an eigenvalue
        of the Laplacian is 1: such a column is no mean of neighbours.
        Source: Bengio et al., Out-of-sample extensions, NIPS 2003. Cost: dim flops an entry.
        """
        from scipy.sparse import csr_matrix  # noqa: PLC0415 - not needed to embed

        W = csr_matrix(affinities, dtype=np.float64)
        if W.shape[1] != len(self):
            raise InputError(f"affinities have shape {W.shape}; expected [m, {len(self)}]")
        if not (np.isfinite(W.data).all() and (W.data >= 0).all()):
            raise InputError("affinities hold a negative weight, NaN or infinity; expected >= 0")
        values = 1.0 - self.eigenvalues
        if np.abs(values).min() < SMALLEST:
            column = int(np.argmin(np.abs(values)))
            raise InputError(
                f"eigenvalue {column} of the Laplacian is 1, to {SMALLEST:g}: this column cannot be"
                f" continued to new points. Embed with dim <= {column}."
            )
        W = W.multiply(degree_power(self.density, -1.0)).tocsr()
        own = np.asarray(W.sum(axis=1)).ravel()
        walked = self.vectors.astype(np.float64)
        if self.laplacian == "symmetric":
            walked *= degree_power(self.degrees, -0.5)[:, None]
        out = degree_power(own, -1.0)[:, None] * np.asarray(W @ walked) / values
        if self.laplacian == "symmetric":
            out *= np.sqrt(own)[:, None]
        return np.asarray(out)

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        state = "converged" if self.converged else "UNCONVERGED"
        return f"SpectralEmbedding({len(self)} nodes, dim={self.dim}, {state})"


@dataclass(frozen=True, slots=True)
class SpectralDataset(Dataset):
    """A committed spectral embedding: see `Dataset`. `metrics` has eigenvalues, residuals, passes,
    bytes_per_pass, eigengap and state: "converged" or "unconverged"."""

    @property
    def converged(self) -> bool:
        return bool(self.metrics["state"] == "converged")

    def open(self) -> SpectralEmbedding:
        """The whole embedding in memory, n x dim values."""
        return open_spectral(self)


def open_spectral(dataset: Dataset) -> SpectralEmbedding:
    """A committed spectral embedding as arrays."""
    vectors, degrees, density = (
        np.concatenate([dataset.store.read_array(s.objects[role]) for s in dataset.shards])
        for role in ("vectors", "degrees", "density")
    )
    metrics = dataset.metrics
    return SpectralEmbedding(
        vectors=vectors,
        eigenvalues=np.array(metrics["eigenvalues"]),
        residuals=np.array(metrics["residuals"]),
        eigengap=metrics["eigengap"],
        passes=int(metrics["passes"]),
        converged=metrics["state"] == "converged",
        degrees=degrees,
        density=density,
        alpha=float(metrics["alpha"]),
        laplacian=metrics["laplacian"],
    )


def spectral_links(
    name: str,
    of: str,
    *,
    dim: int,
    components: str | None = None,
    laplacian: Laplacian = "symmetric",
    tolerance: float = 1e-3,
    solver: Solver = "auto",
    seed: int = 0,
    guards: int | None = None,
    max_passes: int = 1000,
    alpha: float = 0.0,
    time: int | None = None,
) -> tuple[Link, ...]:
    """The steps of an embedding of the similarity graph called `of`: its components, unless a link
    that finds them is named, and the eigenvectors. Arguments as for `spectral_embedding`."""
    from simdist.stages.spectral import SpectralStage  # noqa: PLC0415

    config = SpectralConfig(
        dim=dim,
        laplacian=laplacian,
        tolerance=tolerance,
        solver=solver,
        seed=seed,
        guards=guards,
        max_passes=max_passes,
        alpha=alpha,
        time=time,
    )
    found = f"{name}.components" if components is None else components
    first = components_links(found, of) if components is None else ()
    return (*first, Link(name, SpectralStage(), config, {"links": of, "components": found}))


class SpectralOptions(PlaceOptions, total=False):
    """Keyword options of `spectral_embedding` and `diffusion_map`, for their typed overloads."""

    tolerance: float
    solver: Solver
    seed: int
    guards: int | None
    max_passes: int


@overload
def spectral_embedding(
    graph: Dataset, dim: int, *, laplacian: Laplacian = ..., **options: Unpack[SpectralOptions]
) -> SpectralDataset: ...
@overload
def spectral_embedding(
    graph: Any, dim: int, *, laplacian: Laplacian = ..., **options: Unpack[SpectralOptions]
) -> SpectralEmbedding: ...
def spectral_embedding(
    graph: Graph,
    dim: int,
    *,
    laplacian: Laplacian = "symmetric",
    **options: Unpack[SpectralOptions],
) -> SpectralEmbedding | SpectralDataset:
    """Eigenvectors of the `dim` smallest eigenvalues of a graph's normalised Laplacian.

    graph: a SimilarityGraph or a symmetric scipy sparse matrix -> SpectralEmbedding; a dataset that
        similarity_graph or import_graph committed -> SpectralDataset.
    dim: how many, the null space not counted: its vectors, one for each connected component, are
        known and left out. Nodes without edges get rows of 0.
    laplacian: "symmetric", I - D^-1/2 W D^-1/2 with orthonormal v; or "random_walk", I - D^-1 W,
        the same eigenvalues with D^-1/2 v.
    tolerance: largest residual, 1e-3 by default; 1e-2 is not enough where eigenvalues lie closely.
    solver: "direct" (in one task), "lobpcg" (fewest passes over the shards), "chebyshev" (a few
        more passes, each at less cost, fewer barriers), or "auto": direct where the
        matrix and its blocks take at most 256 MiB, a rule of n, entries and dim, else chebyshev.
    guards: columns of a block beyond dim, by default half of dim (a quarter with "direct") and at
        least 8; more need fewer passes. seed: draws the first block.
    max_passes: products with a block, 1000 by default.
    store, scratch, engine, listeners: as for `knn_graph`.

    Not converged after max_passes: the result says so (`converged`, the manifest's state), and a
    RuntimeWarning does. A run that is killed goes on at its last round when it is called again.
    Raises InputError for a graph that is not symmetric and where dim exceeds what there is beside
    the null space, ConfigError for settings that make no sense.

    Cost: passes x entries x (dim + guards) x 2 flops and some 200 n dim^2 a basis; docs have
    figures. Source: Knyazev 2001 (LOBPCG), Zhou and Saad 2007 (the filter).
    """
    return _embedded(graph, dim, laplacian, options)


@overload
def diffusion_map(
    graph: Dataset,
    dim: int,
    t: int = ...,
    alpha: float = ...,
    **options: Unpack[SpectralOptions],
) -> SpectralDataset: ...
@overload
def diffusion_map(
    graph: Any, dim: int, t: int = ..., alpha: float = ..., **options: Unpack[SpectralOptions]
) -> SpectralEmbedding: ...
def diffusion_map(
    graph: Graph,
    dim: int,
    t: int = 1,
    alpha: float = 1.0,
    **options: Unpack[SpectralOptions],
) -> SpectralEmbedding | SpectralDataset:
    """Coordinates in which distances are diffusion distances after t steps of a random walk.

    graph, dim, options: as for `spectral_embedding`. The constant coordinate is left out.
    t: steps, 0 or more: column j is (1 - eigenvalue j)^t psi_j, psi_j of mean square 1 under the
        walk's stationary distribution.
    alpha: weights w_ij are first divided by (d_i d_j)^alpha: 1 is the geometry of the points alone,
        0 has their density in it, 0.5 is between (Fokker-Planck).

    `transform` places new points. Cost, errors: as for `spectral_embedding`, and a pass with one
    column. Source: Coifman and Lafon, Diffusion maps, 2006.
    """
    return _embedded(graph, dim, "random_walk", options, alpha=float(alpha), time=t)


def _embedded(
    graph: Graph,
    dim: int,
    laplacian: Laplacian,
    options: SpectralOptions,
    **more: Any,
) -> SpectralEmbedding | SpectralDataset:
    places = ("store", "scratch", "engine", "listeners")
    settings: dict[str, Any] = {k: v for k, v in options.items() if k not in places}
    places_given: dict[str, Any] = {k: v for k, v in options.items() if k in places}
    links = spectral_links(
        "embedding", "links", dim=int(dim), laplacian=laplacian, **settings, **more
    )
    with linked(graph, **places_given) as found:
        made = run_links(
            links,
            {"links": found.links},
            store=found.store,
            engine=found.engine,
            listeners=options.get("listeners", ()),
        )
        dataset = SpectralDataset.of(made["embedding"])
        _warn(dataset)
        return dataset if isinstance(graph, Dataset) else dataset.open()


def _warn(dataset: SpectralDataset) -> None:
    if dataset.converged:
        return
    metrics = dataset.metrics
    largest = max(metrics["residuals"], default=float("nan"))
    warnings.warn(
        f"spectral_embedding did not converge: largest residual {largest:.2g}, asked for"
        f" {metrics['tolerance']:g}, after {metrics['passes']} passes. Raise max_passes or guards.",
        RuntimeWarning,
        stacklevel=4,
    )
