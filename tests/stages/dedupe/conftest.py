"""Small shards of nodes, so that a few hundred rows take the ways of a few million."""

from __future__ import annotations

import pytest

from simdist.stages.dedupe import exchange


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "SHARD_NODES", 40)
    monkeypatch.setattr(exchange, "SHARD_ENTRIES", 400)
