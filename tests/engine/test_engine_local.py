"""What only threads of this process have: shared memory, shared native libraries."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

from simdist.engine import Call, map_window, open_engine, threads
from simdist.engine.scratch import FileScratch
from simdist.engine.task import transient
from simdist.errors import Cancelled, EngineError, ObjectMissing, PlanTooLarge, StoreError

WAIT = 60.0


def test_slots_follow_the_memory_that_all_threads_share():
    with open_engine(workers=4, memory="4GiB") as engine:
        assert engine.slots() == 4
        assert engine.slots(nbytes=1 << 30) == 4
        assert engine.slots(nbytes=3 << 29) == 2
        assert engine.slots(nbytes=4 << 30) == 1
        assert engine.slots(cpus=3) == 1
        with pytest.raises(PlanTooLarge, match=r"needs 5.0 GiB; a local worker has 4.0 GiB"):
            engine.slots(nbytes=5 << 30)


@pytest.mark.parametrize("need", [{"nbytes": 600}, {"cpus": 2}])
def test_tasks_that_do_not_fit_together_take_turns(need):
    running, most = 0, 0
    lock = threading.Lock()
    overlap = threading.Event()

    def task():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running > 1:
                overlap.set()
        overlap.wait(0.02)  # gives a second one the time to show itself
        with lock:
            running -= 1

    with open_engine(workers=3, memory=1000) as engine:
        refs = [engine.submit(task, key=f"task-{n}", **need) for n in range(6)]
        for ref in refs:
            engine.get(ref, timeout=WAIT)
    assert most == 1


def test_a_large_task_is_not_starved_by_small_ones_behind_it():
    order = []
    gate = threading.Event()
    with open_engine(workers=2, memory=1000) as engine:
        first = engine.submit(gate.wait, WAIT, key="first", nbytes=600)
        large = engine.submit(order.append, "large", key="large", nbytes=900)
        # Each fits beside the first, none beside the large one.
        small = [engine.submit(order.append, "small", key=f"s-{n}", nbytes=200) for n in range(5)]
        gate.set()
        for ref in [first, large, *small]:
            engine.get(ref, timeout=WAIT)
    assert order[0] == "large"


def test_an_array_is_put_without_a_copy():
    array = np.arange(4)
    with open_engine(workers=1) as engine:
        ref = engine.put(array)
        assert np.shares_memory(engine.get(ref), array)
        assert array.flags.writeable  # the caller's own stays as it was


def test_an_array_is_put_in_the_scratch_store_where_one_is_given():
    scratch = FileScratch()
    with open_engine(workers=1, scratch=scratch) as engine:
        ref = engine.put(np.arange(4))
        assert isinstance(engine.get(ref), np.memmap)
        assert engine.get(engine.submit(np.sum, ref, key="sum"), timeout=WAIT) == 6
    scratch.close()


def test_results_and_arguments_are_let_go_with_the_ref():
    class Large:
        pass

    argument = Large()
    with open_engine(workers=1) as engine:
        ref = engine.submit(lambda x: Large(), argument, key="large")
        result = weakref.ref(engine.get(ref, timeout=WAIT))
        seen = weakref.ref(argument)
        del argument
        gc.collect()
        assert seen() is None  # the argument goes when the task has ended
        assert result() is not None
        del ref
        gc.collect()
        assert result() is None


def test_the_original_error_is_the_cause_with_its_own_traceback():
    error = ValueError("mine")

    def fail():
        raise error

    with open_engine(workers=1) as engine, pytest.raises(EngineError) as caught:
        engine.get(engine.submit(fail, key="fail"), timeout=WAIT)
    assert caught.value.__cause__ is error


def test_closing_cancels_what_waits_and_can_be_repeated():
    gate = threading.Event()
    engine = open_engine(workers=1)
    running = engine.submit(gate.wait, WAIT, key="running")
    waiting = engine.submit(abs, -1, key="waiting")
    threading.Timer(0.05, gate.set).start()
    engine.close()
    engine.close()
    for ref in (running, waiting):
        with pytest.raises(Cancelled, match=f"task {ref.key} was cancelled"):
            engine.get(ref, timeout=WAIT)
    with pytest.raises(EngineError, match="task late: the local engine is closed"):
        engine.submit(abs, -1, key="late")
    assert not [t for t in threading.enumerate() if t in engine._threads]


def test_leaving_a_window_early_cancels_the_rest():
    ran = []
    with open_engine(workers=1) as engine:
        calls = (Call(f"call-{n}", ran.append, (n,)) for n in range(100))
        for _ in map_window(engine, calls, window=4, timeout=WAIT):
            break
        engine.get(engine.submit(abs, -1, key="after"), timeout=WAIT)
    assert len(ran) <= 1 + 4


def test_a_window_is_twice_the_slots_unless_told_otherwise():
    drawn = []

    def plan():
        for n in range(20):
            drawn.append(n)
            yield Call(f"call-{n}", abs, (n,), nbytes=400)

    with open_engine(workers=4, memory=1000) as engine:
        next(map_window(engine, plan(), timeout=WAIT))
    assert len(drawn) == 2 * 2 + 1  # two slots by memory, twice; one in hand


def test_native_threads_are_given_back_when_the_last_task_ends():
    np.linalg.inv(np.eye(4))
    with threadpoolctl.threadpool_limits(2):
        before = [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]
        with threads.limited(1), threads.limited(2):  # the smallest rules while both run
            during = {lib["num_threads"] for lib in threadpoolctl.threadpool_info()}
        assert during <= {1, 2}
        assert 1 in during
        assert [lib["num_threads"] for lib in threadpoolctl.threadpool_info()] == before


def test_a_limit_is_given_back_after_an_error():
    np.linalg.inv(np.eye(4))
    before = [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]
    with pytest.raises(ValueError, match="inside"), threads.limited(1):
        raise ValueError("inside")
    assert [lib["num_threads"] for lib in threadpoolctl.threadpool_info()] == before


class _MarkedError(Exception):
    def __init__(self, transient):
        super().__init__()
        self.transient = transient


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (StoreError("503"), True),
        (ObjectMissing("gone"), False),
        (ValueError(), False),
        (_MarkedError(True), True),
        (_MarkedError(False), False),
    ],
)
def test_what_is_transient(error, expected):
    assert transient(error) is expected


def test_any_thread_may_limit_what_another_has_limited_before():
    def seen() -> set[int]:
        with threads.limited(1):
            blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
            return {library.num_threads for library in blas.lib_controllers}

    _ = np.ones((4, 4)) @ np.ones((4, 4))
    for _ in range(3):  # each time in a thread of its own, and in this one
        with ThreadPoolExecutor(1) as one:
            assert one.submit(seen).result() == {1}
        assert seen() == {1}


def test_pieces_run_side_by_side_with_one_native_thread_each_and_come_back_in_order():
    np.linalg.inv(np.eye(4))
    meet = threading.Barrier(3, timeout=WAIT)

    def piece(i: int) -> tuple[int, set[int]]:
        meet.wait()  # nobody passes before three are here
        return i, {lib["num_threads"] for lib in threadpoolctl.threadpool_info()}

    with threads.side_by_side(3) as run:
        assert run(piece, 6) == [(i, {1}) for i in range(6)]


def test_the_first_error_of_a_piece_is_raised_and_pieces_that_wait_are_not_begun():
    begun = []

    def piece(i: int) -> None:
        begun.append(i)
        raise ValueError(f"piece {i}")

    for cpus in (1, 2):
        with pytest.raises(ValueError, match="piece 0"), threads.side_by_side(cpus) as run:
            run(piece, 1000)
    assert len(begun) < 1000
