"""Steps of sparse attention, as a flow writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from simdist.config.fields import Count, Fraction, Name, Number, Seed, Text
from simdist.config.steps import Step

if TYPE_CHECKING:
    from typing import Self

    from simdist.models.chain import Link

__all__ = ["SparseAttentionStep"]


class SparseAttentionStep(Step):
    """Averages over `keys`, weighted by attention, for every row of `of`: of the vectors called
    `values`, or of `columns` kept beside the keys (numbers; of text, shares of its classes).

    scale: of q.k in the softmax; for unit rows at a temperature T, 1 / T.
    """

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "sparse_attention"

    stage: Literal["sparse_attention"]
    keys: Name
    values: Name | None = None
    columns: tuple[Text, ...] = ()
    scale: Number
    tolerance: Fraction = 1e-2
    budget: Count | None = None
    exact_above: Annotated[float, Field(ge=0.0, le=1.0)] = 0.25
    exclude_self: bool = False
    sample: Annotated[int, Field(strict=True, ge=0)] = 32
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_kind_of_values(self) -> Self:
        if (self.values is None) == (not self.columns):
            raise ValueError("give either values (vectors) or columns (kept beside the keys)")
        return self

    def sources(self) -> Mapping[str, str]:
        named = {"of": self.of, "keys": self.keys}
        return named if self.values is None else {**named, "values": self.values}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.sparse_attention import sparse_attention_links  # noqa: PLC0415
        from simdist.stages.sparse_attention.config import SparseConfig  # noqa: PLC0415

        config = SparseConfig(
            scale=self.scale,
            tolerance=self.tolerance,
            budget=self.budget,
            columns=self.columns,
            exclude_self=self.exclude_self,
            sample=self.sample,
            seed=self.seed,
            exact_above=self.exact_above,
        )
        return sparse_attention_links(name, self.of, self.keys, self.values, config)
