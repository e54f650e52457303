"""From settled messages to exemplars and labels.

    choose     a row's most similar exemplar among its neighbours          task a row shard
    adopt-*    rows without one take the label of their nearest labelled   task a row shard
    central    the row of each cluster with the most weight inside it      task a row shard
    exemplars  these are the exemplars; numbered by row                    one task
    assign     every row's most similar of them                            task a row shard
    pairs      weight between clusters, with rounds=2                      task a row shard
    second     affinity propagation among the exemplars                    one task
    finish     labels as .npy and Parquet                                  task a row shard

On a complete graph this is what scikit-learn does. On a sparse one a row may have no exemplar among
its neighbours: it follows its nearest neighbour that has a label, as often as that reaches further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.operators import CsrShard, ShardedCsr
from simdist.runner.plan import Record, Task
from simdist.stages.affinity.messages import Edges
from simdist.stages.affinity.turns import gathered, turns_in_memory
from simdist.types import Array, Bools, Float64, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = [
    "compute_adopt",
    "compute_assign",
    "compute_central",
    "compute_choose",
    "compute_exemplars",
    "compute_finish",
    "compute_pairs",
    "compute_second",
]

MAX_PAIRS = 20_000_000  # of clusters with edges between them, that one task clusters once more


def _columns(context: Context, i: int) -> tuple[CsrShard, Ids, Ids]:
    """A shard, its distinct columns, and which of them every entry has."""
    start = context.records("start")[i].objects
    columns, place = (np.asarray(context.load(start[role])) for role in ("columns", "place"))
    return ShardedCsr.of(context.inputs["graph"]).shard(i), columns, place


def _heaviest(shard: CsrShard, allowed: Bools) -> Ids:
    """[rows] the entry of each row with the largest weight among those allowed, the first of
    equals; -1 where none is. allowed: [e]."""
    entries = np.flatnonzero(allowed)
    row = np.searchsorted(shard.indptr, entries, side="right") - 1
    order = np.lexsort((entries, -shard.weights[entries], row))
    first = np.ones(len(order), np.bool_)
    first[1:] = row[order][1:] != row[order][:-1]
    out = np.full(shard.rows, -1, np.int64)
    out[row[order][first]] = entries[order][first]
    return out


def _followed(shard: CsrShard, allowed: Bools, named: Ids) -> Ids:
    """[rows] what the heaviest allowed entry is named, -1 where a row has none. named: [e]."""
    entry = _heaviest(shard, allowed)
    if not len(named):
        return np.full(shard.rows, -1, np.int64)
    return np.where(entry >= 0, named[entry], -1)


def compute_choose(context: Context, task: Task) -> Record:
    """args: shard, of. Facts: left, rows that have no exemplar yet."""
    i, of = task.args["shard"], task.args["of"]
    shard, columns, place = _columns(context, i)
    exemplar = np.asarray(gathered(context, i, of, "exemplar", columns), np.bool_)
    labels = _followed(shard, exemplar[place], columns[place])
    own = np.flatnonzero(context.load(context.records(of)[i].objects["exemplar"]))
    labels[own] = own + shard.begin
    return _labelled(context, task, labels)


def compute_adopt(context: Context, task: Task) -> Record:
    """args: shard, of. A row without a label takes that of its heaviest neighbour which has one."""
    i, of = task.args["shard"], task.args["of"]
    shard, columns, place = _columns(context, i)
    theirs = gathered(context, i, of, "labels", columns).astype(np.int64)[place]
    labels = np.array(context.load(context.records(of)[i].objects["labels"]))
    found = _followed(shard, theirs >= 0, theirs)
    return _labelled(context, task, np.where(labels >= 0, labels, found))


def _labelled(context: Context, task: Task, labels: Ids) -> Record:
    objects = {"labels": context.write_array("labels", labels)}
    return Record(task.key, objects, {"left": int(np.sum(labels < 0))})


def compute_central(context: Context, task: Task) -> Record:
    """args: shard, of. For each cluster its row with the most weight to the others, of the shard's
    rows; of equals the first."""
    i, of = task.args["shard"], task.args["of"]
    shard, columns, place = _columns(context, i)
    theirs = gathered(context, i, of, "labels", columns).astype(np.int64)[place]
    labels = np.asarray(context.load(context.records(of)[i].objects["labels"]))
    row_of = np.repeat(np.arange(shard.rows), np.diff(shard.indptr))
    same = theirs == labels[row_of]
    inside = np.zeros(shard.rows)
    inside += np.bincount(row_of[same], weights=shard.weights[same], minlength=shard.rows)
    member = np.flatnonzero(labels >= 0)
    best = member[_largest(labels[member], inside[member], member)]
    objects = {
        "cluster": context.write_array("central", labels[best]),
        "row": context.write_array("central", best + shard.begin),
        "weight": context.write_array("central", inside[best]),
    }
    return Record(task.key, objects)


def _largest(group: Ids, value: Float64, rows: Ids) -> Ids:
    """Where the largest value of each group stands, by group; of equals the lowest row."""
    order = np.lexsort((rows, -value, group))
    first = np.ones(len(order), np.bool_)
    first[1:] = group[order][1:] != group[order][:-1]
    return order[first]


def compute_exemplars(context: Context, task: Task) -> Record:
    """Exemplars by row, and which cluster of the messages each came from."""
    objects = [record.objects for record in context.records("central")]
    cluster, row, weight = (
        np.concatenate([context.load(part[role]) for part in objects])
        for role in ("cluster", "row", "weight")
    )
    best = _largest(cluster, weight, row)
    found = {"cluster": cluster[best], "exemplar": row[best], "exemplars": np.sort(row[best])}
    written = {role: context.write_array("exemplars", array) for role, array in found.items()}
    return Record(task.key, written, {"exemplars": len(best)})


def compute_assign(context: Context, task: Task) -> Record:
    """args: shard, of. Every row's most similar exemplar; where none is a neighbour, the new one of
    its cluster."""
    i, of = task.args["shard"], task.args["of"]
    shard, columns, place = _columns(context, i)
    known = context.records("exemplars")[0].objects
    exemplars, cluster, exemplar = (
        np.asarray(context.load(known[role])) for role in ("exemplars", "cluster", "exemplar")
    )
    before = np.asarray(context.load(context.records(of)[i].objects["labels"]))
    labels = np.full(shard.rows, -1, np.int64)
    told = before >= 0
    if told.any():
        labels[told] = exemplar[np.searchsorted(cluster, before[told])]
    near = _followed(shard, np.isin(columns, exemplars)[place], columns[place])
    labels = np.where(near >= 0, near, labels)
    own = exemplars[slice(*np.searchsorted(exemplars, [shard.begin, shard.end]))]
    labels[own - shard.begin] = own
    return _labelled(context, task, labels)


def compute_pairs(context: Context, task: Task) -> Record:
    """Weight of a shard's edges between any two clusters, and volumes: by exemplar number."""
    i = task.args["shard"]
    shard, columns, place = _columns(context, i)
    exemplars = np.asarray(context.load(context.records("exemplars")[0].objects["exemplars"]))
    theirs = gathered(context, i, "assign", "labels", columns).astype(np.int64)[place]
    labels = np.asarray(context.load(context.records("assign")[i].objects["labels"]))
    row_of = np.repeat(np.arange(shard.rows), np.diff(shard.indptr))
    mine, k = labels[row_of], len(exemplars)
    apart = np.flatnonzero((mine >= 0) & (theirs >= 0) & (mine != theirs))
    left, right = (np.searchsorted(exemplars, side[apart]) for side in (mine, theirs))
    pairs, where = np.unique(left * k + right, return_inverse=True)
    weights = np.zeros(len(pairs))
    weights += np.bincount(where, weights=shard.weights[apart], minlength=len(pairs))
    member = labels >= 0
    volumes = np.zeros(k)
    volumes += np.bincount(
        np.searchsorted(exemplars, labels[member]), weights=shard.degrees[member], minlength=k
    )
    arrays: dict[str, Array] = {"pairs": pairs, "weights": weights, "volumes": volumes}
    objects = {role: context.write_array("pairs", array) for role, array in arrays.items()}
    return Record(task.key, objects, {"pairs": len(pairs)})


def compute_second(context: Context, task: Task) -> Record:
    """Exemplars of the exemplars: similarity is the weight between two clusters over the square
    root of the product of their volumes, preference its median."""
    parts = [record.objects for record in context.records("pairs")]
    count = sum(int(record.facts["pairs"]) for record in context.records("pairs"))
    if count > MAX_PAIRS:
        raise InputError(
            f"the first round left {count} pairs of clusters with edges between them; one task"
            f" clusters at most {MAX_PAIRS} once more. Take rounds=1, or a lower preference."
        )
    exemplars = np.asarray(context.load(context.records("exemplars")[0].objects["exemplars"]))
    k = len(exemplars)
    pairs = np.unique(np.concatenate([context.load(part["pairs"]) for part in parts]))
    weights, volumes = np.zeros(len(pairs)), np.zeros(k)
    for part in parts:
        weights[np.searchsorted(pairs, context.load(part["pairs"]))] += context.load(
            part["weights"]
        )
        volumes += context.load(part["volumes"])
    left, right = np.divmod(pairs, max(k, 1))
    similarity = weights / np.sqrt(volumes[left] * volumes[right])
    indptr = np.searchsorted(left, np.arange(k + 1))
    columns, place = np.unique(right, return_inverse=True)
    preference = float(np.median(similarity)) if len(similarity) else 0.0
    edges = Edges(indptr, similarity, columns, place, preference)
    config = context.config
    state = turns_in_memory(edges, config, config.turns, context=context)
    top = _tops(edges, state.exemplar, right)
    settled = state.still >= config.patience
    facts = {"turns": state.turn, "converged": settled, "exemplars": len(np.unique(top))}
    return Record(task.key, {"top": context.write_array("exemplars", exemplars[top])}, facts)


def _tops(edges: Edges, exemplar: Bools, right: Ids) -> Ids:
    """[k] the exemplar of every exemplar; one that has none among its neighbours is its own."""
    top = np.arange(edges.rows)
    for row in np.flatnonzero(~exemplar):
        part = slice(edges.indptr[row], edges.indptr[row + 1])
        near = right[part][exemplar[right[part]]]
        if len(near):
            top[row] = near[edges.similarity[part][exemplar[right[part]]].argmax()]
    return top


def compute_finish(context: Context, task: Task) -> Record:
    """A shard's labels: which exemplar, by number and by row. Facts: rows of none."""
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    i = task.args["shard"]
    begin, end = ShardedCsr.of(context.inputs["graph"]).span(i)
    exemplars = np.asarray(context.load(context.records("exemplars")[0].objects["exemplars"]))
    row = np.array(context.load(context.records("assign")[i].objects["labels"]))
    told = row >= 0
    if context.config.rounds == 2 and told.any():
        top = np.asarray(context.load(context.records("second")[0].objects["top"]))
        row[told] = top[np.searchsorted(exemplars, row[told])]
        exemplars = np.unique(top)
    labels = np.full(end - begin, -1, np.int64)
    labels[told] = np.searchsorted(exemplars, row[told])
    table = pa.table({"row": np.arange(begin, end), "cluster": labels, "exemplar": row})
    sizes = np.bincount(labels[told], minlength=len(exemplars))
    objects = {
        "labels": context.write_array("labels", labels),
        "clusters": context.write_table("clusters", table),
        "sizes": context.write_array("sizes", sizes.astype(np.int64)),
        "exemplars": context.write_array("exemplars", exemplars),
    }
    return Record(task.key, objects, {"none": int(np.sum(~told))})
