"""Which process dies when: drawn by seed, printed before it happens.

sort     driver | worker | node | server | disk          what is killed, or full
engine   local | dask | ray                              where tasks run
stage    import | leaf | merge | ... | commit            in the middle of what, as its flow has it
gate     task 3 of 8, when it has written an object      where exactly one process waits
jitter   + 40 ms                                         what the others do meanwhile
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.chaos.flow import FLOWS, Flow
from tests.chaos.gate import Gate

__all__ = ["ENGINES", "SORTS", "Trial", "schedule"]

SORTS = ("driver", "worker", "node", "server", "disk")
ENGINES = ("local", "dask", "ray")

# Threads of a local driver die with it; only Ray has nodes.
POSSIBLE: Mapping[str, Sequence[str]] = {"worker": ("dask", "ray"), "node": ("ray",)}

POINTS = ("started", "written", "computed", "recorded")
JITTER_MS = 60
OUTAGE_MS = 2500  # of the S3 server
LEFT_NBYTES = 96 << 10  # on the full disk: less than most objects, more than a record


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault. of: tasks of the round. outage_ms, left_nbytes: of a server, a disk."""

    id: str
    sort: str
    engine: str
    stage: str
    gate: Gate
    of: int
    jitter_ms: int
    outage_ms: int
    left_nbytes: int

    def __str__(self) -> str:
        if self.stage == "commit":
            where = f"mid-commit, {self.gate.point} the manifest of {self.gate.round}"
        else:
            where = (
                f"mid-{self.stage}, task {self.gate.after + 1} of {self.of} of {self.gate.round}"
                f" {SAYS[self.gate.point]}"
            )
        extra = {
            "server": f", back after {self.outage_ms} ms",
            "disk": f", {self.left_nbytes >> 10} KiB left",
        }
        return (
            f"{self.id}: {self.engine} {self.sort}, {where}, + {self.jitter_ms} ms"
            f"{extra.get(self.sort, '')}"
        )


SAYS = {
    "started": "started",
    "written": "wrote its first object",
    "computed": "has all but its record",
    "recorded": "has its record, untold",
}


def schedule(
    sorts: Sequence[str],
    engines: Sequence[str],
    *,
    trials: int,
    seed: int,
    rounds: Mapping[str, int],
    flow: str = "main",
) -> Iterator[Trial]:
    """`trials` of each sort, spread over its engines and all stages, sorts taking turns: what is
    interrupted has tried something of everything. rounds: tasks by round of the flow."""
    for number in range(trials):
        for sort in sorts:
            able = [engine for engine in POSSIBLE.get(sort, ENGINES) if engine in engines]
            if able:
                place, engine = number // len(able), able[number % len(able)]
                yield _drawn(sort, engine, place, seed, rounds, FLOWS[flow])


def _drawn(
    sort: str, engine: str, place: int, seed: int, rounds: Mapping[str, int], flow: Flow
) -> Trial:
    words = [zlib.crc32(word.encode()) for word in (sort, engine)]
    rng = np.random.default_rng([seed, *words, place])
    stages = (*flow.moments, "commit")
    stage = stages[place % len(stages)]
    if stage == "commit":
        gate = Gate(str(rng.choice(flow.commits)), 0, str(rng.choice(["before", "after"])))
        of = 1
    else:
        name = flow.moments[stage]
        of = rounds[name]
        gate = Gate(name, int(rng.integers(of)), str(rng.choice(POINTS)))
    return Trial(
        id=f"{sort}-{engine}-{place:02d}",
        sort=sort,
        engine=engine,
        stage=stage,
        gate=gate,
        of=of,
        jitter_ms=int(rng.integers(JITTER_MS)),
        outage_ms=int(rng.integers(OUTAGE_MS)),
        left_nbytes=int(rng.integers(LEFT_NBYTES)),
    )
