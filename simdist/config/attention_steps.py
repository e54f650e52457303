"""Attention over stored rows, as a flow writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from simdist.config.fields import Count, Name, Number, Positive, Text
from simdist.config.steps import Step

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = ["AttentionStep"]


class AttentionStep(Step):
    """Values of `keys` (or of `values`, or some of their kept `columns`), averaged for each row of
    `of` with softmax weights: vectors again, under the ids of `of`."""

    takes: ClassVar[str] = "vectors"
    gives: ClassVar[str] = "vectors"

    stage: Literal["attention"]
    keys: Name
    values: Name | None = None
    columns: tuple[Text, ...] = ()
    scale: Number | None = None
    bandwidth: Positive | None = None
    bias: Text | None = None
    mask: Text | None = None
    causal: bool | Literal["upper_left", "lower_right"] = False
    exclude_self: bool = False
    heads: Count | None = None
    kv_heads: Count | None = None
    dtype: Literal["float32", "float64"] = "float32"

    def sources(self) -> Mapping[str, str]:
        found = {"of": self.of, "keys": self.keys}
        return found if self.values is None else {**found, "values": self.values}

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.attention import attention_links  # noqa: PLC0415 - config stays light

        return attention_links(
            name,
            self.of,
            self.keys,
            self.values,
            scale=self.scale,
            bandwidth=self.bandwidth,
            bias=self.bias,
            mask=self.mask,
            causal=self.causal,
            exclude_self=self.exclude_self,
            heads=self.heads,
            kv_heads=self.kv_heads,
            columns=self.columns,
            dtype=self.dtype,
        )
