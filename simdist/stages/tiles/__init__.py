"""Stage `similarity_tiles`: the matrix itself, block by block, as a Zarr v3 array.

    columns  0   1   2             one task per block pair: the pair's values once, and both of its
           ┌───┬───┬───┐           shards written by the task that has them, block (i, j) and its
    rows 0 │ ◆ │ ● │ ● │           transpose (j, i)
           ├───┼───┼───┤
         1 │ ○ │ ◆ │ ● │           ◆  a block against itself   ●, ○  a pair and its transpose
           ├───┼───┼───┤
         2 │ ○ │ ○ │ ◆ │           x against y, or a measure that is not symmetric: every block is
           └───┴───┴───┘           computed for itself

    arrays/{fingerprint}/similarity/c/{i}/{j}    one Zarr shard per block, chunks inside
                         row/c/0, column/c/0     ids, as coordinates
                         .../zarr.json, zarr.json       last: before them there is nothing to open

    config   what is asked, and what is refused     grid     blocks: shape, tasks, bytes
    values   the numbers of a block                 encode   the bytes zarr would write for it
    stage    rounds, tasks, manifest                reader   what the manifest vouches for, to zarr

zarr is an extra (`simdist[zarr]`), imported where bytes are made or read. The same blocks give the
same bytes with one version of zarr and its zstd, whoever writes them and however often.
"""

from simdist.stages.tiles.config import MAX_NBYTES, TilesConfig, refuse_too_large
from simdist.stages.tiles.stage import SimilarityTiles

__all__ = ["MAX_NBYTES", "SimilarityTiles", "TilesConfig", "refuse_too_large"]
