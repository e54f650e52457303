"""The k-NN graph stage, failing once in a round: what a resume is tried on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from simdist.runner import Context, Record, Task
from simdist.stages.graph import ApproximateKnnGraph


class Injected(Exception):
    """The failure that a test asked for."""


@dataclass(frozen=True)
class FailingGraph(ApproximateKnnGraph):
    """Fails at the last task of `round`, before it computes, if it did not do so before.

    folder: where each task leaves a file when it computes, and each failure one."""

    round: str
    folder: str

    def compute(self, context: Context, task: Task) -> Record:
        folder = Path(self.folder)
        failed = folder / f"failed-in-{self.round}"
        if task.key.rpartition("-")[0].startswith(self.round) or task.key == self.round:
            last = task.key == self.round or int(task.args.get("block", 0)) == 2
            if last and not failed.exists():
                failed.touch()
                raise Injected(self.round)
        (folder / f"{task.key}~{uuid4().hex}").touch()
        return super().compute(context, task)

    def computed(self) -> Counter[str]:
        """How often each task was computed."""
        return Counter(path.name.split("~")[0] for path in Path(self.folder).glob("*~*"))
