"""What may be written in a flow, and the links it stands for."""

from __future__ import annotations

import graphlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
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
from simdist.engine.credentials import named_file, plain_address
from simdist.engine.memory import parse_nbytes
from simdist.engine.seconds import parse_seconds
from simdist.errors import ConfigError
from simdist.measures.resolve import resolve
from simdist.store.store import Store, open_store
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = [
    "STEPS",
    "AppendStep",
    "EngineConfig",
    "FlowConfig",
    "InputConfig",
    "KnnGraphStep",
    "SimilarityTilesStep",
    "Step",
    "StoreConfig",
    "links",
    "needs",
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


def _files(value: object) -> object:
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
Address: TypeAlias = Annotated[Text, AfterValidator(_address)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(_seconds)]
FilePath: TypeAlias = Annotated[str, BeforeValidator(_file)]
Limit: TypeAlias = Annotated[int, BeforeValidator(partial(_bytes, what="max_nbytes"))]
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
    checksums: bool | None = None
    patience: Annotated[float, Field(ge=0)] | None = None

    def open(self) -> Store:
        """The store; nothing is read or written yet."""
        return open_store(self.uri, **self.model_dump(exclude={"uri"}, exclude_none=True))


class TlsConfig(_Entry):
    """Certificates for a Dask scheduler at tls://: files in PEM."""

    ca: FilePath
    cert: FilePath
    key: FilePath


class TokenConfig(_Entry):
    """The file with the token of a Ray cluster."""

    path: FilePath


class EngineConfig(_Entry):
    """Where tasks run. Nothing here changes what is computed.

    memory: bytes per worker. timeout: seconds without any task ending. wait_for_workers: seconds
    that a cluster may be without any.
    """

    kind: Literal["local", "dask", "ray"] | None = None
    address: Address | None = None
    workers: Count | None = None
    memory: Bytes | None = None
    retries: Annotated[int, Field(strict=True, ge=0)] | None = None
    timeout: Seconds | None = None
    wait_for_workers: Seconds | None = None
    tls: Annotated[TlsConfig | None, BeforeValidator(_files)] = None
    token: Annotated[TokenConfig | None, BeforeValidator(_files)] = None

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

    def links(self, name: str, *, store: Store | None = None) -> tuple[Link, ...]:
        """The link that imports; `store` lends its endpoint and credentials to s3:// sources."""
        from simdist.models.vectors import import_link  # noqa: PLC0415 - config stays light

        columns: dict[str, Any] = {"id": self.id, "vector": self.vector, "keep": self.keep}
        return (import_link(name, path=self.path, store=store, **columns),)


class Step(_Entry):
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


STEPS: Mapping[str, type[Step]] = {
    "knn_graph": KnnGraphStep,
    "similarity_tiles": SimilarityTilesStep,
    "append": AppendStep,
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


def links(flow: FlowConfig, *, store: Store | None = None) -> tuple[Link, ...]:
    """What to run, inputs first: each link's inputs name earlier links.

    store: the flow's own, where its endpoint and credentials are to reach s3:// inputs too.
    """
    made: list[Link] = []
    for name, config in flow.inputs.items():
        made += _made(partial(config.links, store=store), f"inputs.{name}", name)
    for name in graphlib.TopologicalSorter(needs(flow)).static_order():
        if name in flow.steps:
            made += _made(flow.steps[name].links, f"steps.{name}", name)
    names = [link.name for link in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"the name {twice[0]!r} is used by a step and by a part of another step; rename one"
        )
    return tuple(made)


def needs(flow: FlowConfig) -> dict[str, set[str]]:
    """For each step, the inputs and steps that must be there before it."""
    return {name: set(step.sources().values()) for name, step in flow.steps.items()}


def _made(make: Callable[[str], tuple[Link, ...]], path: str, name: str) -> tuple[Link, ...]:
    try:
        return make(name)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
