"""Rounds of k-means over panels: k-means|| seeds, then Lloyd's steps, all restarts side by side.

    spread-0..4   rows drawn by distance: 2 k candidates each       task a panel
    weigh         how many rows each candidate stands for           task a panel
    seed          k-means++ on the weighted candidates, a start     one task
                  for every restart
    assign-*      sums by cluster, for restarts still moving        task a panel
    move-*        added up in order; empty clusters repaired        one task

After 4, 8 and 16 steps the worse half of the restarts is given up (lloyd.kept). Every move is a
committed state: a run that is killed goes on from the last. Rows that fit one task
(`solve`) are seeded by k-means++ on all of them instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from simdist.runner.plan import Record, Round, Rounds, Task
from simdist.stages.cluster.lloyd import (
    Draw,
    Tally,
    drawn,
    kept,
    moved,
    nearest_center,
    plus_plus,
    race,
    settled,
    solve,
    tally,
)
from simdist.stages.cluster.points import Points
from simdist.stages.cluster.tasks import block_of, each, once, points_of
from simdist.types import Array, Float64, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = [
    "compute_assign",
    "compute_kmeans",
    "compute_move",
    "compute_seed",
    "compute_spread",
    "compute_weigh",
    "kmeans_rounds",
    "last_centers",
]

DRAWS = 5  # Bahmani et al. find nothing gained by more
OVERSAMPLING = 2  # candidates a draw, times k
ROLES = ("counts", "sums", "far", "points")  # of a panel's tallies


def kmeans_rounds(
    points: Points, rounds: Rounds, dim: int, clusters: int, iterations: int, at: dict[str, Json]
) -> Iterator[Round]:
    """Rounds until every restart has settled, or the iterations are spent."""
    args = {"at": at, "clusters": clusters}
    for draw in range(DRAWS):
        yield each(points, f"spread-{draw}", "spread", dim, clusters * DRAWS, draw=draw, **args)
    offered = OVERSAMPLING * DRAWS * clusters
    yield each(points, "weigh", "weigh", dim, offered, **args)
    yield once("seed", "seed", 64 * offered * (points.panels + dim + clusters), **args)
    name = "seed"
    for step in range(iterations):
        active = len(rounds[name][0].facts["active"])
        if not active:
            return
        yield each(points, f"assign-{step:04d}", "assign", dim, clusters, of=name, **args)
        nbytes = 8 * clusters * dim * active * 6
        yield once(
            f"move-{step:04d}", "move", nbytes, of=name, tallies=f"assign-{step:04d}", **args
        )
        name = f"move-{step:04d}"


def last_centers(rounds: Rounds) -> str:
    """The round that left the last centers: a `move`, or `seed` before the first."""
    step = 0
    while f"move-{step:04d}" in rounds:
        step += 1
    return f"move-{step - 1:04d}" if step else "seed"


def compute_kmeans(context: Context, task: Task) -> Record:
    """All rows in one place: every restart to its end. args: at, clusters."""
    args, config = task.args, context.config
    panels = range(points_of(context).panels)
    X = np.concatenate([block_of(context, panel, args["at"])[1] for panel in panels])
    ones = np.ones(len(X))
    starts = []
    for restart in range(config.restarts):
        context.check()
        starts.append(plus_plus(X, ones, args["clusters"], context.rng("seed", restart)))
    best = solve(
        X,
        starts,
        iterations=config.iterations,
        tolerance=config.tolerance,
        check=context.check,
    )
    facts: dict[str, Json] = {
        "going": [0],
        "active": [],
        "inertia": [best.inertia],
        "iterations": best.iterations,
        "settled": [best.converged],
    }
    return Record(task.key, {"centers": _write(context, best.centers[None])}, facts)


def _write(context: Context, centers: Float64) -> ObjectRef:
    return context.write_array("centers", centers)


def _candidates(context: Context, task: Task, draws: int) -> Float64:
    """[c, d] of the first draws, in the order they were drawn."""
    found = []
    for draw in range(draws):
        offers = (
            Draw(context.load(record.objects["keys"]), context.load(record.objects["points"]))
            for record in context.records(f"spread-{draw}")
        )
        found.append(drawn(offers, OVERSAMPLING * task.args["clusters"]))
    return np.concatenate(found)


def compute_spread(context: Context, task: Task) -> Record:
    """A panel's rows that arrive first. args: panel, draw, at, clusters."""
    args = task.args
    _, X = block_of(context, args["panel"], args["at"])
    apart = np.ones(len(X))
    if args["draw"]:
        apart = nearest_center(X, _candidates(context, task, args["draw"]))[1]
    rng = context.rng("spread", args["draw"], args["panel"])
    draw = race(X, apart, OVERSAMPLING * args["clusters"], rng)
    objects = {
        "keys": context.write_array("draw", draw.keys),
        "points": context.write_array("draw", draw.points),
    }
    return Record(task.key, objects)


def compute_weigh(context: Context, task: Task) -> Record:
    """How many of a panel's rows each candidate is nearest to."""
    _, X = block_of(context, task.args["panel"], task.args["at"])
    candidates = _candidates(context, task, DRAWS)
    labels, _ = nearest_center(X, candidates)
    counts = np.bincount(labels, minlength=len(candidates)).astype(np.float64)
    return Record(task.key, {"weights": context.write_array("weights", counts)})


def compute_seed(context: Context, task: Task) -> Record:
    """A start for every restart."""
    candidates = _candidates(context, task, DRAWS)
    weights = np.zeros(len(candidates))
    for record in context.records("weigh"):
        weights += context.load(record.objects["weights"])
    restarts = range(context.config.restarts)
    starts = [
        plus_plus(candidates, weights, task.args["clusters"], context.rng("seed", restart))
        for restart in restarts
    ]
    facts: dict[str, Json] = {
        "going": list(restarts),
        "active": list(restarts),
        "inertia": [None] * len(restarts),
        "iterations": 0,
        "settled": [False] * len(restarts),
    }
    return Record(task.key, {"centers": _write(context, np.stack(starts))}, facts)


def compute_assign(context: Context, task: Task) -> Record:
    """A panel's tallies, for the restarts that still move, one under the other."""
    before = context.records(task.args["of"])[0]
    centers = context.load(before.objects["centers"])
    _, X = block_of(context, task.args["panel"], task.args["at"])
    tallies = []
    for restart in before.facts["active"]:
        context.check()
        tallies.append(tally(X, centers[restart]))
    width = max((len(run.far) for run in tallies), default=0)
    parts: dict[str, Array] = {
        "counts": np.stack([run.counts for run in tallies]),
        "sums": np.stack([run.sums for run in tallies]),
        "far": np.stack([_padded(run.far, width) for run in tallies]),
        "points": np.stack([_padded(run.points, width) for run in tallies]),
    }
    objects = {role: context.write_array(role, array) for role, array in parts.items()}
    return Record(task.key, objects, {"inertia": [run.inertia for run in tallies], "rows": len(X)})


def _padded(array: Float64, length: int) -> Float64:
    """The array with rows of zeros below: a distance of 0 repairs nothing."""
    out = np.zeros((length, *array.shape[1:]))
    out[: len(array)] = array
    return out


def compute_move(context: Context, task: Task) -> Record:
    """Centers after a step. Facts: which restarts are not given up (going), and of these still move
    (active); the inertia before the step; iterations."""
    before = context.records(task.args["of"])[0]
    records, tolerance = context.records(task.args["tallies"]), context.config.tolerance
    rows = sum(int(record.facts["rows"]) for record in records)
    centers = np.array(context.load(before.objects["centers"]))
    inertia, done = list(before.facts["inertia"]), list(before.facts["settled"])
    for place, restart in enumerate(before.facts["active"]):
        step = moved(_tallies(context, records, place), centers[restart])
        centers[restart], inertia[restart] = step.centers, step.inertia
        done[restart] = settled(step, rows, tolerance)
    steps, going = before.facts["iterations"] + 1, before.facts["going"]
    going = [going[place] for place in kept([inertia[restart] for restart in going], steps)]
    facts: dict[str, Json] = {
        "going": going,
        "active": [restart for restart in going if not done[restart]],
        "inertia": inertia,
        "iterations": steps,
        "settled": done,
    }
    return Record(task.key, {"centers": _write(context, centers)}, facts)


def _tallies(context: Context, records: tuple[Record, ...], place: int) -> Iterator[Tally]:
    """What every panel says of one restart."""
    for record in records:
        counts, sums, far, points = (context.load(record.objects[role])[place] for role in ROLES)
        yield Tally(counts, sums, record.facts["inertia"][place], far, points)
