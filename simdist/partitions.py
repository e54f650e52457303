"""A stored partition: rows in cell order, and which cells each row is near.

    leaders [C, d] ── nearest F ──> cells of a row, nearest first; the first is its primary cell
    cell order: rows sorted by (primary cell, nearest fine leader within it, row)
    block b   = positions [b * block_rows, (b + 1) * block_rows) of cell order, an array of its own

What reads it (the k-NN graph, retrieval, later joins and sparse attention) works on *positions* in
cell order: rows that are near lie near, so what is fetched together lies together. A dataset row's
number is `rows[position]`.

Each block of the stored dataset (one shard) has the objects

    vectors  [m, d] float32   rows prepared for the partition's measure
    terms    [m] float32      additive terms of the measure's GEMM form; absent where zero
    codes    [m, d'] int8     the rows around their centre, in 255 steps, where the measure has a
    facts    [m, 3] float32     GEMM form: simdist.compiled.codes; d' is d to whole cache lines
    rows     [m] int64        dataset row of each position
    cells    [m, F] int32     nearest cells, nearest first; -1 where there are fewer than F
    members  [e] int32        block-local positions, by cell: those of cell c at
    starts   [C + 1] int64      members[starts[c]:starts[c + 1]]
    ranks    [e] uint8        which of its nearest cells (0 = primary) makes the member one

and the dataset as a whole `leaders` [C, d] (prepared), `leader_terms`, `centre` [d] float64 (around
which rows are coded) and `sizes` [C, F] int64: how many rows have cell c as their nearest, second
nearest, ...

A partition *in place* has no `vectors`, `terms` and `cells`, which a graph can do without: its rows
lie in this process's memory, in dataset order, and are prepared anew whenever they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from simdist.errors import ObjectMissing
from simdist.measures import Prepared, resolve
from simdist.measures.base import Measure
from simdist.measures.in_place import InPlace
from simdist.measures.surrogates import around
from simdist.runner.resident import keep_within
from simdist.store.datasets import Dataset
from simdist.types import Array, Float32, Float64, Ids, Int32, ObjectRef

if TYPE_CHECKING:
    from simdist.compiled.blocks import Blocks

__all__ = [
    "FANOUT",
    "LOOKED_UP_NBYTES",
    "SLICE",
    "Blocked",
    "Partition",
    "as_surrogate",
    "block_rows",
    "cell_count",
    "forget",
    "has_codes",
    "matrix_in_memory",
    "measure_surrogate",
    "nearest_cells",
    "nearest_leaders",
    "order_leaders",
    "power_of_two",
    "terms_of",
]

FANOUT = 8  # nearest cells kept for each row: what a graph's last effort joins
PARTITIONS_OPEN = 4  # kept mapped per process, so that tasks share them
BLOCK_NBYTES = 32 << 20
MIN_BLOCK_ROWS = 4096
SLICE = 4096  # rows compared with the leaders at once
LOOKED_UP_NBYTES = 3 << 20  # of rows in place that are prepared at once
BLOCKS_WANTED = 4  # keeps a few workers busy on small data; joins copy less for larger ones


def cell_count(rows: int) -> int:
    """How many cells the rows are assigned to by default: sqrt(n) / 4, so that assigning rows to
    cells and splitting cells into leaves cost about the same."""
    return max(1, round(math.sqrt(rows) / 4))


def block_rows(rows: int, dim: int) -> int:
    """Rows of a block: a power of two, at most about 32 MiB of float32, and small enough that small
    data still gives several blocks. Follows from n and d alone."""
    largest = power_of_two(BLOCK_NBYTES // (4 * dim))
    wanted = 2 * power_of_two(max(rows // BLOCKS_WANTED - 1, 1))
    return max(min(largest, wanted), min(largest, MIN_BLOCK_ROWS), 1)


def power_of_two(at_most: int) -> int:
    """The largest power of two that is no larger than `at_most`, at least 1."""
    return 1 << max(at_most.bit_length() - 1, 0)


def has_codes(measure: Measure) -> bool:
    """Whether rows are also kept as int8 codes: what is near is what lies near, as a GEMM tells."""
    return measure.traits.gemm and measure_surrogate(measure) == measure


def measure_surrogate(measure: Measure) -> Measure:
    """The measure cells are formed under: the measure itself where its nearest leader is a sensible
    home (cosine, L2 and what is built on them), else squared euclidean on the same prepared rows.

    An inner product is no home: the leader with the largest norm would collect every row.
    """
    return measure.surrogate()


class Blocked(Protocol):
    """What a task's bytes follow from: a partition, or one that is only planned."""

    @property
    def rows(self) -> int: ...
    @property
    def dim(self) -> int: ...
    @property
    def block_rows(self) -> int: ...
    @property
    def measure(self) -> Measure: ...


@dataclass(frozen=True)
class Partition:
    """Read access to a stored partition; arrays are memory-mapped, read-only, checked once."""

    dataset: Dataset

    @classmethod
    def of(cls, dataset: Dataset) -> Partition:
        """The partition of a dataset, its opened blocks shared by all tasks of this process."""
        key = (dataset.store.uri, dataset.fingerprint)
        found = _opened.get(key)
        if found is None:
            while len(_opened) >= PARTITIONS_OPEN:
                _opened.pop(next(iter(_opened)), None)
            found = _opened.setdefault(key, cls(dataset))
        return found

    @cached_property
    def measure(self) -> Measure:
        return resolve(self.dataset.manifest.config["measure"])

    @property
    def rows(self) -> int:
        return self.dataset.rows

    @property
    def dim(self) -> int:
        return int(self.dataset.manifest.metrics["dim"])

    @property
    def block_rows(self) -> int:
        return int(self.dataset.manifest.metrics["block_rows"])

    @property
    def blocks(self) -> int:
        return len(self.dataset.manifest.shards)

    def span(self, block: int) -> tuple[int, int]:
        """First position of a block, and the one after its last."""
        first = block * self.block_rows
        return first, min(first + self.block_rows, self.rows)

    def array(self, block: int, role: str) -> Array:
        """One object of one block."""
        return self.dataset.store.read_array(self.dataset.manifest.shards[block].objects[role])

    @cached_property
    def origin(self) -> Float32 | None:
        """From where leaders and rows are compared; None where that is the origin."""
        objects = self.dataset.manifest.objects
        return self.dataset.store.read_array(objects["origin"]) if "origin" in objects else None

    @property
    def in_place(self) -> bool:
        """Whether rows stay where the vectors dataset has them: see the module docstring."""
        return bool(self.dataset.manifest.config.get("in_place", False))

    @cached_property
    def has_terms(self) -> bool:
        return "terms" in self.dataset.manifest.shards[0].objects

    def block(self, block: int) -> Prepared:
        """The prepared rows of a block; copies of them where they are in place."""
        if self.in_place:
            return self.take(np.arange(*self.span(block)))
        terms = self.array(block, "terms") if self.has_terms else None
        return Prepared(self.array(block, "vectors"), terms)

    def pieces(self, block: int) -> Iterator[tuple[Prepared, Ids]]:
        """(rows, their dataset rows) of a block, as many at once as rows in place are looked up."""
        first, last = self.span(block)
        for start in range(first, last, self._looked_up):
            positions = np.arange(start, min(start + self._looked_up, last))
            yield self.take(positions), self.numbers.take(positions)

    @property
    def coded(self) -> bool:
        """Whether rows have codes: the measure has a GEMM form."""
        return "codes" in self.dataset.manifest.shards[0].objects

    @cached_property
    def sizes(self) -> Ids:
        """[C, F]: how many rows have cell c as their nearest, second nearest, ..."""
        return self.dataset.store.read_array(self._object("sizes"))

    @cached_property
    def centre(self) -> Float64:
        """[d] around which rows are coded."""
        return self.dataset.store.read_array(self._object("centre"))

    @cached_property
    def leaders(self) -> Prepared:
        """The cells' leaders, prepared for the surrogate measure."""
        objects = self.dataset.manifest.objects
        terms = self.dataset.store.read_array(objects["leader_terms"])
        return Prepared(self.dataset.store.read_array(objects["leaders"]), terms)

    def members(self, cells: range, ranks: int) -> list[Int32]:
        """Positions of the rows that have each cell among their `ranks` nearest, ascending."""
        found: list[list[Int32]] = [[] for _ in cells]
        for block in range(self.blocks):
            keep_within()
            starts = self.array(block, "starts")
            low, high = starts[cells.start], starts[cells.stop]
            if low == high:
                continue
            members = self.array(block, "members")[low:high]
            keep = self.array(block, "ranks")[low:high] < ranks
            first, _ = self.span(block)
            for place, cell in enumerate(cells):
                part = slice(starts[cell] - low, starts[cell + 1] - low)
                chosen = members[part][keep[part]]
                if len(chosen):
                    found[place].append((chosen + first).astype(np.int32))
        return [np.concatenate(parts) if parts else np.empty(0, np.int32) for parts in found]

    @cached_property
    def _vectors(self) -> Blocks:
        """All prepared vectors, by position."""
        return self._blocks("vectors")

    @cached_property
    def rows_in_place(self) -> InPlace:
        """All rows by dataset row, of a partition in place."""
        store, fingerprint = self.dataset.store, self.dataset.manifest.inputs["vectors"]
        manifest = store.manifest(fingerprint)
        rows = None if manifest is None else matrix_in_memory(Dataset(store, manifest))
        if rows is None:
            raise ObjectMissing(
                f"{self.dataset.uri} has its rows in {fingerprint} of {store.uri}, which are not"
                " in this process's memory"
            )
        return self.measure.in_place(rows)

    @cached_property
    def _terms(self) -> Blocks | None:
        """All additive terms, by position; None where they are zero."""
        return self._blocks("terms") if self.has_terms else None

    @property
    def _looked_up(self) -> int:
        """How many rows in place are prepared at once."""
        return max(LOOKED_UP_NBYTES // (4 * self.dim), 1)

    @cached_property
    def numbers(self) -> Blocks:
        """Dataset row of every position."""
        return self._blocks("rows")

    def take(self, positions: Array) -> Prepared:
        """Copies of the prepared rows at `positions`, in that order, taken block by block: what
        lies all over the data set must not stay mapped all at once."""
        if self.in_place:
            return self.rows_in_place.take(self.numbers.take(positions))
        terms = None if self._terms is None else self._terms.take(positions, between=keep_within)
        return Prepared(self._vectors.take(positions, between=keep_within), terms)

    def visits(self, positions: Int32) -> Iterator[tuple[Ids, Prepared, Int32]]:
        """The prepared rows at `positions` [m], some at a time: (places in `positions`, rows, which
        of these rows each place names). All places, each once.

        Block by block, as they are mapped; in place copies, of each distinct row of a visit one.
        """
        if self.in_place:
            yield from self._looked_up_at(positions)
            return
        for block, chosen in self._vectors.visits(positions):
            keep_within()
            terms = None if self._terms is None else self._terms.arrays[block]
            rows = Prepared(self._vectors.arrays[block], terms)
            yield chosen, rows, positions[chosen] - np.int32(self.span(block)[0])

    def _looked_up_at(self, positions: Int32) -> Iterator[tuple[Ids, Prepared, Int32]]:
        from simdist.compiled.distinct import distinct  # noqa: PLC0415 - numba only on workers

        start = 0
        while start < len(positions):
            rows, which = distinct(positions[start:], self._looked_up)
            yield np.arange(start, start + len(which)), self.take(rows), which
            start += len(which)

    @cached_property
    def codes(self) -> Blocks:
        """All codes, by position."""
        return self._blocks("codes")

    @cached_property
    def facts(self) -> Blocks:
        """What belongs to each code, by position."""
        return self._blocks("facts")

    def take_codes(
        self, positions: Array, *, between: Callable[[], None] = keep_within
    ) -> tuple[Array, Float32]:
        """Copies of the codes [m, d'] int8 and facts [m, 3] of the rows at `positions`, in that
        order. between: called before each block is visited."""
        from simdist.compiled.simd import aligned  # noqa: PLC0415 - numba only on workers

        nbytes = self.codes.arrays[0].shape[1]
        codes = aligned(len(positions) * nbytes, np.int8).reshape(len(positions), nbytes)
        self.codes.take(positions, between=between, out=codes)
        return codes, self.facts.take(positions, between=between)

    def _blocks(self, role: str) -> Blocks:
        from simdist.compiled.blocks import Blocks  # noqa: PLC0415 - numba only where rows are read

        return Blocks.of([self.array(b, role) for b in range(self.blocks)], self.block_rows)

    def _object(self, role: str) -> ObjectRef:
        return self.dataset.manifest.objects[role]


def matrix_in_memory(dataset: Dataset) -> Float32 | None:
    """The vectors of a dataset as one float32 matrix, by row, where they lie in this process's
    memory one after the other; else None."""
    refs = [shard.objects["vectors"] for shard in dataset.manifest.shards]
    if dataset.metrics["dtype"] != "float32" or not all(map(dataset.store.holds, refs)):
        return None
    first, *others = arrays = [dataset.store.read_array(ref) for ref in refs]
    ends = [array.ctypes.data + array.nbytes for array in arrays]
    one = all(array.base is first.base for array in others)  # and not by chance side by side
    if not one or [array.ctypes.data for array in others] != ends[:-1]:
        return None
    shape = (dataset.rows, first.shape[1])
    return np.lib.stride_tricks.as_strided(first, shape, first.strides, writeable=False)


_opened: dict[tuple[str, str], Partition] = {}


def forget(uri: str) -> None:
    """Let go of the partitions of a store that is about to be removed: a mapped file keeps its
    disk space."""
    for key in [key for key in _opened if key[0] == uri]:
        _opened.pop(key, None)


def order_leaders(vectors: Float32) -> Ids:
    """An order in which neighbouring leaders are near: bisection along the line between two far
    points, halves ordered in turn. vectors: [m, d]; returns [m] a permutation."""
    ordered: list[Ids] = []
    stack = [np.arange(len(vectors))]
    while stack:
        chosen = stack.pop()
        if len(chosen) <= 2:
            ordered.append(chosen)
            continue
        rows = vectors[chosen]
        far = rows[np.argmax(((rows - rows.mean(axis=0)) ** 2).sum(axis=1))]
        other = rows[np.argmax(((rows - far) ** 2).sum(axis=1))]
        along = np.argsort(rows @ (other - far), kind="stable")
        half = len(chosen) // 2
        stack.append(chosen[along[half:]])
        stack.append(chosen[along[:half]])
    return np.concatenate(ordered)


def as_surrogate(surrogate: Measure, measure: Measure, rows: Prepared) -> Prepared:
    """Rows prepared for a measure, made ready for the surrogate of it."""
    return rows if surrogate == measure else surrogate.prepare(rows.vectors)


def terms_of(rows: Prepared) -> Float32:
    """Additive terms, zeros where there are none."""
    return np.zeros(len(rows), np.float32) if rows.terms is None else rows.terms


def nearest_leaders(
    rows: Prepared,
    leaders: Prepared,
    count: int,
    *,
    check: Callable[[], None] | None = None,
) -> Int32:
    """[n, count] nearest leaders of every row, nearest first; -1 where there are fewer. Both are
    prepared for one surrogate measure."""
    from simdist.compiled.assign import nearest_columns  # noqa: PLC0415 - numba only on workers

    out = np.empty((len(rows), count), np.int32)
    terms = terms_of(leaders)
    for start in range(0, len(rows), SLICE):
        if check is not None:
            check()
        part = slice(start, start + SLICE)
        nearest_columns(rows.vectors[part] @ leaders.vectors.T, terms, out[part])
    return out


def nearest_cells(
    partition: Partition,
    rows: Prepared,
    count: int,
    *,
    check: Callable[[], None] | None = None,
) -> Int32:
    """[n, count] nearest cells of rows prepared for the partition's measure."""
    surrogate = measure_surrogate(partition.measure)
    near = as_surrogate(surrogate, partition.measure, rows)
    near = around(surrogate, near, partition.origin)
    return nearest_leaders(near, partition.leaders, count, check=check)
