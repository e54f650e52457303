"""Affinity propagation on the edges of a graph alone: O(entries) messages, exemplars as clusters.

    graph ──> start ──> send ──> collect ──> send ──> collect ... ──> choose ──> finish
              columns   r, a by    sums by                exemplars      every row's exemplar
                        row shard  column

    messages   responsibilities and availabilities of a run of rows, pure
    turns      the rounds of messages, and when they have settled
    exemplars  from messages to exemplars and labels; the second round, among exemplars
    stage      which round follows which, and the commit

A responsibility r(i, k) lies with row i. What column k asks of all of them is one number, the sum
of max(0, r(i, k)): each shard adds up what its rows say of every column they have, and the shard
that owns the column adds the shards' sums. So no message is ever transposed; what crosses the
network in a turn is two numbers for each column a shard has.
"""

from simdist.stages.affinity.config import AffinityConfig
from simdist.stages.affinity.stage import AffinityPropagationStage

__all__ = ["AffinityConfig", "AffinityPropagationStage"]
