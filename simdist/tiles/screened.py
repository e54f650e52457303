"""The exact k nearest of some rows among many columns, most of which are ruled out by int8 codes.

    every STRIDE-th column ──float32──> k of them: the bar of each row
    all columns ──codes and their bound──> candidates ──fixed kernel──> what reaches the bar ──> k

The bar is the k-th best value of a part of the columns, so k columns reach it and no other can
belong to the k. What a code leaves out is bounded (simdist.compiled.screen), so no column that
reaches the bar is missed, and the answer is the one that simdist.tiles.exact defines.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from simdist.measures.base import Measure, Prepared
from simdist.measures.surrogates import around, middle
from simdist.tiles.candidates import PAIRS
from simdist.tiles.exact import Nearest, key_error, nearest, reach, signed, useful_key
from simdist.tiles.fold import Check
from simdist.tiles.topk import TopK
from simdist.types import Ids

__all__ = [
    "STRIDE",
    "large_enough",
    "nearest_of_pieces",
    "nearest_screened",
    "screened_nbytes",
    "worth_screening",
]

Piece: TypeAlias = tuple[Prepared, Ids]

STRIDE = 16  # of the columns that set the bar: fewer of them let more candidates through
FEWEST_ROWS = 256  # that pay for coding the columns
FEWEST_COLUMNS = 8192
MOST_REACHED = 8  # times what is expected: duplicates, which products tell at once
LEFT_OVER = 1 / 16  # of the pairs: more candidates than that cost more than a product
CODE_CHUNK = 64  # bytes: codes are whole cache lines
FEWEST_LOOKED = 256  # columns before what they let through says anything
MOST_DIM = 1 << 17  # products of longer codes could be beyond 2^31


def worth_screening(measure: Measure, rows: int, columns: int, dim: int, k: int) -> bool:
    """Whether codes are quicker than products, by and large: a rule of shapes and of the CPU."""
    if not (measure.traits.gemm and large_enough(rows, columns, k) and dim <= MOST_DIM):
        return False
    from simdist.compiled.screen import VNNI  # noqa: PLC0415 - numba only where needed

    return VNNI


def large_enough(rows: int, columns: int, k: int) -> bool:
    """Whether there is enough to compare for codes to pay."""
    return rows >= FEWEST_ROWS and columns >= max(FEWEST_COLUMNS, 4 * STRIDE * k)


def screened_nbytes(rows: int, columns: int, dim: int, k: int) -> int:
    """What `nearest_screened` holds at most beside the rows it is given."""
    codes = (rows + columns) * (-(-dim // CODE_CHUNK) * CODE_CHUNK + 64)
    bars = -(-columns // STRIDE) * (4 * dim + 4)
    return codes + bars + 24 * k * rows + 100 * PAIRS + (4 << 20)


def nearest_screened(
    measure: Measure,
    A: Prepared,
    B: Prepared,
    k: int,
    *,
    rows: Ids,
    columns: Ids,
    exclude_self: bool,
    check: Check | None,
) -> Nearest | None:
    """The k nearest of each row, as `exact.nearest` gives them; None where codes let too much
    through, so that products are quicker.

    A: [n, d], B: [m, d], rows, columns: their global ids.
    """
    some = np.arange(0, len(B), STRIDE)
    return nearest_of_pieces(
        measure,
        A,
        k,
        rows=rows,
        some=(B.take(some), columns[some]),
        pieces=[(B, columns)],
        exclude_self=exclude_self,
        check=check,
    )


def nearest_of_pieces(
    measure: Measure,
    A: Prepared,
    k: int,
    *,
    rows: Ids,
    some: Piece,
    pieces: Iterable[Piece],
    exclude_self: bool = True,
    check: Check | None = None,
) -> Nearest | None:
    """As `nearest_screened`, of columns that come in pieces, one after the other.

    A: [n, d] prepared; rows: their global ids. some: every STRIDE-th column, more than k of them,
    and pieces: all columns; (prepared [m, d], ids [m]) each.
    """
    from simdist.compiled.screen import Screen, encode  # noqa: PLC0415 - numba only where needed

    Y, ids = some
    first = nearest(
        measure, A, Y, k, rows=rows, columns=ids, exclude_self=exclude_self, check=check
    )
    bars = signed(measure, first.values[:, -1])
    origin = middle(measure, Y)
    near = around(measure, A, origin)
    centre = around(measure, Y, origin).vectors.mean(axis=0, dtype=np.float64)
    coded = encode(near.vectors, near.terms, centre)
    topk = TopK(k, exclude_self=exclude_self)
    state, reached, seen, looked = topk.init(rows), 0, 0, 0
    most = MOST_REACHED * STRIDE * k * len(A)
    for B, columns in pieces:
        beside = around(measure, B, origin)
        floors = useful_key(measure, key_error(measure, near, reach(beside)), bars)
        against = encode(beside.vectors, beside.terms, centre)
        tiles = Screen(coded, against, floors.astype(np.float64), above=False)
        room = np.empty((2, max(PAIRS, tiles.room)), np.int32)
        for start in range(0, len(B), tiles.size):
            for count in tiles.batches(start, room):
                if check is not None:
                    check()
                at, positions = room[:, :count]
                keys = signed(measure, measure.pairs_at(A, at, B, positions))
                good = np.flatnonzero(keys >= bars[at])
                ends = np.append(0, np.cumsum(np.bincount(at[good], minlength=len(A))))
                topk.update_lists(state, keys[good], ends, rows, columns[positions[good]])
                seen += count
                reached += len(good)
            looked += tiles.pairs(start)
            if reached > most or seen > LEFT_OVER * max(looked, len(A) * FEWEST_LOOKED):
                return None
    return Nearest(signed(measure, state.keys), state.ids)
