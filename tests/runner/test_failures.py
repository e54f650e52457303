"""A task fails, a person interrupts, a listener breaks: what the caller sees, what stays behind."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runner.fakes import DEADLINE_SECONDS, Script, job_of, keys, lines, settle

from simdist.engine import Engine, open_engine
from simdist.errors import Cancelled, InputError, StoreError, TaskFailed
from simdist.runner import Context, Event, JobSpec, run
from simdist.runner import context as context_module
from simdist.runner.events import TaskDone
from simdist.store import Store


def test_an_error_simdist_raised_on_purpose_reaches_the_caller_with_its_task(
    engine: Engine, script: Script, store: Store
) -> None:
    with pytest.raises(InputError, match="row 7 is all zeros") as told:
        run(job_of(script.failing("sums-002", error="input")), store=store, engine=engine)
    (note,) = told.value.__notes__
    assert note.startswith("in task ")
    assert note.endswith("sums-002")
    assert_chain_ends(told.value)
    if engine.remote:
        assert "fakes.py" in str(told.value.__cause__)  # where it was raised, in the other process
    else:
        assert any(entry.path.name == "fakes.py" for entry in told.traceback)


def test_a_foreign_error_is_a_task_failed_with_key_and_trace(
    engine: Engine, script: Script, store: Store
) -> None:
    with pytest.raises(TaskFailed, match="nothing to divide by") as told:
        run(job_of(script.failing("sums-002")), store=store, engine=engine)
    assert told.value.key.endswith("sums-002")
    assert "ZeroDivisionError" in told.value.trace
    assert "fakes.py" in told.value.trace
    assert isinstance(told.value.cause, ZeroDivisionError)
    assert_chain_ends(told.value)
    dataset = run(job_of(script), store=store, engine=engine)  # and running again resumes
    assert dataset.rows == 4


def assert_chain_ends(error: BaseException) -> None:
    """Causes and contexts form no circle: loggers and serializers walk them."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None:
            assert not any(link is other for other in seen), "an error is its own cause"
            seen.append(link)
            waiting += [link.__cause__] if link.__cause__ is not None else [link.__context__]


def test_an_interrupt_starts_nothing_more_and_lets_go_of_the_lease(
    script: Script, store: Store
) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, TaskDone):
            raise KeyboardInterrupt

    many = replace(script, tasks=12, waiting=("numbers-001", "numbers-002"))
    with open_engine("local", workers=3) as engine:
        with pytest.raises(KeyboardInterrupt) as held:  # with its frames, as a notebook holds it
            run(job_of(many), store=store, engine=engine, listeners=[interrupt])
        Path(script.folder, "go").touch()
        settle(engine)
        # Three had begun, and the first to end made room for one more.
        assert set(script.ran()) <= {f"numbers-00{i}" for i in range(4)}
        assert held.type is KeyboardInterrupt
        (cancelled,) = keys(store, "leases")
        assert cancelled.endswith("/cancelled")
        dataset = run(job_of(many), store=store, engine=engine)
    assert dataset.rows == 12
    assert keys(store, "leases") == [cancelled]


def test_a_run_that_ends_well_leaves_no_lease(
    script: Script, store: Store, one_worker: Engine
) -> None:
    held: list[list[str]] = []
    run(
        job_of(script),
        store=store,
        engine=one_worker,
        listeners=[lambda event: held.append(keys(store, "leases"))],
    )
    assert any(len(leases) == 1 for leases in held)
    assert keys(store, "leases") == []


def test_a_failing_driver_stops_its_own_running_tasks_and_no_others(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "SECONDS_BETWEEN_CANCEL_CHECKS", 0.0)
    mine, other = (Script(str(tmp_path / name), seed=s) for s, name in enumerate(("mine", "other")))
    for script in (mine, other):
        Path(script.folder).mkdir()
    ended: dict[str, Any] = {}

    def drive(name: str, script: Script, engine: Engine) -> None:
        try:
            ended[name] = run(job_of(script), store=store, engine=engine)
        except Exception as error:
            ended[name] = error

    with open_engine("local", workers=6) as engine:
        waiting = replace(other, waiting=("numbers-001",))
        second = threading.Thread(target=drive, args=("other", waiting, engine), daemon=True)
        second.start()
        until(lambda: other.ran()["numbers-001"] == 1)
        failing = replace(mine, waiting=("numbers-000",)).failing("numbers-003")
        drive("mine", failing, engine)
        assert isinstance(ended["mine"], TaskFailed)
        until((Path(mine.folder) / "stopped").exists)
        assert second.is_alive()
        assert not (Path(other.folder) / "stopped").exists()
        (Path(other.folder) / "go").touch()
        second.join(timeout=DEADLINE_SECONDS)
    assert ended["other"].rows == 4


def until(condition: Any) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_once_cancelled_every_later_check_of_the_process_says_so(
    script: Script, store: Store
) -> None:
    cancelled, other = (
        JobSpec(job_of(script).stage, script, store, "0" * 32, run_id, {})
        for run_id in ("cancelled-run", "other-run")
    )
    store.cancel("cancelled-run")
    for _ in range(3):  # not only the first, which asks the store
        with pytest.raises(Cancelled, match="cancelled-run"):
            Context(cancelled).check()
    Context(other).check()


def test_a_store_that_fails_while_cancelling_does_not_hide_the_first_error(
    script: Script, store: Store, one_worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("the store is gone")

    monkeypatch.setattr(Store, "cancel", refuse)
    with pytest.raises(InputError, match="row 7") as told:
        run(job_of(script.failing("numbers-000", error="input")), store=store, engine=one_worker)
    assert any("the store is gone" in note for note in told.value.__notes__)


def test_a_listener_that_raises_is_told_no_more_and_the_run_goes_on(
    script: Script, store: Store, one_worker: Engine
) -> None:
    heard: list[Event] = []
    broken: list[Event] = []

    def breaks(event: Event) -> None:
        broken.append(event)
        if isinstance(event, TaskDone):
            raise OSError("the terminal is gone")

    with pytest.warns(RuntimeWarning, match="listener failed at TaskDone.*the terminal is gone"):
        dataset = run(
            job_of(script), store=store, engine=one_worker, listeners=[breaks, heard.append]
        )
    assert dataset.rows == 4
    assert lines(broken) == lines(heard)[:3]
    assert lines(heard)[-1] == "StageDone False"


def test_a_warning_made_an_error_ends_the_run_but_loses_nothing(
    script: Script, store: Store, one_worker: Engine
) -> None:
    def breaks(event: Event) -> None:
        if isinstance(event, TaskDone):
            raise OSError("the terminal is gone")

    with pytest.raises(RuntimeWarning):  # the test run turns warnings into errors
        run(job_of(script), store=store, engine=one_worker, listeners=[breaks])
    settle(one_worker)
    dataset = run(job_of(script), store=store, engine=one_worker)
    assert dataset.rows == 4
    assert set(script.ran().values()) == {1}
