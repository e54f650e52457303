"""The partition stage: every row in one place, near cells first, whatever the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stages.partitioning import partition_job, partitioned, vectors_dataset

from simdist.datasets import clusters, constant_columns, duplicates, hub_gaussian, two_far_clusters
from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError
from simdist.measures.surrogates import around
from simdist.partitions import Partition, measure_surrogate
from simdist.runner import Commit, Context, Job, Round, Rounds, run
from simdist.stages.partition import PartitionConfig, PartitionStage
from simdist.store import open_store
from simdist.types import Array


def gaussian(n: int, d: int, *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


DATA: dict[str, tuple[Array, dict[str, Any]]] = {
    "several blocks and shards": (gaussian(9000, 6), {"cuts": [100, 101, 5000]}),
    "half precision": (gaussian(600, 16).astype(np.float16), {"cuts": [300]}),
    "one row": (gaussian(1, 3), {}),
    "two rows in two shards": (gaussian(2, 3), {"cuts": [1]}),
    "one dimension": (gaussian(300, 1), {}),
    "fewer rows than cells": (gaussian(5, 4), {"cells": 40, "fanout": 16}),
    "as many cells as rows": (gaussian(64, 4), {"cells": 64}),
    "one cell": (gaussian(300, 4), {"cells": 1}),
    "all rows the same": (constant_columns(700, 5, varying=0), {"cuts": [350]}),
    "mostly duplicates": (duplicates(1500, 6, share=0.9), {}),
    "constant columns": (constant_columns(900, 12, varying=2), {}),
    "two far clusters": (two_far_clusters(900, 6).rows, {"cells": 12}),
    "a huge cell": (clusters(6000, 8, 1, spread=1e-3).rows, {"cells": 3, "fanout": 3}),
    "rows of very unequal length": (hub_gaussian(900, 8, sigma=2.0), {}),
}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
def test_a_partition_keeps_its_promises(data: str, measure: str) -> None:
    x, config = DATA[data]
    assert_partition(partitioned(x, measure, **config), x)


@pytest.mark.parametrize(
    "measure",
    ["dot", "manhattan", {"name": "scaled", "measure": "euclidean", "lengthscales": [1, 2, 3, 4]}],
    ids=["dot", "manhattan", "scaled"],
)
def test_measures_without_a_metric_of_their_own_are_partitioned_too(measure: Any) -> None:
    x = hub_gaussian(1200, 4)
    assert_partition(partitioned(x, measure, cuts=[500]), x)


def assert_partition(partition: Partition, x: Array) -> None:
    """Everything that simdist.partitions promises of a stored partition."""
    n, metrics = len(x), partition.dataset.metrics
    rows, cells, vectors = (
        np.concatenate([partition.array(b, role) for b in range(partition.blocks)])
        for role in ("rows", "cells", "vectors")
    )
    assert partition.rows == n
    assert [s.rows for s in partition.dataset.shards] == [
        last - first for first, last in map(partition.span, range(partition.blocks))
    ]
    assert partition.block_rows & (partition.block_rows - 1) == 0
    np.testing.assert_array_equal(np.sort(rows), np.arange(n))
    prepared = partition.measure.prepare(x[rows])
    np.testing.assert_array_equal(vectors, prepared.vectors)
    assert (np.diff(cells[:, 0]) >= 0).all(), "cell order goes by primary cell"
    assert_nearest(partition, prepared, cells)
    for rank in range(metrics["fanout"]):
        counted = np.bincount(cells[:, rank], minlength=metrics["cells"])
        np.testing.assert_array_equal(partition.sizes[:, rank], counted)
    assert metrics["largest_cell"] == partition.sizes[:, 0].max()
    for block in range(partition.blocks):
        assert_members(partition, block)


def assert_nearest(partition: Partition, prepared: Any, cells: Array) -> None:
    """Cells are distinct, nearest first, and none that is left out is nearer than the last."""
    measure = partition.measure
    surrogate = measure_surrogate(measure)
    near = prepared if surrogate == measure else surrogate.prepare(prepared.vectors)
    near = around(surrogate, near, partition.origin)
    exact = near.vectors.astype(np.float64) @ partition.leaders.vectors.T.astype(np.float64)
    exact += partition.leaders.terms
    assert cells.min() >= 0
    assert cells.shape[1] == min(partition.dataset.manifest.config["fanout"], exact.shape[1])
    assert all(len(set(row)) == len(row) for row in cells.tolist())
    taken = np.take_along_axis(exact, cells, axis=1)
    scale = np.abs(near.vectors).max() * np.abs(partition.leaders.vectors).max() + 1
    rounding = 1e-5 * scale * near.vectors.shape[1]
    assert (np.diff(taken, axis=1) <= rounding).all()
    np.put_along_axis(exact, cells, -np.inf, axis=1)
    assert (exact.max(axis=1) <= taken[:, -1] + rounding).all()


def assert_members(partition: Partition, block: int) -> None:
    """Members by cell say what the rows' cells say, with the right ranks, ascending."""
    cells, members, starts, ranks = (
        partition.array(block, role) for role in ("cells", "members", "starts", "ranks")
    )
    assert starts[0] == 0
    assert starts[-1] == len(members) == len(ranks) == cells.size
    cell = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    np.testing.assert_array_equal(cells[members, ranks], cell)
    same = np.diff(cell) == 0
    assert (np.diff(members)[same] > 0).all()


def test_rows_of_a_cell_lie_by_their_nearest_fine_leader() -> None:
    x = gaussian(4000, 2)
    partition = partitioned(x, "euclidean")
    rows = np.concatenate([partition.array(b, "rows") for b in range(partition.blocks)])
    cells = np.concatenate([partition.array(b, "cells") for b in range(partition.blocks)])[:, 0]
    apart = np.linalg.norm(np.diff(x[rows], axis=0), axis=1)[np.diff(cells) == 0].mean()
    by_cell_only = np.lexsort((np.arange(4000), cells[np.argsort(rows)]))
    shuffled = np.linalg.norm(np.diff(x[by_cell_only], axis=0), axis=1).mean()
    assert apart < 0.7 * shuffled


def test_all_engines_commit_the_same_partition(engine: Engine, tmp_path: Path) -> None:
    x = clusters(9000, 24, 30).rows
    source = vectors_dataset(x, cuts=[4000], store=open_store(tmp_path))
    found = run(partition_job(source), store=source.store, engine=engine)
    expected = partitioned(x, cuts=[4000])
    assert found.manifest.to_bytes() == expected.dataset.manifest.to_bytes()


def test_the_seed_draws_other_leaders_and_the_same_seed_the_same() -> None:
    x = gaussian(2000, 4)
    one, same, other = (partitioned(x, seed=seed) for seed in (0, 0, 1))
    assert one.dataset.manifest.to_bytes() == same.dataset.manifest.to_bytes()
    assert not np.array_equal(one.leaders.vectors, other.leaders.vectors)


def test_rows_of_zeros_are_refused_for_cosine_with_their_number() -> None:
    x = gaussian(50, 4)
    x[[17, 31]] = 0
    with pytest.raises(InputError, match=r"row 17 .* all zeros, which cosine cannot compare"):
        partitioned(x, "cosine", cuts=[10])
    assert_partition(partitioned(x, "euclidean"), x)


@pytest.mark.parametrize("config", [{"cells": 0}, {"fanout": 0}, {"fanout": 256}])
def test_settings_that_make_no_sense_are_refused(config: dict[str, int]) -> None:
    ((name, value),) = config.items()
    with pytest.raises(ConfigError, match=f"partition {name}={value}: expected"):
        PartitionConfig("cosine", **config)


class Counting(PartitionStage):
    """Counts the tasks it asks for."""

    def __init__(self) -> None:
        self.tasks = 0

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        step = super().next(job, rounds, context)
        self.tasks += len(step.tasks) if isinstance(step, Round) else 0
        return step


def test_the_forecast_is_near_what_happens() -> None:
    source = vectors_dataset(gaussian(9000, 6), cuts=[4000])
    stage = Counting()
    job = replace(partition_job(source), stage=stage)
    with open_engine("local", workers=1) as engine:
        dataset = run(job, store=source.store, engine=engine)
    forecast = stage.forecast(job.config, 9000, 6)
    assert 0.5 * stage.tasks <= forecast.tasks <= 2 * stage.tasks
    kept = sum(ref.nbytes for ref in dataset.manifest.refs())
    assert 0.5 * kept <= forecast.written <= 3 * kept
