"""A conditional put under faults: lost answers, conflicts, and a backend that stays away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError

from simdist.errors import StoreError
from simdist.store import Store, open_store, patience

Put = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    return open_store(tmp_path)


def faulty(monkeypatch: pytest.MonkeyPatch, times: int, fault: Callable[[Put], Any]) -> list[int]:
    """Let the first `times` puts go through `fault`, which is handed the true put."""
    put, calls = obstore.put, [0]

    def patched(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        return fault(lambda: put(*args, **kwargs)) if calls[0] <= times else put(*args, **kwargs)

    monkeypatch.setattr(obstore, "put", patched)
    return calls


def test_a_lost_answer_of_our_own_write_reads_back_as_ours(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(put: Put) -> None:
        put()
        raise GenericError("connection reset before the answer came")

    calls = faulty(monkeypatch, 1, lose)
    assert store.objects.put_once("a", b"ours") == b"ours"
    assert calls == [1]


def test_a_write_that_never_arrived_is_sent_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(put: Put) -> None:
        raise GenericError("connection refused")

    calls = faulty(monkeypatch, 2, drop)
    assert store.objects.put_once("a", b"ours") == b"ours"
    assert calls == [3]


def test_a_conflict_without_a_winner_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def conflict(put: Put) -> None:
        raise AlreadyExistsError("409: a conflicting operation is in progress")

    calls = faulty(monkeypatch, 1, conflict)
    assert store.objects.put_once("a", b"ours") == b"ours"
    assert calls == [2]


def test_a_backend_that_stays_away_is_named_with_the_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop(put: Put) -> None:
        raise GenericError("503 Slow Down at http://host/b/a?X-Amz-Signature=abc")

    calls = faulty(monkeypatch, 99, drop)
    with pytest.raises(StoreError, match=r"cannot create .*/a after 6 attempts in ") as error:
        store.objects.put_once("a", b"ours")
    assert "Signature" not in str(error.value)
    assert calls == [6]
