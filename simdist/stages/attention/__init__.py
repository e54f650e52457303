"""Attention of queries over keys, all stored datasets: exact, in tasks that hold a panel of keys.

    fold     queries of a block against keys of a group: states       task per (block, group)
    merge-*  64 states of a block together, where there are more      task per (block, 64 groups)
    finish   states of a block together ──> output and logsumexp      task per block

    config   what is asked; how many rows a block and a group have
    sides    queries, keys and values of a task, read from their datasets
    fold     the tasks
    story    which round follows which, the forecast and the manifest

A state is (largest logit, sum of exponentials, weighted sum of values) for every query and head, in
float64, and travels through the store. States merge in plan order. Positions (of causal masks, of a
row itself) are rows of the datasets, wherever they lie.
"""

from simdist.stages.attention.config import AttentionConfig
from simdist.stages.attention.story import AttentionStage

__all__ = ["AttentionConfig", "AttentionStage"]
