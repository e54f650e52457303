"""A graph of your own: `import_graph`, and the link that reads files of edges."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload
from zipfile import BadZipFile

import numpy as np

from simdist.errors import InputError
from simdist.models.chain import Link, run_link
from simdist.models.links import (
    Duplicates,
    LinksDataset,
    SimilarityGraph,
    Symmetry,
    link_of,
    open_links,
)
from simdist.models.places import borrowed, refuse_unseen, scratch_store, store_of

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store

__all__ = ["import_graph", "import_graph_link"]


def import_graph_link(
    name: str,
    *,
    path: str,
    row: str = "row",
    neighbor: str = "neighbor",
    weight: str | None = None,
    nodes: int | None = None,
    symmetrize: Symmetry = "refuse",
    duplicates: Duplicates = "sum",
    store: Store | None = None,
) -> Link:
    """The step that imports files of edges; looks the files up, reads none. See `import_graph`.

    store: lends its endpoint and credentials to s3:// files.
    """
    from simdist.stages.links import EdgeColumns, EdgesConfig, ImportEdges, find  # noqa: PLC0415

    files, objects = find(path, store)
    columns = EdgeColumns(row, neighbor, weight)
    config = EdgesConfig(files, columns, nodes, symmetrize, duplicates, objects)
    return Link(name, ImportEdges(), config, {})


class ImportGraphOptions(TypedDict, total=False):
    """Keyword options of `import_graph`, for its typed overloads."""

    row: str
    neighbor: str
    weight: str | None
    nodes: int | None
    symmetrize: Symmetry
    duplicates: Duplicates
    scratch: Store | str | None
    engine: Engine | str | None
    listeners: Sequence[Listener]


@overload
def import_graph(
    edges: Any, *, store: Store | str, **options: Unpack[ImportGraphOptions]
) -> LinksDataset: ...
@overload
def import_graph(
    edges: Any, *, store: None = None, **options: Unpack[ImportGraphOptions]
) -> SimilarityGraph: ...
def import_graph(
    edges: Any,
    *,
    row: str = "row",
    neighbor: str = "neighbor",
    weight: str | None = None,
    nodes: int | None = None,
    symmetrize: Symmetry = "refuse",
    duplicates: Duplicates = "sum",
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> SimilarityGraph | LinksDataset:
    """A graph of your own, checked and made canonical: symmetric, no self-loops, no duplicates.

    edges: one of
        a scipy sparse matrix [n, n];
        an integer array [m, 2] of pairs, each of weight 1;
        a path to an .npz of this machine: what `scipy.sparse.save_npz` wrote, or arrays `edges`
            [m, 2] and, if there is one, `weights` [m];
        a path, glob or folder of Parquet or CSV files (with a header; .tsv: by tabs), or an s3://
            prefix of them: read by the engine, no worker holds all edges.
    row, neighbor, weight: columns of such files, numbers of nodes from 0 and weights; without
        `weight` every edge weighs 1.
    nodes: n; by default the largest node and one (a matrix says itself).
    symmetrize: "refuse" a directed graph, naming its first edge without an equal reverse (weights
        that differ by less than 1e-6 of themselves are equal: the larger is taken); "union": an
        edge where there is one either way, with the larger weight; "mutual": only where there are
        both, with the smaller. An edge list that names each edge once needs "union".
    duplicates: weights of an edge named more than once, in one direction, are added up ("sum", as
        scipy does) or refused.
    store: where the graph is committed -> LinksDataset; None -> SimilarityGraph.

    Self-loops and weights of 0 are left out; `metrics` counts them, and duplicates.
    Raises InputError naming the edge (its number in its file, or in the order of the entries) for a
    negative weight, NaN, or a node that does not exist, and for files that hold no such columns.
    Cost: as `similarity_graph` for files; in memory some 60 bytes an edge.
    """
    said: dict[str, Any] = {"symmetrize": symmetrize, "duplicates": duplicates}
    held = isinstance(edges, str | os.PathLike) and str(edges).endswith(".npz")
    with _kept(store, scratch, engine) as place, borrowed(engine, place) as opened:
        refuse_unseen(opened, place)
        if isinstance(edges, str | os.PathLike) and not held:
            columns: dict[str, Any] = {"row": row, "neighbor": neighbor, "weight": weight}
            path = os.fspath(edges)
            link = import_graph_link(
                "links", path=path, nodes=nodes, store=place, **columns, **said
            )
        else:
            matrix = _matrix(_npz(edges) if held else edges, nodes)
            link = link_of(matrix, place, **said)
        made = run_link(link, {}, store=place, engine=opened, listeners=listeners)
        return open_links(made) if store is None else LinksDataset.of(made)


@contextmanager
def _kept(
    store: Store | str | None, scratch: Store | str | None, engine: Engine | str | None
) -> Iterator[Store]:
    """The store that results stay in, or a scratch store."""
    if store is not None:
        yield store_of(store)
        return
    with scratch_store(scratch, engine) as place:
        yield place


def _npz(path: str | os.PathLike[str]) -> Any:
    """What an .npz file holds: a scipy matrix, or edges with or without weights."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if "format" in file.files:
                from scipy.sparse import load_npz  # noqa: PLC0415 - not needed for edge lists

                return load_npz(path)
            if "edges" not in file.files:
                raise InputError(
                    f"{os.fspath(path)} holds {', '.join(file.files) or 'nothing'}; expected what"
                    " scipy.sparse.save_npz writes, or an array `edges` [m, 2]"
                )
            edges = file["edges"]
            return (edges, file["weights"]) if "weights" in file.files else edges
    except FileNotFoundError:
        raise InputError(f"no file to import: {os.fspath(path)} is not there") from None
    except (ValueError, BadZipFile) as error:
        raise InputError(f"{os.fspath(path)} cannot be read as .npz: {error}") from None


def _matrix(edges: Any, nodes: int | None) -> Any:
    """Edges in memory as a scipy matrix in COO format, duplicates and all."""
    from scipy.sparse import coo_matrix  # noqa: PLC0415 - not needed to plan

    pairs, weights = edges if isinstance(edges, tuple) else (edges, None)
    if not isinstance(pairs, np.ndarray):
        if nodes not in (None, *getattr(edges, "shape", ())[:1]):
            raise InputError(f"nodes={nodes} for a matrix of shape {edges.shape}: leave nodes out")
        return edges
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise InputError(
            f"edges are {pairs.dtype} of shape {pairs.shape}; expected integers [m, 2], or a scipy"
            " sparse matrix where edges have weights"
        )
    if weights is not None and weights.shape != (len(pairs),):
        raise InputError(f"{len(pairs)} edges have weights of shape {weights.shape}")
    count = nodes or 1 + int(pairs.max(initial=-1))
    if pairs.size and (pairs.min() < 0 or pairs.max() >= count):
        at = int(np.argmax(((pairs < 0) | (pairs >= count)).any(axis=1)))
        raise InputError(
            f"the graph, edge {at}: {pairs[at].tolist()}; expected nodes from 0 to {count - 1}"
        )
    values = np.ones(len(pairs), np.float32) if weights is None else weights
    return coo_matrix((values, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
