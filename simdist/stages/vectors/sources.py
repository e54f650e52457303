"""Finding and opening source files: one file, a glob, a Hive-partitioned prefix, a bundled set.

    "lake/year=2024/*.parquet" ──> find ──> Source(uri, nbytes, etag, partitions), sorted by uri

Local files are opened by the operating system, everything else through `simdist.store.objects`, so
one client (its retries, credentials and endpoints) reads all object stores.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from simdist import datasets
from simdist.errors import InputError
from simdist.store.pages import map_file
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.store.objects import Objects

__all__ = ["FORMATS", "Source", "find", "opened", "remote_root"]

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".npy": "npy",
    ".orc": "orc",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
BUNDLED = "datasets://"
WILDCARDS = re.compile(r"[*?\[]")
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class Source:
    """One source file as it was when it was listed.

    uri: an absolute local path, `datasets://name`, or an object's address (`s3://bucket/key`).
    etag: changes when the content does; None where the store gives none.
    partitions: Hive columns of the path (`year=2024`) as text, None for Hive's NULL.
    """

    uri: str
    nbytes: int
    etag: str | None
    partitions: tuple[tuple[str, str | None], ...] = ()

    @property
    def format(self) -> str:
        """Which reader of `simdist.stages.vectors.formats` reads it."""
        return FORMATS[_local(self.uri).suffix.lower()]

    def to_json(self) -> dict[str, Json]:
        partitions = [list(pair) for pair in self.partitions]
        return {
            "uri": self.uri,
            "nbytes": self.nbytes,
            "etag": self.etag,
            "partitions": partitions,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Source:
        partitions = tuple((key, text) for key, text in value["partitions"])
        return cls(value["uri"], value["nbytes"], value["etag"], partitions)


def remote_root(path: str) -> str | None:
    """The part of an address that a store is opened on (`s3://bucket`); None for local files."""
    scheme, mark, rest = path.partition("://")
    if not mark or path.startswith(BUNDLED) or scheme == "file":
        return None
    return f"{scheme}://{rest.split('/', 1)[0]}"


def find(path: str, *, objects: Objects | None = None) -> tuple[Source, ...]:
    """The files a path, glob, directory or prefix names, sorted by uri.

    objects: the store opened on `remote_root(path)`; None for local and bundled files.
    Below a directory or a wildcard, names that begin with `.` or `_` are ignored (`_SUCCESS`,
    `_delta_log`), and so is, below a directory, what has no suffix of `FORMATS`.
    Raises InputError where nothing is found, a suffix is unknown, or formats are mixed.
    """
    if path.startswith(BUNDLED):
        return (_bundled(path),)
    found = _find_local(path) if objects is None else _find_remote(path, objects)
    if not found:
        raise InputError(f"no file to import: {_looked_for(path, objects)}")
    unknown = [source.uri for source in found if _suffix(source.uri) not in FORMATS]
    if unknown:
        raise InputError(
            f"{unknown[0]}: its suffix {_suffix(unknown[0])!r} tells no format that can be read;"
            f" expected one of {', '.join(FORMATS)}. {_remedy_for(_suffix(unknown[0]))}"
        )
    _refuse_mixed(found)
    return tuple(sorted(found, key=lambda source: source.uri))


@contextmanager
def opened(source: Source, objects: Objects | None, *, mapped: bool = False) -> Iterator[Any]:
    """A seekable binary file of the source, for pyarrow and numpy; closed at the end.

    mapped: map a local file into memory, for readers that hand out views of it.
    Raises InputError where the file is gone or is not the one that was listed.
    """
    import pyarrow as pa  # noqa: PLC0415 - a listing alone should not load Arrow

    now = _now(source, objects)
    if now is None:
        raise InputError(
            f"{source.uri} was there when the import began and is gone now. Put it back, or run"
            " the import again to list what there is."
        )
    if (now.nbytes, now.etag) != (source.nbytes, source.etag):
        raise InputError(
            f"{source.uri} changed while it was imported: it had {source.nbytes} bytes (etag"
            f" {source.etag}), now {now.nbytes} (etag {now.etag}). Let its writer finish, then run"
            " the import again."
        )
    if objects is not None:
        file = objects.open(_key(source.uri))
    else:
        local = str(_local(source.uri))
        file = _mapped(local) if mapped and source.nbytes else pa.OSFile(local)
    with file:
        yield file


def _mapped(path: str) -> Any:
    """A file as Arrow reads it where it lies; its pages are dropped with those of stored arrays."""
    import pyarrow as pa  # noqa: PLC0415 - a listing alone should not load Arrow

    with open(path, "rb") as file:
        return pa.BufferReader(pa.py_buffer(map_file(file)))


def _bundled(path: str) -> Source:
    local = datasets.path(path.removeprefix(BUNDLED))
    return _local_source(path, local)


def _local(uri: str) -> Path:
    if uri.startswith(BUNDLED):
        return datasets.path(uri.removeprefix(BUNDLED))
    return Path(uri)


def _local_source(
    uri: str, path: Path, partitions: tuple[tuple[str, str | None], ...] = ()
) -> Source:
    state = path.stat()
    return Source(uri, state.st_size, f"{state.st_mtime_ns:x}-{state.st_size:x}", partitions)


def _now(source: Source, objects: Objects | None) -> Source | None:
    """The source as it is now, None where it is gone."""
    if objects is not None:
        info = objects.head(_key(source.uri))
        return None if info is None else Source(source.uri, info.nbytes, info.etag)
    path = _local(source.uri)
    return _local_source(source.uri, path) if path.exists() else None


def _find_local(path: str) -> list[Source]:
    text = _absolute(path)
    if os.path.isfile(text):
        return [_local_source(text, Path(text))]
    if os.path.isdir(text):
        names = [name for name in _walk(text) if _suffix(name) in FORMATS]
        return [_local_source(name, Path(name), _hive(name, text)) for name in names]
    if not WILDCARDS.search(text):
        return []
    base = _literal_base(text)
    pattern = _pattern(text)
    names = [name for name in _walk(base) if _matches(pattern, name, base)]
    return [_local_source(name, Path(name), _hive(name, base)) for name in names]


def _absolute(path: str) -> str:
    if path.startswith("file://"):
        path = unquote(path.removeprefix("file://"))
    return os.path.abspath(os.path.expanduser(path))


def _walk(base: str) -> Iterator[str]:
    """Files below a directory, hidden ones left out."""
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if not _hidden(name)]
        yield from (os.path.join(folder, name) for name in files if not _hidden(name))


def _find_remote(path: str, objects: Objects) -> list[Source]:
    root = f"{remote_root(path)}/"
    key = _key(path)
    if key and not key.endswith("/") and (info := objects.head(key)) is not None:
        return [Source(path, info.nbytes, info.etag)]
    if WILDCARDS.search(key):
        base = _literal_base(key)
        pattern = _pattern(key)
        wanted = [info for info in objects.list(_prefix(base)) if _matches(pattern, info.key, base)]
    else:
        base = key.rstrip("/")
        wanted = [info for info in objects.list(_prefix(base)) if _suffix(info.key) in FORMATS]
    return [
        Source(root + info.key, info.nbytes, info.etag, _hive(info.key, base))
        for info in wanted
        if not any(_hidden(part) for part in _below(info.key, base))
    ]


def _prefix(base: str) -> str:
    return f"{base}/" if base else ""


def _key(uri: str) -> str:
    """The object's key within `remote_root(uri)`."""
    return uri.split("://", 1)[1].partition("/")[2]


def _hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _below(name: str, base: str) -> tuple[str, ...]:
    """Parts of a path below its base."""
    return tuple(part for part in name[len(base) :].split("/") if part)


def _literal_base(pattern: str) -> str:
    """The folder above a pattern's first wildcard."""
    first = WILDCARDS.search(pattern)
    assert first is not None
    return pattern[: first.start()].rpartition("/")[0]


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` and `?` stay within a folder, `**` crosses folders."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", glob)
    meaning = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = "".join(
        meaning.get(part) or (_character_set(part) if part.startswith("[") else re.escape(part))
        for part in parts
    )
    return re.compile(text)


def _character_set(part: str) -> str:
    inside = part[1:-1].replace("\\", "\\\\")
    return f"[{'^' + inside[1:] if inside.startswith('!') else inside}]"


def _matches(pattern: re.Pattern[str], name: str, base: str) -> bool:
    """Whether the name, or a folder above it, is what the pattern asks for.

    A folder that matches (`lake/year=202*`) stands for the files below it with a known suffix.
    """
    if pattern.fullmatch(name):
        return True
    if _suffix(name) not in FORMATS:
        return False
    parts = _below(name, base)
    folders = (_prefix(base) + "/".join(parts[:count]) for count in range(1, len(parts)))
    return any(pattern.fullmatch(folder) for folder in folders)


def _hive(name: str, base: str) -> tuple[tuple[str, str | None], ...]:
    """`year=2024/section=x%20y/` as (("year", "2024"), ("section", "x y"))."""
    pairs = (part.partition("=") for part in _below(name, base)[:-1])
    return tuple(
        (unquote(key), None if value == HIVE_NULL else unquote(value))
        for key, mark, value in pairs
        if mark and key
    )


def _refuse_mixed(found: Iterable[Source]) -> None:
    by_format: dict[str, str] = {}
    for source in found:
        by_format.setdefault(source.format, source.uri)
    if len(by_format) > 1:
        examples = ", ".join(f"{uri} ({kind})" for kind, uri in sorted(by_format.items()))
        raise InputError(
            f"one import reads files of one format, found {len(by_format)}: {examples}. Narrow the"
            " path with a glob such as *.parquet."
        )


def _looked_for(path: str, objects: Objects | None) -> str:
    """What was looked for, where, and what is there instead."""
    if objects is not None:
        base = _literal_base(_key(path)) if WILDCARDS.search(_key(path)) else _key(path).rstrip("/")
        nearest = base.rpartition("/")[0] if base == _key(path).rstrip("/") else base
        keys = [info.key for info in islice(objects.list(_prefix(nearest)), 1000)]
        return f"{path} matches nothing.{_instead(path, f'{objects.uri}/{nearest}', keys)}"
    text = _absolute(path)
    kind = "pattern" if WILDCARDS.search(text) else "path"
    folder = Path(_literal_base(text) if kind == "pattern" else text)
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(entry.name for entry in folder.iterdir() if not _hidden(entry.name))[:1000]
    if str(folder) == text:
        return (
            f"{text} is a folder without a file that can be read ({', '.join(FORMATS)})."
            f"{_instead(text, text, names)}"
        )
    return f"the {kind} {text} matches nothing.{_instead(text, str(folder), names)}"


def _instead(wanted: str, folder: str, names: list[str]) -> str:
    if not names:
        return f" {folder} is empty."
    near = difflib.get_close_matches(PurePosixPath(wanted).name, names, n=3, cutoff=0.4)
    shown = near or names[:5]
    return f" {folder} holds {', '.join(shown)}{' and more' if len(shown) < len(names) else ''}."


def _remedy_for(suffix: str) -> str:
    if suffix in {".csv", ".tsv", ".txt"}:
        return "Text tables have no vector columns: convert to Parquet with a list column first."
    if suffix in {".npz", ".pt", ".safetensors", ".h5", ".hdf5"}:
        return "Save the matrix with numpy.save first."
    return "Rename it, or narrow the path to the files to import."
