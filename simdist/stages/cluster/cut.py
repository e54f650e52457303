"""Stage `normalized_cut`: what a labelling cuts through a graph. Inputs: graph, labels (any).

    look    weights inside and around each cluster, central rows     task a row shard
    add     the same over all shards                                 one task

For a cluster C: volume = sum of its rows' degrees, association = weight that stays inside (each
edge from both sides), cut = volume - association. The objective is the sum of cut / volume over the
clusters, between 0 (no edge is cut) and their number; a row labelled -1 is in none, and its edges
are cut. Source: Shi and Malik, PAMI 22 (2000); Yu and Shi, ICCV 2003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.operators import ShardedCsr
from simdist.panels import rows_between
from simdist.runner.plan import Commit, Job, Record, Round, Rounds, Task
from simdist.store.datasets import Shard
from simdist.types import Array, Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["CutConfig", "NormalizedCutStage"]

MAX_CLUSTERS = 1_000_000  # added up by one task
LISTED = 100  # clusters that the manifest describes; the table has all
SUMS = ("rows", "volumes", "association")


@dataclass(frozen=True, slots=True)
class CutConfig:
    """central: rows that describe a cluster, those with the most weight to the rest of it."""

    central: int = 5

    def __post_init__(self) -> None:
        if self.central < 1:
            raise ConfigError(f"central={self.central}: expected at least 1")

    def to_json(self) -> Json:
        return {"central": self.central}


class NormalizedCutStage:
    """See the module docstring. One shard, a row a cluster by ascending label, with

    labels, rows [k] int64; volumes, association [k] float64; central [k, m] int64, -1 where there
    are fewer; clusters: Parquet (cluster, rows, volume, association, cut)
    """

    name: ClassVar[str] = "normalized_cut"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        operator, labels = ShardedCsr.of(job.inputs["graph"]), job.inputs["labels"]
        if labels.rows != operator.nodes:
            raise InputError(
                f"the graph {operator.dataset.uri} has {operator.nodes} nodes, the labels"
                f" {labels.uri} have {labels.rows} rows: expected one for every node"
            )
        if "look" not in rounds:
            return Round(
                "look",
                tuple(
                    Task(f"look-{i:06d}", "look", {"shard": i}, _nbytes(operator, i))
                    for i in range(operator.shards)
                ),
            )
        if "add" not in rounds:
            known = sum(int(record.facts["clusters"]) for record in rounds["look"])
            nbytes = known * (64 + 48 * job.config.central) + (16 << 20)
            return Round("add", (Task("add", "add", {}, nbytes),))
        record = rounds["add"][0]
        unlabelled = sum(int(look.facts["unlabelled"]) for look in rounds["look"])
        metrics = {**record.facts, "nodes": operator.nodes, "unlabelled": unlabelled}
        clusters = int(record.facts["clusters"])
        return Commit(clusters, (Shard(clusters, record.objects),), metrics)

    def compute(self, context: Context, task: Task) -> Record:
        return _look(context, task) if task.kind == "look" else _add(context, task)


def _nbytes(operator: ShardedCsr, i: int) -> int:
    rows = max(operator.rows(s) for s in range(operator.shards))
    return 48 * operator.shard_entries(i) + 96 * rows + (16 << 20)


def _look(context: Context, task: Task) -> Record:
    """What a shard's rows say of their clusters: labels ascending, sums, and central rows."""
    operator, i = ShardedCsr.of(context.inputs["graph"]), task.args["shard"]
    shard, labels = operator.shard(i), context.inputs["labels"]
    own = np.asarray(rows_between(labels, "labels", shard.begin, shard.end))
    same = np.zeros(shard.entries, np.bool_)
    row_of = np.repeat(np.arange(shard.rows), np.diff(shard.indptr))
    for source in operator.sources(i):
        context.check()
        first, last = operator.span(source)
        theirs = np.asarray(rows_between(labels, "labels", first, last))
        here = np.flatnonzero((shard.indices >= first) & (shard.indices < last))
        same[here] = theirs[shard.indices[here] - first] == own[row_of[here]]
    inside = np.zeros(shard.rows)
    inside += np.bincount(row_of[same], weights=shard.weights[same], minlength=shard.rows)
    member = np.flatnonzero(own >= 0)
    found, place = np.unique(own[member], return_inverse=True)
    k = len(found)
    sums: dict[str, Array] = {
        "labels": found,
        "rows": np.bincount(place, minlength=k),
        "volumes": np.bincount(place, weights=shard.degrees[member], minlength=k),
        "association": np.bincount(place, weights=inside[member], minlength=k),
    }
    best = _first_of_each(place, inside[member], member, context.config.central)
    sums |= {
        "central_label": own[member[best]],
        "central_row": member[best] + shard.begin,
        "central_weight": inside[member[best]],
    }
    objects = {role: context.write_array("cut", array) for role, array in sums.items()}
    return Record(task.key, objects, {"clusters": k, "unlabelled": shard.rows - len(member)})


def _first_of_each(place: Ids, weight: Float64, rows: Ids, count: int) -> Ids:
    """Positions of the `count` largest weights of each cluster, by cluster; of equals the lower
    row first."""
    order = np.lexsort((rows, -weight, place))
    starts = np.searchsorted(place[order], place[order], side="left")
    return order[np.arange(len(order)) - starts < count]


def _add(context: Context, task: Task) -> Record:
    """All shards' sums, in the order of the shards."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    looks = [record.objects for record in context.records("look")]
    labels = np.unique(np.concatenate([context.load(look["labels"]) for look in looks]))
    if len(labels) > MAX_CLUSTERS:
        raise InputError(
            f"the labels name {len(labels)} clusters; at most {MAX_CLUSTERS} can be described. Are"
            " these row numbers?"
        )
    sums = {role: np.zeros(len(labels)) for role in SUMS}
    for look in looks:
        places = np.searchsorted(labels, context.load(look["labels"]))
        for role, total in sums.items():
            total[places] += context.load(look[role])
    central = _central(context, labels)
    rows = sums["rows"].astype(np.int64)
    volumes, inside = sums["volumes"], sums["association"]
    cut = np.maximum(volumes - inside, 0.0)  # of a whole component they differ by rounding
    shares = np.divide(cut, volumes, out=np.zeros(len(cut)), where=volumes > 0)
    table = pa.table(
        {"cluster": labels, "rows": rows, "volume": volumes, "association": inside, "cut": cut}
    )
    arrays = {
        "labels": labels,
        "rows": rows,
        "volumes": volumes,
        "association": inside,
        "central": central,
    }
    objects = {role: context.write_array("cut", array) for role, array in arrays.items()}
    objects["clusters"] = context.write_table("cut", table)
    listed = [
        {
            "cluster": int(labels[c]),
            "rows": int(rows[c]),
            "cut": float(shares[c]),
            "central": central[c][central[c] >= 0].tolist(),
        }
        for c in range(min(len(labels), LISTED))
    ]
    facts: dict[str, Json] = {
        "clusters": len(labels),
        "normalized_cut": math.fsum(shares),
        "volume": math.fsum(volumes),
        "listed": listed,
    }
    return Record(task.key, objects, facts)


def _central(context: Context, labels: Ids) -> Ids:
    """[k, m] rows of each cluster with the most weight inside it, over all shards."""
    m = context.config.central
    roles = ("central_label", "central_row", "central_weight")
    parts = [[context.load(r.objects[role]) for r in context.records("look")] for role in roles]
    label, row, weight = (np.concatenate(part) for part in parts)
    place = np.searchsorted(labels, label)
    best = _first_of_each(place, weight, row, m)
    starts = np.searchsorted(place[best], place[best], side="left")
    out = np.full((len(labels), m), -1, np.int64)
    out[place[best], np.arange(len(best)) - starts] = row[best]
    return out
