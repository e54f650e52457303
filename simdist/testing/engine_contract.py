"""What every engine promises. Inherit, give the engine, and pytest runs the promises:

    class TestMyEngine(RemoteEngineContract):          # EngineContract for threads of this process
        @pytest.fixture(scope="class")
        def engine(self):
            with MyEngine(workers=2, retries=2) as engine:
                yield engine

The engine needs two workers on this machine (tasks and tests signal each other through files) and
two retries. Nothing here sleeps to make a race likely: order is forced by files, faults by counts.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simdist.errors
from simdist.engine import Call, Engine, Ref, map_window, tree_reduce
from simdist.errors import (
    Cancelled,
    ConfigError,
    ConflictError,
    EngineError,
    PlanTooLarge,
    SimdistError,
    StoreError,
    TaskFailed,
)
from simdist.types import Array

__all__ = ["EngineContract", "RemoteEngineContract"]

WAIT = 60.0  # seconds: what no wait here should come near
ERRORS = [getattr(simdist.errors, name) for name in simdist.errors.__all__ if name != "TaskFailed"]


class EngineContract:
    """The promises of every engine."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        """The engine under test: two workers, two retries."""
        pytest.fail("a subclass gives the engine")

    def test_a_task_gets_the_results_of_the_refs_among_its_arguments(self, engine: Engine) -> None:
        three = engine.submit(_add, 1, 2, key="three")
        ten = engine.submit(_add, three, 7, key="ten")
        assert engine.get(engine.submit(_add, ten, three, key="sum"), timeout=WAIT) == 13

    def test_a_task_can_wait_for_many(self, engine: Engine) -> None:
        refs = [engine.submit(_add, number, 0, key=f"number-{number}") for number in range(40)]
        assert engine.get(engine.submit(_total, *refs, key="total"), timeout=WAIT) == 780

    def test_a_put_array_arrives_equal_and_read_only(self, engine: Engine) -> None:
        array = np.arange(12, dtype=np.float32).reshape(3, 4)
        ref = engine.put(array)
        found, writeable = engine.get(engine.submit(_look, ref, key="look"), timeout=WAIT)
        assert not writeable
        np.testing.assert_array_equal(found, array)
        np.testing.assert_array_equal(engine.get(ref, timeout=WAIT), array)
        assert [r.key for r in engine.as_completed([ref], timeout=WAIT)] == [ref.key]

    def test_tasks_of_one_name_are_tasks_of_their_own(self, engine: Engine, tmp_path: Path) -> None:
        first = engine.submit(_count, tmp_path / "runs", key="same")
        assert engine.get(first, timeout=WAIT) == 1
        assert engine.get(engine.submit(_count, tmp_path / "runs", key="same"), timeout=WAIT) == 2

    def test_as_completed_yields_in_the_order_of_ending(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        slow = engine.submit(_after, tmp_path / "gate", "slow", key="slow")
        quick = engine.submit(_add, 1, 1, key="quick")
        ended = engine.as_completed([slow, quick, quick], timeout=WAIT)
        assert next(ended) is quick
        (tmp_path / "gate").touch()
        assert [ref.key for ref in ended] == ["slow"]

    def test_as_completed_yields_failed_tasks_too(self, engine: Engine) -> None:
        refs = [engine.submit(_fail, "x", key="bad"), engine.submit(_add, 1, 1, key="good")]
        ended = [ref.key for ref in engine.as_completed(refs, timeout=WAIT)]
        assert sorted(ended) == ["bad", "good"]

    def test_a_reduction_keeps_the_order_of_the_plan_whoever_ends_first(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        # The first leaf ends last: it waits for a file that the last leaf leaves.
        gate = tmp_path / "gate"
        refs = [engine.submit(_after, gate, "a", key="leaf-a")]
        refs += [engine.submit(str, letter, key=f"leaf-{letter}") for letter in "bcdef"]
        refs += [engine.submit(_leave, gate, "g", key="leaf-g")]
        merged = tree_reduce(engine, refs, _bracket, key="merge")
        assert engine.get(merged, timeout=WAIT) == "(((ab)(cd))((ef)g))"

    def test_a_reduction_of_one_is_that_one_and_of_none_an_error(self, engine: Engine) -> None:
        only = engine.submit(str, "a", key="only")
        assert tree_reduce(engine, [only], _bracket, key="merge") is only
        with pytest.raises(ConfigError, match="nothing to reduce for merge"):
            tree_reduce(engine, [], _bracket, key="merge")

    def test_a_window_bounds_what_is_drawn_from_the_plan(self, engine: Engine) -> None:
        drawn = 0

        def plan() -> Iterator[Call]:
            nonlocal drawn
            for number in range(30):
                drawn += 1
                yield Call(f"call-{number}", _add, (number, 1))

        results = {}
        for key, result in map_window(engine, plan(), window=3, timeout=WAIT):
            results[key] = result
            assert drawn <= len(results) + 3 + 1  # three in flight, one in hand
        assert results == {f"call-{number}": number + 1 for number in range(30)}

    def test_a_window_yields_what_ends_first_and_keeps_the_workers_busy(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        gate = tmp_path / "gate"
        calls = [Call("slow", _after, (gate, "slow"))]
        calls += [Call(f"quick-{number}", _add, (number, 1)) for number in range(10)]
        keys = []
        for key, _ in map_window(engine, calls, window=2, timeout=WAIT):
            keys.append(key)
            if len(keys) == 10:
                gate.touch()
        assert keys[-1] == "slow"

    def test_a_window_stops_at_the_first_failure(self, engine: Engine, tmp_path: Path) -> None:
        calls = [Call("bad", _fail, ("x",))]
        calls += [Call(f"call-{n}", _count, (tmp_path / "runs",)) for n in range(50)]
        with pytest.raises(TaskFailed, match="task bad failed"):
            list(map_window(engine, calls, window=2, timeout=WAIT))
        engine.get(engine.submit(_add, 1, 1, key="after"), timeout=WAIT)
        assert _lines(tmp_path / "runs") < 50

    def test_a_failure_names_the_task_and_carries_error_and_traceback(self, engine: Engine) -> None:
        with pytest.raises(
            TaskFailed, match=r"task leaf-7 failed: ValueError: no such x"
        ) as caught:
            engine.get(engine.submit(_fail, "no such x", key="leaf-7"), timeout=WAIT)
        failed = caught.value
        assert failed.key == "leaf-7"
        assert isinstance(failed.cause, ValueError)
        assert failed.cause.args == ("no such x",)
        assert "in _fail" in failed.trace
        assert failed.trace.rstrip().endswith("ValueError: no such x")

    def test_an_error_that_cannot_be_pickled_still_tells_its_story(self, engine: Engine) -> None:
        with pytest.raises(TaskFailed, match="it is stubborn") as caught:
            engine.get(engine.submit(_fail_stubbornly, key="stubborn"), timeout=WAIT)
        assert "in _fail_stubbornly" in caught.value.trace
        assert (caught.value.cause is None) == engine.remote

    def test_a_task_that_exits_takes_nothing_along(self, engine: Engine) -> None:
        with pytest.raises(TaskFailed, match="task leaver failed: SystemExit: 3"):
            engine.get(engine.submit(_exit, key="leaver"), timeout=WAIT)
        assert engine.get(engine.submit(_add, 1, 1, key="after"), timeout=WAIT) == 2

    def test_a_failed_dependency_is_named_all_the_way_down(self, engine: Engine) -> None:
        root = engine.submit(_fail, "the root cause", key="root")
        middle = engine.submit(_add, root, 1, key="middle")
        top = engine.submit(_add, 1, middle, key="top")
        with pytest.raises(TaskFailed, match="task root failed: ValueError: the root") as caught:
            engine.get(top, timeout=WAIT)
        assert caught.value.key == "root"

    def test_the_root_cause_is_found_when_it_failed_long_before(self, engine: Engine) -> None:
        root = engine.submit(_fail, "long ago", key="root")
        list(engine.as_completed([root], timeout=WAIT))
        with pytest.raises(TaskFailed, match="task root failed"):
            engine.get(engine.submit(_add, root, 1, key="late"), timeout=WAIT)

    @pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
    def test_every_error_of_simdist_comes_back_as_itself(
        self, engine: Engine, kind: type[SimdistError]
    ) -> None:
        with pytest.raises(EngineError, match="what, where, next") as caught:
            engine.get(engine.submit(_raise, kind, key="raiser"), timeout=WAIT)
        if kind is Cancelled:  # a task that found its run cancelled is not a failed task
            assert type(caught.value) is Cancelled
        else:
            assert type(caught.value.__cause__) is kind
            assert str(caught.value.__cause__) == "what, where, next"

    def test_a_failure_inside_a_task_comes_back_whole(self, engine: Engine) -> None:
        with pytest.raises(TaskFailed) as caught:
            engine.get(engine.submit(_raise_task_failed, key="outer"), timeout=WAIT)
        inner = caught.value.cause
        assert isinstance(inner, TaskFailed)
        assert (inner.key, repr(inner.cause)) == ("inner", repr(KeyError("k")))

    @pytest.mark.parametrize("error", [ConnectionError, TimeoutError, StoreError])
    def test_transient_errors_are_tried_again(
        self, engine: Engine, tmp_path: Path, error: type[Exception]
    ) -> None:
        ref = engine.submit(_fail_until, 3, error, tmp_path / "runs", key="flaky")
        assert engine.get(ref, timeout=WAIT) == "done at 3"

    def test_retries_end(self, engine: Engine, tmp_path: Path) -> None:
        ref = engine.submit(_fail_until, 9, ConnectionError, tmp_path / "runs", key="flaky")
        with pytest.raises(TaskFailed, match="task flaky failed: ConnectionError: try 3"):
            engine.get(ref, timeout=WAIT)
        assert _lines(tmp_path / "runs") == 3

    @pytest.mark.parametrize("error", [ValueError, ConflictError, MemoryError])
    def test_other_errors_are_not_tried_again(
        self, engine: Engine, tmp_path: Path, error: type[Exception]
    ) -> None:
        ref = engine.submit(_fail_until, 3, error, tmp_path / "runs", key="wrong")
        with pytest.raises(TaskFailed, match="try 1"):
            engine.get(ref, timeout=WAIT)
        assert _lines(tmp_path / "runs") == 1

    def test_cancelled_tasks_do_not_run_and_neither_do_those_that_need_them(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        gate, runs = tmp_path / "gate", tmp_path / "runs"
        busy = [engine.submit(_after, gate, n, key=f"busy-{n}") for n in range(engine.workers)]
        queued = [engine.submit(_count, runs, key=f"queued-{n}") for n in range(20)]
        needing = engine.submit(_add, queued[-1], 1, key="needing")
        engine.cancel(queued)
        gate.touch()
        assert [engine.get(ref, timeout=WAIT) for ref in busy] == list(range(engine.workers))
        for ref in engine.as_completed(queued, timeout=WAIT):
            with pytest.raises(Cancelled, match=f"task {ref.key} "):
                engine.get(ref, timeout=WAIT)
        with pytest.raises(Cancelled):
            engine.get(needing, timeout=WAIT)
        assert engine.get(engine.submit(_add, 1, 1, key="after"), timeout=WAIT) == 2
        assert not runs.exists()

    def test_cancelling_what_has_ended_changes_nothing(self, engine: Engine) -> None:
        ref = engine.submit(_add, 1, 1, key="ended")
        assert engine.get(ref, timeout=WAIT) == 2
        engine.cancel([ref])
        assert engine.get(engine.submit(_add, 1, 1, key="after"), timeout=WAIT) == 2

    def test_waits_end_with_an_error_that_names_the_tasks(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        ref = engine.submit(_after, tmp_path / "gate", 1, key="stuck")
        with pytest.raises(EngineError, match=r"none of 1 tasks \(stuck\) ended within 0.2 s"):
            list(engine.as_completed([ref], timeout=0.2))
        with pytest.raises(EngineError, match=r"none of 1 tasks \(stuck\) ended within 0.2 s"):
            engine.get(ref, timeout=0.2)
        (tmp_path / "gate").touch()
        assert engine.get(ref, timeout=WAIT) == 1

    def test_a_task_too_large_for_a_worker_is_refused_with_both_numbers(
        self, engine: Engine
    ) -> None:
        too_much = 3 * engine.memory
        with pytest.raises(PlanTooLarge, match=r"task big needs .*iB; a .* worker has .*iB"):
            engine.submit(_add, 1, 1, key="big", nbytes=too_much)
        with pytest.raises(PlanTooLarge, match=r"needs .*iB; a .* worker has .*iB"):
            engine.slots(nbytes=too_much)

    def test_a_task_with_too_many_cpus_is_refused_with_both_numbers(self, engine: Engine) -> None:
        with pytest.raises(PlanTooLarge, match=r"task wide needs 1000 cpus; .* has \d+"):
            engine.submit(_add, 1, 1, key="wide", cpus=1000)
        with pytest.raises(PlanTooLarge, match="needs 1000 cpus"):
            engine.slots(cpus=1000)

    def test_slots_are_what_runs_at_once(self, engine: Engine, tmp_path: Path) -> None:
        slots = engine.slots(nbytes=1 << 20)
        assert slots == engine.workers
        together = [engine.submit(_meet, tmp_path, n, slots, key=f"meet-{n}") for n in range(slots)]
        assert [engine.get(ref, timeout=WAIT) for ref in together] == [slots] * slots

    def test_native_threads_follow_the_cpus_of_the_task(self, engine: Engine) -> None:
        before = _native_threads()
        assert engine.get(engine.submit(_native_threads, key="threads"), timeout=WAIT) == {1}
        assert _native_threads() == before

    @pytest.mark.parametrize("shape", ["list", "tuple", "dict", "set", "deep", "dataclass"])
    def test_refs_hidden_in_arguments_are_refused(self, engine: Engine, shape: str) -> None:
        ref = engine.submit(_add, 1, 1, key="hidden")
        hidden: dict[str, Any] = {
            "list": [ref],
            "tuple": (1, ref),
            "dict": {"a": ref},
            "set": {ref},
            "deep": [{"a": (1, [ref])}],
            "dataclass": _Box(ref),
        }
        with pytest.raises(ConfigError, match="argument 0 of task outer holds the Ref of task hid"):
            engine.submit(_look, hidden[shape], key="outer")

    def test_warming_imports_on_the_workers(self, engine: Engine) -> None:
        assert engine.warm("colorsys") > 0
        loaded = engine.submit(_is_loaded, "colorsys", key="loaded")
        assert engine.get(loaded, timeout=WAIT)


class RemoteEngineContract(EngineContract):
    """What is promised besides where tasks run in other processes."""

    def test_tasks_run_in_other_processes(self, engine: Engine) -> None:
        assert engine.remote
        assert engine.get(engine.submit(_pid, key="pid"), timeout=WAIT) != os.getpid()

    def test_what_cannot_be_pickled_is_refused_where_it_is_written(self, engine: Engine) -> None:
        with pytest.raises(ConfigError, match="task locked cannot be sent to another process"):
            engine.submit(_look, threading.Lock(), key="locked")

    def test_a_result_that_cannot_be_pickled_is_a_failed_task(self, engine: Engine) -> None:
        with pytest.raises(TaskFailed, match="task locked failed: TypeError"):
            engine.get(engine.submit(threading.Lock, key="locked"), timeout=WAIT)

    def test_functions_written_on_the_spot_run(self, engine: Engine) -> None:
        offset = 4
        assert engine.get(engine.submit(lambda x: x + offset, 3, key="lambda"), timeout=WAIT) == 7

    def test_a_worker_that_dies_once_loses_nothing(self, engine: Engine, tmp_path: Path) -> None:
        ref = engine.submit(_die_until, 2, tmp_path / "runs", key="mortal")
        assert engine.get(ref, timeout=WAIT) == "alive at 2"

    def test_results_and_arrays_held_by_a_dead_worker_come_back(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        array = engine.put(np.arange(5))
        held = engine.submit(_total_of, array, key="held")
        assert engine.get(held, timeout=WAIT) == 10
        meeting = [
            engine.submit(_meet_and_tell, tmp_path, n, engine.workers, key=f"meet-{n}")
            for n in range(engine.workers)
        ]
        for pid in {engine.get(ref, timeout=WAIT) for ref in meeting}:
            os.kill(pid, signal.SIGKILL)
        assert engine.get(engine.submit(_add, held, 1, key="needs-held"), timeout=WAIT) == 11
        assert engine.get(engine.submit(_total_of, array, key="again"), timeout=WAIT) == 10

    def test_a_task_that_always_kills_its_worker_fails_with_its_name(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        ref = engine.submit(_die_until, 99, tmp_path / "runs", key="deadly-4")
        with pytest.raises(TaskFailed, match=r"task deadly-4 failed: .*its worker died 3 times"):
            engine.get(ref, timeout=WAIT)
        assert _lines(tmp_path / "runs") == 3
        assert engine.get(engine.submit(_add, 1, 1, key="after"), timeout=WAIT) == 2


@dataclass(frozen=True)
class _Box:
    content: Ref


class _StubbornError(Exception):
    """Pickles, but its `__init__` cannot be called with what was pickled."""

    def __init__(self, *, why: str) -> None:
        super().__init__(f"it is {why}")


def _add(a: Any, b: Any) -> Any:
    return a + b


def _total(*numbers: int) -> int:
    return sum(numbers)


def _total_of(array: Array) -> int:
    return int(array.sum())


def _look(array: Array) -> tuple[Array, bool]:
    return np.array(array), bool(array.flags.writeable)


def _bracket(left: str, right: str) -> str:
    return f"({left}{right})"


def _fail(message: str) -> None:
    raise ValueError(message)


def _fail_stubbornly() -> None:
    raise _StubbornError(why="stubborn")


def _exit() -> None:
    raise SystemExit(3)


def _raise(kind: type[SimdistError]) -> None:
    error = kind("what, where, next")
    error.transient = False  # type: ignore[attr-defined]  # no need to wait for retries
    raise error


def _raise_task_failed() -> None:
    raise TaskFailed("inner", KeyError("k"), "KeyError: 'k'")


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def _count(path: Path) -> int:
    with path.open("a") as file:
        file.write("run\n")
    return _lines(path)


def _fail_until(success: int, error: type[Exception], path: Path) -> str:
    if (run := _count(path)) < success:
        raise error(f"try {run}")
    return f"done at {run}"


def _die_until(success: int, path: Path) -> str:
    if (run := _count(path)) < success:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"alive at {run}"


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "what this task waits for never came"
        time.sleep(0.005)


def _after(gate: Path, value: Any) -> Any:
    _wait_for(gate.exists)
    return value


def _leave(gate: Path, value: Any) -> Any:
    gate.touch()
    return value


def _meet(folder: Path, number: int, expected: int) -> int:
    (folder / f"here-{number}").touch()
    _wait_for(lambda: len(list(folder.glob("here-*"))) == expected)
    return expected


def _meet_and_tell(folder: Path, number: int, expected: int) -> int:
    _meet(folder, number, expected)
    return os.getpid()


def _pid() -> int:
    return os.getpid()


def _native_threads() -> set[int]:
    import threadpoolctl  # noqa: PLC0415  (only where the libraries are)

    np.linalg.inv(np.eye(4))  # the BLAS is loaded and used
    return {library["num_threads"] for library in threadpoolctl.threadpool_info()}


def _is_loaded(module: str) -> bool:
    import sys  # noqa: PLC0415  (the worker's)

    return module in sys.modules
