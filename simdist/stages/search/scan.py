"""The search itself: cells that queries probe, or every row that may be found.

probe    queries of a chunk against the probed cells of a group of blocks
scan     queries of a chunk against a panel of the corpus, exactly
settle   lists merged, as Parquet                                  task per chunk
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from simdist.inverted import best_of, candidates, compared, probes, ranked, width_of
from simdist.lists import graph_table, hits_table, ids_of_rows
from simdist.measures import Prepared
from simdist.runner.plan import Record, Round, Task
from simdist.stages.search.memory import exact_nbytes, probe_nbytes, route_nbytes, settle_nbytes
from simdist.stages.search.world import World
from simdist.tiles import TopK, TopKState
from simdist.tiles.exact import signed
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = [
    "compute_probe",
    "compute_scan",
    "compute_settle",
    "probe_round",
    "scan_round",
    "settle_round",
]


def scan_round(world: World) -> Round:
    """A task per chunk of queries and panel of the rows that may be found."""
    panel = min(world.panel_rows, max(world.rows, 1))
    dim, chunk = world.queries.dim, world.queries.span(0)[1]
    nbytes = exact_nbytes(world.measure, world.config.k, chunk, panel, dim)
    if world.filtered:
        nbytes += 4 * panel * (dim + 2)
    return _grid("scan", world, world.panels, nbytes)


def probe_round(world: World, count: int) -> Round:
    """A task per chunk of queries and group of blocks. count: cells a query looks into."""
    partition, dim = world.partition, world.queries.dim
    chunk, k, cells = world.queries.span(0)[1], world.config.k, world.index.cells
    block = min(partition.block_rows, partition.rows)
    mapped = min(max(len(group) for group in world.groups) * block, partition.rows)
    nbytes = route_nbytes(chunk, dim, cells, count)
    nbytes += probe_nbytes(world.measure, k, chunk, (mapped, block), cells, dim)
    return _grid("probe", world, len(world.groups), nbytes, probes=count)


def _grid(name: str, world: World, parts: int, nbytes: int, **args: Json) -> Round:
    """One task per query chunk and part of the corpus."""
    return Round(
        name,
        tuple(
            Task(f"{name}-{q:06d}-{p:06d}", name, {"chunk": q, "part": p, **args}, nbytes)
            for q in range(world.queries.blocks)
            for p in range(parts)
        ),
    )


def settle_round(world: World, search: str, *, ragged: bool) -> Round:
    """search: the round whose lists are merged."""
    rows = world.queries.span(0)[1]
    nbytes = settle_nbytes(world.config.k, rows)
    if search == "probe":  # where cells were too small: look everywhere
        block = world.partition.span(0)[1]
        nbytes += exact_nbytes(world.measure, world.config.k, rows, block, world.queries.dim)
    return Round(
        "settle",
        tuple(
            Task(f"settle-{q:06d}", "settle", {"chunk": q, "of": search, "ragged": ragged}, nbytes)
            for q in range(world.queries.blocks)
        ),
    )


def compute_scan(context: Context, task: Task) -> Record:
    """Every row of a panel that may be found, for every query of a chunk."""
    world = World(context)
    Y, columns = world.panel(task.args["part"])
    X = world.queries.block(task.args["chunk"])
    state = best_of(world.measure, X, Y, columns, world.config.k, context.check)
    return _write(context, task, state)


def compute_probe(context: Context, task: Task) -> Record:
    """Queries of a chunk against the cells they probe, as far as these lie in one group."""
    world, k = World(context), int(context.config.k)
    X = world.queries.block(task.args["chunk"])
    among = np.flatnonzero(world.held).astype(np.int32)
    near = probes(
        world.index.centres,
        world.index.near(X),
        task.args["probes"],
        among=among,
        check=context.check,
    )
    shelves = world.shelves(world.groups[task.args["part"]])
    if not world.coded:
        return _write(
            context, task, compared(world.measure, X, shelves, near, k, check=context.check)
        )
    held = list(shelves)
    scores = world.index.scores(X)
    assert scores is not None
    lists = candidates(held, scores, near, width_of(k), check=context.check)
    return _write(context, task, ranked(world.measure, X, held, lists, k))


def _write(context: Context, task: Task, state: TopKState) -> Record:
    ids = context.write_array("search-ids", state.ids)
    return Record(task.key, {"ids": ids, "keys": context.write_array("search-keys", state.keys)})


def _merged(world: World, rows: int, records: Sequence[Record]) -> TopKState:
    """States of the same queries over all parts, merged in plan order."""
    load, top = world.context.load, TopK(world.config.k, exclude_self=False)
    states = (TopKState(load(r.objects["ids"]), load(r.objects["keys"])) for r in records)
    merged = reduce(top.merge, states, top.init(np.arange(rows)))
    return TopKState(np.array(merged.ids), np.array(merged.keys))


def compute_settle(context: Context, task: Task) -> Record:
    """A chunk's lists over all parts of the corpus, as Parquet."""
    world, chunk, search = World(context), task.args["chunk"], task.args["of"]
    rows = np.arange(*world.queries.span(chunk))
    prefix = f"{search}-{chunk:06d}-"
    made = context.records(search) if search in context.spec.rounds else ()  # nothing passes
    records = [record for record in made if record.task.startswith(prefix)]
    lists = _merged(world, len(rows), records)
    wanted = min(world.config.k, world.rows)
    if search == "probe" and wanted:
        short = np.flatnonzero(lists.ids[:, wanted - 1] < 0)
        if len(short):  # the probed cells hold fewer than k rows: look everywhere
            X = world.queries.block(chunk).take(short)
            lists.ids[short], lists.keys[short] = _everywhere(world, X)
    ids = ids_of_rows(context.inputs["queries"], rows)
    values = signed(world.measure, lists.keys) + np.float32(0.0)  # no -0.0
    if not task.args["ragged"]:
        table = graph_table(rows, ids, lists.ids, values)
        return Record(task.key, {"graph": context.write_table("graph", table)})
    table = hits_table(rows, ids, lists.ids, values)
    found = (lists.ids >= 0).sum(axis=1)
    facts = {"hits": int(found.sum()), "shortest": int(found.min())}
    return Record(task.key, {"hits": context.write_table("hits", table)}, facts)


def _everywhere(world: World, X: Prepared) -> TopKState:
    """The exact lists of a few queries over all rows that may be found."""
    top = TopK(world.config.k, exclude_self=False)
    state = top.init(np.arange(len(X)))
    for shelf in world.shelves(range(world.partition.blocks)):
        rows = shelf.lists.members
        found = best_of(
            world.measure, X, shelf.rows.take(rows), shelf.numbers[rows], world.config.k,
            world.context.check,
        )  # fmt: skip
        state = top.merge(state, found)
    return state
