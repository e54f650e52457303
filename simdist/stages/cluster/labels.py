"""From centers or a rotation to labels: every row's cluster, clusters by size, who is central."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Record, Task
from simdist.stages.cluster.lloyd import nearest_center
from simdist.stages.cluster.pivots import rotated
from simdist.stages.cluster.tasks import block_of, points_of
from simdist.types import Float64, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["LISTED", "compute_finish", "compute_label", "compute_order"]

LISTED = 100  # clusters whose size and central rows the manifest tells; objects have all


def compute_label(context: Context, task: Task) -> Record:
    """A panel's rows, labelled. args: panel, at, clusters, of, restart. Facts: inertia.

    Central are the rows nearest to their center; under cluster_qr those that reach furthest along
    their axis. Both orders are kept as a distance that ascends.
    """
    args = task.args
    rows, X = block_of(context, args["panel"], args["at"])
    record = context.records(args["of"])[0]
    if context.config.method == "kmeans":
        centers = context.load(record.objects["centers"])[args["restart"]]
        labels, apart = nearest_center(X, centers)
        inertia = float(apart.sum())
    else:
        labels, reach = rotated(X, np.asarray(context.load(record.objects["turn"])))
        apart, inertia = -reach, 0.0
    k, m = args["clusters"], context.config.central
    near, who = _most_central(labels, apart, rows, k, m)
    objects = {
        "raw": context.write_array("raw-labels", labels.astype(np.int32)),
        "counts": context.write_array("counts", np.bincount(labels, minlength=k)),
        "near": context.write_array("central", near),
        "central": context.write_array("central", who),
    }
    return Record(task.key, objects, {"inertia": inertia})


def _most_central(
    labels: Ids, apart: Float64, rows: Ids, clusters: int, count: int
) -> tuple[Float64, Ids]:
    """[k, count] the smallest distances of each cluster and their rows; inf and -1 where it has
    fewer. Of equal distances the lower row."""
    near, who = np.full((clusters, count), np.inf), np.full((clusters, count), -1, np.int64)
    order = np.lexsort((rows, apart, labels))
    ends = np.searchsorted(labels[order], np.arange(clusters + 1))
    for cluster in range(clusters):
        best = order[ends[cluster] : min(ends[cluster] + count, ends[cluster + 1])]
        near[cluster, : len(best)], who[cluster, : len(best)] = apart[best], rows[best]
    return near, who


def compute_order(context: Context, task: Task) -> Record:
    """Clusters by size, the largest first; their most central rows over all panels.

    Raises InputError where a cluster has no row: the rows are fewer than clusters, told apart.
    """
    k, m = task.args["clusters"], context.config.central
    counts = np.zeros(k, np.int64)
    near, who = np.full((k, m), np.inf), np.full((k, m), -1, np.int64)
    for record in context.records("label"):
        counts += context.load(record.objects["counts"])
        near = np.concatenate([near, context.load(record.objects["near"])], axis=1)
        who = np.concatenate([who, context.load(record.objects["central"])], axis=1)
        best = np.lexsort((who, near), axis=1)[:, :m]
        near, who = (np.take_along_axis(array, best, axis=1) for array in (near, who))
    if not counts.all():
        found = int(np.sum(counts > 0))
        raise InputError(
            f"{k} clusters were asked for, and only {found} have rows: the rows differ in too few"
            f" places. Ask for clusters={found}."
        )
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(k, np.int64)
    rank[order] = np.arange(k)
    objects = {
        "rank": context.write_array("rank", rank),
        "sizes": context.write_array("sizes", counts[order]),
        "central": context.write_array("central", who[order]),
    }
    central = [[int(row) for row in rows if row >= 0] for rows in who[order[:LISTED]]]
    facts = {"sizes": counts[order[:LISTED]].tolist(), "central": central}
    return Record(task.key, objects, facts)


def compute_finish(context: Context, task: Task) -> Record:
    """A panel's labels as they are committed; small components numbered after the clusters."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    args, points = task.args, points_of(context)
    panel, large = args["panel"], np.asarray(args["at"]["large"], np.int64)
    first, last = points.span(panel)
    rank = context.load(context.records("order")[0].objects["rank"])
    raw = context.load(context.records("label")[panel].objects["raw"])
    if len(large):
        component = points.component_of(panel)
        below = np.searchsorted(large, component)
        labels = args["clusters"] + component - below
        labels[np.isin(component, large)] = rank[raw]
    else:
        labels = rank[raw]
    table = pa.table({"row": np.arange(first, last), "cluster": labels})
    objects = {
        "labels": context.write_array("labels", labels),
        "clusters": context.write_table("clusters", table),
    }
    return Record(task.key, objects)
