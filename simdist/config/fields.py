"""Kinds of values that entries of a flow hold, and what an entry is.

A wrong value is told with pydantic's kind of error, which `simdist.config.problems` puts at its
line; where what was written may be a secret, it is not shown.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from simdist.engine.credentials import named_file, plain_address
from simdist.engine.memory import parse_nbytes
from simdist.engine.seconds import parse_seconds
from simdist.errors import ConfigError
from simdist.measures.resolve import resolve

__all__ = [
    "Address",
    "Bytes",
    "Count",
    "Entry",
    "FilePath",
    "Fraction",
    "KernelSpec",
    "Limit",
    "MeasureSpec",
    "Name",
    "Number",
    "Params",
    "Positive",
    "Seconds",
    "Seed",
    "Text",
    "mapping",
]


def _bytes(value: object, what: str = "memory") -> int:
    """`300MiB` and the like as a number, with pydantic's kind of error."""
    try:
        return parse_nbytes(value, what=what)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _seconds(value: object) -> float:
    """`10m` and the like as seconds, with pydantic's kind of error."""
    try:
        return parse_seconds(value, what="it")  # type: ignore[arg-type]
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("it is ")) from error


def _address(value: str) -> str:
    """An address without a password, with pydantic's kind of error, which does not show it."""
    try:
        return plain_address(value, "it")
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("it ")) from error


def _file(value: object) -> str:
    """A path, with pydantic's kind of error, which does not show what was written instead."""
    try:
        return named_file(value, "it")
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("it: ")) from error


def mapping(value: object) -> object:
    """A mapping; what else was written may be the secret itself, and is not shown."""
    if value is not None and not isinstance(value, (dict, BaseModel)):
        raise ValueError("expected a mapping to files, never what is in them")
    return value


def _measure(spec: str | dict[str, Any]) -> str | dict[str, Any]:
    """A measure that can be resolved, with pydantic's kind of error where it cannot."""
    try:
        resolve(spec)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return spec


def _kernel(spec: str | dict[str, Any]) -> str | dict[str, Any]:
    """A kernel that can be resolved, with pydantic's kind of error where it cannot."""
    from simdist.measures.kernels import resolve as resolve_kernel  # noqa: PLC0415 - config is light

    try:
        resolve_kernel(spec)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return spec


def _params(given: dict[str, Any]) -> dict[str, Any]:
    """Knobs of the k-NN builder, with pydantic's kind of error where one is not."""
    from simdist.stages.graph.config import KnnParams  # noqa: PLC0415 - config stays light

    known = [field.name for field in fields(KnnParams)]
    for name in given:
        if name not in known:
            raise ValueError(f"{name!r} is not one of them. Allowed: {', '.join(known)}")
    try:
        KnnParams(**given)
    except (ConfigError, TypeError) as error:
        raise ValueError(str(error)) from error
    return given


Name: TypeAlias = Annotated[
    str, StringConstraints(strict=True, pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")
]
Text: TypeAlias = Annotated[str, StringConstraints(strict=True, min_length=1)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=1)]
Seed: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
Number: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction: TypeAlias = Annotated[float, Field(strict=True, gt=0, lt=1)]
Bytes: TypeAlias = Annotated[int, BeforeValidator(_bytes)]
Address: TypeAlias = Annotated[Text, AfterValidator(_address)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(_seconds)]
FilePath: TypeAlias = Annotated[str, BeforeValidator(_file)]
Limit: TypeAlias = Annotated[int, BeforeValidator(partial(_bytes, what="max_nbytes"))]
Params: TypeAlias = Annotated[dict[str, Any], AfterValidator(_params)]
KernelSpec: TypeAlias = Annotated[Text | dict[str, Any], AfterValidator(_kernel)]
MeasureSpec: TypeAlias = Annotated[Text | dict[str, Any], AfterValidator(_measure)]


class Entry(BaseModel):
    """Frozen; a key that is not a field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
