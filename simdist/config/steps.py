"""Steps on vectors and k-NN graphs, as a flow writes them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from simdist.config.fields import (
    Count,
    Entry,
    Fraction,
    Limit,
    MeasureSpec,
    Name,
    Number,
    Params,
    Seed,
    Text,
)

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = [
    "AppendStep",
    "DeduplicateStep",
    "KnnGraphStep",
    "SimilarityJoinStep",
    "SimilarityTilesStep",
    "Step",
]


class Step(Entry):
    """One entry of `steps:`. `takes` and `gives` are kinds of datasets, checked along `of:`."""

    takes: ClassVar[str]
    gives: ClassVar[str]

    stage: str
    of: Name

    def sources(self) -> Mapping[str, str]:
        """Inputs and steps that must be there before, by the key that names them."""
        return {"of": self.of}

    def kinds(self) -> Mapping[str, str]:
        """The kind of dataset that each of `sources` must be."""
        return dict.fromkeys(self.sources(), self.takes)

    @abstractmethod
    def links(self, name: str) -> tuple[Link, ...]:
        """The links that make this step; the last one is called `name`."""


class KnnGraphStep(Step):
    """Each row's k most similar rows. `recall` is promised; `method: exact` looks at every pair."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "knn_graph"

    stage: Literal["knn_graph"]
    k: Count
    measure: MeasureSpec = "cosine"
    recall: Fraction | None = 0.95
    method: Literal["approximate", "exact"] = "approximate"
    seed: Seed = 0
    params: Params = Field(default_factory=dict)

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.knn import knn_links  # noqa: PLC0415 - config stays light
        from simdist.stages.graph.config import KnnParams  # noqa: PLC0415

        return knn_links(
            name,
            self.of,
            k=self.k,
            measure=self.measure,
            recall=self.recall,
            method=self.method,
            seed=self.seed,
            params=KnnParams(**self.params),
        )


class SimilarityTilesStep(Step):
    """The whole matrix as a Zarr array: `of` against itself, or `against` other vectors. One over
    `max_nbytes` is refused."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "similarity_tiles"

    stage: Literal["similarity_tiles"]
    against: Name | None = None
    measure: MeasureSpec = "cosine"
    dtype: Literal["float32", "float16"] = "float32"
    block: Count | None = None
    max_nbytes: Limit | None = None

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of} if self.against is None else {"of": self.of, "against": self.against}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.tiles import tiles_link  # noqa: PLC0415 - config stays light

        limit = {} if self.max_nbytes is None else {"max_nbytes": self.max_nbytes}
        return (
            tiles_link(
                name,
                self.of,
                self.against,
                measure=self.measure,
                dtype=self.dtype,
                block=self.block,
                **limit,
            ),
        )


class AppendStep(Step):
    """A graph over its rows and `new` vectors, as good as it was promised to be."""

    takes: ClassVar[str] = "knn_graph"
    gives: ClassVar[str] = "knn_graph"

    stage: Literal["append"]
    new: Name
    seed: Seed = 0

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "new": self.new}

    def kinds(self) -> Mapping[str, str]:
        return {"of": self.takes, "new": "vectors"}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.grow import append_links  # noqa: PLC0415 - config stays light

        return append_links(name, self.of, self.new, seed=self.seed)


class SimilarityJoinStep(Step):
    """All pairs on the near side of a threshold: of rows among themselves, or `against` others."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "similarity_join"

    stage: Literal["similarity_join"]
    threshold: Number
    measure: MeasureSpec = "cosine"
    against: Name | None = None
    method: Literal["approximate", "exact"] = "exact"
    recall: Fraction = 0.95
    max_pairs: Count | None = None
    seed: Seed = 0

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of} if self.against is None else {"of": self.of, "against": self.against}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.pairs import join_links  # noqa: PLC0415 - config stays light

        return join_links(
            name,
            self.of,
            self.threshold,
            measure=self.measure,
            against=self.against,
            **_join_options(self),
        )


class DeduplicateStep(Step):
    """Which rows stay when of near-duplicates one does. `keep`: first, medoid, or the name of a
    kept column (with - before it, its largest value)."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "deduplicate"

    stage: Literal["deduplicate"]
    threshold: Number
    measure: MeasureSpec = "cosine"
    keep: Text = "first"
    semantics: Literal["leader", "components"] = "leader"
    cap: Number | None = None
    against: Name | None = None
    method: Literal["approximate", "exact"] = "exact"
    recall: Fraction = 0.95
    max_pairs: Count | None = None
    max_removed: Fraction | None = None
    seed: Seed = 0

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of} if self.against is None else {"of": self.of, "against": self.against}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.measures.resolve import resolve  # noqa: PLC0415 - config stays light
        from simdist.models.dedupe import dedupe_config, dedupe_links  # noqa: PLC0415

        settings: dict[str, Any] = {
            "threshold": self.threshold,
            "measure": resolve(self.measure).spec(),
            "semantics": self.semantics,
            "cap": self.cap,
        }
        if self.max_removed is not None:
            settings["max_removed"] = self.max_removed
        config = dedupe_config(self.keep, settings)
        return dedupe_links(name, self.of, config, against=self.against, **_join_options(self))


def _join_options(step: SimilarityJoinStep | DeduplicateStep) -> dict[str, Any]:
    limit = {} if step.max_pairs is None else {"max_pairs": step.max_pairs}
    return {"method": step.method, "recall": step.recall, "seed": step.seed, **limit}
