"""The k-NN graph stage, failing once at one task: what a resume is tried on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from simdist.runner import Context, Record, Task
from simdist.stages.graph import ApproximateKnnGraph


class InjectedError(Exception):
    """The failure that a test asked for."""


@dataclass(frozen=True)
class FailingGraph(ApproximateKnnGraph):
    """Fails the first time it is to compute the task `fails_at`.

    folder: where each task leaves a file when it is computed, and the failure one."""

    fails_at: str
    folder: str

    def compute(self, context: Context, task: Task) -> Record:
        failed = Path(self.folder) / f"failed-at-{task.key}"
        if task.key == self.fails_at and not failed.exists():
            failed.touch()
            raise InjectedError(task.key)
        (Path(self.folder) / f"{task.key}~{uuid4().hex}").touch()
        return super().compute(context, task)


def computed_in(folder: Path) -> list[str]:
    """The key of a task for each time it was computed."""
    return [path.name.split("~")[0] for path in folder.glob("*~*")]
