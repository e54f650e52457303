"""What a user asks of a k-NN graph, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Literal

from simdist.errors import ConfigError, InputError
from simdist.types import Json

__all__ = ["KnnGraphConfig", "KnnParams", "Knobs", "refuse_too_few_rows"]


DEFAULT_TARGET = 0.95  # what an unstated recall is built for
EASY = 0.15  # share of neighbours that may be missing so that fewer links do
EASY_MISSING, EASY_CELLS = 0.2, 2.8  # cells a row that leave no more missing after one join
STEEPNESS = 0.43  # log of cells a row over log of neighbours missing: docs/knn.md
FEWEST_CELLS, MOST_CELLS = 3, 16


@dataclass(frozen=True, slots=True)
class KnnParams:
    """Every knob of the approximate builder; None lets `resolved` choose from k and the target.

    fanout: how many nearest cells a row joins.
    leaf_rows: rows of a leaf at most: its tile is leaf_rows^2.
    leaf_neighbors: neighbours a leaf reports for each of its rows.
    keep: candidates kept for each row, more than k; rounded up to a multiple of 8.
    links: neighbours, and rows that list it, that a row offers to others in a join.
    joins: rounds of neighbours-of-neighbours before recall is first measured.
    sample: rows whose exact neighbours measure recall; doubled where that settles the question
        more cheaply than more work on the graph, at most to `sample_limit`.
    """

    fanout: int | None = None
    leaf_rows: int | None = None
    leaf_neighbors: int | None = None
    keep: int | None = None
    links: int | None = None
    joins: int | None = None
    sample: int | None = None
    sample_limit: int = 8000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = {"joins": 0, "leaf_rows": 2}.get(name, 1)
            if value is not None and (not _whole(value) or value < least):
                raise ConfigError(
                    f"knn params {name}={value!r}: expected a whole number, at least {least}"
                )

    def resolved(self, k: int, recall: float | None) -> Knobs:
        """Every knob chosen. Figures behind the choice: docs/knn.md."""
        missing = 1.0 - (DEFAULT_TARGET if recall is None else recall)
        keep = _multiple(self.keep or k + max(8, k // 2), 8)
        if self.keep is not None and self.keep < k:
            raise ConfigError(f"knn params keep={self.keep} is below k={k}: expected at least k")
        links = k + k // 3 if missing < EASY else k
        return Knobs(
            fanout=self.fanout or _cells(missing),
            leaf_rows=self.leaf_rows or max(512, 4 * k),
            leaf_neighbors=self.leaf_neighbors or max(10, 2 * k // 3),
            keep=keep,
            links=self.links or min(keep, max(12, links)),
            joins=1 if self.joins is None else self.joins,
            sample=self.sample or (2000 if missing < 0.02 else 1000),
            sample_limit=self.sample_limit,
        )


@dataclass(frozen=True, slots=True)
class Knobs:
    """KnnParams with every choice made; the names mean the same."""

    fanout: int
    leaf_rows: int
    leaf_neighbors: int
    keep: int
    links: int
    joins: int
    sample: int
    sample_limit: int

    def sample_sizes(self, rows: int) -> tuple[int, ...]:
        """How many of so many rows may be sampled, ascending: each twice the one before."""
        limit = min(self.sample_limit, rows)
        sizes = [min(self.sample, limit)]
        while sizes[-1] < limit:
            sizes.append(min(2 * sizes[-1], limit))
        return tuple(sizes)


def _cells(missing: float) -> int:
    """How many cells a row joins so that no more than this share of its neighbours is missing."""
    cells = round(EASY_CELLS * float((EASY_MISSING / missing) ** STEEPNESS))
    return min(max(FEWEST_CELLS, cells), MOST_CELLS)


def _whole(value: object) -> bool:
    """An integer, numpy's too, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of


@dataclass(frozen=True, slots=True)
class KnnGraphConfig:
    """k: neighbours per row. measure: a measure's spec. method: "approximate" or "exact".

    recall: what the lower end of the sampled 95 % interval must reach (approximate only); None
        takes the first graph and still reports its recall.
    seed: draws splits and sampled rows.
    """

    k: int
    measure: Json
    method: Literal["approximate", "exact"] = "approximate"
    recall: float | None = 0.95
    seed: int = 0
    params: KnnParams = field(default_factory=KnnParams)

    def __post_init__(self) -> None:
        if not _whole(self.k) or self.k < 1:
            raise ConfigError(f"k={self.k!r}: expected a whole number, at least 1 neighbour")
        object.__setattr__(self, "k", int(self.k))  # a numpy integer is no JSON
        if self.method not in ("approximate", "exact"):
            raise ConfigError(f"method={self.method!r}: expected 'approximate' or 'exact'")
        if self.recall is not None and not 0.0 < self.recall < 1.0:
            raise ConfigError(
                f"recall={self.recall}: expected a number between 0 and 1, such as 0.95; for 1 use"
                " method='exact'"
            )

    @property
    def resolved(self) -> Knobs:
        """The builder's knobs, all chosen."""
        return self.params.resolved(self.k, self.recall)

    def to_json(self) -> Mapping[str, Json]:
        """Everything that decides the result: the exact method ignores recall, seed and params."""
        value: dict[str, Json] = {"k": self.k, "measure": self.measure, "method": self.method}
        if self.method == "approximate":
            value |= {
                "recall": self.recall,
                "seed": self.seed,
                "params": asdict(self.resolved),
            }
        return value


def refuse_too_few_rows(k: int, rows: int, where: str) -> None:
    """InputError where a row cannot have k neighbours other than itself."""
    if rows <= k:
        raise InputError(
            f"k={k} neighbours need at least {k + 1} rows, {where} has {rows}: a row is never its"
            f" own neighbour. Ask for k <= {rows - 1}, or import more rows."
        )
