"""Stage `connected_components`: which nodes of a graph hang together, exactly.

    forest   trees within a shard's own rows               task per shard
    cross    edges to earlier shards, between such trees   task per shard
    merge    pairs of trees joined, a few tasks' at once   tasks, fewer in each round
    roots    every node's component, by its first node     task per shard
    labels   the same, numbered 0, 1, ... by first node    task per shard
    sizes    how many nodes each component has             task per shard

    stage.py   the rounds, their tasks and the commit

A graph of one shard takes a single task.
"""

from simdist.stages.components.stage import ComponentsConfig, ConnectedComponents

__all__ = ["ComponentsConfig", "ConnectedComponents"]
