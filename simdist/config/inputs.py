"""What flows import: vectors, and graphs of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from simdist.config.fields import Count, Entry, Text
from simdist.store.store import Store

if TYPE_CHECKING:
    from simdist.models.chain import Link

__all__ = ["GraphInputConfig", "InputConfig", "kind_of_input"]


class InputConfig(Entry):
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


class GraphInputConfig(Entry):
    """A graph to import: files of edges, and their columns. A directed graph is refused unless
    `symmetrize` says what is meant."""

    gives: ClassVar[str] = "similarity_graph"

    edges: Text
    row: Text = "row"
    neighbor: Text = "neighbor"
    weight: Text | None = None
    nodes: Count | None = None
    symmetrize: Literal["refuse", "union", "mutual"] = "refuse"
    duplicates: Literal["sum", "refuse"] = "sum"

    def links(self, name: str, *, store: Store | None = None) -> tuple[Link, ...]:
        """The link that imports; `store` lends its endpoint and credentials to s3:// sources."""
        from simdist.models.edges import import_graph_link  # noqa: PLC0415 - config stays light

        columns: dict[str, Any] = {
            "row": self.row,
            "neighbor": self.neighbor,
            "weight": self.weight,
        }
        return (
            import_graph_link(
                name,
                path=self.edges,
                nodes=self.nodes,
                symmetrize=self.symmetrize,
                duplicates=self.duplicates,
                store=store,
                **columns,
            ),
        )


def kind_of_input(value: Any) -> str:
    """Which of the two an entry is: graphs have `edges`."""
    if isinstance(value, dict):
        return "graph" if "edges" in value else "vectors"
    return "graph" if isinstance(value, GraphInputConfig) else "vectors"
