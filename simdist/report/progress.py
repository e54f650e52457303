"""Listeners that show a run: live bars on a terminal, plain lines elsewhere, JSON lines for tools.

All three write to stderr or a stream of their own, so that stdout holds results only.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, TextIO

from simdist.report.words import count, duration, plural
from simdist.runner.events import (
    Event,
    Listener,
    RecordLost,
    RoundStarted,
    StageDone,
    StageStarted,
    TaskDone,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

__all__ = [
    "JsonProgress",
    "LineProgress",
    "LiveProgress",
    "Pace",
    "as_json",
    "finished",
    "progress",
]

SECONDS_BETWEEN_LINES = 5.0  # a log that is read later needs no more


@contextmanager
def progress(console: Console) -> Iterator[Listener]:
    """The listener that suits a console: live where it is a terminal, lines where it is not."""
    if console.is_terminal:
        with LiveProgress(console) as live:
            yield live
    else:
        yield LineProgress(partial(console.print, markup=False, highlight=False, soft_wrap=True))


class LiveProgress:
    """One bar for the round under way, with the time left; a line stays for each finished stage."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (  # noqa: PLC0415 - a second listener needs none of it
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = console
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("[dim]elapsed"),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self.bar: TaskID | None = None
        self.name = ""

    def __enter__(self) -> LiveProgress:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self.name = event.name or event.stage
                self._bar(f"{self.name} [dim]looking at what is there", total=None)
            case RoundStarted():
                self._bar(f"{self.name} · {event.round}", total=event.tasks, done=event.done)
            case TaskDone():
                if self.bar is not None:
                    self.bars.update(self.bar, completed=event.done)
            case RecordLost():
                self.bars.console.print(f"[yellow]![/] {_lost(event)}", highlight=False)
            case StageDone():
                self._clear()
                mark = "[dim]=[/]" if event.reused else "[green]✓[/]"
                self.bars.console.print(f"{mark} {finished(event)}", highlight=False)

    def _bar(self, text: str, *, total: int | None, done: int = 0) -> None:
        self._clear()
        self.bar = self.bars.add_task(text, total=total, completed=done)

    def _clear(self) -> None:
        if self.bar is not None:
            self.bars.remove_task(self.bar)
            self.bar = None


class Pace:
    """How fast a round goes, from the tasks that this run has done."""

    def __init__(self, before: int) -> None:
        self.started = time.monotonic()
        self.before = before  # tasks of the round that an earlier run had done

    def told(self, event: TaskDone) -> str:
        """`leaves: 12 of 40, about 3.0 s left`."""
        each = (time.monotonic() - self.started) / max(1, event.done - self.before)
        left = duration(each * (event.total - event.done))
        return f"{event.round}: {count(event.done)} of {count(event.total)}, about {left} left"


class LineProgress:
    """A line when a round starts, one every five seconds within it, one when a stage ends.

    write: takes a line, as `print` and a logger's `info` do.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write
        self.name = ""
        self.pace = Pace(0)
        self.told = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case StageStarted():
                self.name = event.name or event.stage
            case RoundStarted():
                self.pace = Pace(event.done)
                self.told = self.pace.started
                known = f", {count(event.done)} of them done before" if event.done else ""
                self.write(f"{self.name} · {event.round}: {plural(event.tasks, 'task')}{known}")
            case TaskDone() if event.done < event.total:
                self._within(event)
            case RecordLost():
                self.write(_lost(event))
            case StageDone():
                self.write(finished(event))

    def _within(self, event: TaskDone) -> None:
        now = time.monotonic()
        if now - self.told < SECONDS_BETWEEN_LINES:
            return
        self.told = now
        self.write(f"{self.name} · {self.pace.told(event)}")


class JsonProgress:
    """One JSON object a line: the event's name in snake case, and its fields."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, event: Event) -> None:
        print(json.dumps(as_json(event)), file=self.stream, flush=True)


def as_json(event: Event) -> dict[str, object]:
    """An event as JSON lines and logs show it: `{"event": "task_done", ...}`."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    return {"event": name, **asdict(event)}


def finished(event: StageDone) -> str:
    """`graph: 12,000 rows in 3.2 s`."""
    name = event.name or event.stage
    if event.reused:
        return f"{name}: committed already, {plural(event.rows, 'row')}"
    return f"{name}: {plural(event.rows, 'row')} in {duration(event.seconds)}"


def _lost(event: RecordLost) -> str:
    return f"{event.key}: its object {event.object} is gone or damaged; computing it again"
