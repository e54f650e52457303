"""Engines and stores a call borrows: the caller's own stay open, those opened here are closed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

from simdist.engine.base import Engine
from simdist.engine.local import LOCAL_MEMORY, LocalEngine
from simdist.engine.open import open_engine
from simdist.errors import ConfigError
from simdist.partitions import forget
from simdist.store.held import HeldStore
from simdist.store.store import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simdist.runner import Listener

HELD_SHARE = 4  # a part of the engine's memory, one in so many, may be arrays on their way

__all__ = ["PlaceOptions", "borrowed", "in_scratch", "refuse_unseen", "scratch_store", "store_of"]


class PlaceOptions(TypedDict, total=False):
    """Where a call runs and leaves its results: the options that nearly all calls take."""

    store: Store | str | None
    scratch: Store | str | None
    engine: Engine | str | None
    listeners: Sequence[Listener]


@contextmanager
def borrowed(engine: Engine | str | None, store: Store) -> Iterator[Engine]:
    """The caller's engine as it is, or one opened for the length of the call."""
    if isinstance(engine, Engine):
        yield engine
        return
    with open_engine(engine, scratch=store.scratch()) as opened:
        yield opened


@contextmanager
def scratch_store(place: Store | str | None, engine: Engine | str | None = None) -> Iterator[Store]:
    """Where an array's intermediate data goes: the place named; else memory and, past a quarter of
    what the engine's tasks may hold, a temporary folder; for an engine of other processes the
    folder alone."""
    if place is not None:
        yield store_of(place)
        return
    if engine in (None, "local") or (isinstance(engine, LocalEngine) and not engine.remote):
        memory = engine.memory if isinstance(engine, LocalEngine) else LOCAL_MEMORY
        held = HeldStore(memory // HELD_SHARE)
        try:
            yield held
        finally:
            forget(held.uri)
            held.close()
        return
    with tempfile.TemporaryDirectory(prefix="simdist-") as folder:
        store = open_store(folder)
        try:
            yield store
        finally:
            forget(store.uri)


@contextmanager
def in_scratch(
    scratch: Store | str | None, engine: Engine | str | None
) -> Iterator[tuple[Store, Engine]]:
    """A scratch store and an engine, for the length of a call on arrays."""
    with scratch_store(scratch, engine) as place, borrowed(engine, place) as opened:
        yield place, opened


def store_of(place: Store | str) -> Store:
    """A store as it is, or the one at a uri."""
    return place if isinstance(place, Store) else open_store(place)


def refuse_unseen(engine: Engine, store: Store) -> None:
    """ConfigError where the workers cannot see the store's folder: asks one of them."""
    data = store.objects.local_path("data")
    if not engine.remote or data is None:
        return
    root = data.parent
    root.mkdir(parents=True, exist_ok=True)
    seen = engine.get(engine.submit(os.path.isdir, str(root), key="sees-scratch"), timeout=60.0)
    if not seen:
        raise ConfigError(
            f"the workers of {engine.where} cannot see {store.uri}, a folder of this machine: pass"
            " scratch= with a store that all of them reach, such as s3://bucket/scratch"
        )
