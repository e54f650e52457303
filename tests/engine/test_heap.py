"""What the allocator is told, once per process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from simdist.engine import heap
from simdist.engine.local import LocalEngine


class Told:
    """Stands for libc."""

    def __init__(self) -> None:
        self.options: list[tuple[int, int]] = []

    def mallopt(self, option: int, value: int) -> None:
        self.options.append((option, value))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    libc = Told()
    monkeypatch.setattr(heap, "_libc", lambda: libc)
    heap.settle.cache_clear()
    yield libc
    heap.settle.cache_clear()


def test_the_first_engine_of_a_process_gives_all_threads_one_heap(
    told: Told, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(heap.ARENAS, raising=False)
    for _ in range(2):
        LocalEngine(workers=1).close()
    assert dict(told.options) == {
        heap.M_MMAP_THRESHOLD: heap.MAPPED_NBYTES,
        heap.M_TRIM_THRESHOLD: heap.KEPT_NBYTES,
        heap.M_ARENA_MAX: 1,
    }
    assert len(told.options) == 3


def test_whoever_said_how_many_heaps_there_are_is_heeded(
    told: Told, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(heap.ARENAS, "4")
    heap.settle()
    assert heap.M_ARENA_MAX not in dict(told.options)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_what_is_free_can_be_given_back():
    heap.give_back()  # glibc's own
