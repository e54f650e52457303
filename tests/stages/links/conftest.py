"""Few entries to a shard, so that a few hundred rows take the ways of a few million."""

from __future__ import annotations

import pytest

from simdist.stages.links import edges, lists, shards, similarity


@pytest.fixture
def many_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of some 500 entries, runs of 300 and lists of 400; decided by the driver."""
    monkeypatch.setattr(shards, "SHARD_ENTRIES", 500)
    monkeypatch.setattr(similarity, "RUN_ENTRIES", 300)
    monkeypatch.setattr(edges, "RUN_EDGES", 300)
    monkeypatch.setattr(lists, "LIST_ENTRIES", 400)
