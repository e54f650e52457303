"""Small blocks, parts and shards, so that a few hundred rows take the ways of a few million."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simdist import partitions
from simdist.engine import Engine, open_engine
from simdist.stages.pairs import finish, parts


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "MIN_BLOCK_ROWS", 64)
    monkeypatch.setattr(parts, "PART_PAIRS", 200)
    monkeypatch.setattr(finish, "SHARD_PAIRS", 300)


@pytest.fixture(scope="session")
def one_thread() -> Iterator[Engine]:
    with open_engine("local", workers=1) as engine:
        yield engine
