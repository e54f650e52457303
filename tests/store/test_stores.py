"""The store contract on every backend."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from simdist.store import Store, open_store
from simdist.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return open_store(f"memory://{uuid.uuid4().hex}")


class TestFileStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "a store")


@pytest.mark.s3
class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, s3_uri: str) -> Store:
        return open_store(s3_uri)
