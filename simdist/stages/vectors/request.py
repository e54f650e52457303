"""What to import, told before any of it is read: a listing of files, and which of their columns.

    scan      path ──> the config of a job: files found, columns named, what makes no sense refused
    describe  config ──> rows, d, dtype, bytes: from metadata

A config is the listing itself, so a job is named by what was found, not by the path that was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from simdist.errors import ConfigError
from simdist.stages.vectors.checking import Wanted
from simdist.stages.vectors.formats import NPY_COLUMN, layout
from simdist.stages.vectors.sources import Source, find, remote_root
from simdist.stages.vectors.survey import FileFacts, plan_of, survey
from simdist.store.objects import Objects
from simdist.store.place import Place
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = ["ImportConfig", "Summary", "describe", "scan"]


@dataclass(frozen=True, slots=True)
class ImportConfig:
    """What to import: a listing of files, and which of their columns.

    sources: as `scan` found them, sorted by uri; this order, then file order, is the row order.
    vector: column of vectors. id: column of unique ids, None to number the rows. keep: columns that
    travel along. objects: the store the sources lie on; None for local files.
    """

    sources: tuple[Source, ...]
    vector: str
    id: str | None = None
    keep: tuple[str, ...] = ()
    objects: Objects | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Json]:
        return {**self.content(), "sources": [source.to_json() for source in self.sources]}

    def content(self) -> dict[str, Json]:
        """The part that is about content: what a committed manifest may say."""
        return {"vector": self.vector, "id": self.id, "keep": list(self.keep)}

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.vector, self.id, self.keep)

    @property
    def partition_types(self) -> dict[str, pa.DataType]:
        """Types of the Hive columns: int64 where all values are whole numbers, else string."""
        return dict(_partition_types(self.sources))


@dataclass(frozen=True, slots=True)
class Summary:
    """What an import will hold, from metadata. dtype: "float16" or "float32"."""

    rows: int
    dim: int
    dtype: str
    files: int
    nbytes: int  # of the source files


def scan(
    path: str,
    *,
    vector: str | None = None,
    id: str | None = None,
    keep: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    store: Store | None = None,
) -> ImportConfig:
    """List the files of a path, glob, directory, prefix or `datasets://name`, for import.

    vector: may be left out for .npy files only.
    options: how to reach s3:// sources, as `open_store` takes them. store: where no options are
    given, an s3:// store whose endpoint and credentials reach the sources too.
    Raises InputError where nothing is found, ConfigError where the columns make no sense.
    """
    root = remote_root(path)
    if root is None and options:
        raise ConfigError(
            f"{path} is local and takes no options, got {sorted(options)}; they are for s3://"
        )
    objects = None if root is None else _open(root, options or {}, store)
    sources = find(path, objects=objects)
    kept = (keep,) if isinstance(keep, str) else tuple(keep)
    if sources[0].format == "npy":
        named = [name for name in (vector, id) if name is not None]
        if named:
            raise ConfigError(
                f"{sources[0].uri} is a matrix without column names, got {named}: leave out vector"
                " and id, and the rows are numbered. For ids, write Parquet."
            )
        return ImportConfig(sources, NPY_COLUMN, None, kept, objects)
    if vector is None:
        names = ", ".join(layout(sources[0], objects).schema.names)
        raise ConfigError(
            f"vector= is needed to import {path}: which column holds the vectors? Its columns are:"
            f" {names}."
        )
    for name in kept:
        if name in {"row", "id", vector} or kept.count(name) > 1:
            raise ConfigError(
                f"keep names {name!r}: row, id and the vectors are always imported, and a column"
                " travels along once. Leave it out, or rename the column."
            )
    return ImportConfig(sources, vector, id, kept, objects)


def describe(config: ImportConfig) -> Summary:
    """Rows and d from metadata, without reading vectors (JSON lines and Arrow streams, which have
    none, are read through). Raises InputError as the import itself would."""
    types = config.partition_types

    def look(source: Source) -> FileFacts:
        return survey(source, config.objects, config.wanted, types)

    with ThreadPoolExecutor(16, thread_name_prefix="simdist-describe") as pool:
        plan = plan_of(config.sources, list(pool.map(look, config.sources)))
    nbytes = sum(source.nbytes for source in config.sources)
    return Summary(plan.rows, plan.dim, plan.dtype, len(config.sources), nbytes)


def _open(root: str, options: Mapping[str, Any], store: Store | None) -> Objects:
    place = Place.parse(root, options)
    if store is not None and not options and store.objects.place.scheme == place.scheme:
        place = replace(place, options=store.objects.place.options)
    return Objects(place)


@lru_cache(maxsize=8)
def _partition_types(sources: tuple[Source, ...]) -> tuple[tuple[str, pa.DataType], ...]:
    values: dict[str, list[str]] = {}
    for source in sources:
        for name, text in source.partitions:
            values.setdefault(name, [])
            if text is not None:
                values[name].append(text)
    return tuple(
        (name, pa.int64() if texts and all(map(_is_whole, texts)) else pa.string())
        for name, texts in values.items()
    )


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?(0|[1-9]\d{0,17})", text) is not None  # "007" is a name, not a number
