"""Graph kernels run from end to end, their results as digests: what two CPUs must agree on.

python -m compiled.portable     one JSON object on stdout
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
from compiled.listing import coded, edges, vectors

from simdist.compiled import simd
from simdist.compiled.codes import Room, leaders_of, leaf_top
from simdist.compiled.joins import CodesAt, entered_in, join, name
from simdist.compiled.leaves import cell_leaves, random_state
from simdist.compiled.lists import empty_lists, entered, fill_short, joined, link
from simdist.types import Array, Float32, Ids

__all__ = ["digests"]

KEEP, WIDTH, LEAF = 16, 12, 150


def digests() -> dict[str, object]:
    """Every object a graph of some hundred rows leaves, by name; which kernels made them."""
    found: dict[str, object] = {"vnni": simd.VNNI}
    for rows, dim, kinds in ((300, 5, 0), (500, 70, 40), (170, 1024, 0)):
        rng = np.random.default_rng(rows)
        codes, facts = coded(vectors(rng, rows, dim, kinds=kinds))
        arrays = {"codes": codes, "facts": facts, **_graph(rng, codes, facts)}
        found |= {f"{name} {rows} x {dim}": _digest(array) for name, array in arrays.items()}
    return found


def _graph(rng: np.random.Generator, codes: Array, facts: Float32) -> dict[str, Array]:
    """Leaves, merged, two joins, filled."""
    rows = len(codes)
    room = Room(LEAF, codes.shape[1])
    lists = empty_lists(rows, KEEP)
    for _ in range(2):
        for leaf in np.array_split(rng.permutation(rows).astype(np.int32), -(-rows // LEAF)):
            best = np.empty((len(leaf), 10), np.int64)
            leaf_top(codes, facts, leaf, leaf, room, best)
            entered(leaf, best, lists)
    every = np.arange(rows, dtype=np.int32)
    found, best, _, _ = cell_leaves(
        codes, facts, every, room, random_state(rows), fanout=2, most=LEAF // 2, width=10
    )
    entered(found, best, lists)
    arrays: dict[str, Array] = {"leaves": lists.copy()}
    for turn in range(2):
        _joined(codes, facts, room, lists)
        arrays[f"join {turn}"] = lists.copy()
    fill_short(0, rows, lists, KEEP)
    leaders = rng.permutation(rows)[:50].astype(np.int32)
    near = np.empty((rows, 3), np.int32)
    leaders_of(codes, facts, np.arange(rows, dtype=np.int32), leaders, room, near)
    return {**arrays, "filled": lists, "leaders": near}


def _joined(codes: Array, facts: Float32, room: Room, lists: Ids) -> None:
    links = np.empty((len(lists), 2 * WIDTH), np.int32)
    link(lists, *edges(lists, WIDTH), WIDTH, links)
    among = name(0, links, links.size)
    theirs = lists[among.positions] & -2
    positions = among.positions
    named = codes[positions]
    join(links, among, CodesAt.of(named), facts[positions], room, theirs, WIDTH)
    rows, found = entered_in(positions, theirs)
    joined(lists, WIDTH)
    entered(rows, found[:, None], lists)


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


if __name__ == "__main__":
    json.dump(digests(), sys.stdout)
