"""Vectors into a store: from files anywhere, or from an array."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import InputError
from simdist.models.chain import Link, run_link
from simdist.models.places import borrowed, store_of

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.datasets import Dataset
    from simdist.store.store import Store
    from simdist.types import Array

__all__ = ["import_array", "import_link", "import_vectors"]


def import_link(
    name: str,
    *,
    path: str,
    vector: str | None = None,
    id: str | None = None,
    keep: Iterable[str] = (),
    store: Store | None = None,
) -> Link:
    """The step that imports files; looks the files up, reads none. See `import_vectors`.

    store: lends its endpoint and credentials to s3:// sources.
    """
    from simdist.stages.vectors import ImportVectors, scan  # noqa: PLC0415 - imports pyarrow

    return Link(name, ImportVectors(), scan(path, vector=vector, id=id, keep=keep, store=store), {})


def import_vectors(
    path: str,
    *,
    vector: str | None = None,
    id: str | None = None,
    keep: Iterable[str] = (),
    store: Store | str,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Dataset:
    """Import vectors into a store, checked row by row; an unchanged listing is not read again.

    path: a file, glob, folder or prefix, local or s3://, or `datasets://debian-packages`: Parquet,
        Arrow, .npy and what pyarrow.dataset reads, Hive partitions included.
    vector: the column of vectors (lists of one length, float16, 32 or 64); none in .npy.
    id: a column of unique integers or strings; None numbers the rows. keep: columns that travel.
    Returns the dataset: [n, d] float16 or float32, rows in order of (path, place in file).
    Raises InputError naming file and row for NULLs, ragged lengths, NaN, duplicate ids, no rows,
    unknown columns and paths that match nothing.
    """
    place = store_of(store)
    link = import_link("vectors", path=path, vector=vector, id=id, keep=keep, store=place)
    with borrowed(engine, place) as opened:
        return run_link(link, {}, store=place, engine=opened, listeners=listeners)


def import_array(
    x: Array, *, store: Store, engine: Engine, listeners: Sequence[Listener] = ()
) -> Dataset:
    """An array as a vectors dataset, rows numbered. x: [n, d] float16, float32 or float64, finite.

    Cost: the array is read and written once, here: workers read its shards. Raises InputError for
    another shape or type, no rows, and an element that is not finite.
    """
    from simdist.stages.vectors import ImportArray, write_shards  # noqa: PLC0415 - imports pyarrow

    x = np.asarray(x)
    if x.ndim != 2 or x.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"expected rows [n, d] of float16, float32 or float64; got {x.dtype} of shape {x.shape}"
        )
    if not x.size:
        raise InputError(
            f"the array has no rows or no columns: {x.dtype} of shape {x.shape}; expected at least"
            " one row of one element"
        )
    link = Link("vectors", ImportArray(), write_shards(x, store), {})
    return run_link(link, {}, store=store, engine=engine, listeners=listeners)
