"""The matrix itself as a Zarr array: `similarity_tiles`, and the link it is made of."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simdist.engine.memory import format_nbytes, parse_nbytes
from simdist.errors import ConfigError, InputError
from simdist.measures import Measure, resolve
from simdist.models.chain import Link, run_links
from simdist.models.places import borrowed, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.stages.tiles import MAX_NBYTES, SimilarityTiles, TilesConfig, refuse_too_large
from simdist.stages.tiles.encode import import_zarr
from simdist.store.datasets import Dataset
from simdist.store.store import Store, open_store

if TYPE_CHECKING:
    import zarr

    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.types import Array, Json

__all__ = ["TilesDataset", "similarity_tiles", "tiles_link"]

IN_MEMORY_NBYTES = 1 << 30  # what `to_numpy` reads without being told that it may read more


@dataclass(frozen=True, slots=True)
class TilesDataset(Dataset):
    """A committed similarity matrix: see `Dataset`; `array` reads parts of it.

    At `path` lies a Zarr v3 group that opens without simdist: `similarity` [rows, columns] with
    the coordinates `row` and `column`, which hold the ids.
    """

    @property
    def path(self) -> str:
        """Where zarr finds the group: `<store>/arrays/<fingerprint>`."""
        return f"{self.store.uri}/{self.metrics['array']}"

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.metrics["shape"]
        return int(rows), int(columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.metrics["dtype"])

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix in memory."""
        return int(self.metrics["nbytes"])

    @property
    def array(self) -> zarr.Array[Any]:
        """The matrix, read-only and lazily: `tiles.array[:10, :10]` reads the chunks it needs."""
        found: Any = self.open()["similarity"]
        return found  # type: ignore[no-any-return]

    def open(self) -> zarr.Group:
        """The group, read-only: `similarity`, `row` and `column`; xarray opens its `.store`.

        Read through the manifest, so that an object that is gone or damaged is an error
        (ObjectMissing, IntegrityError), where plain zarr would read NaN.
        """
        zarr: Any = import_zarr()
        from simdist.stages.tiles.reader import ManifestStore  # noqa: PLC0415 - zarr is an extra

        return zarr.open_group(ManifestStore(self), mode="r", zarr_format=3)  # type: ignore[no-any-return]

    def to_numpy(self, *, max_nbytes: int | str = IN_MEMORY_NBYTES) -> Array:
        """The whole matrix in memory, [rows, columns]; InputError where it is over `max_nbytes`."""
        limit = parse_nbytes(max_nbytes, what="max_nbytes")
        if self.nbytes > limit:
            raise InputError(
                f"{self.path} is {format_nbytes(self.nbytes)} in memory; the limit is"
                f" {format_nbytes(limit)}. Read parts of .array, or pass max_nbytes={self.nbytes}."
            )
        return np.asarray(self.array[...])


def tiles_link(
    name: str,
    of: str,
    against: str | None = None,
    *,
    measure: Json | Measure = "cosine",
    dtype: Literal["float32", "float16"] = "float32",
    block: int | None = None,
    max_nbytes: int | str = MAX_NBYTES,
) -> Link:
    """The step that computes all pairs of the vectors called `of`, or of these and `against`.
    Arguments as for `similarity_tiles`."""
    config = TilesConfig(
        measure=resolve(measure).spec(),
        dtype=dtype,
        block=block,
        max_nbytes=parse_nbytes(max_nbytes, what="max_nbytes"),
    )
    inputs = {"vectors": of} if against is None else {"vectors": of, "columns": against}
    return Link(name, SimilarityTiles(), config, inputs)


def similarity_tiles(
    x: Array | Dataset,
    y: Array | Dataset | None = None,
    *,
    measure: Json | Measure = "cosine",
    dtype: Literal["float32", "float16"] = "float32",
    block: int | None = None,
    max_nbytes: int | str = MAX_NBYTES,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> TilesDataset:
    """The whole similarity matrix, block by block, as a Zarr v3 array.

    x: [n, d] float16, float32 or float64 rows, or a vectors dataset: the rows of the matrix.
    y: [m, d], likewise: its columns; None compares x with itself, each pair once where the measure
        is symmetric. Then the matrix is symmetric bit for bit, and its diagonal is exact.
    measure: a name ("cosine", "euclidean", ...), a mapping, or a Measure.
    dtype: float16 halves the bytes and keeps three digits; values beyond 65504 are refused.
    block: rows and columns of a shard, a power of two; by default 2048, less for few rows or many
        dimensions. Chunks of 512 x 512 within it are what a reader fetches.
    max_nbytes: a matrix over this is refused; by default 64 GiB.
    store: where a dataset's matrix is committed, by default beside x.
    scratch: where an array's matrix goes; by default a temporary folder, removed when nothing
        refers to the result any more.
    engine: None or "local", "dask", "ray", an address, or an open Engine.

    Anyone can read what is committed, at `.path`:

        xarray.open_zarr(path).similarity.sel(row="tshark")         ids are the coordinates
        dask.array.from_zarr(path, component="similarity", chunks=(2048, 2048))
        zarr.open_group(path, mode="r")["similarity"][:10, :10]

    Raises PlanTooLarge with the size where it is over max_nbytes, InputError where the measure
    cannot take a row or float16 cannot hold a value, ConfigError for settings that make no sense
    or without the zarr library. Cost: n m d multiplications, half of that for a symmetric measure.
    """
    import_zarr()
    link = tiles_link(
        "tiles",
        "x",
        None if y is None else "y",
        measure=measure,
        dtype=dtype,
        block=block,
        max_nbytes=max_nbytes,
    )
    given = {"x": x} if y is None else {"x": x, "y": y}
    datasets = {name: it for name, it in given.items() if isinstance(it, Dataset)}
    if len(datasets) == len(given):
        place = datasets["x"].store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            made = run_links([link], datasets, store=place, engine=opened, listeners=listeners)
        return TilesDataset.of(made["tiles"])
    if datasets:
        raise ConfigError(
            "similarity_tiles takes arrays or stored datasets, not one of each: import the array"
            " with import_vectors, or open the dataset as an array"
        )
    arrays = {name: np.asarray(it) for name, it in given.items()}
    sides = [len(array) for array in arrays.values() if array.ndim]
    refuse_too_large(link.config, sides[0], sides[-1])  # before the rows are written anywhere
    return _of_arrays(arrays, link, scratch, engine, listeners)


def _of_arrays(
    arrays: dict[str, Array],
    link: Link,
    scratch: Store | str | None,
    engine: Engine | str | None,
    listeners: Sequence[Listener],
) -> TilesDataset:
    """Rows into a store, the matrix beside them. A temporary folder lives as long as the result."""
    if scratch is not None:
        return _in_store(store_of(scratch), arrays, link, engine, listeners)
    folder = tempfile.mkdtemp(prefix="simdist-")
    try:
        made = _in_store(open_store(folder), arrays, link, engine, listeners)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # A store of its own: the one that made it may be remembered by caches of this process.
    lasting = open_store(folder)
    weakref.finalize(lasting, shutil.rmtree, folder, ignore_errors=True)
    return TilesDataset(lasting, made.manifest)


def _in_store(
    place: Store,
    arrays: dict[str, Array],
    link: Link,
    engine: Engine | str | None,
    listeners: Sequence[Listener],
) -> TilesDataset:
    with borrowed(engine, place) as opened:
        refuse_unseen(opened, place)
        given = {
            name: import_array(array, store=place, engine=opened, listeners=listeners)
            for name, array in arrays.items()
        }
        made = run_links([link], given, store=place, engine=opened, listeners=listeners)
    return TilesDataset.of(made["tiles"])
