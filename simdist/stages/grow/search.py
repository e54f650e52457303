"""Lists of asked rows: `near` through the cells, `look` among neighbours' neighbours, `scan` all.

    near   a row against the rows of its `probes` nearest cells, and against those that have its
           nearest cell among their `reach` nearest: pairs that share a cell, from either side
    look   a row against the neighbours of what it lists
    scan   a row against every row, exactly

Each task makes the wide lists of one chunk of asked rows, and offers them to others' lists. What is
kept is chosen by GEMM keys where there are many, and valued by the fixed kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import ObjectMissing
from simdist.measures import Prepared
from simdist.partitions import SLICE, Partition, nearest_cells
from simdist.runner.plan import Record, Task
from simdist.stages.grow.segment import Block
from simdist.stages.grow.world import (
    HELD_NBYTES,
    Asked,
    Offers,
    World,
    offered_objects,
    offered_to,
    wide,
)
from simdist.tiles import TopK, TopKState
from simdist.tiles.exact import fold_exact, nearest, signed
from simdist.tiles.memory import exact_memory, fold_memory
from simdist.types import Bools, Ids

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.store.datasets import Dataset

__all__ = [
    "compute_look",
    "compute_near",
    "compute_scan",
    "compute_start",
    "look_nbytes",
    "near_nbytes",
    "scan_nbytes",
    "start_nbytes",
]

SLACK = 8  # candidates of a panel beyond k: more make fewer rows doubtful
ROWS_AT_ONCE = 512  # whose candidates are sorted out at once
ROWS_TOGETHER = 4096  # whose candidates are valued at once: they share most of them
ROWS_OF_TILE = 1024  # that are compared with a cell at once
MOST_OF_A_CELL = 8192  # rows compared; of a larger cell every second, third, ... : looks find more
ROUNDING = 1e-3  # of a GEMM key: who may be nearer than a list's last is valued by the kernel


def near_nbytes(world: World, asked: int) -> int:
    """What `near` holds at most."""
    dim, k = world.panels.dim, world.k
    largest = max(block.shard.rows for block in world.blocks)
    cells = len(Partition.of(_partition(world)).sizes)
    tile = 3 * 4 * ROWS_OF_TILE * min(MOST_OF_A_CELL, largest)
    states = asked * wide(k) * 60 + largest * k * 60
    return (
        4 * dim * (3 * asked + 2 * largest)
        + min(asked, SLICE) * cells * 8
        + tile
        + states
        + 2 * HELD_NBYTES
    )


def look_nbytes(world: World, asked: int) -> int:
    """What `look` holds at most."""
    k, width = world.k, wide(world.k)
    rows = min(asked, ROWS_TOGETHER)
    sorted_out = min(asked, ROWS_AT_ONCE) * (width + width * k) * 48
    met = rows * width * k * 64  # pairs, their keys, and what is offered of them
    vectors = 4 * world.panels.dim * 3 * rows + 2 * HELD_NBYTES
    return sorted_out + met + vectors + asked * width * 48 + (8 << 20)


def start_nbytes(world: World, asked: int) -> int:
    """What `start` holds at most: lists, and as many offers."""
    return asked * wide(world.k) * 120 + (8 << 20)


def scan_nbytes(world: World, asked: int) -> int:
    """What `scan` holds at most."""
    dim, k = world.panels.dim, world.k
    panel = min(world.panels.panel_rows, world.rows)
    there = exact_memory(asked, panel, dim, k).nbytes
    back = exact_memory(panel, asked, dim, k).nbytes
    folded = fold_memory(world.measure, TopK(k + SLACK), asked, panel, dim).nbytes
    return 4 * dim * panel + 80 * (asked + panel) * (k + SLACK) + max(there, back, folded)


def compute_near(context: Context, task: Task) -> Record:
    """args: of, chunk, settled; probes, reach; before: a round whose lists are kept, or ""."""
    world = World(context, task.args["settled"])
    of: Asked = task.args["of"]
    rows = world.asked(of, task.args["chunk"])
    if not len(rows):
        return _empty(context, task, world)
    X = world.panels.take(rows)
    state, offers = _through_cells(world, of, X, rows, task)
    at, slot = np.nonzero(state.ids >= 0)
    keys = np.full(state.ids.shape, -np.inf, np.float32)
    keys[at, slot] = world.keys(X, at, state.ids[at, slot])
    found = _ordered(TopKState(state.ids, keys))
    if task.args["before"]:
        found = TopK(wide(world.k)).merge(_before(context, task, task.args["before"]), found)
    return _record(context, task, world, found, offers, scored=len(at))


def _through_cells(
    world: World, of: Asked, X: Prepared, rows: Ids, task: Task
) -> tuple[TopKState, list[Offers]]:
    """The widest lists by GEMM key over all cells looked into, and what is offered back."""
    from simdist.compiled.assign import bucket_order  # noqa: PLC0415 - numba only on workers

    partition = Partition.of(_partition(world))
    cells = len(partition.sizes)
    probes, reach = min(task.args["probes"], cells), task.args["reach"]
    near = nearest_cells(partition, X, probes, check=world.context.check)
    order, starts = np.empty(near.size, np.int64), np.empty(cells + 1, np.int64)
    bucket_order(near.ravel(), cells, order, starts)
    state = TopK(wide(world.k)).init(rows)
    offers: list[Offers] = []
    for block in world.blocks:
        world.context.check()
        pairs = _Pairs.of(world, block, X, rows, state)
        bounds = block.bounds(cells)
        for cell in np.flatnonzero(np.diff(starts)).tolist():
            ranked = order[starts[cell] : starts[cell + 1]]
            who = ranked // probes
            size = int(bounds[cell + 1] - bounds[cell])
            if size:
                pairs.meet(
                    who, np.arange(bounds[cell], bounds[cell + 1], -(-size // MOST_OF_A_CELL))
                )
            home = who[ranked % probes == 0]
            if len(home) and reach > 1:
                pairs.meet(home, block.others(cell, reach)[:MOST_OF_A_CELL])
        offers.append(pairs.offers(of))
    return state, offers


class _Pairs:
    """Asked rows against rows of one block: both sides keep the best of what they meet."""

    def __init__(
        self, world: World, X: Prepared, rows: Ids, state: TopKState, Y: Prepared, columns: Ids
    ) -> None:
        self.world, self.X, self.rows, self.state = world, X, rows, state
        self.Y, self.columns = Y, columns
        self.alive: Bools = world.alive(columns)
        self.back = TopK(world.k).init(columns)

    @classmethod
    def of(cls, world: World, block: Block, X: Prepared, rows: Ids, state: TopKState) -> _Pairs:
        return cls(world, X, rows, state, block.prepared(), block.rows)

    def meet(self, who: Ids, places: Ids) -> None:
        """All pairs of the asked rows `who` and the block's rows `places`."""
        places = places[self.alive[places]]
        if not len(places):
            return
        Y, columns = self.Y.take(_run(places)), self.columns[places]
        there = TopKState(self.back.ids[places], self.back.keys[places])
        for start in range(0, len(who), ROWS_OF_TILE):
            part = who[start : start + ROWS_OF_TILE]
            here = TopKState(self.state.ids[part], self.state.keys[part])
            tile = self.world.measure.nearness(self.X.take(part), Y)
            top = TopK(self.state.ids.shape[1])
            here, there = top.update_both(here, there, tile, self.rows[part], columns)
            self.state.ids[part], self.state.keys[part] = here
        self.back.ids[places], self.back.keys[places] = there

    def offers(self, of: Asked) -> Offers:
        """What the block's rows would take, valued by the fixed kernel."""
        world = self.world
        order = np.argsort(self.columns)
        bar = np.empty(len(order), np.float32)
        bar[order] = world.last(self.columns[order])[1]
        place, slot = np.nonzero(self.back.ids >= 0)
        about = signed(world.measure, world.measure.correct(self.back.keys[place, slot]))
        slack = ROUNDING * (1 + np.abs(bar[place]))
        likely = about >= bar[place] - slack
        place, who = place[likely], self.back.ids[place, slot][likely]
        at = np.searchsorted(self.rows, who)
        keys = signed(world.measure, world.measure.pairs_at(self.X, at, self.Y, place))
        return world.offers(of, self.columns[place], who, keys)


def _run(places: Ids) -> Ids | slice:
    """Ascending places as a slice where they follow one another: rows are viewed, not copied."""
    first, last = int(places[0]), int(places[-1]) + 1
    return slice(first, last) if last - first == len(places) else places


def compute_look(context: Context, task: Task) -> Record:
    """args: of, chunk, settled; before: the round whose lists to start from; seen: the one whose
    lists were looked around from before, or ""."""
    world = World(context, task.args["settled"])
    of: Asked = task.args["of"]
    rows, before = world.asked(of, task.args["chunk"]), task.args["before"]
    if not len(rows):
        return _empty(context, task, world)
    start = _before(context, task, before)
    width = wide(world.k) if of == "new" else world.k  # whose lists were good, needs fewer
    links = start.ids[:, :width]
    if task.args["seen"]:
        seen = _before(context, task, task.args["seen"]).ids[:, :width]
        links = np.where((links[:, :, None] == seen[:, None, :]).any(axis=2), -1, links)
    made, offers, scored = [], [], 0
    for first in range(0, len(rows), ROWS_TOGETHER):
        part = slice(first, first + ROWS_TOGETHER)
        at, who = _beyond(world, task, rows[part], start.ids[part], links[part])
        X = world.panels.take(rows[part])
        keys = world.keys(X, at, who)
        state = TopKState(start.ids[part], start.keys[part])
        state = _without(state, ~world.alive(state.ids))
        ends = np.append(0, np.cumsum(np.bincount(at, minlength=len(X))))
        top = TopK(wide(world.k))
        made.append(top.update_lists(state, keys, ends, rows[part], who))
        offers.append(world.offers(of, who, rows[part][at], keys))
        scored += len(at)
    found = TopKState(
        np.concatenate([state.ids for state in made]),
        np.concatenate([state.keys for state in made]),
    )
    new = ~(found.ids[:, : world.k, None] == start.ids[:, None, : world.k]).any(axis=2)
    fresh = float((new & (found.ids[:, : world.k] >= 0)).mean())
    return _record(context, task, world, found, offers, scored=scored, fresh=fresh)


def _beyond(world: World, task: Task, rows: Ids, known: Ids, links: Ids) -> tuple[Ids, Ids]:
    """Whom some rows meet in the lists of those they link to, deleted rows' too, and do not list
    yet: places among `rows` [p] and rows met [p].

    known, links: [m, w] rows, -1 for none.
    """
    of: Asked = task.args["of"]
    linked, place = np.unique(links, return_inverse=True)
    place = place.reshape(links.shape)
    neighbors = world.standing(of, task.args["before"], linked[linked >= 0])
    if linked[0] < 0:
        neighbors = np.concatenate([np.full((1, world.k), -1), neighbors])
    found: list[tuple[Ids, Ids]] = []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        world.context.check()
        part = slice(first, first + ROWS_AT_ONCE)
        own = rows[part]
        beyond = neighbors[place[part]].reshape(len(own), -1)
        candidates = np.concatenate([known[part], beyond], axis=1)
        order = np.argsort(candidates, axis=1, kind="stable")
        ascending = np.take_along_axis(candidates, order, axis=1)
        useful = order >= known.shape[1]
        useful[:, 1:] &= ascending[:, 1:] != ascending[:, :-1]
        useful &= world.alive(ascending) & (ascending != own[:, None])
        at, slot = np.nonzero(useful)
        found.append((first + at, ascending[at, slot]))
    at, who = (np.concatenate([pair[i] for pair in found]) for i in range(2))
    return at, who


def compute_scan(context: Context, task: Task) -> Record:
    """args: of, chunk, settled."""
    world = World(context, task.args["settled"])
    of: Asked = task.args["of"]
    rows = world.asked(of, task.args["chunk"])
    if not len(rows):
        return _empty(context, task, world)
    X, top = world.panels.take(rows), TopK(world.k)
    state, offers = top.init(rows), []
    for columns, Y in world.panel_blocks():
        context.check()
        state = top.merge(state, _exact(world, X, rows, Y, columns))
        if of == "new":
            old = columns < world.graph.rows
            offers.append(_exact_back(world, X, rows, Y.take(old), columns[old]))
    found = TopK(wide(world.k)).init(rows)
    found.ids[:, : world.k], found.keys[:, : world.k] = state
    return _record(context, task, world, found, offers, scored=len(rows) * world.living)


def compute_start(context: Context, task: Task) -> Record:
    """The lists that stand, as wide ones to look around from, deleted rows still in them: these
    lead to others nearby. args: of, chunk, settled; back: a round whose offers to take, or ""."""
    world = World(context, task.args["settled"])
    rows = world.asked(task.args["of"], task.args["chunk"])
    neighbors, values = world.lists.take(rows)
    found = TopK(wide(world.k)).init(rows)
    found.ids[:, : world.k] = neighbors
    found.keys[:, : world.k] = np.where(neighbors < 0, -np.inf, signed(world.measure, values))
    if task.args["back"] and len(rows):
        back = offered_to(context, task.args["back"], rows)
        ends = np.append(np.searchsorted(back.to, rows), len(back.to))
        top = TopK(wide(world.k))
        found = top.update_lists(found, back.keys, ends, rows, back.who)
    return _record(context, task, world, found, [], scored=0)


def _exact(world: World, X: Prepared, rows: Ids, Y: Prepared, columns: Ids) -> TopKState:
    """The k best of some columns for the asked rows, exactly."""
    k, check = world.k, world.context.check
    if len(columns) <= k:  # too few to fill a list: every pair
        return fold_exact(world.measure, X, Y, TopK(k), rows=rows, columns=columns, check=check)
    found = nearest(world.measure, X, Y, k, rows=rows, columns=columns, slack=SLACK, check=check)
    return TopKState(found.ids, signed(world.measure, found.values))


def _exact_back(world: World, X: Prepared, rows: Ids, Y: Prepared, columns: Ids) -> Offers:
    """What of the asked rows the columns' lists would take, exactly."""
    if not len(columns):
        return Offers.of([])
    _, bar = world.last(columns)
    state = fold_exact(
        world.measure,
        Y,
        X,
        TopK(world.k),
        rows=columns,
        columns=rows,
        worst=signed(world.measure, bar),
        check=world.context.check,
    )
    place, slot = np.nonzero(state.ids >= 0)
    return world.offers("new", columns[place], state.ids[place, slot], state.keys[place, slot])


def _partition(world: World) -> Dataset:
    if world.partition is None:
        raise ObjectMissing(f"{world.graph.uri} has no partition to look through")
    return world.partition


def _before(context: Context, task: Task, made: str) -> TopKState:
    objects = context.records(made)[task.args["chunk"]].objects
    return TopKState(
        np.array(context.load(objects["ids"])), np.array(context.load(objects["keys"]))
    )


def _ordered(state: TopKState) -> TopKState:
    """Each list by (key descending, id ascending); empty places last."""
    order = np.lexsort((state.ids, -state.keys, state.ids < 0), axis=-1)
    return TopKState(
        np.take_along_axis(state.ids, order, 1), np.take_along_axis(state.keys, order, 1)
    )


def _without(state: TopKState, drop: Bools) -> TopKState:
    """The lists without some entries, in order."""
    ids = np.where(drop, -1, state.ids)
    keys = np.where(drop, np.float32(-np.inf), state.keys)
    return _ordered(TopKState(ids, keys))


def _empty(context: Context, task: Task, world: World) -> Record:
    found = TopK(wide(world.k)).init(np.empty(0, np.int64))
    return _record(context, task, world, found, [], scored=0)


def _record(
    context: Context,
    task: Task,
    world: World,
    found: TopKState,
    offers: list[Offers],
    *,
    scored: int,
    fresh: float = 1.0,
) -> Record:
    """short: rows that found fewer than k. fresh: share of the k nearest that are new."""
    short = int((found.ids[:, world.k - 1] < 0).sum())
    offered = Offers.of(offers)
    objects = {
        "ids": context.write_array("wide-ids", found.ids),
        "keys": context.write_array("wide-keys", found.keys),
        **offered_objects(context, offered),
    }
    facts = {"short": short, "fresh": round(fresh, 6), "rows": len(found.ids), "scored": scored}
    return Record(task.key, objects, facts)
