"""Stage `spectral_clusters`: rows of an embedding, or of any vectors, in k clusters.

    mass       rows, degrees, columns by large component, if given     task a panel
    solve      few rows (ONE_TASK values): all in one place            one task
    kmeans.py  k-means||, then Lloyd's steps                           rounds         otherwise
    qr.py      cluster_qr, a pivot a round                             rounds
    label      nearest center of every row, most central rows          task a panel
    order      clusters by size, the largest first                     one task
    finish     labels as .npy and Parquet                              task a panel

Inputs: embedding (shards with "vectors"); for a spectral embedding also the components of its
graph, which say what it leaves out: see points.py. A component too small to be cut is a cluster of
its own, numbered after the k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Task
from simdist.stages.cluster.config import Choice, ClusterConfig, choose
from simdist.stages.cluster.kmeans import (
    compute_assign,
    compute_kmeans,
    compute_move,
    compute_seed,
    compute_spread,
    compute_weigh,
    kmeans_rounds,
    last_centers,
)
from simdist.stages.cluster.labels import compute_finish, compute_label, compute_order
from simdist.stages.cluster.points import Coordinates, Points, large_components, mass_of
from simdist.stages.cluster.qr import compute_pivot, compute_qr, compute_rotate, qr_rounds
from simdist.stages.cluster.tasks import each, once, points_of
from simdist.store.datasets import Shard
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["ONE_TASK", "SpectralClusters"]

ONE_TASK = 4_000_000  # values of the coordinates, 32 MB in float64, that one task clusters
SHARE = 0.5  # of a column's mass that has to lie on the rows that are clustered


class SpectralClusters:
    """See the module docstring. Each shard has

    labels    [rows] int64    the cluster of each row, 0 the largest
    clusters  Parquet         (row, cluster)

    and the dataset `sizes` [k] int64 and `central` [k, m] int64: the most central rows of each
    cluster, the most central first, -1 where it has fewer.
    """

    name: ClassVar[str] = "spectral_clusters"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        points = points_of(context)
        _refuse(points, job.config)
        if points.components is not None and "mass" not in rounds:
            return each(
                points, "mass", "mass", points.dim, 1, large=list(_large(points, job.config))
            )
        plan = _plan(points, job.config, rounds)
        for step in _story(points, job.config, plan, rounds):
            if step.name not in rounds:
                return step
        return _manifest(points, job.config, plan, rounds)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is clustered into how many, and why."""

    clusters: int
    at: Coordinates
    rows: int
    choice: Choice | None


def _refuse(points: Points, config: ClusterConfig) -> None:
    clusters = config.clusters
    if clusters is not None and clusters > points.rows:
        raise InputError(
            f"{clusters} clusters need at least as many rows; {points.embedding.uri} has"
            f" {points.rows}"
        )
    components = points.components
    if components is not None and components.rows != points.rows:
        raise InputError(
            f"the components {components.uri} have {components.rows} rows, the embedding"
            f" {points.embedding.uri} has {points.rows}: they must be of the same graph"
        )


def _large(points: Points, config: ClusterConfig) -> tuple[int, ...]:
    """Components that are cut: at least a tenth as large as a cluster is on average."""
    assert points.components is not None, "asked only where components are an input"
    most = config.clusters or points.dim + 1
    smallest = config.smallest or max(points.rows // (10 * most), 2)
    return large_components(points.components, most, smallest)


def _plan(points: Points, config: ClusterConfig, rounds: Rounds) -> _Plan:
    """Columns, components and the number of clusters, from the embedding's manifest and `mass`."""
    values = None if points.components is None else points.embedding.metrics.get("eigenvalues")
    columns, rows = list(range(points.dim)), points.rows
    large: tuple[int, ...] = ()
    volumes: tuple[float, ...] = ()
    if points.components is not None:
        large = _large(points, config)
        facts = [record.facts for record in rounds["mass"]]
        volumes = tuple(np.sum([fact["volumes"] for fact in facts], axis=0).tolist())
        rows = int(np.sum([fact["rows"] for fact in facts]))
        inside, total = (np.sum([f[name] for f in facts], axis=0) for name in ("inside", "total"))
        columns = np.flatnonzero(inside > SHARE * total).tolist()
    choice = None
    if config.clusters is None:
        if values is None:
            raise InputError(
                "clusters='auto' reads the number off the eigenvalues of a spectral embedding;"
                f" {points.embedding.uri} was made by stage {points.embedding.stage} and has none."
                " Say how many clusters."
            )
        choice = choose([values[column] for column in columns], len(large))
    clusters = config.clusters or (choice.clusters if choice else 0)
    if values is not None:  # of a spectral embedding, as many coordinates as clusters
        columns = columns[: max(clusters - len(large), 0)]
    at = Coordinates(tuple(columns), large, volumes, _walks(points))
    if config.method == "cluster_qr":
        at = _square(points, at, clusters)
    if rows < clusters:
        raise InputError(
            f"{clusters} clusters need at least as many rows; the components large enough to be cut"
            f" have {rows}"
        )
    return _Plan(clusters, at, rows, choice)


def _walks(points: Points) -> bool:
    """Whether the embedding is one of the random walk's Laplacian."""
    said = points.embedding.manifest.config
    return isinstance(said, dict) and said.get("laplacian") == "random_walk"


def _square(points: Points, at: Coordinates, clusters: int) -> Coordinates:
    """As many coordinates as clusters, the first ones; InputError where there are too few."""
    columns = at.columns[: clusters - len(at.large)]
    if len(at.large) + len(columns) < clusters:
        raise InputError(
            f"cluster_qr finds as many clusters as there are coordinates: {clusters} clusters need"
            f" {clusters - len(at.large)} columns of {points.embedding.uri} that speak of the rows"
            f" to be clustered, and {len(columns)} do. Embed in more dimensions, or take kmeans."
        )
    return Coordinates(columns, at.large, at.volumes, at.walk)


def _story(points: Points, config: ClusterConfig, plan: _Plan, rounds: Rounds) -> Iterator[Round]:
    at, dim, k = plan.at.to_json(), plan.at.dim, plan.clusters
    if plan.rows * max(dim, 1) <= ONE_TASK:
        kind = "qr" if config.method == "cluster_qr" else "kmeans"
        nbytes = 8 * plan.rows * (6 * dim + 8) + 24 * 8192 * k
        yield once("solve", kind, nbytes, at=at, clusters=k)
    elif config.method == "cluster_qr":
        yield from qr_rounds(points, dim, at)
    else:
        yield from kmeans_rounds(points, rounds, dim, k, config.iterations, at)
    of = _solved(config, rounds)
    args = {"at": at, "clusters": k, "of": of, "restart": _best(config, rounds, of)}
    yield each(points, "label", "label", dim, k, **args)
    yield once("order", "order", 64 * k * config.central, clusters=k)
    yield each(points, "finish", "finish", dim, k, at=at, clusters=k)


def _solved(config: ClusterConfig, rounds: Rounds) -> str:
    """The round that left the centers or the rotation."""
    if "solve" in rounds:
        return "solve"
    return "rotate" if config.method == "cluster_qr" else last_centers(rounds)


def _best(config: ClusterConfig, rounds: Rounds, of: str) -> int:
    """Of the restarts that were not given up, the one with the least inertia."""
    if config.method == "cluster_qr":
        return 0
    facts = rounds[of][0].facts
    return int(min(facts["going"], key=lambda restart: (facts["inertia"][restart], restart)))


def _manifest(points: Points, config: ClusterConfig, plan: _Plan, rounds: Rounds) -> Commit:
    order = rounds["order"][0]
    shards = []
    for panel, record in enumerate(rounds["finish"]):
        first, last = points.span(panel)
        shards.append(Shard(last - first, record.objects))
    of = _solved(config, rounds)
    metrics: dict[str, Json] = {
        "clusters": plan.clusters,
        "method": config.method,
        "rows": plan.rows,
        "coordinates": plan.at.dim,
        "sizes": order.facts["sizes"],
        "central": order.facts["central"],
        "choice": None if plan.choice is None else plan.choice.to_json(),
        "components": len(plan.at.large),
        "uncut": 0,
        "embedding": points.embedding.metrics.get("state"),
        "state": points.embedding.metrics.get("state", "converged"),
    }
    if points.components is not None:
        metrics["uncut"] = int(points.components.metrics["components"]) - len(plan.at.large)
    if config.method == "kmeans":
        facts, best = rounds[of][0].facts, _best(config, rounds, of)
        metrics |= {
            "inertia": sum(record.facts["inertia"] for record in rounds["label"]),
            "iterations": facts["iterations"],
        }
        if not facts["settled"][best]:
            metrics["state"] = "unconverged"
    objects = {role: order.objects[role] for role in ("sizes", "central")}
    return Commit(points.rows, tuple(shards), metrics, objects)


def _mass(context: Context, task: Task) -> Record:
    """See points.Mass. args: panel, large."""
    found = mass_of(points_of(context), task.args["panel"], task.args["large"])
    parts = ("rows", "volumes", "inside", "total")
    return Record(task.key, {}, {name: getattr(found, name).tolist() for name in parts})


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "mass": _mass,
    "kmeans": compute_kmeans,
    "qr": compute_qr,
    "spread": compute_spread,
    "weigh": compute_weigh,
    "seed": compute_seed,
    "assign": compute_assign,
    "move": compute_move,
    "pivot": compute_pivot,
    "rotate": compute_rotate,
    "label": compute_label,
    "order": compute_order,
    "finish": compute_finish,
}
