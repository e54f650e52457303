"""A graph in memory as a links dataset: made canonical where it is, written as shards, committed.

scipy matrix, edge list ── canonical ──> CSR: no self-loops, no duplicates, symmetric
                                                │ write_links
SimilarityGraph ────────────────────────────────┴──> shards ──> commit, without a task
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.runner.plan import Commit, Job, Round, Rounds, Taskless
from simdist.stages.links.shards import Ranges, commit_of, write_shard
from simdist.types import Array, Float32, Float64, Ids, Json, ObjectRef

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from simdist.store.store import Store

__all__ = [
    "DUPLICATES",
    "SYMMETRIZE",
    "TOLERANCE",
    "ImportLinks",
    "Links",
    "LinksConfig",
    "canonical",
    "checked_edges",
    "refuse_directed",
    "refuse_duplicate",
    "refuse_options",
    "write_links",
]

SYMMETRIZE = ("refuse", "union", "mutual")
DUPLICATES = ("sum", "refuse")
TOLERANCE = 1e-6  # relative: weights of (i, j) and (j, i) closer than that are one, the larger
WRITERS = 2  # shards hashed and written side by side


class Links(NamedTuple):
    """A symmetric graph in CSR form, and what was left out on the way: facts of the manifest."""

    indptr: Ids
    indices: Ids
    weights: Float32
    facts: Mapping[str, int]


def refuse_options(symmetrize: str, duplicates: str) -> None:
    """ConfigError where an option of an import is none."""
    if symmetrize not in SYMMETRIZE:
        raise ConfigError(f"symmetrize={symmetrize!r}: expected one of {', '.join(SYMMETRIZE)}")
    if duplicates not in DUPLICATES:
        raise ConfigError(f"duplicates={duplicates!r}: expected one of {', '.join(DUPLICATES)}")


def canonical(
    rows: Array,
    columns: Array,
    weights: Array,
    nodes: int,
    *,
    symmetrize: str = "refuse",
    duplicates: str = "sum",
    what: str = "the graph",
) -> Links:
    """Edges [e] each, in any order, as a symmetric graph of so many nodes. what: its name.

    Raises InputError as `import_graph` documents. Cost: some 60 bytes an edge.
    """
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - not needed to plan

    rows, columns, weights, facts = checked_edges(rows, columns, weights, nodes, f"{what}, edge")
    matrix = csr_matrix((weights, (rows, columns)), shape=(nodes, nodes))
    matrix.sort_indices()
    repeated = len(rows) - matrix.nnz
    if repeated and duplicates == "refuse":
        refuse_duplicate(what, *_first_repeated(rows, columns, nodes), repeated)
    reverse = matrix.T.tocsr()
    reverse.sort_indices()
    if symmetrize == "refuse":
        _refuse_asymmetric(what, matrix, reverse)
    both = matrix.minimum(reverse) if symmetrize == "mutual" else matrix.maximum(reverse)
    both.sort_indices()
    indptr, indices = both.indptr.astype(np.int64), both.indices.astype(np.int64)
    return Links(indptr, indices, both.data.astype(np.float32), {**facts, "duplicates": repeated})


def checked_edges(
    rows: Array, columns: Array, weights: Array, nodes: int, where: str, first: int = 0
) -> tuple[Ids, Ids, Float64, dict[str, int]]:
    """Edges without self-loops and zeros, and how many of these there were.

    weights come back as float64 of their float32 values. where: what an error says before the
    number of an edge, counted from `first`.
    Raises InputError for a node that does not exist, and a weight that is no number or negative.
    """
    for name, ends in (("row", rows), ("neighbor", columns)):
        bad = (ends < 0) | (ends >= nodes)
        if bad.any():
            at = int(np.argmax(bad))
            raise InputError(
                f"{where} {first + at}: its {name} is {int(ends[at])}; expected a node from 0 to"
                f" {nodes - 1}. Give nodes= if there are more."
            )
    with np.errstate(over="ignore", invalid="ignore"):
        narrowed = weights.astype(np.float32)
    bad = ~np.isfinite(narrowed) | (narrowed < 0)
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            f"{where} {first + at}: ({int(rows[at])}, {int(columns[at])}) has weight"
            f" {weights[at]}; expected a finite number, at least 0, that float32 can hold."
            f" {int(bad.sum())} such weights in all. Leave them out, or shift them if they are"
            " similarities."
        )
    loops, zeros = rows == columns, narrowed == 0
    kept = ~(loops | zeros)
    facts = {"self_loops": int(loops.sum()), "zeros": int((zeros & ~loops).sum())}
    if not kept.all():
        rows, columns, narrowed = rows[kept], columns[kept], narrowed[kept]
    return (
        rows.astype(np.int64, copy=False),
        columns.astype(np.int64, copy=False),
        narrowed.astype(np.float64),
        facts,
    )


def _first_repeated(rows: Ids, columns: Ids, nodes: int) -> tuple[int, int]:
    order = np.lexsort((columns, rows))
    same = (np.diff(rows[order]) == 0) & (np.diff(columns[order]) == 0)
    at = order[int(np.argmax(same))]
    return int(rows[at]), int(columns[at])


def _refuse_asymmetric(what: str, matrix: csr_matrix, reverse: csr_matrix) -> None:
    """InputError naming the first entry, by row and column, whose reverse is absent or differs."""
    apart = abs(matrix - reverse) > TOLERANCE * matrix.maximum(reverse)
    if apart.nnz:
        found = apart.tocoo()
        order = np.lexsort((found.col, found.row))
        i, j = int(found.row[order[0]]), int(found.col[order[0]])
        forward, back = (float(m[i, j]) or None for m in (matrix, reverse))
        refuse_directed(what, (i, j), (forward, back), apart.nnz)


def refuse_directed(
    what: str, edge: tuple[int, int], weights: tuple[float | None, float | None], count: int
) -> None:
    """InputError for a graph that is directed: the weight of (i, j) and that of (j, i), None where
    there is none, are not one."""
    (i, j), (forward, reverse) = edge, weights
    raise InputError(
        f"{what} is directed: ({i}, {j}) {_weight(forward)}, ({j}, {i}) {_weight(reverse)};"
        f" {count} entries have no equal reverse. Pass symmetrize='union' (an edge where there is"
        " one either way, with the larger weight) or 'mutual' (only where there are both, with the"
        " smaller)."
    )


def _weight(weight: float | None) -> str:
    return "is absent" if weight is None else f"has weight {weight:.9g}"


def refuse_duplicate(what: str, i: int, j: int, count: int) -> None:
    """InputError for edges that are named more than once."""
    raise InputError(
        f"{what} names edge ({i}, {j}) more than once; {count} edges repeat an earlier one. Pass"
        " duplicates='sum' to add their weights up."
    )


@dataclass(frozen=True, slots=True)
class LinksConfig:
    """A graph as its shards lie in the store. said: what its manifest's config and metrics say."""

    ranges: Ranges
    objects: tuple[Mapping[str, ObjectRef], ...]
    facts: tuple[Mapping[str, Json], ...]
    config: Json
    metrics: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        shards = [[objects[role].sha256 for role in sorted(objects)] for objects in self.objects]
        return {"nodes": self.ranges.nodes, "links": shards, "metrics": dict(self.metrics)}


def write_links(
    indptr: Ids,
    indices: Ids,
    weights: Float32,
    store: Store,
    *,
    config: Json,
    metrics: Mapping[str, Json],
) -> LinksConfig:
    """Write a canonical graph as shards. config: how it was made; metrics: what is known of it,
    "weights" among it."""
    ranges = Ranges.of(len(indptr) - 1, len(indices))

    def write(i: int) -> tuple[dict[str, ObjectRef], dict[str, Any]]:
        first, last = ranges.span(i)
        part = slice(int(indptr[first]), int(indptr[last]))
        local = np.asarray(indptr[first : last + 1] - indptr[first], np.int64)
        own = (np.asarray(indices[part], np.int64), np.asarray(weights[part], np.float32))
        return write_shard(store, ranges, i, local, *own)

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="simdist-links") as pool:
        written = list(pool.map(write, range(ranges.count)))
    objects, facts = zip(*written, strict=True)
    return LinksConfig(ranges, objects, facts, config, metrics)


class ImportLinks(Taskless):
    """Commits shards that lie in the store already; has no tasks."""

    name: ClassVar[str] = "import_graph"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: object) -> Round | Commit:
        config: LinksConfig = job.config
        written = list(zip(config.objects, config.facts, strict=True))
        return commit_of(config.ranges, written, config.metrics, config=config.config)
