"""A dataset as `simdist show` tells it, and what lies in a store.

Reads manifests and headers; of clusters and duplicates also the ids of the rows that are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from simdist.engine.memory import format_nbytes
from simdist.report.groups import Cluster, DuplicateGroup, clusters, duplicate_groups
from simdist.report.sentences import recall_sentence, sentence, subject
from simdist.report.terminal import (
    PLAIN_WIDTH,
    clusters_table,
    columns,
    duplicates_table,
    indented,
    show,
    unfinished,
)
from simdist.report.words import amount, count, duration, plural
from simdist.runner.journal import Run, last_run
from simdist.store.datasets import Dataset
from simdist.types import Json, ObjectRef

if TYPE_CHECKING:
    from simdist.store.store import Store

__all__ = [
    "Description",
    "Entry",
    "Origin",
    "Part",
    "describe",
    "inventory",
    "print_dataset",
    "print_store",
]


LISTS = ("sizes", "central", "largest", "listed")  # metrics that are shown by name instead


@dataclass(frozen=True, slots=True)
class Part:
    """What the shards hold under one role: its columns or shape, and the size of them all."""

    role: str
    schema: tuple[tuple[str, str], ...]
    objects: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Origin:
    """A dataset that this one was made from, at some depth of the lineage."""

    depth: int
    role: str
    stage: str
    fingerprint: str
    rows: int | None  # None where it is no longer in the store


@dataclass(frozen=True, slots=True)
class Description:
    """A dataset in words."""

    uri: str
    stage: str
    version: int
    rows: int
    shards: int
    config: Mapping[str, Json]
    metrics: Mapping[str, Json]
    parts: tuple[Part, ...]
    lineage: tuple[Origin, ...]
    run: Run | None = None  # how it was made; None where nothing of it was kept
    clusters: tuple[Cluster, ...] = ()
    duplicates: tuple[DuplicateGroup, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Entry:
    """A committed dataset of a store; `name` is its latest name, empty where it has none."""

    name: str
    stage: str
    rows: int
    fingerprint: str
    uri: str

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


def describe(dataset: Dataset) -> Description:
    """Everything `show` tells: manifest, lineage, and the schema of the first shard's objects."""
    manifest = dataset.manifest
    roles = sorted({_part_of(role) for shard in dataset.shards for role in shard.objects})
    return Description(
        uri=dataset.uri,
        stage=dataset.stage,
        version=manifest.version,
        rows=dataset.rows,
        shards=len(dataset.shards),
        config=manifest.config,
        metrics=manifest.metrics,
        parts=tuple(_part(dataset, role) for role in roles),
        lineage=tuple(_lineage(dataset, 0)),
        run=last_run(dataset.store, dataset.fingerprint),
        clusters=clusters(dataset),
        duplicates=duplicate_groups(dataset),
    )


def _part_of(role: str) -> str:
    """The part that a role belongs to: `similarity/3` is one of many columns of `similarity`."""
    return role.partition("/")[0]


def _part(dataset: Dataset, part: str) -> Part:
    refs = [
        ref
        for shard in dataset.shards
        for role, ref in shard.objects.items()
        if _part_of(role) == part
    ]
    return Part(part, _schema(dataset.store, refs[0]), len(refs), sum(ref.nbytes for ref in refs))


def _schema(store: Store, ref: ObjectRef) -> tuple[tuple[str, str], ...]:
    """Columns and types of a Parquet object, or shape and dtype of an array, from its header."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - 0.3 s that a reader of manifests does not need

    from simdist.npy import HEADER_NBYTES, read_header  # noqa: PLC0415 - imports numpy

    if ref.key.endswith(".parquet"):
        with store.objects.open(ref.key) as file:
            schema = pq.read_schema(file)
        return tuple((field.name, str(field.type)) for field in schema)
    if ref.key.endswith(".npy"):
        with store.objects.open(ref.key) as file:
            shape, dtype, _, _ = read_header(file.read(HEADER_NBYTES))
        return (("array", f"{dtype.name}{list(shape)}"),)
    return ()


def _lineage(dataset: Dataset, depth: int, told: set[str] | None = None) -> Iterator[Origin]:
    """Where it comes from, depth first; what one dataset was made from is told once."""
    told = set() if told is None else told
    for role, fingerprint in sorted(dataset.manifest.inputs.items()):
        manifest = dataset.store.manifest(fingerprint)
        if manifest is None:
            yield Origin(depth, role, "not in this store", fingerprint, None)
        else:
            yield Origin(depth, role, manifest.stage, fingerprint, manifest.rows)
            if fingerprint not in told:
                told.add(fingerprint)
                yield from _lineage(Dataset(dataset.store, manifest), depth + 1, told)


def inventory(store: Store) -> tuple[Entry, ...]:
    """All committed datasets, named ones first. From listings: for looking, not for deciding."""
    names = dict(_latest_names(store))
    found = []
    for info in store.objects.list("manifests"):
        fingerprint = info.key.removeprefix("manifests/").removesuffix(".json")
        if manifest := store.manifest(fingerprint):
            dataset = Dataset(store, manifest)
            name = names.get(fingerprint, "")
            found.append(Entry(name, dataset.stage, dataset.rows, fingerprint, dataset.uri))
    return tuple(sorted(found, key=lambda entry: (not entry.name, entry.name, entry.fingerprint)))


def _latest_names(store: Store) -> Iterator[tuple[str, str]]:
    latest: dict[str, int] = {}
    for info in store.objects.list("names"):
        _, name, number = info.key.removesuffix(".json").split("/")
        latest[name] = max(latest.get(name, 0), int(number))
    for name, newest in latest.items():
        full = f"{name}@{newest}"
        yield store.dataset(full).fingerprint, full


# -- on a terminal ---------------------------------------------------------------------------------


def print_dataset(description: Description, console: Console) -> None:
    """One paragraph a question: what is it, what does it hold, what made it, how good is it."""
    width = console.width if console.is_terminal else PLAIN_WIDTH
    show(console, *_paragraphs(description, width))


def _paragraphs(it: Description, width: int) -> Iterator[RenderableType]:
    yield Text.assemble((it.stage, "bold"), f"  {plural(it.rows, 'row')} in", " ",
                        plural(it.shards, "shard"))  # fmt: skip
    yield Text(it.uri, "dim")
    if told := sentence(it.stage, it.metrics):
        yield Text.assemble((f"\n{subject(it.stage)}", "bold"), f"  {told}")
    if it.metrics.get("state") == "unconverged":
        yield Text(unfinished(["not final"]), "yellow")
    if it.clusters:
        yield Text("\nlargest clusters", "bold")
        yield indented(clusters_table(it.clusters, width - 2))
    if it.duplicates:
        yield Text("\nlargest groups", "bold")
        yield indented(duplicates_table(it.duplicates))
    yield Text("\nholds", "bold")
    yield indented(_parts(it.parts))
    if it.lineage:
        yield Text("\nmade from", "bold")
        yield indented(_origins(it.lineage))
    yield Text("\nmade with", "bold")
    yield indented(_pairs({"version": it.version, **it.config}))
    if it.metrics:
        yield Text("\nmeasured", "bold")
        yield indented(_pairs(_told(it)))
    if it.run is not None:
        workers = f"{it.run.engine} engine, {plural(it.run.workers, 'worker')}"
        yield Text.assemble(("\ntook", "bold"), f"  {duration(it.run.seconds)} on the {workers}")
        yield indented(_run(it.run))


def _parts(parts: tuple[Part, ...]) -> RenderableType:
    table = columns()
    for part in parts:
        size = f"{plural(part.objects, 'object')}, {format_nbytes(part.nbytes)}"
        for place, (name, kind) in enumerate(part.schema or (("", ""),)):
            first = (part.role, size) if place == 0 else ("", "")
            table.add_row(first[0], name, kind, Text(first[1], "dim"))
    table.show_header = False
    return table


def _origins(lineage: tuple[Origin, ...]) -> RenderableType:
    table = columns()
    for origin in lineage:
        rows = "" if origin.rows is None else plural(origin.rows, "row")
        role = f"{'  ' * origin.depth}{origin.role}"
        table.add_row(role, origin.stage, rows, Text(origin.fingerprint, "dim"))
    table.show_header = False
    return table


def _run(run: Run) -> RenderableType:
    """A line a round: its seconds, and its tasks, pairs and bytes beside what was forecast."""
    table = columns()
    table.add_column("round", no_wrap=True)
    for heading in ("time", "CPU", "tasks", "forecast", "pairs", "forecast", "wrote", "forecast"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step, cost in run.paired():
        pairs = step.facts.get("scored", 0)
        table.add_row(
            step.name,
            duration(step.seconds),
            duration(step.cpu_seconds),
            count(step.tasks),
            Text("" if cost is None else count(cost.tasks), "dim"),
            amount(pairs) if pairs else "",
            Text("" if cost is None or not pairs else amount(cost.pairs), "dim"),
            format_nbytes(step.written),
            Text("" if cost is None else format_nbytes(cost.written), "dim"),
        )
    return table


def _told(it: Description) -> dict[str, Any]:
    """The metrics; what is told above is left out, and long lists of numbers are rounded."""
    shown = LISTS if it.clusters or it.duplicates else ()
    told = {name: _rounded(found) for name, found in it.metrics.items() if name not in shown}
    for name in ("recall", "recall_new", "recall_repaired"):
        found = it.metrics.get(name)
        if found is not None and (said := recall_sentence({**it.metrics, "recall": found})):
            told[name] = said
    return told


def _rounded(value: Json) -> Json:
    """Numbers of a list to four digits."""
    if isinstance(value, list) and any(isinstance(number, float) for number in value):
        return ", ".join(f"{number:.4g}" for number in value)
    return value


def _pairs(values: Mapping[str, Any]) -> RenderableType:
    table = columns()
    for name, item in values.items():
        plain = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        table.add_row(name, Text(plain))
    table.show_header = False
    return table


def print_store(uri: str, entries: tuple[Entry, ...], console: Console) -> None:
    """The datasets of a store, a line each."""
    title = Text.assemble((uri, "bold"), f"  {plural(len(entries), 'dataset')}")
    table = columns()
    for heading, right in (("name", False), ("stage", False), ("rows", True), ("", False)):
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for entry in entries:
        fingerprint = Text(entry.fingerprint, "dim")
        table.add_row(entry.name, entry.stage, count(entry.rows), fingerprint)
    show(console, title, indented(table))
