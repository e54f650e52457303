"""What belongs together, by name: clusters by their most central rows, groups of duplicates.

    manifest (sizes, central rows) ──> clusters ──> ids ──┐
    manifest (largest groups) ──> duplicates ──> values   ├── from the shards that hold these rows
         └ inputs: embedding ──> links ──> graph ──> vectors (row, id) ──┘

A graph of one's own has no ids: its rows are called by their numbers. Reads only the shards that
hold what is shown, and shows at most CLUSTERS clusters and GROUPS groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from simdist.lists import ids_of_rows
from simdist.store.datasets import Dataset
from simdist.types import Json

__all__ = ["CLUSTERS", "GROUPS", "Cluster", "DuplicateGroup", "clusters", "duplicate_groups"]

Name: TypeAlias = str | int

CLUSTERS, CENTRAL = 20, 5  # shown, and rows of each
GROUPS, REMOVED = 10, 10
ROLES = ("vectors", "graph", "links", "embedding")  # inputs with the same rows as what they made


@dataclass(frozen=True, slots=True)
class Cluster:
    """number: what its rows are labelled. size: how many they are. central: ids, the most central
    first; of affinity propagation the exemplar. cut: share of its weight that leaves it, where a
    normalised cut was asked for."""

    number: int
    size: int
    central: tuple[Name, ...]
    cut: float | None = None

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Rows of which one is kept. kept: its id. size: how many they are, the kept one among them.

    removed: ids of the first that went and their values with the kept one; None where nobody
    compared them.
    """

    kept: Name
    size: int
    removed: tuple[tuple[Name, float | None], ...]

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


def clusters(dataset: Dataset, *, most: int = CLUSTERS) -> tuple[Cluster, ...]:
    """The largest clusters, largest first; none of another stage's dataset. Of a normalised cut
    those of its labelling, with the rows that have the most weight inside."""
    found = sorted(_told(dataset), key=lambda told: (-told[1], told[0]))[:most]
    names = _names(dataset, sorted({row for _, _, rows, _ in found for row in rows}))
    return tuple(
        Cluster(number, size, tuple(names[row] for row in rows), cut)
        for number, size, rows, cut in found
    )


def _told(dataset: Dataset) -> Iterator[tuple[int, int, list[int], float | None]]:
    """(number, size, central rows, cut), from the manifest."""
    metrics = dataset.metrics
    match dataset.stage:
        case "spectral_clusters":
            pairs = zip(metrics["sizes"], metrics["central"], strict=True)
            for number, (size, rows) in enumerate(pairs):
                yield number, size, rows[:CENTRAL], None
        case "affinity_propagation":
            for number, size, exemplar in metrics["largest"]:
                yield number, size, [exemplar], None
        case "normalized_cut":
            yield from _cut(dataset)


def _cut(dataset: Dataset) -> Iterator[tuple[int, int, list[int], float | None]]:
    """Of a normalised cut, whose manifest has the first labels only: the largest by its arrays."""
    (shard,) = dataset.shards
    roles = ("labels", "rows", "volumes", "association", "central")
    arrays = (dataset.store.read_array(shard.objects[role]) for role in roles)
    labels, rows, volumes, inside, central = arrays
    for at in np.argsort(-rows, kind="stable")[:CLUSTERS].tolist():
        cut = max(1.0 - float(inside[at]) / float(volumes[at]), 0.0) if volumes[at] > 0 else 0.0
        named = central[at][central[at] >= 0][:CENTRAL]
        yield int(labels[at]), int(rows[at]), named.tolist(), cut


def duplicate_groups(dataset: Dataset, *, most: int = GROUPS) -> tuple[DuplicateGroup, ...]:
    """The largest groups of two rows and more; none of another stage's dataset."""
    if dataset.stage != "deduplicate":
        return ()
    shown = dataset.metrics["largest"][:most]
    gone = [row for group in shown for row in group["rows"][:REMOVED]]
    values = dict(_values(dataset, sorted(gone)))
    groups = []
    for group in shown:
        rows = group["rows"][:REMOVED]
        kept, *names = group.get("ids") or [group["kept"], *rows]
        removed = zip(names, (values[row] for row in rows), strict=False)
        groups.append(DuplicateGroup(kept, int(group["size"]), tuple(removed)))
    return tuple(groups)


def _values(dataset: Dataset, rows: Sequence[int]) -> Iterator[tuple[int, float | None]]:
    """(row, its value with the row kept for it), of ascending rows."""
    wanted = np.array(rows, np.int64)
    starts = accumulate((shard.rows for shard in dataset.shards), initial=0)
    for start, shard in zip(starts, dataset.shards, strict=False):
        here = wanted[(wanted >= start) & (wanted < start + shard.rows)]
        if len(here):
            column = dataset.store.read_table(shard.objects["rows"], ["value"])["value"]
            yield from zip(here.tolist(), column.take(here - start).to_pylist(), strict=True)


def _names(dataset: Dataset, rows: Sequence[int]) -> dict[int, Name]:
    """What rows are called: by the ids of the vectors they come from, else by their numbers."""
    source = _named(dataset)
    if source is None or not rows:
        return {row: row for row in rows}
    ids = ids_of_rows(source, np.array(rows, np.int64)).to_pylist()
    return dict(zip(rows, ids, strict=True))


def _named(dataset: Dataset) -> Dataset | None:
    """The dataset of the lineage that has ids for the same rows; None where there is none, or it is
    no longer in the store."""
    found = dataset
    while not _has_ids(found):
        inputs = found.manifest.inputs
        role = next((role for role in ROLES if role in inputs), None)
        manifest = None if role is None else found.store.manifest(inputs[role])
        if manifest is None:
            return None
        found = Dataset(found.store, manifest)
    return found if found.rows == dataset.metrics.get("nodes", dataset.rows) else None


def _has_ids(dataset: Dataset) -> bool:
    ref = dataset.shards[0].objects.get("rows") if dataset.shards else None
    return ref is not None and ref.key.endswith(".parquet")  # an array may play that role, too
