"""Attention over stored datasets: the same as over arrays, however rows are cut, and resumed to the
same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stages.grow.growing import Disturbed, computed
from stages.importing import fresh_store
from stages.partitioning import vectors_dataset
from tiles.attention import gap

from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError, TaskFailed
from simdist.models.attention import AttentionDataset, attention
from simdist.runner import Context, Job, Record, Task, run
from simdist.runner.context import JobSpec
from simdist.stages.attention import AttentionConfig, AttentionStage, config, story
from simdist.stages.attention.fold import COMPUTE
from simdist.store import Dataset, Manifest, Shard, Store, open_store
from simdist.types import Array

N, M, D, DV = 300, 500, 16, 6
CUTS = (100, 101, 350)


def rows() -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(s).astype(np.float32) for s in ((N, D), (M, D), (M, DV)))


def kept() -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {
        "weight": rng.standard_normal(M),
        "seen": rng.random(M) < 0.4,
        "price": rng.integers(0, 9, M),
        "text": np.array(["a"] * M),
    }


def keys_dataset(x: Array, store: Store, columns: dict[str, Array]) -> Dataset:
    """Vectors with kept columns, in shards cut at CUTS."""
    shards, bounds = [], [0, *CUTS, len(x)]
    for first, last in pairwise(bounds):
        table = {name: pa.array(column[first:last]) for name, column in columns.items()}
        numbers = np.arange(first, last)
        table = pa.table({"row": numbers, "id": [f"k{i}" for i in numbers], **table})
        objects = {
            "vectors": store.write_array("vectors", x[first:last]),
            "rows": store.write_table("rows", table),
        }
        shards.append(Shard(last - first, objects))
    metrics = {"dim": x.shape[1], "dtype": str(x.dtype), "first_zero_row": None, "id": "string"}
    manifest = Manifest("ab" * 16, "import_vectors", 1, {}, {}, len(x), tuple(shards), metrics)
    return Dataset(store, store.commit(manifest))


def datasets(store: Store) -> dict[str, Dataset]:
    q, k, v = rows()
    return {
        "queries": vectors_dataset(q, cuts=(7,), store=store),
        "keys": keys_dataset(k, store, kept()),
        "values": vectors_dataset(v, cuts=(444,), store=store),
    }


@pytest.fixture(scope="module")
def given() -> dict[str, Dataset]:
    return datasets(fresh_store())


@pytest.fixture
def many_tasks(monkeypatch) -> None:
    """Blocks of 64 queries, groups of 64 keys, three states merged at a time."""
    monkeypatch.setattr(config, "MOST_QUERIES", 64)
    monkeypatch.setattr(config, "GROUP_NBYTES", 64 * 4 * (D + DV))
    for module in (config, story):
        monkeypatch.setattr(module, "FAN", 3)


def made(given: dict[str, Dataset], engine: Engine, **asked: Any) -> AttentionDataset:
    return attention(given["queries"], given["keys"], given["values"], engine=engine, **asked)


VARIANTS: dict[str, tuple[dict, dict]] = {
    "plain": ({}, {}),
    "scale": ({"scale": 0.5}, {"scale": 0.5}),
    "causal": ({"causal": True}, {"causal": True}),
    "causal from the last": ({"causal": "lower_right"}, {"causal": "lower_right"}),
    "bias": ({"bias": "weight"}, {"bias": kept()["weight"]}),
    "mask": ({"mask": "seen", "causal": True}, {"mask": kept()["seen"], "causal": True}),
    "heads": ({"heads": 2}, {"heads": 2}),
    "grouped": ({"heads": 4, "kv_heads": 2}, {"heads": 4, "kv_heads": 2}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", VARIANTS)
def test_every_variant_is_that_of_arrays_in_one_task_or_in_many(
    given, local_engine: Engine, kind, dtype, request
):
    asked, on_arrays = VARIANTS[kind]
    q, k, v = rows()
    keys = given
    if kind == "grouped":  # keys have half as many heads
        half = {"keys": vectors_dataset(k[:, : D // 2], store=given["keys"].store)}
        keys, k = given | half, k[:, : D // 2]
    expected = attention(q, k, v, **on_arrays, dtype=dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for many in (False, True):
        if many:
            request.getfixturevalue("many_tasks")
        store = fresh_store() if many else None  # the same fingerprint: sizes are constants
        found = made(copied(keys, store), local_engine, **asked, dtype=dtype)
        opened = found.open()
        assert opened.output.dtype == expected.output.dtype == dtype
        assert opened.output.shape == expected.output.shape
        assert gap(opened.output, expected.output) < tolerance
        assert gap(opened.logsumexp, expected.logsumexp) < tolerance
        assert len(found.shards) == (5 if many else 1)
        assert ("merge-1" in found.metrics["rounds"]) == many


def copied(given: dict[str, Dataset], store: Store | None) -> dict[str, Dataset]:
    """The same datasets in another store."""
    if store is None:
        return given
    other = {}
    for role, data in given.items():
        for ref in data.manifest.refs():
            store.objects.put(ref.key, data.store.objects.get(ref.key))
        other[role] = Dataset(store, store.commit(data.manifest))
    return other


def test_kept_columns_are_values_and_outputs_are_vectors_of_their_own(given, local_engine: Engine):
    q, k, _ = rows()
    keys = given["keys"]
    found = attention(
        given["queries"], keys, keys, columns=["price", "weight"], engine=local_engine
    )
    values = np.stack([kept()["price"], kept()["weight"]], axis=1).astype(np.float32)
    assert gap(found.open().output, attention(q, k, values).output) < 1e-5
    assert found.metrics["dim"] == 2
    again = attention(found, found, found, engine=local_engine)
    mixed = found.open().output
    assert gap(again.open().output, attention(mixed, mixed, mixed).output) < 1e-5


def test_tables_say_row_id_output_and_logsumexp(given, local_engine: Engine):
    one, two = (made(given, local_engine, heads=heads) for heads in (None, 2))
    table = one.store.read_table(one.shards[0].objects["attention"])
    assert table.schema.names == ["row", "id", "output", "logsumexp"]
    assert str(table.schema.field("output").type) == "fixed_size_list<element: float>[6]"
    assert str(table.schema.field("logsumexp").type) == "double"
    assert table["id"].to_pylist() == list(range(N))
    table = two.store.read_table(two.shards[0].objects["attention"])
    assert str(table.schema.field("logsumexp").type) == "fixed_size_list<element: double>[2]"


@pytest.mark.parametrize("heads", [1, 2])
def test_gaussian_logits_and_rows_that_leave_themselves_out(
    local_engine: Engine, heads, many_tasks
):
    rng = np.random.default_rng(5)
    x = (rng.standard_normal((200, 4)) + 100).astype(np.float32)  # far from the origin
    data = vectors_dataset(x, cuts=(50,))
    asked = AttentionConfig(bandwidth=0.7, exclude_self=True, heads=heads, kv_heads=heads)
    found = carried_out(asked, {"queries": data, "keys": data, "values": data}, local_engine).open()
    sums = np.atleast_2d(found.logsumexp)
    for head in range(heads):
        part = x.astype(np.float64)[:, head * 4 // heads : (head + 1) * 4 // heads]
        squares = ((part[:, None] - part) ** 2).sum(axis=2)
        weights = np.exp(-squares / (2 * 0.7**2))
        np.fill_diagonal(weights, 0)
        assert np.allclose(sums[head], np.log(weights.sum(axis=1)), atol=1e-4)
        output = found.output[:, head * 4 // heads : (head + 1) * 4 // heads]
        expected = weights @ part / weights.sum(axis=1)[:, None]
        assert np.allclose(output, expected, atol=1e-3)


def carried_out(asked: AttentionConfig, inputs, engine: Engine, stage=None) -> AttentionDataset:
    job = Job(stage or AttentionStage(), asked, inputs)
    return AttentionDataset.of(run(job, store=inputs["keys"].store, engine=engine))


def test_the_three_engines_give_the_same_bytes(engine: Engine, tmp_path: Path):
    given = datasets(open_store(tmp_path / "store"))
    with open_engine("local", workers=1) as one:
        elsewhere = copied(given, open_store(tmp_path / "other"))
        expected = made(elsewhere, one, heads=2, causal=True)
    assert made(given, engine, heads=2, causal=True).manifest == expected.manifest
    q, k, v = rows()
    there, here = (attention(q, k, v, causal=True, engine=e) for e in (engine, None))
    assert np.array_equal(there.output, here.output)
    assert np.array_equal(there.logsumexp, here.logsumexp)


class DisturbedAttention(Disturbed, AttentionStage):
    """Attention that fails once."""


def test_what_a_failed_fold_left_undone_is_all_that_is_done_again(tmp_path: Path, many_tasks):
    given = datasets(open_store(tmp_path / "store"))
    asked = AttentionConfig(causal="upper_left")
    with open_engine("local", workers=1) as engine:
        expected = carried_out(asked, copied(given, open_store(tmp_path / "other")), engine)
        stage = DisturbedAttention("fold-000003-000002", str(tmp_path))
        with pytest.raises(TaskFailed, match=r"InjectedError: fold-000003-000002$"):
            carried_out(asked, given, engine, stage)
        found = carried_out(asked, given, engine, stage)
    assert found.manifest == expected.manifest
    often = computed(tmp_path)
    assert set(often.values()) == {1}
    assert "fold-000000-000000" in often
    assert "fold-000000-000001" not in often  # keys that these queries do not see


def test_a_process_killed_in_mid_fold_is_resumed_to_the_same_bytes(tmp_path: Path):
    store = open_store(tmp_path / "store")
    given = datasets(store)
    names = {role: data.fingerprint for role, data in given.items()}
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parents[2])!r}]\n"
        "from stages.attention.test_attention_stage import killed\n"
        f"killed({store.uri!r}, {names!r}, {str(tmp_path)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert "fold-000000-000001" in computed(tmp_path)
    with pytest.MonkeyPatch.context() as patch, open_engine("local", workers=2) as engine:
        patch.setattr(config, "GROUP_NBYTES", 64 * 4 * (D + DV))
        found = carried_out(AttentionConfig(), given, engine)
        other = copied(given, open_store(tmp_path / "other"))
        assert found.manifest == carried_out(AttentionConfig(), other, engine).manifest


def killed(uri: str, names: dict[str, str], folder: str) -> None:
    """Attention that kills its own process in the middle of its folds."""
    store = open_store(uri)
    given = {role: store.dataset(name) for role, name in names.items()}
    config.GROUP_NBYTES = 64 * 4 * (D + DV)
    with open_engine("local", workers=1) as engine:
        stage = DisturbedAttention("fold-000000-000004", folder, dies=True)
        carried_out(AttentionConfig(), given, engine, stage)


def test_a_task_holds_what_it_says(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 32)).astype(np.float32)
    data = vectors_dataset(x, cuts=(200, 1000))
    inputs = {"queries": data, "keys": data, "values": data}
    for asked in (AttentionConfig(), AttentionConfig(heads=4, kv_heads=4, dtype="float64")):
        spec = JobSpec(
            AttentionStage(),
            asked,
            data.store,
            "f" * 32,
            "run",
            dict.fromkeys(inputs, (data.store, data.fingerprint)),
        )
        context = Context(spec)
        first = AttentionStage().next(Job(AttentionStage(), asked, inputs), {}, context)
        COMPUTE["fold"](context, first.tasks[0])  # what the first call imports
        record, peak = measured(context, first.tasks[0])
        assert peak <= first.tasks[0].nbytes
        assert record.objects["state"].nbytes < first.tasks[0].nbytes


def measured(context: Context, task: Task) -> tuple[Record, int]:
    tracemalloc.start()
    record = COMPUTE[task.kind](context, task)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return record, peak


REFUSED: dict[str, tuple[type, str, dict]] = {
    "no column": (
        ConfigError,
        "no column 'wait'; kept: price, seen, text, weight",
        {"bias": "wait"},
    ),
    "text": (ConfigError, "column 'text' of .* holds string; expected numbers", {"bias": "text"}),
    "numbers": (ConfigError, "column 'price' .*expected booleans", {"mask": "price"}),
    "heads": (InputError, "queries have 16 columns, which 3 heads", {"heads": 3}),
    "groups": (ConfigError, "heads=2, kv_heads=4", {"heads": 2, "kv_heads": 4}),
    "half": (InputError, "queries have 4 columns a head, keys 8", {"heads": 4, "kv_heads": 2}),
    "array": (ConfigError, "bias of stored keys is the name", {"bias": np.zeros(M)}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_refused_before_the_first_task(given, local_engine: Engine, kind):
    error, said, wrong = REFUSED[kind]
    with pytest.raises(error, match=said):
        made(given, local_engine, **wrong)


def test_rows_that_do_not_match_are_refused(given, local_engine: Engine):
    other = vectors_dataset(rows()[2][:-1], store=given["keys"].store)
    with pytest.raises(InputError, match=r"have 500 rows, values .* 499"):
        made(given | {"values": other}, local_engine)
    with pytest.raises(ConfigError, match="three arrays or three stored datasets"):
        attention(given["queries"], given["keys"], rows()[2])
    asked = AttentionConfig(exclude_self=True)
    with pytest.raises(InputError, match=r"exclude_self: queries .* 300 rows, keys .* 500"):
        carried_out(asked, given, local_engine)


def test_a_value_that_is_no_number_is_refused_with_its_row(local_engine: Engine):
    store = fresh_store()
    broken = kept() | {"weight": np.where(np.arange(M) == 123, np.nan, 1.0)}
    data = keys_dataset(rows()[1], store, broken)
    with pytest.raises(InputError, match=r"column 'weight' of .* is nan .* in row 123"):
        attention(data, data, data, columns=["weight"], engine=local_engine)


def test_bandwidth_and_scale_exclude_each_other():
    with pytest.raises(ConfigError, match="give one of them"):
        AttentionConfig(scale=1.0, bandwidth=1.0)
    with pytest.raises(ConfigError, match="bandwidth=-1"):
        AttentionConfig(bandwidth=-1.0)
    with pytest.raises(ConfigError, match="dtype='half'"):
        AttentionConfig(dtype="half")


def test_the_forecast_has_every_round_and_its_largest_task():
    stage = AttentionStage()
    small = stage.forecast(AttentionConfig(), 5000, 64)
    assert [r.name for r in small.rounds] == ["fold", "finish"]
    large = stage.forecast(AttentionConfig(heads=2), 5_000_000, 64)
    assert [r.name for r in large.rounds] == ["fold", "merge-1", "finish"]
    assert large.flops == 4 * 5_000_000**2 * 64
    assert large.nbytes < 200 << 20
