"""Small shards of nodes, so that a few hundred rows take the ways of a few million."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simdist.engine import Engine, open_engine
from simdist.stages.dedupe import exchange


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SHARD_NODES", 40)
    monkeypatch.setattr(exchange, "SHARD_ENTRIES", 400)


@pytest.fixture(scope="session")
def one_thread() -> Iterator[Engine]:
    with open_engine("local", workers=1) as engine:
        yield engine
