"""Steps that search one set of vectors for another's, as a flow writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator

from simdist.config.fields import Count, Fraction, MeasureSpec, Name, Seed
from simdist.config.steps import Step
from simdist.errors import ConfigError

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = ["IndexStep", "RetrieveStep"]


def _where(value: str | list[Any]) -> str | list[Any]:
    """A condition that can be read, with pydantic's kind of error where it cannot."""
    from simdist.stages.search.where import read_where  # noqa: PLC0415 - config stays light

    try:
        read_where(value)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("where: ")) from error
    return value


Condition: TypeAlias = Annotated[str | list[Any], AfterValidator(_where)]


class IndexStep(Step):
    """Vectors in cells, made once for every search of them."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "index"

    stage: Literal["index"]
    measure: MeasureSpec = "cosine"
    cells: Count | None = None
    seed: Seed = 0

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.retrieve import index_links  # noqa: PLC0415 - config stays light

        return index_links(name, self.of, measure=self.measure, cells=self.cells, seed=self.seed)


class RetrieveStep(Step):
    """The nearest rows of `corpus` for every row: of those `where` lets pass, at most k. An index
    step of the same corpus, measure, cells and seed is found and used."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "retrieve"

    stage: Literal["retrieve"]
    corpus: Name
    k: Count
    measure: MeasureSpec = "cosine"
    method: Literal["approximate", "exact"] = "approximate"
    recall: Fraction | None = 0.95
    where: Condition | None = None
    probes: Count | None = None
    cells: Count | None = None
    seed: Seed = 0

    def sources(self) -> Mapping[str, str]:
        return {"of": self.of, "corpus": self.corpus}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.retrieve import retrieve_links  # noqa: PLC0415 - config stays light

        return retrieve_links(
            name,
            self.of,
            self.corpus,
            k=self.k,
            measure=self.measure,
            method=self.method,
            recall=self.recall,
            where=self.where,
            probes=self.probes,
            cells=self.cells,
            seed=self.seed,
        )
