"""Small blocks, parts and shards, so that a few hundred rows take the ways of a few million."""

from __future__ import annotations

import pytest

from simdist import partitions
from simdist.stages.pairs import finish, parts


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "MIN_BLOCK_ROWS", 64)
    monkeypatch.setattr(parts, "PART_PAIRS", 200)
    monkeypatch.setattr(finish, "SHARD_PAIRS", 300)
