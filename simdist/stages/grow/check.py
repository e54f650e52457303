"""Recall of a grown graph, measured on two samples: of all living rows, and of the rows asked for.

A hundred new rows among a million would not be seen in a sample of all, so they have their own; and
both must keep the promise. `truth` finds the sampled rows' exact neighbours (a task each panel of
vectors), `check` compares. Each interval is 95 % over all looks, as simdist.recall tells.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from simdist.recall import Look, enough, hits, summary, tie_hits
from simdist.runner.plan import Record, Task
from simdist.stages.grow.world import Asked, World
from simdist.tiles import TopK, TopKState
from simdist.tiles.exact import fold_exact, nearest, signed
from simdist.tiles.memory import exact_memory, fold_memory, rerank_memory
from simdist.types import Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["SIZES", "asked_rows", "compute_check", "compute_truth", "truth_nbytes"]

SIZES = (256, 512, 1024, 2048, 4096)  # rows sampled of each kind: more where few more would do
SLACK = 8  # candidates of a panel beyond k: more make fewer rows doubtful


def truth_nbytes(world: World, sampled: int) -> int:
    """What finding the neighbours of so many sampled rows in one panel holds at most."""
    dim, k = world.panels.dim, world.k
    panel = min(world.panels.panel_rows, world.rows)
    listed = rerank_memory(sampled, panel, dim, k + SLACK, k).nbytes
    redone = exact_memory(sampled, panel, dim, k).nbytes
    folded = fold_memory(world.measure, TopK(k + SLACK), sampled, panel, dim).nbytes
    return 12 * sampled * (k + SLACK) + 4 * dim * (panel + sampled) + max(listed, redone, folded)


def asked_rows(world: World, of: Asked) -> int:
    """How many rows were asked for."""
    if of == "new":
        return world.rows - world.graph.rows
    return sum(int(record.facts["rows"]) for record in world.context.records("broken"))


def _drawn(world: World) -> Ids:
    """Rows of the sample of all living ones, in the order they were drawn."""
    size = min(SIZES[-1], world.living)
    drawn = world.context.rng("recall").choice(
        world.rows, min(size + len(world.gone), world.rows), replace=False
    )
    return np.asarray(drawn[world.alive(drawn)][:size], np.int64)


def _drawn_asked(world: World, of: Asked) -> Ids:
    """Rows of the sample of those asked for, in the order they were drawn."""
    count = asked_rows(world, of)
    drawn = world.context.rng("asked").choice(count, min(SIZES[-1], count), replace=False)
    if of == "new":
        return np.asarray(world.graph.rows + drawn, np.int64)
    chunks = range(len(world.spans(of)))
    rows = np.concatenate([world.asked(of, chunk) for chunk in chunks])
    return np.asarray(rows[drawn], np.int64)


def _sampled(world: World, task: Task) -> tuple[Ids, Ids, Ids]:
    """Rows first..last of both draws, ascending and each once; where either draw's lie in them."""
    part = slice(task.args["first"], task.args["last"])
    drawn, asked = _drawn(world)[part], _drawn_asked(world, task.args["of"])[part]
    rows = np.union1d(drawn, asked)
    return rows, np.searchsorted(rows, drawn), np.searchsorted(rows, asked)


def compute_truth(context: Context, task: Task) -> Record:
    """args: of, panel, first, last. The k best of one panel's living rows, by (value, row)."""
    world = World(context)
    rows, _, _ = _sampled(world, task)
    X = world.panels.take(rows)
    columns, Y = world.panel_block(task.args["panel"])
    k = world.k
    if len(columns) > k:
        found = nearest(
            world.measure, X, Y, k, rows=rows, columns=columns, slack=SLACK, check=context.check
        )
        state = TopKState(found.ids, signed(world.measure, found.values))
    else:
        state = fold_exact(
            world.measure, X, Y, TopK(k), rows=rows, columns=columns, check=context.check
        )
    objects = {
        "ids": context.write_array("truth-ids", state.ids),
        "keys": context.write_array("truth-keys", state.keys),
    }
    return Record(task.key, objects)


def compute_check(context: Context, task: Task) -> Record:
    """args: of, settled, truths (round -> [first, last]), look. Facts: recall and, where any rows
    were asked for, recall_asked; enough: the size of both samples (which of SIZES) that would make
    them pass, null where none would."""
    world = World(context, task.args["settled"])
    of: Asked = task.args["of"]
    look = Look(*task.args["look"])
    found: list[tuple[tuple[Float64, Float64], tuple[Float64, Float64]]] = []
    for name, (first, last) in task.args["truths"].items():
        part = Task(task.key, "truth", {"of": of, "first": first, "last": last}, 0)
        found.append(_compared(world, part, name))
    facts: dict[str, Json] = {"recall": None, "recall_asked": None, "enough": None}
    sizes = []
    for place, (name, population) in enumerate(
        (("recall", world.living), ("recall_asked", asked_rows(world, of)))
    ):
        if not population:
            continue
        shares, ties = (np.concatenate([pair[place][i] for pair in found]) for i in range(2))
        target = world.promise.recall
        recall = summary(
            shares,
            ties,
            world.k,
            population=population,
            target=target,
            look=None if target is None else look,
        )
        facts[name] = recall.to_json()
        if target is not None and recall.low < target:
            limits = tuple(min(size, population) for size in SIZES)
            sizes.append(
                enough(
                    shares, world.k, population=population, target=target, look=look, sizes=limits
                )
            )
    if sizes and None not in sizes:
        facts["enough"] = max(size for size in sizes if size is not None)
    return Record(task.key, {}, facts)


def _compared(
    world: World, task: Task, name: str
) -> tuple[tuple[Float64, Float64], tuple[Float64, Float64]]:
    """Recall by id and by value of both samples' rows."""
    rows, *samples = _sampled(world, task)
    load = world.context.load
    states = (
        TopKState(load(record.objects["ids"]), load(record.objects["keys"]))
        for record in world.context.records(name)
    )
    truth = reduce(TopK(world.k).merge, states)
    neighbors, values = world.lists.take(rows)
    larger = world.measure.traits.kind == "similarity"
    shares = hits(neighbors, truth.ids)
    ties = tie_hits(values, signed(world.measure, truth.keys), larger_is_nearer=larger)
    drawn, asked = ((shares[sample], ties[sample]) for sample in samples)
    return drawn, asked
