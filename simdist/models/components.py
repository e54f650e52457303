"""Connected components of a similarity graph: `connected_components`, and its link."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from simdist.models.chain import Link, run_links
from simdist.models.links import Graph, linked
from simdist.models.places import PlaceOptions
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Ids

__all__ = ["Components", "ComponentsDataset", "components_links", "connected_components"]


@dataclass(frozen=True, slots=True)
class Components:
    """Which nodes hang together.

    labels: [n] int64, the component of each node, numbered 0, 1, ... by its first node.
    sizes: [c] int64, nodes of each component.
    """

    labels: Ids
    sizes: Ids

    @property
    def largest(self) -> int:
        """The component with the most nodes, of equal ones the first."""
        return int(np.argmax(self.sizes))

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        held = int(self.sizes.max())
        return f"Components({len(self)} of {len(self.labels)} nodes, the largest has {held})"


@dataclass(frozen=True, slots=True)
class ComponentsDataset(Dataset):
    """Committed components: see `Dataset`; `metrics` has their number and the largest hundred as
    pairs (component, nodes), and `open` reads them into arrays."""

    def open(self) -> Components:
        """All labels and sizes in memory, at most 16 bytes a node."""
        labels, sizes = (
            np.concatenate([self.store.read_array(s.objects[role]) for s in self.shards])
            for role in ("labels", "sizes")
        )
        return Components(labels, sizes)


def components_links(name: str, of: str) -> tuple[Link, ...]:
    """The step that finds the components of the similarity graph called `of`."""
    from simdist.stages.components import ComponentsConfig, ConnectedComponents  # noqa: PLC0415

    return (Link(name, ConnectedComponents(), ComponentsConfig(), {"links": of}),)


@overload
def connected_components(graph: Dataset, **options: Unpack[PlaceOptions]) -> ComponentsDataset: ...
@overload
def connected_components(graph: Any, **options: Unpack[PlaceOptions]) -> Components: ...
def connected_components(
    graph: Graph,
    *,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Components | ComponentsDataset:
    """Which nodes of a similarity graph are connected, exactly.

    graph: a SimilarityGraph or a symmetric scipy sparse matrix -> Components; a dataset that
        similarity_graph or import_graph committed -> ComponentsDataset.
    store, scratch, engine: as for `knn_graph`.

    Components are numbered by their first node, so labels do not depend on shards, engine or
    workers, and are those of `scipy.sparse.csgraph.connected_components`.
    Raises InputError for a graph that is not symmetric. Cost: each edge is looked at once; what
    shards tell each other is at most 16 bytes a node, which the last task of a merge holds.
    """
    links = components_links("components", "links")
    with linked(graph, store=store, scratch=scratch, engine=engine, listeners=listeners) as found:
        made = run_links(
            links,
            {"links": found.links},
            store=found.store,
            engine=found.engine,
            listeners=listeners,
        )
        result = ComponentsDataset.of(made["components"])
        return result if isinstance(graph, Dataset) else result.open()
