"""The same bytes for any number of workers and any memory; the seed alone moves them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from stages.graph.nasty import committed, duplicates, random

from simdist.engine import Engine, open_engine
from simdist.models.graphs import GraphDataset
from simdist.stages.graph import KnnParams
from simdist.types import Array

LEVELS = KnnParams(fanout=1, links=2, joins=0, keep=10, leaf_rows=32)

JOBS: dict[str, tuple[Array, dict[str, Any]]] = {
    "approximate": (random(1500, 12), {"k": 10, "measure": "cosine"}),
    "every level": (random(700, 24), {"k": 10, "recall": 0.9999, "params": LEVELS}),
    "copies": (duplicates(1500, 12, share=0.6), {"k": 10, "measure": "euclidean"}),
    "exact": (duplicates(700, 12), {"k": 10, "measure": "euclidean", "method": "exact"}),
}


def digest(made: GraphDataset) -> str:
    """The manifest's bytes: it names every object by its sha256."""
    return hashlib.sha256(made.manifest.to_bytes()).hexdigest()


@pytest.mark.parametrize("job", JOBS)
def test_workers_and_memory_do_not_move_a_bit(job: str, one_thread: Engine):
    x, options = JOBS[job]
    alone = committed(x, one_thread, **options)
    with open_engine("local", workers=2, memory="300MiB") as two:
        together = committed(x, two, **options)
    with open_engine("local", workers=3, memory="4GiB") as three:
        again = committed(x, three, **options)
    assert digest(alone) == digest(together) == digest(again)


def test_the_seed_moves_the_graph_and_the_same_seed_does_not(one_thread: Engine):
    x = random(1500, 24)
    weak = KnnParams(fanout=2, links=4, joins=1)
    made = [
        committed(x, one_thread, k=10, recall=None, seed=seed, params=weak) for seed in (0, 0, 1)
    ]
    assert digest(made[0]) == digest(made[1])
    assert made[0].fingerprint != made[2].fingerprint
    assert (made[0].open().indices != made[2].open().indices).any()


def test_the_order_of_rows_in_shards_is_the_order_of_the_table(one_thread: Engine):
    x = random(700, 6)
    made = committed(x, one_thread, k=4, recall=None)
    rows = [
        row
        for shard in made.manifest.shards
        for row in made.store.read_table(shard.objects["graph"], ["row"])["row"].to_pylist()
    ]
    assert sorted(rows) == list(range(700))
    assert [shard.rows for shard in made.manifest.shards] == [
        made.store.read_table(shard.objects["graph"]).num_rows for shard in made.manifest.shards
    ]
