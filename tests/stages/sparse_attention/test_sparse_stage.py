"""Stage `sparse_attention`: stored queries, keys and values, on any engine, in any cuts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from models.test_sparse_attention import assert_certified, clouds, exact, fewest
from stages.importing import parquet, table

import simdist as sd
from simdist.engine import Engine, open_engine
from simdist.errors import ConfigError, InputError, TaskFailed
from simdist.models.sparse_attention import SparseAttentionDataset
from simdist.models.vectors import import_array
from simdist.runner import Context, Job, Record, Task, run
from simdist.stages.sparse_attention import SparseAttentionStage, SparseConfig
from simdist.store import Dataset, Store, open_store

FIELDS = ("output", "logsumexp", "tau", "error", "keys", "certified", "fell_back")
CASES: list[dict[str, Any]] = [
    {"scale": 20.0},
    {"scale": 12.0, "budget": 30},
    {"scale": 6.0, "tolerance": 1e-1, "exact_above": 0.03},
    {"scale": -30.0, "tolerance": 1e-3, "exact_above": 1.0},
]
Q, K, V = clouds(1, 1100, 9000, 16, 5)  # two blocks of queries, three panels of keys
SPAN = 4096  # a panel: three spans
ROUNDS = ["pilot", "codes", "scan", "choose", "score", "again", "rescore", "settle", "least"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def stored(store: Store, engine: Engine, *arrays: Any) -> dict[str, Dataset]:
    roles = ("queries", "keys", "values")
    return {
        role: import_array(x, store=store, engine=engine)
        for role, x in zip(roles, arrays, strict=False)
    }


def made_of(
    data: dict[str, Dataset], engine: Engine, stage: Any = None, **options: Any
) -> SparseAttentionDataset:
    job = Job(stage or SparseAttentionStage(), SparseConfig(**options), data)
    return SparseAttentionDataset.of(run(job, store=data["keys"].store, engine=engine))


@pytest.mark.parametrize("options", CASES)
def test_stored_data_gives_what_arrays_give(options, store, local_engine):
    data = stored(store, local_engine, Q[:40], K, V)
    made = sd.sparse_attention(*data.values(), **options, engine=local_engine)
    assert isinstance(made, SparseAttentionDataset)
    found, there = made.open(), sd.sparse_attention(Q[:40], K, V, **options)
    for name in FIELDS:
        assert np.array_equal(getattr(found, name), getattr(there, name)), name
    assert made.metrics["rounds"] == ["pilot", "codes", "attend", "least"]
    assert made.metrics["certified"] == int(found.certified.sum())
    assert made.metrics["missed"] == len(found.missed)
    assert made.metrics["ratio"] == pytest.approx(found.ratio)


@pytest.mark.parametrize("options", CASES)
def test_keys_in_many_spans_are_certified_together(options, store, local_engine):
    q = Q[:60]
    made = made_of(stored(store, local_engine, q, K, V), local_engine, span=SPAN, **options)
    assert made.metrics["rounds"] == ROUNDS
    found = made.open()
    tolerance = options.get("tolerance", 1e-2)
    assert_certified(found, q, K, V, options["scale"], tolerance)
    least = fewest(exact(q, K, V, options["scale"])[2], tolerance)
    if "budget" in options:
        assert (found.keys <= options["budget"]).all()
        assert (found.keys[found.missed] == options["budget"]).all()
        return
    assert found.certified.all()
    alone = ~found.fell_back
    assert found.keys[alone].sum() <= 2.0 * least[alone].sum()
    assert np.array_equal(found.least, least[found.sampled])


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest that one worker leaves."""
    with open_engine("local", workers=1) as engine:
        place = open_store(str(tmp_path_factory.mktemp("store")))
        return made_of(stored(place, engine, Q, K, V), engine, **MIXED).manifest.to_bytes()


MIXED: dict[str, Any] = {
    "scale": 6.0, "tolerance": 0.1, "exact_above": 0.03, "sample": 3, "span": SPAN
}  # fmt: skip


def test_engines_agree_to_the_last_byte(engine, store, expected):
    data = stored(store, engine, Q, K, V)
    assert made_of(data, engine, **MIXED).manifest.to_bytes() == expected


class Disturbed(SparseAttentionStage):
    """Fails once in each of some tasks; says which were computed."""

    def __init__(self, folder: Path, tasks: tuple[str, ...]) -> None:
        self.folder, self.tasks = folder, tasks

    def compute(self, context: Context, task: Task) -> Record:
        mark = self.folder / task.key
        if task.key in self.tasks and not mark.exists():
            mark.touch()
            raise RuntimeError(f"injected into {task.key}")
        record = super().compute(context, task)
        done = self.folder / f"{task.key}.computed"
        assert not done.exists()
        done.touch()
        return record


def test_a_failure_in_any_round_is_resumed_to_the_same_bytes(store, tmp_path, expected):
    tasks = tuple(f"{name}-000000" for name in ("codes", "choose", "again", "settle", "least"))
    tasks = ("pilot", *tasks, *(f"{name}-000001-000002" for name in ("scan", "score", "rescore")))
    stage = Disturbed(tmp_path, tasks)
    with open_engine("local", workers=1) as engine:
        data = stored(store, engine, Q, K, V)
        for _ in tasks:
            with pytest.raises(TaskFailed, match="injected"):
                made_of(data, engine, stage, **MIXED)
        made = made_of(data, engine, stage, **MIXED)
    assert made.manifest.to_bytes() == expected


def test_a_set_that_attends_to_itself_may_leave_each_row_out(store, local_engine):
    x = K[:2000]
    data = stored(store, local_engine, x, x, V[:2000])
    for span in (SPAN, 1):
        made = made_of(data, local_engine, scale=20.0, exclude_self=True, span=span)
        assert_certified(made.open(), x, x, V[:2000], 20.0, exclude_self=True)


@pytest.fixture
def priced(tmp_path: Path, store: Store, local_engine: Engine) -> Dataset:
    """Keys with columns kept beside them."""
    rng = np.random.default_rng(2)
    kinds = rng.choice(["net", "games", "web"], len(K)).tolist()
    kinds[7] = None
    columns = {
        "price": rng.uniform(0, 1e6, len(K)),
        "count": rng.integers(0, 9, len(K)),
        "open": rng.random(len(K)) < 0.5,
        "kind": kinds,
        "gone": [None, *range(1, len(K))],
        "row_number": pa.array(np.arange(len(K)).astype("datetime64[s]")),
    }
    path = parquet(tmp_path / "priced.parquet", table(K, **columns))
    return sd.import_vectors(
        path, vector="v", id="id", keep=list(columns), store=store, engine=local_engine
    )


def column_table(made: Dataset) -> pa.Table:
    return pa.concat_tables(
        made.store.read_table(shard.objects["attention"]) for shard in made.shards
    )


def test_numbers_are_averaged_and_text_has_shares(priced, store, local_engine):
    queries = stored(store, local_engine, Q[:30])["queries"]
    made = sd.sparse_attention(
        queries, priced, ["price", "kind", "open"], scale=20.0, engine=local_engine
    )
    written = column_table(made)
    names = ["price", "kind=games", "kind=net", "kind=web", "open"]
    assert written.column_names[2:7] == names == made.metrics["columns"]
    kept = pa.concat_tables(priced.store.read_table(s.objects["rows"]) for s in priced.shards)
    kinds = np.array(kept["kind"].to_pylist())
    values = np.stack(
        [
            kept["price"].to_numpy(),
            *(kinds == name for name in ("games", "net", "web")),
            np.array(kept["open"].to_pylist()),
        ],
        axis=1,
    ).astype(np.float64)
    assert_certified(made.open(), Q[:30], K, values, 20.0)
    wanted = exact(Q[:30], K, values, 20.0)[0]
    tau = written["tau"].to_numpy()
    for place, name in enumerate(names):
        error = np.abs(written[name].to_numpy() - wanted[:, place])
        assert (error <= 2.0 * tau * np.abs(values[:, place]).max()).all()
    assert written["certified"].to_pylist() == [True] * 30
    assert written["id"].to_pylist() == list(range(30))


@pytest.mark.parametrize(
    ("column", "error", "said"),
    [
        ("size", InputError, "no column 'size'; kept with its vectors: price, count"),
        ("gone", InputError, "'gone' .*NULL or not finite at row 0"),
        ("row_number", InputError, "holds timestamp"),
        ("tau", ConfigError, "stand in the output twice"),
    ],
)
def test_columns_that_are_no_values_are_refused(column, error, said, priced, store, local_engine):
    queries = stored(store, local_engine, Q[:3])["queries"]
    with pytest.raises(error, match=said):
        sd.sparse_attention(queries, priced, [column], scale=1.0, engine=local_engine)


def test_sets_that_do_not_fit_are_refused_before_any_task(store, local_engine):
    data = stored(store, local_engine, Q, K, V[:50])
    with pytest.raises(InputError, match="every key needs a value"):
        made_of(data, local_engine, scale=1.0)
    with pytest.raises(InputError, match="same embedding"):
        made_of({**data, "queries": data["values"]}, local_engine, scale=1.0)
    with pytest.raises(ConfigError, match="got both"):
        made_of(data, local_engine, scale=1.0, columns=("price",))
    with pytest.raises(ConfigError, match="exclude_self"):
        made_of({**data, "values": data["keys"]}, local_engine, scale=1.0, exclude_self=True)
    with pytest.raises(ConfigError, match="three arrays or three stored datasets"):
        sd.sparse_attention(data["queries"], K, V)
    refused = Job(SparseAttentionStage(), SparseConfig(1.0), data)
    assert not store.list_records(refused.fingerprint)


def test_tasks_hold_no_more_than_they_say(store):
    """A forecast of a large job: codes and levels of a span, not of all keys."""
    stage, config = SparseAttentionStage(), SparseConfig(20.0)
    few, many = (stage.forecast(config, n, 128).nbytes for n in (1 << 20, 1 << 24))
    assert many < 2 * few
    assert many < 1 << 30
    rounds = [step.name for step in stage.forecast(config, 1 << 20, 128, keys=1000).rounds]
    assert rounds == ["pilot", "codes", "attend", "least"]
