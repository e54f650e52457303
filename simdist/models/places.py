"""Engines and stores a call borrows: the caller's own stay open, those opened here are closed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from simdist.engine.base import Engine
from simdist.engine.open import open_engine
from simdist.errors import ConfigError
from simdist.partitions import forget
from simdist.store.store import Store, open_store

__all__ = ["borrowed", "scratch_store", "store_of"]


@contextmanager
def borrowed(engine: Engine | str | None, store: Store) -> Iterator[Engine]:
    """The caller's engine as it is, or one opened for the length of the call."""
    if isinstance(engine, Engine):
        yield engine
        return
    with open_engine(engine, scratch=store.scratch()) as opened:
        yield opened


@contextmanager
def scratch_store(place: Store | str | None, engine: Engine | str | None) -> Iterator[Store]:
    """Where an array's intermediate data goes: the place named, or a temporary folder."""
    if place is not None:
        yield store_of(place)
        return
    _refuse_far(engine)
    with tempfile.TemporaryDirectory(prefix="simdist-") as folder:
        store = open_store(folder)
        try:
            yield store
        finally:
            forget(store.uri)


def store_of(place: Store | str) -> Store:
    """A store as it is, or the one at a uri."""
    return place if isinstance(place, Store) else open_store(place)


def _refuse_far(engine: Engine | str | None) -> None:
    """ConfigError where an array would go through a folder that a cluster elsewhere cannot see."""
    named = engine if isinstance(engine, str) else getattr(engine, "address", None)
    if named is not None and "://" in str(named):
        host = str(named).split("://", 1)[1].rsplit(":", 1)[0].strip("[]")
        if host not in ("127.0.0.1", "localhost", "::1"):
            raise ConfigError(
                f"the workers of {named} cannot see a temporary folder of this machine: pass"
                " scratch= with a store that all of them reach, such as s3://bucket/scratch"
            )
