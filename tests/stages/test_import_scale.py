"""What lets an import grow: memory that follows d, whole-shard tasks, ids checked by buckets."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.importing import bring_in, fresh_store, matrix, parquet, table, vectors_in

from simdist.engine import open_engine
from simdist.runner import Job, run
from simdist.runner.plan import Task
from simdist.stages.vectors import ImportVectors, forecast, scan
from simdist.stages.vectors.duplicates import bucket_count, first_duplicate, gather
from simdist.stages.vectors.shards import hashes_of, shard_rows
from simdist.stages.vectors.sources import Source
from simdist.stages.vectors.survey import FileFacts, Plan, plan_of
from simdist.store import open_store


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Task, int]]:
    """Bytes each task of the import held at most: Arrow's pool and Python's and numpy's heap."""
    measured: list[tuple[Task, int]] = []
    compute = ImportVectors.compute

    def metered(self: ImportVectors, context: Any, task: Task) -> Any:
        pool = pa.proxy_memory_pool(pa.default_memory_pool())
        before = pa.default_memory_pool()
        pa.set_memory_pool(pool)
        tracemalloc.start()
        try:
            return compute(self, context, task)
        finally:
            measured.append((task, tracemalloc.get_traced_memory()[1] + pool.max_memory()))
            tracemalloc.stop()
            pa.set_memory_pool(before)

    monkeypatch.setattr(ImportVectors, "compute", metered)
    return measured


def written(path: Path, n: int, kind: str) -> str:
    """n rows of 96 elements with a text of 100 characters, all in one row group."""
    x = matrix(n, 96, dtype="float16" if kind == "npy" else "float32")
    if kind == "npy":
        np.save(path / f"{n}.npy", x)
        return str(path / f"{n}.npy")
    content = table(x, text=[f"{i:0100d}" for i in range(n)])
    if kind == "arrow":
        with pa.ipc.new_file(path / f"{n}.arrow", content.schema) as writer:
            writer.write_table(content)
        return str(path / f"{n}.arrow")
    return parquet(path / f"{n}.parquet", content, row_group_size=n, compression="none")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "npy"])
def test_memory_stays_where_it_is_when_the_file_grows_fivefold(
    tmp_path: Path, peaks: list[tuple[Task, int]], kind: str
) -> None:
    keep = () if kind == "npy" else ("text",)
    store = open_store(tmp_path / "store")
    largest = []
    for n in (40_000, 200_000):
        bring_in(written(tmp_path, n, kind), store=store, keep=keep)
        largest.append(max(peak for _, peak in peaks))
    assert largest[1] < largest[0] + (16 << 20)  # the file grew by 60 MB or more
    for task, peak in peaks:
        assert peak <= task.nbytes, task.key


def test_the_forecast_of_a_huge_stripe_is_honest(tmp_path: Path) -> None:
    import pyarrow.orc

    from simdist.errors import PlanTooLarge

    x = matrix(100_000, 96)
    content = pa.table({"id": np.arange(len(x)), "v": x.tolist()})
    content = content.set_column(1, "v", content["v"].cast(pa.list_(pa.float32())))
    pyarrow.orc.write_table(content, tmp_path / "a.orc", stripe_size=256 << 20)
    job = Job(ImportVectors(), scan(str(tmp_path / "a.orc"), vector="v", id="id"), {})
    with (
        open_engine("local", workers=1, memory="80MiB") as engine,
        pytest.raises(PlanTooLarge, match="import_vectors task read-00000"),
    ):
        run(job, store=fresh_store(), engine=engine)


@pytest.mark.parametrize(("dim", "rows"), [(1, 131072), (32, 131072), (128, 32768), (384, 8192)])
def test_shard_rows_follow_from_the_dimension(dim: int, rows: int) -> None:
    assert shard_rows(dim) == rows
    assert shard_rows(10_000_000) == 1


def plan(parts: list[tuple[int, ...] | None], dim: int, counts: list[int]) -> Plan:
    schema = pa.schema([("row", pa.int64())])
    sources = [Source(f"/{i}.parquet", 1, None) for i in range(len(parts))]
    files = [
        FileFacts(count, part, dim if count else None, "float32", schema, 8, 0)
        for part, count in zip(parts, counts, strict=True)
    ]
    return plan_of(sources, files)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, 70_000), max_size=6)),
        min_size=1,
        max_size=6,
    ).filter(lambda files: any(sum(parts) for _, parts in files)),
    st.sampled_from([64, 384, 4096, 100_000]),
)
def test_runs_cover_every_row_once_in_order_and_cut_at_shards(
    files: list[tuple[bool, list[int]]], dim: int
) -> None:
    cuts = plan([None if free else tuple(parts) for free, parts in files], dim,
                [sum(parts) for _, parts in files])  # fmt: skip
    row = 0
    for run_ in cuts.runs():
        assert run_.first == row
        assert run_.first % shard_rows(dim) == 0
        for file, span in run_.spans:
            free, parts = files[file]
            start = span.part if free else sum(parts[: span.part])
            assert start + span.skip == span.first
            assert cuts.starts[file] + span.first == row
            assert span.rows > 0
            row += span.rows
        assert row == run_.first + run_.rows
    assert row == cuts.rows


def test_a_row_group_of_many_shards_is_decoded_by_one_task_only() -> None:
    size = shard_rows(384)
    cuts = plan([(100 * size, size, size)], 384, [102 * size])
    runs = list(cuts.runs())
    assert [(run_.first, run_.rows) for run_ in runs] == [(0, 100 * size), (100 * size, 2 * size)]
    free = list(plan([None], 384, [102 * size]).runs())
    assert len(free) == 17


def test_a_small_import_is_spread_over_tasks_and_a_large_one_has_few_per_shard() -> None:
    size = shard_rows(384)
    assert len(list(plan([None], 384, [8 * size]).runs())) == 8
    assert len(list(plan([None], 384, [1600 * size]).runs())) == 200


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.text(max_size=3), max_size=40), min_size=1, max_size=4).filter(any),
    st.sampled_from([1, 2, 8]),
)
def test_duplicates_are_found_whatever_the_runs_and_buckets(
    groups: list[list[str]], buckets: int
) -> None:
    runs, ids = [], []
    for group in groups:
        hashes = hashes_of(pa.array(group, pa.string()))
        order = np.argsort(hashes, kind="stable")
        rows = np.arange(len(ids), len(ids) + len(group), dtype=np.uint64)
        runs.append(np.stack([hashes[order], rows[order]]))
        ids += group
    found = [
        first_duplicate(*gather(runs, bucket, buckets), ids.__getitem__)
        for bucket in range(buckets)
    ]
    repeats = sum(count - 1 for count in Counter(ids).values())
    assert sum(duplicate.repeats for duplicate in found if duplicate) == repeats
    if repeats:
        first = min((duplicate for duplicate in found if duplicate), key=lambda d: d.second)
        second = next(i for i, name in enumerate(ids) if name in ids[:i])
        assert (first.first, first.second) == (ids.index(ids[second]), second)
        assert first.id == ids[second]


def test_equal_hashes_of_different_ids_are_no_duplicates() -> None:
    same = np.full(6, 7, np.uint64)
    rows = np.array([5, 0, 1, 2, 3, 4])
    assert first_duplicate(same, rows, "abcdef".__getitem__) is None
    found = first_duplicate(same, rows, "abcdcb".__getitem__)
    assert found is not None
    assert (found.first, found.second, found.id) == (2, 4, "c")


def test_string_hashes_follow_from_the_bytes_alone_and_spread_evenly() -> None:
    names = pa.array([f"package-{i}" * (i % 5) + str(i) for i in range(100_000)])
    hashes = hashes_of(names)
    assert np.array_equal(hashes[30_000:30_100], hashes_of(names.slice(30_000, 100)))
    assert len(np.unique(hashes)) == 100_000
    assert np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16).min() > 5_900
    assert len(hashes_of(pa.array(["", "", ""]))) == 3
    numbers = hashes_of(pa.array(np.arange(-50_000, 50_000)))
    assert len(np.unique(numbers)) == 100_000
    assert np.bincount((numbers >> np.uint64(60)).astype(int), minlength=16).min() > 5_900


def test_bucket_counts_are_powers_of_two_of_two_million_ids() -> None:
    assert [bucket_count(n) for n in (1, 2**21, 2**21 + 1, 5 * 2**21, 10**9)] == [1, 1, 2, 8, 512]


def test_many_shards_tasks_and_runs_give_the_rows_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simdist.stages.vectors import duplicates, shards

    monkeypatch.setattr(shards, "SHARD_NBYTES", 4096)
    monkeypatch.setattr(shards, "RUN_ROWS", 300)
    monkeypatch.setattr(duplicates, "BUCKET_ROWS", 400)
    x = matrix(5_000)
    content = table(x, name=[f"n{i}" for i in range(5_000)])
    dataset = bring_in(
        parquet(tmp_path / "a.parquet", content, row_group_size=333), id="name", workers=2
    )
    assert [shard.rows for shard in dataset.shards] == [128] * 39 + [8]
    assert np.array_equal(vectors_in(dataset), x)


def test_the_forecast_counts_what_the_plan_makes(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", table(matrix(1000)))
    config = scan(path, vector="v", id="id")
    costs = forecast(config, 100_000_000, 384)
    assert costs.tasks == 1 + -(-100_000_000 // (8 * 8192)) + 64
    assert costs.nbytes < 200 << 20
    assert costs.written > 100_000_000 * 384 * 4
