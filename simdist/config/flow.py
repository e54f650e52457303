"""What may be written in a flow, and the links it stands for."""

from __future__ import annotations

import graphlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from simdist.engine import Engine, open_engine
from simdist.engine.memory import parse_nbytes
from simdist.errors import ConfigError
from simdist.measures.resolve import resolve
from simdist.store.store import Store, open_store
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = [
    "STEPS",
    "EngineConfig",
    "FlowConfig",
    "InputConfig",
    "KnnGraphStep",
    "Step",
    "StoreConfig",
    "links",
    "needs",
]


def _bytes(value: object) -> int:
    """`300MiB` and the like as a number, with pydantic's kind of error."""
    try:
        return parse_nbytes(value, what="memory")  # type: ignore[arg-type]
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _measure(spec: str | dict[str, Any]) -> str | dict[str, Any]:
    """A measure that can be resolved, with pydantic's kind of error where it cannot."""
    try:
        resolve(spec)
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
Fraction: TypeAlias = Annotated[float, Field(strict=True, gt=0, lt=1)]
Bytes: TypeAlias = Annotated[int, BeforeValidator(_bytes)]
Params: TypeAlias = Annotated[dict[str, Any], AfterValidator(_params)]
MeasureSpec: TypeAlias = Annotated[Text | dict[str, Any], AfterValidator(_measure)]


class _Entry(BaseModel):
    """Frozen; a key that is not a field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoreConfig(_Entry):
    """Where bytes live. Keys are not written here: the environment or AWS files have them."""

    uri: Text
    endpoint: Text | None = None
    region: Text | None = None
    profile: Text | None = None
    anonymous: bool | None = None

    def open(self) -> Store:
        """The store; nothing is read or written yet."""
        return open_store(self.uri, **self.model_dump(exclude={"uri"}, exclude_none=True))


class EngineConfig(_Entry):
    """Where tasks run. `workers` and `memory` (per worker) never change what is computed."""

    kind: Literal["local", "dask", "ray"] | None = None
    address: Text | None = None
    workers: Count | None = None
    memory: Bytes | None = None
    retries: Annotated[int, Field(strict=True, ge=0)] | None = None

    def open(self, store: Store) -> Engine:
        """The engine, for `with`; arrays that are handed to it rest in `store`."""
        return open_engine(self.model_dump(exclude_none=True), scratch=store.scratch())


class InputConfig(_Entry):
    """Vectors to import: `datasets://name`, a file, a glob or a prefix, and its columns."""

    gives: ClassVar[str] = "vectors"

    path: Text
    id: Text | None = None
    vector: Text | None = None
    keep: tuple[Text, ...] = ()

    def links(self, name: str) -> tuple[Link, ...]:
        from simdist.models.vectors import import_link  # noqa: PLC0415 - config stays light

        return (import_link(name, path=self.path, id=self.id, vector=self.vector, keep=self.keep),)


class Step(_Entry):
    """One entry of `steps:`. `takes` and `gives` are kinds of datasets, checked along `of:`."""

    takes: ClassVar[str]
    gives: ClassVar[str]

    stage: str
    of: Name

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
    params: Params = {}

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


STEPS: Mapping[str, type[Step]] = {
    "knn_graph": KnnGraphStep,
}


class FlowConfig(_Entry):
    """A whole flow. `examples`: ids whose neighbours the summary shows; no part of any result."""

    name: Name
    store: StoreConfig
    engine: EngineConfig = EngineConfig()
    inputs: Annotated[dict[Name, InputConfig], Field(min_length=1)]
    steps: dict[Name, Step] = {}
    examples: tuple[Text | int, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """The flow with every default spelled out."""
        return self.model_dump(mode="json", serialize_as_any=True)


def links(flow: FlowConfig) -> tuple[Link, ...]:
    """What to run, inputs first: each link's inputs name earlier links."""
    made: list[Link] = []
    for name, config in flow.inputs.items():
        made += _made(config, f"inputs.{name}", name)
    for name in graphlib.TopologicalSorter(needs(flow)).static_order():
        if name in flow.steps:
            made += _made(flow.steps[name], f"steps.{name}", name)
    names = [link.name for link in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"the name {twice[0]!r} is used by a step and by a part of another step; rename one"
        )
    return tuple(made)


def needs(flow: FlowConfig) -> dict[str, set[str]]:
    """For each step, the inputs and steps that must be there before it."""
    return {name: {step.of} for name, step in flow.steps.items()}


def _made(config: InputConfig | Step, path: str, name: str) -> tuple[Link, ...]:
    try:
        return config.links(name)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
