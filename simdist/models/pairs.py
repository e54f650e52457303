"""Pairs of rows as near as a threshold, and what is left when near-duplicates are removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np

from simdist.errors import ConfigError, PlanTooLarge
from simdist.measures import Measure, resolve
from simdist.models.chain import Link, run_links
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.stages.pairs.cells import PairRecall
    from simdist.store.store import Store
    from simdist.types import Array, Float32, Ids, Json

__all__ = ["PairsDataset", "SimilarityPairs", "join_links", "refuse_mixed", "similarity_join"]

Method = Literal["exact", "approximate"]
MAX_PAIRS = 100_000_000
FEW, MANY = 512, 1024  # sampled rows: for the forecast alone, and for recall too


@dataclass(frozen=True, slots=True)
class SimilarityPairs:
    """All pairs of rows as near as a threshold, sorted by (row, column).

    rows, cols: [p] int64. Among themselves each pair stands once, the smaller row number first.
    values: [p] float32 of the measure.
    nodes: rows of the set joined. corpus: rows of the other set, where there is one (`against`):
        `cols` are its rows then.
    recall: the share of all pairs that were found; exactly 1 where every pair was looked at.
    """

    rows: Ids
    cols: Ids
    values: Float32
    nodes: int
    threshold: float
    measure: Json
    recall: PairRecall
    corpus: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        name = resolve(self.measure).name
        return f"SimilarityPairs({len(self)} pairs of {self.nodes} rows, {name} {self.threshold:g})"


@dataclass(frozen=True, slots=True)
class PairsDataset(Dataset):
    """Committed pairs, Parquet shards (row, neighbor, value): see `Dataset`."""

    def open(self) -> SimilarityPairs:
        """All pairs in memory, 20 bytes each."""
        return open_pairs(self)


def open_pairs(dataset: Dataset) -> SimilarityPairs:
    """Committed pairs as arrays."""
    from simdist.stages.pairs.cells import PairRecall  # noqa: PLC0415

    rows = np.empty(dataset.rows, np.int64)
    cols = np.empty(dataset.rows, np.int64)
    values = np.empty(dataset.rows, np.float32)
    first = 0
    for shard in dataset.shards:
        table = dataset.store.read_table(shard.objects["pairs"])
        part = slice(first, first + shard.rows)
        for name, out in (("row", rows), ("neighbor", cols), ("value", values)):
            out[part] = table[name].to_numpy()
        first += shard.rows
    corpus = dataset.metrics.get("against")
    return SimilarityPairs(
        rows,
        cols,
        values,
        nodes=int(dataset.metrics["nodes"]),
        threshold=float(dataset.metrics["threshold"]),
        measure=dataset.manifest.config["measure"],
        recall=PairRecall.from_json(dataset.metrics["recall"]),
        corpus=None if corpus is None else int(corpus),
    )


def join_links(
    name: str,
    of: str,
    threshold: float,
    *,
    measure: Json | Measure = "cosine",
    against: str | None = None,
    method: Method = "exact",
    recall: float = 0.95,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> tuple[Link, ...]:
    """The steps that find all pairs of the vectors called `of`, or of these with those called
    `against`. Arguments as for `similarity_join`."""
    from simdist.stages.pairs import JoinConfig, SimilarityJoin  # noqa: PLC0415
    from simdist.stages.partition import PartitionConfig, PartitionStage  # noqa: PLC0415

    spec = resolve(measure).spec()
    config = JoinConfig(
        float(threshold),
        spec,
        method=method,
        max_pairs=max_pairs,
        recall=recall,
        seed=seed,
        sample=FEW if method == "exact" else MANY,
    )
    inputs = {"vectors": of} if against is None else {"vectors": of, "against": against}
    if method == "exact":
        return (Link(name, SimilarityJoin(), config, inputs),)
    parted = against or of
    partition = f"{parted}.partition"
    return (
        Link(partition, PartitionStage(), PartitionConfig(spec, seed=seed), {"vectors": parted}),
        Link(name, SimilarityJoin(), config, {**inputs, "partition": partition}),
    )


def refuse_mixed(given: Mapping[str, Any], of: str) -> None:
    """ConfigError where vectors are neither all arrays nor all stored, or are no vectors."""
    stored = [data for data in given.values() if isinstance(data, Dataset)]
    if stored and len(stored) < len(given):
        raise ConfigError(
            f"{of} takes arrays or stored datasets, not one of each: import the array with"
            " import_vectors, or open the dataset as an array"
        )
    for data in stored:
        if "dim" not in data.metrics:
            raise ConfigError(
                f"{of} takes vectors; {data.uri} is what {data.stage} made. Pass the dataset that"
                " import_vectors returned."
            )


def _within(pairs: PairsDataset, max_pairs: int) -> PairsDataset:
    """PlanTooLarge where pairs joined before, under another limit, are more than this one."""
    if pairs.rows > max_pairs:
        raise PlanTooLarge(
            f"{pairs.uri} has {pairs.rows:,} pairs, joined under a larger limit; max_pairs is"
            f" {max_pairs:,}. Raise it, or take a stricter threshold."
        )
    return pairs


class JoinOptions(PlaceOptions, total=False):
    """Keyword options of `similarity_join`, for its typed overloads."""

    measure: Json | Measure
    method: Method
    recall: float
    max_pairs: int
    seed: int


@overload
def similarity_join(
    x: Dataset, threshold: float, *, against: Dataset | None = None, **options: Unpack[JoinOptions]
) -> PairsDataset: ...
@overload
def similarity_join(
    x: Array, threshold: float, *, against: Array | None = None, **options: Unpack[JoinOptions]
) -> SimilarityPairs: ...
def similarity_join(
    x: Array | Dataset,
    threshold: float,
    measure: Json | Measure = "cosine",
    *,
    against: Array | Dataset | None = None,
    method: Method = "exact",
    recall: float = 0.95,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> SimilarityPairs | PairsDataset:
    """All pairs of rows whose similarity is at least a threshold, or whose distance is at most it.

    x: [n, d] float16, float32 or float64 rows -> SimilarityPairs, or a vectors dataset ->
        PairsDataset. Each pair once, the smaller row first; a row is never paired with itself.
    threshold: in the measure's units, rounded to float32 as values are; a pair on it is kept.
    measure: a name ("cosine", "euclidean", ...), a mapping, or a Measure.
    against: [m, d] another set: pairs of a row of x and a row of it (decontamination).
    method: "exact": every pair is looked at, and what reaches the threshold by the measure's own
        `pairs` is found, bit for bit. "approximate": only rows that share a cell of the stored
        partition, as many cells as the recall takes.
    recall: what the lower end of the 95 % interval of pair recall must reach (approximate);
        measured on the pairs of sampled rows. Where no number of cells reaches it, the join is
        exact. Where sampled rows have no pair, nothing can be promised, and the join is exact.
    max_pairs: more are refused: by a forecast from sampled rows, before the work; and when they are
        counted. 20 bytes each.
    Other options: see `knn_graph`.

    Raises PlanTooLarge with the number of pairs where they are more than max_pairs, ConfigError for
    a threshold that no pair or every pair reaches, InputError for rows the measure cannot take.
    Cost: n^2 d / 2 multiplications of bytes where the CPU has them (AVX-512 VNNI), of float32
    elsewhere; m n d against another set. Memory of a task follows from d and the block size, not
    from the number of pairs, which go to the store in parts.
    """
    options: dict[str, Any] = {
        "measure": measure,
        "method": method,
        "recall": recall,
        "max_pairs": max_pairs,
        "seed": seed,
    }
    links = join_links(
        "pairs", "vectors", threshold, against=None if against is None else "against", **options
    )
    given = {"vectors": x} if against is None else {"vectors": x, "against": against}
    refuse_mixed(given, "similarity_join")
    stored = {role: data for role, data in given.items() if isinstance(data, Dataset)}
    if isinstance(x, Dataset):
        place = x.store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            made = run_links(links, stored, store=place, engine=opened, listeners=listeners)
        return _within(PairsDataset.of(made["pairs"]), max_pairs)
    with in_scratch(scratch, engine) as (place, opened):
        refuse_unseen(opened, place)
        imported = {
            role: import_array(rows, store=place, engine=opened, listeners=listeners)
            for role, rows in given.items()
            if not isinstance(rows, Dataset)
        }
        made = run_links(links, imported, store=place, engine=opened, listeners=listeners)
        return PairsDataset.of(made["pairs"]).open()
