"""Union-find: which nodes hang together, with the smallest node of each tree as its root.

A forest is an array `parent` of places; a root is its own parent. Trees are joined by hanging the
larger root below the smaller, and paths are halved as they are walked: nearly constant time an edge
(Tarjan & van Leeuwen, J. ACM 1984), and the root of a tree is its smallest member whatever the
order of the edges.
"""

from __future__ import annotations

import numpy as np

from simdist.compiled.kernel import fixed, kernel
from simdist.types import Ids

__all__ = ["join_across", "joined_pairs", "local_roots"]


def local_roots(indptr: Ids, indices: Ids, begin: int) -> Ids:
    """[rows] smallest row, counted from `begin`, that each row of a CSR shard is connected with
    through rows of the same shard."""
    parent = np.arange(len(indptr) - 1)
    _join_within(fixed(indptr, np.int64), fixed(indices, np.int64), begin, parent)
    _settle(parent)
    return parent


def join_across(
    indptr: Ids, indices: Ids, cursors: Ids, first: int, other: Ids, own: Ids
) -> tuple[Ids, Ids]:
    """(places [p], roots [p]) that the edges between a CSR shard and one before it tell.

    first: first row of that other shard. other, own: `local_roots` of the two. A place counts the
    other's rows first, then the own; a place that is not named is its own root. cursors: [rows],
    moved past the other's columns.
    """
    parent = np.arange(len(other) + len(own))
    parts = (fixed(indptr, np.int64), fixed(indices, np.int64), cursors)
    _join_between(*parts, first, fixed(other, np.int64), fixed(own, np.int64), parent)
    _settle(parent)
    places = np.flatnonzero(parent != np.arange(len(parent)))
    return places, parent[places]


def joined_pairs(left: Ids, right: Ids) -> tuple[Ids, Ids]:
    """(nodes [p], roots [p]) that pairs of connected nodes tell, nodes ascending; nodes that are
    their own root are left out. left, right: [q] any numbers."""
    nodes, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    parent = np.arange(len(nodes))
    _join_pairs(fixed(places[: len(left)], np.int64), fixed(places[len(left) :], np.int64), parent)
    _settle(parent)
    hung = np.flatnonzero(parent != np.arange(len(parent)))
    return nodes[hung], nodes[parent[hung]]


@kernel
def _root(parent: Ids, place: int) -> int:
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place


@kernel
def _join(parent: Ids, a: int, b: int) -> None:
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
    else:
        parent[a] = b


@kernel
def _settle(parent: Ids) -> None:
    """Every place below its root. Parents are smaller, so one pass does."""
    for place in range(len(parent)):
        parent[place] = parent[parent[place]]


@kernel
def _join_within(indptr: Ids, indices: Ids, begin: int, parent: Ids) -> None:
    for r in range(len(parent)):
        for e in range(indptr[r], indptr[r + 1]):
            column = indices[e] - begin
            if column >= r:  # its other half has been joined, or lies before this shard
                if column >= len(parent):
                    break
                _join(parent, r, column)


@kernel
def _join_between(
    indptr: Ids, indices: Ids, cursors: Ids, first: int, other: Ids, own: Ids, parent: Ids
) -> None:
    last = first + len(other)
    for r in range(len(own)):
        e = cursors[r]
        while e < indptr[r + 1] and indices[e] < last:
            _join(parent, other[indices[e] - first], len(other) + own[r])
            e += 1
        cursors[r] = e


@kernel
def _join_pairs(left: Ids, right: Ids, parent: Ids) -> None:
    for q in range(len(left)):
        _join(parent, left[q], right[q])
