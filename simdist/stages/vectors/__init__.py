"""The stage `import_vectors`: files of vectors become a dataset named by its content.

    request     what to import: files and columns, told before any is read
    sources     a path, glob or prefix ──> sorted listing (uri, size, etag, Hive columns)
    formats     one file ──> rows, parts that can be read alone, schema; small batches
    checking    a batch ──> vectors, ids, kept columns, or a refusal naming file and row
    survey      all files ──> one numbering of rows, and the cut into tasks
    shards      batches of any length ──> shards of one length; hashes of ids
    duplicates  hashes, bucket by bucket ──> the first id that appears twice
    known       files that an earlier import has read: their rows come from its shards
    stage       rounds survey, read, ids, remember, and the commit
    arrays      an array's shards, written where it is and committed without a task

Memory follows d and the kept columns, never the files: rows stream from the file's pages into the
shard being filled, and no task sees all ids.
"""

from simdist.stages.vectors.arrays import ArrayConfig, ImportArray, write_shards
from simdist.stages.vectors.request import ImportConfig, Summary, describe, scan
from simdist.stages.vectors.stage import ImportVectors, forecast

__all__ = [
    "ArrayConfig",
    "ImportArray",
    "ImportConfig",
    "ImportVectors",
    "Summary",
    "describe",
    "forecast",
    "scan",
    "write_shards",
]
