"""What may be written in a flow, and the links it stands for."""

from __future__ import annotations

import graphlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from simdist.config.fields import (
    Address,
    Bytes,
    Count,
    Entry,
    FilePath,
    Name,
    Seconds,
    Text,
    mapping,
)
from simdist.config.inputs import GraphInputConfig, InputConfig, kind_of_input
from simdist.config.steps import Step
from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError
from simdist.store.store import Store, open_store
from simdist.types import Json

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = ["EngineConfig", "FlowConfig", "StoreConfig", "links", "needs"]


class StoreConfig(Entry):
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


class TlsConfig(Entry):
    """Certificates for a Dask scheduler at tls://: files in PEM."""

    ca: FilePath
    cert: FilePath
    key: FilePath


class TokenConfig(Entry):
    """The file with the token of a Ray cluster."""

    path: FilePath


class EngineConfig(Entry):
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
    tls: Annotated[TlsConfig | None, BeforeValidator(mapping)] = None
    token: Annotated[TokenConfig | None, BeforeValidator(mapping)] = None

    def open(self, store: Store) -> Engine:
        """The engine, for `with`; arrays that are handed to it rest in `store`."""
        return open_engine(self.model_dump(exclude_none=True), scratch=store.scratch())


# An entry of `inputs:` is vectors, by its `path`, or a graph, by its `edges`.
AnyInput = Annotated[
    Annotated[InputConfig, Tag("vectors")] | Annotated[GraphInputConfig, Tag("graph")],
    Discriminator(kind_of_input),
]


class FlowConfig(Entry):
    """A whole flow. `examples`: ids whose neighbours the summary shows; no part of any result."""

    name: Name
    store: StoreConfig
    engine: EngineConfig = EngineConfig()
    inputs: Annotated[dict[Name, AnyInput], Field(min_length=1)]
    steps: dict[Name, Step] = Field(default_factory=dict)
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
