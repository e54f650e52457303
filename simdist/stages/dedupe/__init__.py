"""Stages `distinct_rows` and `deduplicate`: near-duplicates removed, and what stands for them.

    vectors ── distinct_rows ──> one row of each kind ── similarity_join ──> pairs ─┐
                    │ which rows are equal                  [against ── pairs] ─────┤
                    └───────────────────────────────────────────────────────────────┤
                                                                                    v
    row, id, kept, group, value  <── deduplicate: spread ─> gather ─> [rank] ─> [order] ─┐
                ^                                                                        v
                └── list <── sizes <── finish <── settle <── leaders | components ── cap ┘

    config.py      what is asked for
    distinct.py    exact duplicates collapsed, by hash and then by comparison
    exchange.py    pairs to the shards of both of their rows; looking things up across shards
    order.py       which row comes first; every row's neighbours in that order
    leaders.py     the greedy answer, in rounds
    groups.py      connected components, and which of them are too wide
    finish.py      from distinct rows back to all rows; sizes of groups, the largest shown
    story.py       which round follows which

Rows are *nodes* here, of the set that was joined: of distinct rows where there are copies.
"""

from simdist.stages.dedupe.config import DedupeConfig, DistinctConfig
from simdist.stages.dedupe.distinct import DistinctRows
from simdist.stages.dedupe.story import Deduplicate

__all__ = ["DedupeConfig", "Deduplicate", "DistinctConfig", "DistinctRows"]
