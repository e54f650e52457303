"""Objects whose key their format prescribes: kept where a record vouches for them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from simdist.errors import ConfigError, IntegrityError, ObjectMissing
from simdist.store import Store, open_store
from simdist.types import ObjectRef

KEY = "arrays/0123/similarity/c/0/1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def test_what_is_written_is_named_by_its_key_and_known_by_its_bytes(store: Store) -> None:
    ref = store.write_at(KEY, b"a shard")
    assert ref == ObjectRef(KEY, hashlib.sha256(b"a shard").hexdigest(), 7)
    assert store.read_bytes(ref) == b"a shard"
    assert store.read_range(ref, 2, 3) == b"sha"


def test_what_a_record_vouches_for_stays(store: Store) -> None:
    first = store.write_at(KEY, b"first")
    assert store.write_at(KEY, b"other", vouched=first) == first
    assert store.read_bytes(first) == b"first"


@pytest.mark.parametrize("lost", ["gone", "damaged"])
def test_what_was_lost_is_written_again(store: Store, lost: str) -> None:
    first = store.write_at(KEY, b"first")
    store.objects.delete([KEY]) if lost == "gone" else store.objects.put(KEY, b"fir")
    assert store.write_at(KEY, b"first", vouched=first) == first
    assert store.read_bytes(first) == b"first"


def test_what_nobody_vouches_for_is_written_over(store: Store) -> None:
    store.write_at(KEY, b"left by a run that died")
    ref = store.write_at(KEY, b"ours")
    assert store.read_bytes(ref) == b"ours"


def test_reading_says_what_is_missing_or_damaged(store: Store) -> None:
    ref = store.write_at(KEY, b"first")
    store.objects.put(KEY, b"fyrst")
    with pytest.raises(IntegrityError, match=f"{KEY} is damaged"):
        store.read_bytes(ref)
    store.objects.delete([KEY])
    for read in (lambda: store.read_bytes(ref), lambda: store.read_range(ref, 0, 2)):
        with pytest.raises(ObjectMissing, match=f"{KEY} does not exist, though a manifest"):
            read()


def test_a_key_cannot_leave_the_store(store: Store) -> None:
    with pytest.raises(ConfigError):
        store.write_at("arrays/../../elsewhere", b"")
