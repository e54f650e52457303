"""What a run that ended early leaves for the person on call: what happened, what stands, what to do
next. As markdown for an artifact, and in a line for the state's message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.settings import worth_retrying
from simdist.errors import (
    ConfigError,
    ConflictError,
    EngineError,
    InputError,
    IntegrityError,
    ObjectMissing,
    StoreError,
    TaskFailed,
)
from simdist.report.words import count, plural
from simdist.store import Dataset, Store
from simdist.store.place import Options, redact

__all__ = ["Stop", "caption", "in_short", "page"]


@dataclass(frozen=True, slots=True)
class Stop:
    """A run that ended before its end.

    asked_for: somebody stopped it; it did not fail.
    again: the command that runs the same flow again; `deployed` runs have a button for it too.
    store: None where the run ended before its config was read.
    done: what is committed, by step; left: the steps that are not, the one under way first.
    recorded: tasks of the step under way that need not be done again.
    attempts, timeout: how often that step was tried, and how many seconds it was given.
    """

    flow: str
    error: BaseException
    again: str
    asked_for: bool = False
    deployed: bool = False
    store: Store | None = None
    done: Mapping[str, Dataset] = field(default_factory=dict)
    left: Sequence[str] = ()
    recorded: int = 0
    attempts: int = 1
    timeout: float | None = None


def page(stop: Stop) -> str:
    """The whole story, as markdown."""
    meaning, advice = _story(stop)
    where = f" at `{stop.left[0]}`" if stop.left else ""
    lines = [f"# {stop.flow} {'was stopped' if stop.asked_for else 'failed'}{where}", ""]
    if not stop.asked_for:
        lines += [*(f"> {line}" for line in _words(stop).splitlines()), ""]
    lines += [f"**{meaning}**", "", "## What to do next", ""]
    lines += [f"{number}. {step}" for number, step in enumerate([*advice, _again(stop)], 1)]
    lines += ["", "```sh", stop.again, "```", "", "## What stands", "", _standing(stop)]
    if stop.done:
        lines += ["", "| step | rows | dataset |", "| --- | ---: | --- |"]
        lines += [f"| {name} | {count(d.rows)} | `{d.uri}` |" for name, d in stop.done.items()]
    return _safe("\n".join(lines) + "\n", stop)


def in_short(stop: Stop) -> str:
    """The step, the error's first line, and what it means for the next run."""
    meaning, _ = _story(stop)
    if stop.asked_for:
        return f"{meaning} Run it again and it goes on."
    where = f"{stop.left[0]}: " if stop.left else ""
    first = _words(stop).partition("\n")[0].rstrip(".")
    return _safe(f"{where}{first}. {meaning}", stop)


def caption(stop: Stop) -> str:
    """Above the page, and on its card: the step, the sort of error, and what it means."""
    meaning, _ = _story(stop)
    where = f"{stop.left[0]}: " if stop.left else ""
    return meaning if stop.asked_for else f"{where}{type(stop.error).__name__}. {meaning}"


def _words(stop: Stop) -> str:
    """The error as it says itself."""
    error = stop.error
    if isinstance(error, TimeoutError) and stop.timeout is not None:
        return f"The stage took longer than stages.timeout_seconds = {stop.timeout:g}"
    notes = (str(note) for note in getattr(error, "__notes__", ()))
    short = [note for note in notes if "Traceback" not in note]  # those are in the logs
    return "\n".join([f"{type(error).__name__}: {error}", *short])


def _story(stop: Stop) -> tuple[str, list[str]]:
    """(what the error means, what to do before running again)."""
    if stop.asked_for:
        return "Stopped on request; the work done is kept (exit code 130).", []
    error = stop.error
    broken = isinstance(error, TaskFailed) and worth_retrying(error)  # not by the task's own code
    kind = EngineError if broken else type(error)
    means, advice = next((story[1:] for story in _STORIES if issubclass(kind, story[0])), _UNKNOWN)
    tried = f" {stop.attempts} times" if stop.attempts > 1 else ""
    store = stop.store.uri if stop.store else "STORE"
    return means.format(tried=tried), [advice.format(store=store)]


# (error, what it means, what to do about it); the first that fits. Codes as the command line's.
_STORIES: tuple[tuple[type[BaseException], str, str], ...] = (
    (
        ConfigError,
        "A setting is wrong: the same run would fail again (exit code 2).",
        "Correct the setting that the error names.",
    ),
    (
        InputError,
        "The data cannot be used as asked: the same run would fail again (exit code 2).",
        "Correct the data, or the setting that asks too much of it.",
    ),
    (
        ConflictError,
        "Another run committed something else, and that one stands (exit code 4).",
        "Find out whether two versions of simdist or numpy write to this store.",
    ),
    (
        IntegrityError,
        "Stored bytes are not what was committed (exit code 5).",
        "`simdist verify DATASET` says which objects are damaged. Delete those: they are computed"
        " again, to the same bytes.",
    ),
    (
        ObjectMissing,
        "Something that was committed is gone{tried} (exit code 3).",
        "Find out who deletes from this store. What is gone is computed again.",
    ),
    (
        StoreError,
        "The store failed{tried}; the work done is kept (exit code 3).",
        "Ask the store how it is: `simdist doctor {store}`.",
    ),
    (
        TaskFailed,
        "A task's own code raised an error; the work done is kept (exit code 3).",
        "Read the traceback under **Logs**.",
    ),
    (
        EngineError,
        "The engine failed{tried}; the work done is kept (exit code 3).",
        "Look at the cluster: are its workers up, and do they have memory?",
    ),
    (
        TimeoutError,
        "It took too long; the work done is kept (exit code 3).",
        "Look at the cluster, or give the stages longer.",
    ),
)
_UNKNOWN = (
    "An error that nobody foresaw; the work done is kept (exit code 70).",
    "Report it, with the traceback under **Logs**.",
)


def _again(stop: Stop) -> str:
    does = "Run it again: it goes on from what stands, and computes nothing twice."
    return f"{does} **Retry** on the run's page does that; so does:" if stop.deployed else does


def _standing(stop: Stop) -> str:
    if stop.store is None:
        return "The run ended before it looked at its store."
    steps = len(stop.done) + len(stop.left)
    said = f"{len(stop.done)} of {plural(steps, 'step')} committed in `{stop.store.uri}`"
    if stop.recorded:
        said += f", and {plural(stop.recorded, 'task')} of `{stop.left[0]}` recorded"
    return f"{said}. Nothing of that is lost or changes."


def _safe(text: str, stop: Stop) -> str:
    """Errors are made without credentials; this is the last door they would have to pass."""
    return redact(text, stop.store.objects.place.options if stop.store else Options())
