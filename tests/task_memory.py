"""What tasks hold in numpy's arrays, beside what their plans say: for tests of plans."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import pytest

from simdist.runner import Context, Record, Stage, Task

Watch: TypeAlias = Callable[[Stage, Context, Task], None]


class Held(NamedTuple):
    """kind: stage and kind of task. where: job and key. peak: most bytes it held; said: planned."""

    kind: str
    where: str
    peak: int
    said: int

    def __str__(self) -> str:
        return f"{self.where} ({self.kind}) holds {self.peak:,} of {self.said:,}"


class Meter:
    """Every task that ran. job: what runs now, as `where` names it."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.job = ""

    def kinds(self) -> set[str]:
        return {held.kind for held in self.held}

    def over(self) -> list[str]:
        """Tasks that held more than they said."""
        return [str(held) for held in self.held if held.peak > held.said]

    def loose(self, factor: float, spare: int) -> list[str]:
        """Kinds whose tightest task says more than `factor` times what it holds, and `spare`."""
        by_kind = {kind: [h for h in self.held if h.kind == kind] for kind in sorted(self.kinds())}
        tightest = [max(held, key=lambda h: h.peak / h.said) for held in by_kind.values()]
        return [f"at its tightest, {h}" for h in tightest if h.said > factor * h.peak + spare]


@contextmanager
def metered(*stages: type[Stage], watch: Watch | None = None) -> Iterator[Meter]:
    """Tasks of these stages are measured, on an engine of one thread. watch: called after each.

    What a first call compiles and imports is not the task's: let it happen before.
    """
    meter = Meter()

    def measured(compute: Callable[[Any, Context, Task], Record]) -> Any:
        def traced(self: Stage, context: Context, task: Task) -> Record:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            record = compute(self, context, task)
            _, peak = tracemalloc.get_traced_memory()
            where = f"{meter.job}: {task.key}" if meter.job else task.key
            meter.held.append(Held(f"{self.name} {task.kind}", where, peak - before, task.nbytes))
            if watch is not None:
                watch(self, context, task)
            return record

        return traced

    with pytest.MonkeyPatch.context() as patch:
        for stage in stages:
            patch.setattr(stage, "compute", measured(stage.compute))
        tracemalloc.start()
        try:
            yield meter
        finally:
            tracemalloc.stop()
