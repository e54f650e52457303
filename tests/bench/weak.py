"""Weak scaling by simulation: the same rows for every worker, up to a thousand of them.

    python -m tests.bench.weak [--workers 1,4,16,64,256,1000] [--rows-per-worker 1e6] [--dim 384]
                               [--machine configs/machines/m7i.2xlarge-like.yaml]

Three curves: the stages as they stand, as docs/scale.md proposes to change them, and that with
larger blocks. Leaves docs/scale/weak.json and weak.svg.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from simdist.config.machine import load_machine
from simdist.report.words import amount, duration
from simdist.runner import RoundForecast
from simdist.simulation import Simulation, simulate
from simdist.stages.costs import Typical
from tests.bench.scale import FOLDER, MACHINES, forecasts, now, save, standing_on

GROUP = 64  # shards that one task sorts together before blocks are gathered
AT_ONCE = 16  # requests that a task makes side by side
LARGER = 8  # blocks of 256 MiB of vectors instead of 32
NAMES = ("as it stands", "as proposed", f"and blocks {LARGER} times as large")
PART = 8 << 20  # bytes of one request
Curves = Mapping[str, list[tuple[int, int, Simulation]]]


def main() -> None:
    """Simulate, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", default="1,4,16,64,256,1000")
    parser.add_argument("--rows-per-worker", type=float, default=1e6)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--machine", type=Path, default=MACHINES / "m7i.2xlarge-like.yaml")
    arguments = parser.parse_args()
    machine = load_machine(arguments.machine)
    store = replace(machine.store, latency=machine.store.latency / AT_ONCE)
    quicker = replace(machine, store=store)
    curves: dict[str, list[tuple[int, int, Simulation]]] = {name: [] for name in NAMES}
    for workers in map(int, arguments.workers.split(",")):
        rows = int(workers * arguments.rows_per_worker)
        told = forecasts(rows, arguments.dim, Typical())
        rounds = [cost for costs in told.values() for cost in costs]
        runs = (
            simulate(rounds, machine, workers=workers),
            simulate(proposed(rounds), quicker, workers=workers),
            simulate(proposed(rounds, larger=LARGER), quicker, workers=workers),
        )
        for name, run in zip(curves, runs, strict=True):
            curves[name].append((workers, rows, run))
            _print(name, curves[name])
    title = f"{amount(arguments.rows_per_worker)} rows x {arguments.dim} a worker, simulated"
    (arguments.folder / "weak.svg").write_text(_drawn(curves, title))
    made = {"commit": standing_on(), "made": now(), "machine": machine.name, "dim": arguments.dim}
    save(arguments.folder / "weak.json", {**made, "curves": _kept(curves)})


def proposed(rounds: Sequence[RoundForecast], *, larger: int = 1) -> list[RoundForecast]:
    """The same work, had tasks fetched what they look at and no more; see docs/scale.md.

    sample, leaders   the drawn rows by ranges, GROUP shards a task
    spread            new: GROUP shards sorted together, so that a block is a range of each group
    gather            those ranges, instead of every shard
    pilot, check      the sampled rows by ranges
    the others        what they need of other blocks, sent in two hops by a round before them: each
                      block to sqrt(blocks) groups, each group to its blocks

    larger: how many of today's blocks are one, and of today's shards and leaf tasks.
    """
    few = [replace(cost, tasks=-(-cost.tasks // larger)) for cost in rounds]
    return list(_sent(few))


def _sent(rounds: Sequence[RoundForecast]) -> Iterator[RoundForecast]:
    by_kind = {cost.kind: cost for cost in rounds}
    blocks, shards = by_kind["gather"].tasks, by_kind["sample"].tasks
    groups, hop = -(-shards // GROUP), math.isqrt(blocks) + 1
    for cost in rounds:
        own = replace(cost, common=0, common_requests=0, reach=1.0)
        kept = 8 * cost.tasks + (cost.read + cost.written) // PART
        if cost.kind == "sample":
            yield replace(own, tasks=groups, read=cost.written, requests=4 * groups)
        elif cost.kind == "leaders":
            yield replace(own, requests=4 * groups)
        elif cost.kind == "gather":
            sorting = replace(own, name="spread", tasks=groups, read=cost.moved)
            yield replace(sorting, requests=4 * shards)
            yield replace(own, read=cost.moved, requests=kept + 2 * groups * blocks)
        elif cost.kind in ("pilot", "check"):
            yield replace(own, read=200 * cost.rows, requests=blocks + cost.rows)
        elif cost.common and cost.moved:
            yield RoundForecast(
                f"{cost.name}-sent",
                blocks,
                read=cost.moved,
                written=cost.moved,
                moved=cost.moved,
                requests=blocks * (4 + 2 * hop),
                rows=cost.rows,
            )
            yield replace(own, read=cost.read + cost.moved, requests=kept + cost.tasks * hop)
        else:
            yield cost


def _print(name: str, curve: Sequence[tuple[int, int, Simulation]]) -> None:
    workers, rows, run = curve[-1]
    slowest = max(run.rounds, key=lambda step: step.seconds)
    print(
        f"{name:28} {workers:5} workers {amount(rows):>7} rows {duration(run.seconds):>13},"
        f" efficiency {curve[0][2].seconds / run.seconds:.2f}, ${run.dollars:,.0f},"
        f" {amount(run.requests)} requests; most in {slowest.name}"
        f" ({slowest.held_up_by}, {slowest.seconds / run.seconds:.0%})",
        flush=True,
    )


def _kept(curves: Curves) -> dict:
    return {
        name: [
            {
                "workers": workers,
                "rows": rows,
                "seconds": run.seconds,
                "dollars": run.dollars,
                "requests": run.requests,
                "fetched": run.fetched,
                "rounds": {step.name: [step.seconds, step.held_up_by] for step in run.rounds},
            }
            for workers, rows, run in curve
        ]
        for name, curve in curves.items()
    }


# -- a drawing without a library: two axes in powers of ten, a line a curve ------------------------

WIDTH, HEIGHT, LEFT, TOP = 560, 300, 64, 36
COLOURS = ("#b5472f", "#2f6db5", "#3a8a4f")


def _drawn(curves: Curves, title: str) -> str:
    points = {
        name: [(workers, run.seconds / 3600) for workers, _, run in curve]
        for name, curve in curves.items()
    }
    xs = [x for line in points.values() for x, _ in line]
    ys = [y for line in points.values() for _, y in line]
    low = math.floor(math.log10(min(ys)))
    high = math.ceil(math.log10(max(ys)))
    last = math.log10(max(xs)) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + WIDTH * math.log10(x) / last
        return round(across, 1), round(TOP + HEIGHT * (high - math.log10(y)) / (high - low), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 24}"'
        f' height="{HEIGHT + TOP + 48}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
    ]
    for power in range(low, high + 1):
        _, y = at(1, 10.0**power)
        parts.append(f'<path d="M{LEFT} {y}h{WIDTH}" stroke="#ddd"/>')
        label = f"{10.0**power:g} h"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>')
    for x in sorted(set(xs)):
        across, _ = at(x, 10.0**low)
        bottom = TOP + HEIGHT + 18
        parts.append(f'<text x="{across}" y="{bottom}" text-anchor="middle">{x:,}</text>')
    parts.append(
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">workers</text>'
    )
    for (name, line), colour in zip(points.items(), COLOURS, strict=True):
        places = [at(x, y) for x, y in line]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        below = 18 if name == NAMES[-1] else -10  # two curves end close together
        at_end = f'x="{x}" y="{y + below}" text-anchor="end"'
        parts.append(f'<text {at_end} fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
