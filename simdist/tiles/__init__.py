"""HOW a block of the matrix is folded: tiles, and what is kept of them.

                     Y (or X again)
                 ┌──────┬──────┬──────┐
               X │ tile │      │      │   one GEMM, one pass of selection or summing, forgotten
                 ├──────┼──────┼──────┤
                 │      │      │      │──> reducer.update(state, tile, rows, columns)
                 └──────┴──────┴──────┘          state ──merge──> state ──finalize──> result

- `fold(measure, X, Y, reducer)`: every pair. With Y=None each pair is computed once and folded on
  both sides. `fold_pair` is the same for two blocks of one set: what a distributed task does.
- `fold_candidates(measure, X, Y, candidates, reducer)`: only listed pairs.
- `TopK`, `Softmax`, `Gram`: reducers, each a commutative monoid; the laws they obey are
  `simdist.testing.ReducerLaws`.
- `exact`: lists from float32 tiles recomputed with one fixed kernel, with a certificate per row.
- `threshold`: every pair beyond a threshold, screened by codes whose error is bounded.
- `memory`: what a fold will hold, in bytes, before it runs.

Nothing n x m is ever held: a fold takes one tile and its states. Rows and columns are global ids.
May import measures, compiled, errors and types; knows no engine, no store, no stage. Serial inside:
threads belong to the engine, and a BLAS call uses as many as the engine has set. Compiled kernels
are imported when a fold runs, so importing this package stays cheap.
"""

from simdist.tiles.candidates import Candidates, fold_candidates
from simdist.tiles.fold import fold, fold_pair
from simdist.tiles.gram import Gram, GramState
from simdist.tiles.reducers import Reducer
from simdist.tiles.shape import Tile
from simdist.tiles.softmax import Attended, Softmax, SoftmaxState
from simdist.tiles.topk import TopK, TopKState

__all__ = [
    "Attended",
    "Candidates",
    "Gram",
    "GramState",
    "Reducer",
    "Softmax",
    "SoftmaxState",
    "Tile",
    "TopK",
    "TopKState",
    "fold",
    "fold_candidates",
    "fold_pair",
]
