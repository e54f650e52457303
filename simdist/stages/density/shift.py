"""Stage `mean_shift`: points climb the density of the data; where they end are its modes.

    bins             grid corners near rows (seeds="bins")               task a panel
    seed-000         where climbs start                                  one task
    climb-000-000    some turns of a chunk of points, who arrives leaves  task a chunk
    ...              until all have arrived
    modes-000        ends that are one                                   one task
    cover-000        rows beyond a bandwidth of every mode that have     task a panel
                     not been seeds (seeds="cover"); some of them are
                     the seeds of the next wave: seed-001, ...
    order            modes by weight, the heaviest first                 one task
    label            nearest mode of every row                           task a panel

Coarse to fine: a few thousand rows find the large modes; only rows that none of these is near are
asked further, each until it comes so near to a mode that is known that both would be one, and what
they find else is added. In the end every row is within a bandwidth of a mode, or has climbed to one
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, Rounds, Task
from simdist.stages.density.ascent import COMPUTE
from simdist.stages.density.seeding import (
    CHUNK,
    HELD_VALUES,
    LISTED,
    MODES_VALUES,
    WAVE,
    Seeds,
    ShiftConfig,
    seeding_of,
)
from simdist.stages.density.sides import (
    BASE_NBYTES,
    EXP_FLOPS,
    TASK_FLOPS,
    Side,
    panel_rows,
    refuse_mismatch,
    tile_nbytes,
)
from simdist.store.datasets import Shard
from simdist.types import Array, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["MeanShiftStage"]


class MeanShiftStage:
    """Inputs: vectors, bandwidth. Each shard has

    labels    [rows] int64    the mode of each row, 0 the heaviest; -1 where it is far from all
    clusters  Parquet         (row, id, cluster)

    and the dataset `modes` [k, d] float64, `weights` [k] (rows within a bandwidth, or the log of
    the sum of the kernel) and `sizes` [k] int64.
    """

    name: ClassVar[str] = "mean_shift"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        if not rounds:
            refuse_mismatch(job.inputs["vectors"])
        plan = _Plan(job.config, Side(job.inputs["vectors"]), rounds)
        for step in plan.story():
            if step.name not in rounds:
                return step
        return _manifest(plan, job, context)

    def compute(self, context: Context, task: Task) -> Record:
        return COMPUTE[task.kind](context, task)

    def forecast(self, config: ShiftConfig, rows: int, dim: int) -> Forecast:
        """As 20 turns of one wave, or of all rows where all are seeds."""
        seeds = rows if seeding_of(config, rows, dim) == "all" else min(rows, WAVE)
        flops = 20.0 * seeds * rows * 4 * dim
        tasks = -(-seeds // CHUNK) * max(round(flops / TASK_FLOPS), 1) + -(-rows // panel_rows(dim))
        return Forecast(tasks, _climb_nbytes(CHUNK, rows, dim), flops, 16 * rows + 16 * seeds * dim)


def _turns_together(points: int, rows: int, dim: int) -> int:
    """Turns of a task."""
    return max(int(TASK_FLOPS / (float(points) * rows * (4 * dim + EXP_FLOPS))), 1)


def _climb_nbytes(points: int, rows: int, dim: int) -> int:
    """What a climb holds: a fold with values, and the data where it is kept."""
    kept = 12 * rows * dim if rows * dim <= HELD_VALUES else 0
    return tile_nbytes(points, dim, dim) + 48 * points * dim + kept


def _modes_nbytes(ends: int, dim: int) -> int:
    return 8 * ends * (5 * dim + 8) + (24 << 20) + BASE_NBYTES


@dataclass(frozen=True)
class _Plan:
    """Which round follows which."""

    config: ShiftConfig
    data: Side
    rounds: Rounds

    @property
    def seeding(self) -> Seeds:
        return seeding_of(self.config, self.data.rows, self.data.dim)

    def story(self) -> Iterator[Round]:
        data = self.data
        if self.seeding == "bins":
            nbytes = 40 * min(panel_rows(data.dim), data.rows) * data.dim + BASE_NBYTES
            yield self.each_panel("bins", "bins", nbytes)
        wave = 0
        while True:
            yield from self.climbs(wave)
            yield self.modes(wave)
            if self.seeding != "cover":
                break
            found = int(self.rounds[f"modes-{wave:03d}"][0].facts["modes"])
            yield self.each_panel(f"cover-{wave:03d}", "cover", self.label_nbytes(found), wave=wave)
            left = sum(int(r.facts["uncovered"]) for r in self.rounds[f"cover-{wave:03d}"])
            if not left:
                break
            wave += 1
        found = int(self.rounds[f"modes-{wave:03d}"][0].facts["modes"])
        nbytes = _modes_nbytes(found, data.dim)
        yield Round("order", (Task("order", "order", {"wave": wave}, nbytes),))
        yield self.each_panel("label", "label", self.label_nbytes(found))

    @property
    def last_wave(self) -> int:
        return sum(name.startswith("modes-") for name in self.rounds) - 1

    def each_panel(self, name: str, kind: str, nbytes: int, **args: Json) -> Round:
        tasks = (
            Task(f"{name}-{p:06d}", kind, {"panel": p, **args}, nbytes)
            for p in range(self.data.panels)
        )
        return Round(name, tuple(tasks))

    def label_nbytes(self, modes: int) -> int:
        panel = min(panel_rows(self.data.dim), self.data.rows)
        return tile_nbytes(panel, self.data.dim, 0) + 24 * modes * self.data.dim

    def climbs(self, wave: int) -> Iterator[Round]:
        """The wave's seeds, and rounds until all of them have arrived."""
        seed = f"seed-{wave:03d}"
        yield Round(seed, (Task(seed, "seed", {"wave": wave}, self.seed_nbytes(wave)),))
        seeds = int(self.rounds[seed][0].facts["seeds"])
        parts = [[low, min(low + CHUNK, seeds)] for low in range(0, seeds, CHUNK)]
        done, number = 0, 0
        while parts:
            name = f"climb-{wave:03d}-{number:03d}"
            yield self.climb(name, wave, number, parts, done)
            done += self.turns(done)
            parts = _next_parts([int(r.facts["moving"]) for r in self.rounds[name]])
            number += 1

    def turns(self, done: int) -> int:
        """Turns of the next round: the first move is not counted among those allowed."""
        together = _turns_together(CHUNK, self.data.rows, self.data.dim)
        return min(together, self.config.turns + 1 - done)

    def climb(self, name: str, wave: int, number: int, parts: list[list[int]], done: int) -> Round:
        """A task for each part: a span of seeds, or of the tasks of the round before."""
        turns = self.turns(done)
        args = {
            "wave": wave,
            "number": number,
            "turns": turns,
            "last": done + turns > self.config.turns,
        }
        nbytes = _climb_nbytes(2 * CHUNK, self.data.rows, self.data.dim)
        return Round(
            name,
            tuple(
                Task(f"{name}-{p:06d}", "climb", {"part": part, **args}, nbytes)
                for p, part in enumerate(parts)
            ),
        )

    def seed_nbytes(self, wave: int) -> int:
        dim = self.data.dim
        bins = sum(int(r.facts["bins"]) for r in self.rounds.get("bins", ()))
        left = sum(int(r.facts["uncovered"]) for r in self.rounds.get(f"cover-{wave - 1:03d}", ()))
        return 48 * bins * dim + 24 * left + 16 * WAVE * dim + BASE_NBYTES

    def modes(self, wave: int) -> Round:
        """One task merges the wave's ends, and the modes known before."""
        dim = self.data.dim
        ends = int(self.rounds[f"seed-{wave:03d}"][0].facts["seeds"])
        if wave:
            ends += int(self.rounds[f"modes-{wave - 1:03d}"][0].facts["modes"])
        if ends * dim > MODES_VALUES:
            raise InputError(
                f"mean_shift: {ends} ends of climbs in {dim} dimensions are more than one task"
                " merges: the bandwidth is so small that nearly every row is a mode. Widen it, or"
                " take seeds='cover'."
            )
        name = f"modes-{wave:03d}"
        return Round(name, (Task(name, "modes", {"wave": wave}, _modes_nbytes(ends, dim)),))


def _next_parts(moving: list[int]) -> list[list[int]]:
    """Spans of tasks whose points still move, together no more than two chunks of them."""
    parts: list[list[int]] = []
    held = 0
    for place, count in enumerate(moving):
        if count == 0:
            continue
        if parts and held + count <= CHUNK:
            parts[-1][1] = place + 1
            held += count
        else:
            parts.append([place, place + 1])
            held = count
    return parts


def _manifest(plan: _Plan, job: Job, context: Context) -> Commit:
    records = plan.rounds["label"]
    shards = []
    for panel, record in enumerate(records):
        first, last = plan.data.panel(panel)
        objects = {role: record.objects[role] for role in ("labels", "clusters")}
        shards.append(Shard(last - first, objects))
    found = plan.rounds["order"][0]
    sizes: Array = np.sum([context.load(r.objects["sizes"]) for r in records], axis=0)
    seeds = [int(plan.rounds[f"seed-{w:03d}"][0].facts["seeds"]) for w in range(plan.last_wave + 1)]
    bandwidth = job.inputs["bandwidth"].metrics
    metrics: dict[str, Json] = {
        "clusters": int(found.facts["modes"]),
        "kernel": plan.config.kernel,
        "seeding": plan.seeding,
        "seeds": seeds,
        "sizes": sizes[:LISTED].tolist(),
        "unlabelled": sum(int(r.facts["unlabelled"]) for r in records),
        "rule": bandwidth["rule"],
        "bandwidth": bandwidth["bandwidth"],
    }
    return Commit(plan.data.rows, tuple(shards), metrics, dict(found.objects))
