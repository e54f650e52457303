"""How a plan becomes a dataset: the one loop, on any engine and store.

    Job(stage, config, inputs)
      │ fingerprint ──> manifest there already? ──> done, nothing runs
      v
    stage.next ──> Round ──> tasks without a record ──> engine ──> compute ──> data/, records/
      ^                                                                          │
      └────────────── records of the round, in plan order <──────────────────────┘
    stage.next ──> Commit ──> manifests/{fingerprint}.json, created once

Imports stages never, schedulers never: a stage is handed in, an engine too.
"""

from simdist.runner.context import Context, JobSpec
from simdist.runner.events import Event, Listener
from simdist.runner.loop import committed, run
from simdist.runner.plan import (
    Commit,
    Forecast,
    Job,
    Record,
    Round,
    RoundForecast,
    Rounds,
    Stage,
    Task,
)

__all__ = [
    "Commit",
    "Context",
    "Event",
    "Forecast",
    "Job",
    "JobSpec",
    "Listener",
    "Record",
    "Round",
    "RoundForecast",
    "Rounds",
    "Stage",
    "Task",
    "committed",
    "run",
]
