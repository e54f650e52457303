"""A stage under way as a progress artifact on its task run's page.

    runner events ──> latest (percent, words) ──> a thread of its own ──> Prefect's API
                      overwritten as often         at most once a second,
                      as events come               and once more at the end

The thread is there so that a slow API never holds up the run: the driver's loop only leaves word.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from simdist.report.progress import Pace, finished
from simdist.report.words import plural
from simdist.runner.events import Event, RoundDone, RoundStarted, StageDone, TaskDone

__all__ = ["ProgressArtifact"]

SECONDS_BETWEEN_UPDATES = 1.0
STARTING = "starting"
LAST_SECONDS = 10.0  # what the end of a stage waits for its last update to be written


class ProgressArtifact:
    """A listener, for `with` inside of a task run, once for each attempt: they share an artifact.
    The bar is that of the round under way.

    complain: told once, in a line, where the API does not take an update; there is none after it.
    An API that does not answer cannot end a run, and holds its stage up for ten seconds at most.
    """

    def __init__(self, key: str, *, complain: Callable[[str], object]) -> None:
        self._key = key
        self._complain = complain
        self._artifact: UUID | None = None
        self._changed = threading.Condition()
        self._latest = (0.0, "")
        self._unsent = self._over = False
        self._pace = Pace(0)

    def __enter__(self) -> ProgressArtifact:
        self._over = False
        self._show(0.0, STARTING)
        # The context tells the artifact which task run it belongs to.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._send,), name="simdist-progress", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        percent, words = self._latest
        if kind is not None:
            at = "at its start" if words == STARTING else f"at {words.partition(', about ')[0]}"
            self._show(percent, f"stopped {at}")
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join(LAST_SECONDS)

    def __call__(self, event: Event) -> None:
        match event:
            case RoundStarted():
                self._pace = Pace(event.done)
                known = f", {event.done:,} of them done before" if event.done else ""
                words = f"{event.round}: {plural(event.tasks, 'task')}{known}"
                self._show(_percent(event.done, event.tasks), words)
            case TaskDone():
                self._show(_percent(event.done, event.total), self._pace.told(event))
            case RoundDone():
                self._show(100.0, f"{event.round}: all {plural(event.tasks, 'task')} done")
            case StageDone():
                self._show(100.0, finished(event))

    def _show(self, percent: float, words: str) -> None:
        with self._changed:
            self._latest = percent, words
            self._unsent = True
            self._changed.notify()

    def _send(self) -> None:
        while (latest := self._next()) is not None:
            percent, words = latest
            try:
                if self._artifact is None:
                    self._artifact = _created(percent, self._key, words)
                else:
                    update_progress_artifact(self._artifact, percent, words)
            except Exception as error:  # whatever the client raises: the run goes on without a bar
                self._complain(f"progress is shown no more: {type(error).__name__}: {error}")
                return
            with self._changed:
                self._changed.wait_for(lambda: self._over, SECONDS_BETWEEN_UPDATES)

    def _next(self) -> tuple[float, str] | None:
        """The latest word that was not sent, when there is one; None when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._unsent or self._over)
            if not self._unsent:
                return None
            self._unsent = False
            return self._latest


def _created(percent: float, key: str, words: str) -> UUID:
    made: Any = create_progress_artifact(percent, key=key, description=words)
    assert isinstance(made, UUID)  # Prefect's types allow a coroutine, which only async code gets
    return made


def _percent(done: int, total: int) -> float:
    return 100.0 * done / total if total else 100.0
