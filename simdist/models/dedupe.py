"""Near-duplicates removed: `deduplicate`, and the links it is made of.

x ──> distinct rows ──> similarity_join ──> deduplicate ──> kept rows, groups
pairs, or a similarity graph ────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack, overload

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures import Measure, resolve
from simdist.models.chain import Link, run_links
from simdist.models.links import SimilarityGraph, linked
from simdist.models.pairs import MAX_PAIRS, Method, join_links, refuse_mixed
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.operators import LINKS
from simdist.store.datasets import Dataset
from simdist.tiles.threshold import Threshold

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.stages.dedupe.config import DedupeConfig
    from simdist.store.store import Store
    from simdist.types import Array, Float32, Ids, Json

__all__ = ["Deduplicated", "DeduplicatedDataset", "dedupe_config", "dedupe_links", "deduplicate"]

Semantics = Literal["leader", "components"]
MAX_REMOVED = 0.9


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """Which rows stay, and what stands for those that go.

    kept: [k] int64 rows that stay, ascending: `x[result.kept]`.
    group: [n] int64 the row that stands for each: itself where it is kept; -1 where it went because
        of the other data set.
    values: [n] float32 of each row with the one that stands for it; NaN for kept rows, and where
        nobody compared them.
    """

    kept: Ids
    group: Ids
    values: Float32

    @property
    def removed(self) -> Ids:
        """[n - k] rows that go, ascending."""
        return np.flatnonzero(self.group != np.arange(len(self.group)))

    def groups(self, *, least: int = 2) -> list[Ids]:
        """Rows of each group of at least so many, the kept one first; largest groups first."""
        order = np.argsort(self.group, kind="stable")
        order = order[np.searchsorted(self.group[order], 0) :]
        parts = np.split(order, np.flatnonzero(np.diff(self.group[order])) + 1)
        chosen = sorted((part for part in parts if len(part) >= least), key=lambda p: -len(p))
        kept = [int(self.group[part[0]]) for part in chosen]
        return [np.append(row, part[part != row]) for row, part in zip(kept, chosen, strict=True)]

    def __len__(self) -> int:
        return len(self.group)

    def __repr__(self) -> str:
        return f"Deduplicated({len(self.kept)} of {len(self)} rows kept)"


@dataclass(frozen=True, slots=True)
class DeduplicatedDataset(Dataset):
    """What `deduplicate` committed, Parquet shards (row, id, kept, group, value): see `Dataset`.

    `metrics` count rows kept and removed, and list the largest groups.
    """

    def open(self) -> Deduplicated:
        """All rows in memory, 20 bytes each."""
        group = np.empty(self.rows, np.int64)
        values = np.empty(self.rows, np.float32)
        kept, first = [], 0
        for shard in self.shards:
            part = slice(first, first + shard.rows)
            group[part] = self.store.read_array(shard.objects["group"])
            column = self.store.read_table(shard.objects["rows"], ["value"])["value"]
            values[part] = column.to_numpy(zero_copy_only=False)
            kept.append(self.store.read_array(shard.objects["kept"]))
            first += shard.rows
        return Deduplicated(np.concatenate(kept), group, values)


def dedupe_links(
    name: str,
    of: str,
    config: DedupeConfig,
    *,
    against: str | None = None,
    method: Method = "exact",
    recall: float = 0.95,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> tuple[Link, ...]:
    """The steps that deduplicate the vectors called `of`. Arguments as for `deduplicate`."""
    from simdist.stages.dedupe import Deduplicate, DistinctConfig, DistinctRows  # noqa: PLC0415

    options: dict[str, Any] = {
        "measure": config.measure,
        "method": method,
        "recall": recall,
        "max_pairs": max_pairs,
        "seed": seed,
    }
    distinct, pairs = f"{name}.distinct", f"{name}.pairs"
    links = [Link(distinct, DistinctRows(), DistinctConfig(config.measure), {"vectors": of})]
    links += join_links(pairs, distinct, config.threshold, **options)
    inputs = {"vectors": of, "distinct": distinct, "pairs": pairs}
    if against is not None:
        inputs["contaminated"] = f"{name}.against"
        links += join_links(
            inputs["contaminated"], distinct, config.threshold, against=against, **options
        )
    return (*links, Link(name, Deduplicate(), config, inputs))


class DedupeOptions(PlaceOptions, total=False):
    """Keyword options of `deduplicate`, for its typed overloads."""

    measure: Json | Measure
    keep: str | Array
    semantics: Semantics
    cap: float | None
    against: Array | Dataset | None
    method: Method
    recall: float
    max_pairs: int
    max_removed: float
    seed: int


@overload
def deduplicate(
    x: Dataset, threshold: float | None = None, **options: Unpack[DedupeOptions]
) -> DeduplicatedDataset: ...
@overload
def deduplicate(
    x: Array | SimilarityGraph, threshold: float | None = None, **options: Unpack[DedupeOptions]
) -> Deduplicated: ...
def deduplicate(
    x: Array | Dataset | SimilarityGraph,
    threshold: float | None = None,
    measure: Json | Measure = "cosine",
    *,
    keep: str | Array = "first",
    semantics: Semantics = "leader",
    cap: float | None = None,
    against: Array | Dataset | None = None,
    method: Method = "exact",
    recall: float = 0.95,
    max_pairs: int = MAX_PAIRS,
    max_removed: float = MAX_REMOVED,
    seed: int = 0,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Deduplicated | DeduplicatedDataset:
    """Rows of which no two are as near as a threshold, and what stands for the others.

    x: [n, d] rows or a SimilarityGraph -> Deduplicated; a vectors dataset, the pairs of a
        similarity_join, or a stored similarity graph -> DeduplicatedDataset.
    threshold: of a similarity at least, of a distance at most; None: that of the pairs given.
    keep: who is kept of rows near each other: "first" (the lowest row), "medoid" (the one with the
        most near it), the name of a column imported with the vectors (its lowest value; "-name" its
        highest), or ranks [n], lowest kept. Ties go to the lower row.
    semantics: "leader": rows are visited in keep order; each that no kept row is near is kept. So
        no row goes because of a row that went, and every row is within the threshold of the row
        that stands for it. "components": rows linked by chains of near ones are one group, of which
        the first in keep order is kept.
    cap: of components: where a row of a group is farther than this from the row kept for it, the
        group is taken apart as "leader" does it. Of pairs or a graph alone, rows without a pair
        count as farther.
    against: another set: rows of x near any row of it go first, and stand for nobody
        (decontamination).
    method, recall, max_pairs: of the join, see `similarity_join`.
    max_removed: share of the rows; InputError, with the largest group, where more would go.
    Other options: see `knn_graph`.

    Exact duplicates are collapsed by hash before anything is compared, whatever the threshold: many
    copies of a row cost no more than one.
    Raises ConfigError, InputError, PlanTooLarge. Cost: that of the join, then some passes over its
    pairs; the rounds of `leader` are few, those of `components` as many as the longest chain of
    shards a group runs through.
    Source: lexicographically first maximal independent set, in rounds (Blelloch, Fineman and Shun,
    SPAA 2012).
    """
    shared: dict[str, Any] = {
        "semantics": semantics,
        "cap": cap,
        "max_removed": max_removed,
    }
    places: dict[str, Any] = {
        "store": store,
        "scratch": scratch,
        "engine": engine,
        "listeners": listeners,
    }
    if _has_pairs(x):
        if against is not None:
            raise ConfigError(
                "deduplicate(against=) needs the vectors: pairs or a graph cannot be compared with"
                " another data set"
            )
        return _of_pairs(x, threshold, keep, shared, places)
    if threshold is None:
        raise ConfigError("deduplicate of vectors needs a threshold, in the measure's units")
    shared |= {"threshold": float(threshold), "measure": resolve(measure).spec()}
    joined: dict[str, Any] = {
        "method": method,
        "recall": recall,
        "max_pairs": max_pairs,
        "seed": seed,
    }
    given = {"vectors": x} if against is None else {"vectors": x, "against": against}
    return _of_vectors(given, keep, shared, joined, places)


def _has_pairs(x: Any) -> bool:
    if isinstance(x, Dataset):
        return x.stage == "similarity_join" or x.stage in LINKS
    return isinstance(x, SimilarityGraph) or hasattr(x, "tocoo")


def _of_vectors(
    given: Mapping[str, Any],
    keep: str | Array,
    shared: Mapping[str, Any],
    joined: Mapping[str, Any],
    places: Mapping[str, Any],
) -> Deduplicated | DeduplicatedDataset:
    x, listeners = given["vectors"], places["listeners"]
    refuse_mixed(given, "deduplicate")
    config = dedupe_config(keep, shared)
    against = "against" if "against" in given else None
    links = dedupe_links("dedupe", "vectors", config, against=against, **joined)
    if isinstance(x, Dataset):
        place = x.store if places["store"] is None else store_of(places["store"])
        with borrowed(places["engine"], place) as opened:
            return _made(links, given, keep, x.rows, Places(place, opened, listeners))
    with in_scratch(places["scratch"], places["engine"]) as (place, opened):
        refuse_unseen(opened, place)
        datasets = {
            role: import_array(rows, store=place, engine=opened, listeners=listeners)
            for role, rows in given.items()
        }
        there = Places(place, opened, listeners)
        return _made(links, datasets, keep, len(x), there).open()


def _of_pairs(
    x: Any,
    threshold: float | None,
    keep: str | Array,
    shared: dict[str, Any],
    places: Mapping[str, Any],
) -> Deduplicated | DeduplicatedDataset:
    from simdist.stages.dedupe import Deduplicate  # noqa: PLC0415

    if isinstance(keep, str) and keep not in ("first", "medoid"):
        raise ConfigError(
            f"keep={keep!r}: pairs and graphs have no columns. Take 'first' or 'medoid', or ranks"
            " [n], lowest kept."
        )
    if isinstance(x, Dataset) and x.stage == "similarity_join":
        config = dedupe_config(keep, {**shared, **_of_join(x, threshold)})
        link = Link("dedupe", Deduplicate(), config, {"pairs": "pairs"})
        place = x.store if places["store"] is None else store_of(places["store"])
        with borrowed(places["engine"], place) as opened:
            there = Places(place, opened, places["listeners"])
            return _made((link,), {"pairs": x}, keep, int(x.metrics["nodes"]), there)
    # of a graph, a larger weight is nearer; every edge counts where no threshold is given
    least = float(np.finfo(np.float32).tiny if threshold is None else threshold)
    of_graph = {"threshold": least, "measure": resolve("dot").spec()}
    config = dedupe_config(keep, {**shared, **of_graph})
    link = Link("dedupe", Deduplicate(), config, {"pairs": "pairs"})
    with linked(x, **places) as (links, place, opened):
        there = Places(place, opened, places["listeners"])
        found = _made((link,), {"pairs": links}, keep, int(links.metrics["nodes"]), there)
        return found if isinstance(x, Dataset) else found.open()


class Places(NamedTuple):
    """Where a deduplication is made, opened already."""

    store: Store
    engine: Engine
    listeners: Sequence[Listener]


def _made(
    links: Sequence[Link],
    datasets: Mapping[str, Dataset],
    keep: str | Array,
    rows: int,
    there: Places,
) -> DeduplicatedDataset:
    """The links run on these datasets, and on the ranks of their rows where `keep` is some."""
    datasets = {**datasets, **_ranks(keep, rows, there.store, there.engine)}
    made = run_links(_ranked(links, datasets), datasets, **there._asdict())
    return DeduplicatedDataset.of(made["dedupe"])


def _of_join(pairs: Dataset, threshold: float | None) -> dict[str, Any]:
    """Threshold and measure of a deduplication of a join's pairs."""
    if "against" in pairs.metrics:
        raise ConfigError(
            f"{pairs.uri} holds pairs of two data sets: deduplicate takes those of one, or"
            " deduplicate(x, threshold, against=...) the vectors of both"
        )
    measure, own = pairs.manifest.config["measure"], float(pairs.metrics["threshold"])
    wanted = own if threshold is None else float(threshold)
    limit = Threshold(resolve(measure), own)
    if not limit.reached(np.array([wanted], np.float32))[0]:
        raise ConfigError(
            f"threshold={wanted:g} is looser than that of the join ({own:g}): pairs in between are"
            " not in it. Join again, or take a stricter threshold."
        )
    return {"threshold": wanted, "measure": measure}


def dedupe_config(keep: str | Array, shared: Mapping[str, Any]) -> DedupeConfig:
    """What `keep` stands for, and the other settings of `DedupeConfig`."""
    from simdist.stages.dedupe import DedupeConfig  # noqa: PLC0415

    if not isinstance(keep, str):
        return DedupeConfig(keep="column", **shared)
    if keep == "first":
        return DedupeConfig(keep="first", **shared)
    if keep == "medoid":
        return DedupeConfig(keep="medoid", **shared)
    column = keep.removeprefix("-")
    if not column:
        raise ConfigError("keep='': expected 'first', 'medoid', a column's name, or ranks [n]")
    return DedupeConfig(keep="column", column=column, descending=keep != column, **shared)


def _ranks(keep: str | Array, rows: int, store: Store, engine: Engine) -> dict[str, Dataset]:
    """Ranks given as an array, as a dataset of their own: places in keep order, in two whole
    numbers that float32 holds exactly."""
    if isinstance(keep, str):
        return {}
    ranks = np.asarray(keep)
    if ranks.shape != (rows,) or ranks.dtype.kind not in "biuf":
        raise InputError(
            f"keep: ranks of shape {ranks.shape} ({ranks.dtype}) for {rows} rows; expected one"
            " number for each row"
        )
    if not np.isfinite(ranks).all():
        row = int(np.flatnonzero(~np.isfinite(ranks))[0])
        raise InputError(f"keep: the rank of row {row} is {ranks[row]}; expected finite numbers")
    _, places = np.unique(ranks, return_inverse=True)
    parts = np.stack(np.divmod(places, 1 << 20), axis=1).astype(np.float32)
    return {"ranks": import_array(parts, store=store, engine=engine)}


def _ranked(links: Sequence[Link], datasets: Mapping[str, Dataset]) -> tuple[Link, ...]:
    """The links, the last of them told the ranks where there are any."""
    if "ranks" not in datasets:
        return tuple(links)
    *before, last = links
    return (
        *before,
        Link(last.name, last.stage, last.config, {**last.inputs, "ranks": "ranks"}),
    )
