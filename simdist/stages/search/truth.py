"""How many cells a query has to look into, measured on the queries themselves.

    truth    sampled queries against every block, exactly         task per block
    choose   which probe reaches the cell of each true neighbour  one task
               ──> the fewest probes that reach the recall asked for

A true neighbour is found where its cell is probed and its key is among the best: so it is counted
only where the keys of *all* rows leave it in a list of `width_of(k)`. In fewer cells fewer rows
compete, so what is counted is a lower bound of what a search finds, whatever the probes. Where no
number of probes passes, everything is compared.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from simdist.inverted import Codes, best_of, places, scanned, width_of
from simdist.recall import Recall, summary
from simdist.runner.plan import Record, Round, Task
from simdist.stages.search.memory import exact_nbytes, probe_nbytes
from simdist.stages.search.world import World
from simdist.tiles import TopK, TopKState
from simdist.types import Bools, Ids, Int32

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.search.config import SearchConfig

__all__ = [
    "NEVER",
    "among",
    "choose_round",
    "compute_choose",
    "compute_truth",
    "fewest_probes",
    "truth_round",
]

NEVER = np.iinfo(np.int32).max  # probes that reach a neighbour whose key is not among the best


def truth_round(world: World) -> Round:
    """A task per block of the partition."""
    partition = world.partition
    sample = min(world.config.sample, world.queries.rows)
    block = min(partition.block_rows, partition.rows)
    k, cells, dim = world.config.k, world.index.cells, world.queries.dim
    nbytes = exact_nbytes(world.measure, k, sample, block, dim) + 12 * dim * sample
    nbytes += probe_nbytes(world.measure, k, sample, (block, block), cells, dim) + 8 * dim * block
    return Round(
        "truth",
        tuple(
            Task(f"truth-{b:06d}", "truth", {"block": b}, nbytes) for b in range(partition.blocks)
        ),
    )


def choose_round(world: World) -> Round:
    """One task: it holds the sampled queries' lists of all blocks."""
    sample = min(world.config.sample, world.queries.rows)
    cells, dim, k = world.index.cells, world.queries.dim, world.config.k
    held = sample * (48 * width_of(k) * (world.partition.blocks + 1) + 16 * dim)
    nbytes = held + (cells + sample) * 9 * dim + 256 * cells * 24 + (4 << 20)
    return Round("choose", (Task("choose", "choose", {}, nbytes),))


def compute_truth(context: Context, task: Task) -> Record:
    """Exact neighbours of the sampled queries in a block, where they lie, and their best by key."""
    world, block = World(context), task.args["block"]
    X, k = world.queries.take(world.sampled()), world.config.k
    lists = world.lists(block)
    shelf = world.index.shelf(block, lists)
    found = best_of(
        world.measure, X, shelf.rows.take(lists.members), shelf.numbers[lists.members], k,
        context.check,
    )  # fmt: skip
    order = np.argsort(shelf.numbers[lists.members])
    ascending = shelf.numbers[lists.members][order]
    at = np.searchsorted(ascending, np.maximum(found.ids, 0))
    at = order[np.minimum(at, len(order) - 1)] if len(order) else at
    home = np.repeat(np.arange(len(lists.sizes), dtype=np.int32), lists.sizes)
    none = found.ids < 0
    objects = {
        "ids": context.write_array("search-ids", found.ids),
        "keys": context.write_array("search-keys", found.keys),
        "cells": context.write_array("search-at", np.where(none, -1, _at(home, at))),
        "places": context.write_array(
            "search-at", np.where(none, -1, _at(lists.members, at) + shelf.first)
        ),
    }
    scores = world.index.scores(X)
    if scores is not None:
        best = scanned([shelf], scores, width_of(k), check=context.check)
        objects["lists"] = context.write_array("search-lists", best)
    return Record(task.key, objects)


def _at(values: Int32, at: Ids) -> Ids:
    """values[at]; zeros where there are none."""
    return values[at].astype(np.int64) if len(values) else np.zeros(at.shape, np.int64)


def compute_choose(context: Context, task: Task) -> Record:
    """How many probes, and the recall they have. 0: none are enough."""
    world = World(context)
    X = world.queries.take(world.sampled())
    held = world.held > 0
    needed = _needed(world, world.index.near(X), held)
    k, rows = max(1, min(world.config.k, world.rows)), world.queries.rows
    probes, recall = fewest_probes(needed, int(held.sum()), world.config, k, rows)
    return Record(task.key, {}, {"probes": probes, "recall": recall.to_json()})


def fewest_probes(
    needed: Int32, cells: int, config: SearchConfig, k: int, population: int
) -> tuple[int, Recall]:
    """How many cells queries look into: as many as were asked for, or the fewest whose recall
    passes; 0 where none does. And the recall of so many.

    needed: [s, k] how many find each true neighbour of sampled queries, -1 where there is none.
    cells: that hold anything. population: queries in all.
    """

    def recall_of(probes: int) -> Recall:
        true = needed >= 0
        shares = ((needed <= probes) & true).sum(axis=1) / np.maximum(true.sum(axis=1), 1)
        return summary(shares, shares, k, population=population, target=config.recall)

    probes = min(config.probes or 1, cells)
    if config.probes is not None or config.recall is None:
        return probes, recall_of(probes)
    if recall_of(cells).low < config.recall:
        return 0, recall_of(cells)
    high = cells  # recall grows with probes: bisect
    while probes < high:
        middle = (probes + high) // 2
        if recall_of(middle).low >= config.recall:
            high = middle
        else:
            probes = middle + 1
    return probes, recall_of(probes)


def _needed(world: World, near: Codes, held: Bools) -> Int32:
    """[m, k] how many probes find each true neighbour; -1 where a query has fewer than k."""
    records, k = world.context.records("truth"), world.config.k
    load = world.context.load
    states = (TopKState(load(r.objects["ids"]), load(r.objects["keys"])) for r in records)
    ids = reduce(TopK(k, exclude_self=False).merge, states).ids
    found, cells, at = (
        np.concatenate([load(r.objects[role]).ravel() for r in records])
        for role in ("ids", "cells", "places")
    )
    known, first = np.unique(found, return_index=True)
    mine = first[np.minimum(np.searchsorted(known, ids), len(known) - 1)]
    home = np.where(ids < 0, np.flatnonzero(held)[0], cells[mine]).astype(np.int32)
    needed = places(world.index.centres, near, home, held)
    if world.coded:
        needed[~among(np.where(ids < 0, -1, at[mine]), _best(world))] = NEVER
    needed[ids < 0] = -1
    return needed


def _best(world: World) -> Ids:
    """[m, width] places of the rows with the best keys of all."""
    from simdist.compiled.lists import ids_of  # noqa: PLC0415 - numba only on workers

    width = width_of(world.config.k)
    best: Ids | None = None
    for record in world.context.records("truth"):
        lists = world.context.load(record.objects["lists"])
        both = lists if best is None else np.concatenate([best, lists], axis=1)
        best = -np.sort(-both, axis=1)[:, :width]
    assert best is not None
    return ids_of(best).astype(np.int64)


def among(places: Ids, lists: Ids) -> Bools:
    """[m, k] which places are in a row's list."""
    found: Bools = (places[:, :, None] == lists[:, None, :]).any(axis=2)
    return found
