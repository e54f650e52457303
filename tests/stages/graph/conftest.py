"""Small blocks, so that a few hundred rows take the ways of a few million, and one thread."""

from __future__ import annotations

import pytest

from simdist import partitions


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 256 rows at most for a thousand rows, instead of one of 4,096."""
    monkeypatch.setattr(partitions, "MIN_BLOCK_ROWS", 64)
