"""What the Ray engine does by itself, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from simdist.engine import ray as engine

ADDRESS = "ray://127.0.0.1:10001"


def failing(times: int, message: str) -> tuple[Any, list[str]]:
    """A `ray.init` that fails so many times, and the addresses that it was asked for."""
    asked: list[str] = []

    def init(*, address: str, **_: Any) -> None:
        asked.append(address)
        if len(asked) <= times:
            raise ConnectionAbortedError(message)

    return init, asked


def test_a_head_too_busy_to_start_a_clients_server_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    init, asked = failing(2, "RuntimeError: Starting Ray client server failed. See its logs.")
    monkeypatch.setattr(engine.ray, "init", init)
    engine._join(ADDRESS)
    assert asked == [ADDRESS] * 3


@pytest.mark.parametrize(
    ("times", "message", "tries"),
    [(9, "Starting Ray client server failed", 3), (1, "versions differ", 1)],
)
def test_what_does_not_pass_is_raised(
    times: int, message: str, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    init, asked = failing(times, message)
    monkeypatch.setattr(engine.ray, "init", init)
    with pytest.raises(ConnectionAbortedError, match=message):
        engine._join(ADDRESS)
    assert len(asked) == tries
