"""What changes: `broken` finds lists that name a deleted row, `settle` merges what was found into
lists of k, `finish` writes those that changed as Parquet. A task each panel of lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.lists import graph_table, ids_of_rows
from simdist.runner.plan import Record, Task
from simdist.stages.grow.world import Offers, World, offered_objects, offered_to, wide
from simdist.tiles.exact import signed
from simdist.types import Float32, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["compute_back", "compute_broken", "compute_finish", "compute_settle", "settle_nbytes"]


def settle_nbytes(world: World) -> int:
    """What a task of these holds at most: a panel's lists, as they were and as they become."""
    rows = min(world.lists.panel_rows, world.rows)
    return rows * (24 * wide(world.k) * 4 + 128) + (24 << 20)


def compute_broken(context: Context, task: Task) -> Record:
    """args: panel. Living rows that list one deleted now."""
    world = World(context)
    rows = _living(world, task.args["panel"])
    neighbors, _ = world.lists.take(rows)
    deleted = np.asarray(context.load(context.config.deleted))
    at = np.minimum(np.searchsorted(deleted, neighbors), len(deleted) - 1)
    broken = rows[(deleted[at] == neighbors).any(axis=1)]
    objects = {"rows": context.write_array("list-rows", broken)}
    return Record(task.key, objects, {"rows": len(broken)})


def compute_back(context: Context, task: Task) -> Record:
    """args: panel. What lists a broken row is offered to it: values are the same either way."""
    world = World(context)
    rows = _living(world, task.args["panel"])
    neighbors, values = world.lists.take(rows)
    parts = []
    for chunk, (low, high) in enumerate(world.spans("broken")):
        broken = world.asked("broken", chunk)
        if not len(broken):
            continue
        inside = (neighbors >= low) & (neighbors < high)
        place, slot = np.nonzero(inside)
        to = neighbors[place, slot]
        there = broken[np.minimum(np.searchsorted(broken, to), len(broken) - 1)] == to
        place, slot = place[there], slot[there]
        keys = signed(world.measure, values[place, slot])
        parts.append(Offers(to[there], rows[place], keys))
    return Record(task.key, offered_objects(context, Offers.of(parts)))


def _living(world: World, panel: int) -> Ids:
    size = world.lists.panel_rows
    rows = np.arange(panel * size, min((panel + 1) * size, world.rows))
    return rows[world.alive(rows)]


def compute_settle(context: Context, task: Task) -> Record:
    """args: panel, of, settled; lists: the round that has the asked rows' lists; offers: rounds
    whose offers to take. Leaves the lists that differ from the graph's."""
    world = World(context, task.args["settled"])
    panel, of = task.args["panel"], task.args["of"]
    rows = _living(world, panel)
    neighbors, values = world.lists.take(rows)
    keys = signed(world.measure, values)
    keys[~world.alive(neighbors)] = -np.inf
    merged = _merged(world, rows, neighbors, keys, task)
    graph = World(context).lists.take(rows)[0] if world.settled else neighbors
    changed = (merged[0] != graph).any(axis=1) | (rows >= world.graph.rows)
    objects = {}
    if changed.any():
        objects = {
            "rows": context.write_array("list-rows", rows[changed]),
            "neighbors": context.write_array("list-neighbors", merged[0][changed]),
            "values": context.write_array("list-values", signed(world.measure, merged[1][changed])),
        }
    appended = int((rows[changed] >= world.graph.rows).sum())
    facts = {"changed": int(changed.sum()) - appended, "of": of}
    return Record(task.key, objects, facts)


def _merged(
    world: World, rows: Ids, neighbors: Ids, keys: Float32, task: Task
) -> tuple[Ids, Float32]:
    """[m, k] ids and keys: the best of the lists that stand, those made for asked rows, offers."""
    context = world.context
    entries: list[tuple[Ids, Ids, Float32]] = []  # place among rows, id, key
    spans = world.spans(task.args["of"])
    for chunk, record in enumerate(context.records(task.args["lists"])):
        if not len(rows) or spans[chunk][1] <= rows[0] or spans[chunk][0] > rows[-1]:
            continue
        asked = world.asked(task.args["of"], chunk)
        ids, made = (context.load(record.objects[role]) for role in ("ids", "keys"))
        part = slice(*np.searchsorted(asked, [rows[0], rows[-1] + 1]))
        place = np.searchsorted(rows, asked[part])
        at, slot = np.nonzero(world.alive(ids[part]))
        entries.append((place[at], ids[part][at, slot], made[part][at, slot]))
    for name in task.args["offers"]:
        back = offered_to(context, name, rows)
        entries.append((np.searchsorted(rows, back.to), back.who, back.keys))
    touched = np.unique(
        np.concatenate([np.empty(0, np.int64), *(place for place, _, _ in entries)])
    )
    at, slot = np.nonzero(keys[touched] > -np.inf)
    entries.append((touched[at], neighbors[touched][at, slot], keys[touched][at, slot]))
    best = Offers.of([Offers(*entry) for entry in entries])
    order = np.lexsort((best.who, -best.keys, best.to))
    place, ids, offered = best.to[order], best.who[order], best.keys[order]
    starts = np.searchsorted(place, np.arange(len(rows)))
    rank = np.arange(len(place)) - starts[place]
    kept = rank < world.k
    merged = np.array(neighbors), np.array(keys)
    merged[0][touched], merged[1][touched] = -1, -np.inf
    merged[0][place[kept], rank[kept]] = ids[kept]
    merged[1][place[kept], rank[kept]] = offered[kept]
    return merged


def compute_finish(context: Context, task: Task) -> Record:
    """args: panel, settled. The panel's changed lists as Parquet."""
    record = context.records(task.args["settled"])[task.args["panel"]]
    rows, neighbors, values = (
        np.array(context.load(record.objects[role])) for role in ("rows", "neighbors", "values")
    )
    ids = ids_of_rows(context.inputs["vectors"], rows)
    table = graph_table(rows, ids, neighbors, values)
    objects = {"graph": context.write_table("graph", table), **record.objects}
    return Record(task.key, objects, {"rows": len(rows), "panel": task.args["panel"]})
