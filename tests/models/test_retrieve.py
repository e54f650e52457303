"""`retrieve` and `index`: lists of any length, conditions on columns, recall on the queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import simdist as sd
from simdist.cli.app import app
from simdist.config import parse
from simdist.engine.base import Engine
from simdist.errors import ConfigError, InputError
from simdist.measures import resolve
from simdist.models.hits import Hits

K = 7
QUERIES, ROWS = 1300, 4000
NUMBERS = np.arange(ROWS)


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray]:
    rows = sd.datasets.clusters(QUERIES + ROWS, 24, 30, seed=5).rows
    return rows[:QUERIES], rows[QUERIES:]


@pytest.fixture(scope="module")
def share() -> np.ndarray:
    """[ROWS] a number between 0 and 1 that conditions ask about."""
    return np.random.default_rng(1).random(ROWS)


@pytest.fixture(scope="module")
def stored(
    points: tuple[np.ndarray, np.ndarray],
    share: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[sd.Dataset, sd.Dataset]:
    """Queries and corpus in a store; the corpus keeps columns."""
    folder = tmp_path_factory.mktemp("retrieve")
    store = sd.open_store(folder / "store")
    queries, corpus = points
    np.save(folder / "queries.npy", queries)
    flat = pa.array(corpus.ravel())
    table = pa.table(
        {
            "name": [f"row {row}" for row in range(ROWS)],
            "x": pa.FixedSizeListArray.from_arrays(flat, corpus.shape[1]),
            "share": share,
            "even": np.arange(ROWS) % 2 == 0,
        }
    )
    pq.write_table(table, folder / "corpus.parquet")
    return (
        sd.import_vectors(str(folder / "queries.npy"), store=store),
        sd.import_vectors(
            str(folder / "corpus.parquet"),
            id="name",
            vector="x",
            keep=["share", "even"],
            store=store,
        ),
    )


def _dense(
    queries: np.ndarray, corpus: np.ndarray, rows: np.ndarray, k: int = K
) -> list[list[int]]:
    """The k nearest of some rows by (cosine, row), all pairs by the fixed kernel."""
    at, columns = np.divmod(np.arange(len(queries) * len(rows)), max(len(rows), 1))
    values = resolve("cosine").pairs_at(queries, at, corpus, rows[columns])
    order = np.argsort(-values.reshape(len(queries), len(rows)), axis=1, kind="stable")[:, :k]
    return rows[order].tolist()


def _lists(hits: Hits) -> list[list[int]]:
    return [hits[query].indices.tolist() for query in range(len(hits))]


def _recall(found: list[list[int]], truth: list[list[int]]) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)])
    )


def _same(a: Hits, b: Hits) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("indptr", "indices", "values")
    )


def test_arrays_are_searched_to_the_recall_asked_for(points) -> None:
    queries, corpus = points
    hits = sd.retrieve(queries, corpus, K, index=sd.index(corpus))
    truth = _dense(queries, corpus, np.arange(ROWS))
    assert hits.probes is not None
    assert hits.recall.low >= 0.95
    assert hits.recall.rows == 1000
    assert hits.recall.low - 0.02 <= _recall(_lists(hits), truth)
    assert hits.lengths.tolist() == [K] * QUERIES
    assert np.all(np.diff(hits.values.reshape(-1, K), axis=1) <= 0)


def test_the_exact_method_is_the_dense_answer(points) -> None:
    queries, corpus = points
    hits = sd.retrieve(queries[:200], corpus, K, method="exact")
    assert _lists(hits) == _dense(queries[:200], corpus, np.arange(ROWS))
    assert hits.recall.low == 1.0
    assert np.array_equal(hits.to_scipy().indices, hits.indices)


def test_few_queries_are_compared_with_everything_because_measuring_would_do_that_too(points):
    queries, corpus = points
    hits = sd.retrieve(queries[:200], corpus, K)
    assert hits.probes is None
    assert _same(hits, sd.retrieve(queries[:200], corpus, K, method="exact"))


def test_an_index_is_made_once_and_gives_the_same_hits(points) -> None:
    queries, corpus = points
    index = sd.index(corpus, seed=3)
    hits = sd.retrieve(queries, corpus, K, index=index, seed=3)
    assert _same(hits, sd.retrieve(queries, corpus, K, probes=hits.probes, seed=3))
    looked = sd.retrieve(queries, corpus, K, index=index, probes=hits.probes, recall=None)
    assert _same(hits, looked)
    assert looked.recall is None


def test_few_queries_do_not_pay_for_an_index_of_an_array(points) -> None:
    queries, corpus = points
    assert sd.retrieve(queries, corpus, K).probes is None
    assert sd.retrieve(queries, corpus, K, index=sd.index(corpus)).probes is not None


def test_more_probes_find_more_and_all_of_them_everything_that_codes_can_tell_apart(points) -> None:
    queries, corpus = points
    index, truth = sd.index(corpus), _dense(queries, corpus, np.arange(ROWS))
    found = [
        _recall(_lists(sd.retrieve(queries, corpus, K, index=index, probes=p, recall=None)), truth)
        for p in (1, 8, 500)
    ]
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.999


@pytest.mark.parametrize("measure", ["euclidean", "dot", "manhattan"])
def test_other_measures_reach_the_recall_too(points, measure) -> None:
    queries, corpus = points
    hits = sd.retrieve(queries, corpus, K, index=sd.index(corpus, measure=measure))
    exact = sd.retrieve(queries, corpus, K, measure=measure, method="exact")
    assert hits.recall.low >= 0.95
    assert hits.recall.low - 0.02 <= _recall(_lists(hits), _lists(exact))


@pytest.mark.parametrize("method", ["approximate", "exact"])
@pytest.mark.parametrize("selectivity", [0.5, 0.01, 0.001])
def test_what_a_mask_leaves_out_is_never_found_and_the_rest_is(
    points, share, method, selectivity
) -> None:
    queries, corpus = points
    mask = share < selectivity
    hits = sd.retrieve(queries, corpus, K, where=mask, method=method, index=sd.index(corpus))
    truth = _dense(queries, corpus, np.flatnonzero(mask))
    assert hits.passing == mask.sum()
    assert mask[hits.indices].all()
    assert hits.lengths.tolist() == [min(K, int(mask.sum()))] * QUERIES
    if method == "exact" or selectivity < 0.1:
        assert _lists(hits) == truth
    else:
        assert hits.probes is not None
        assert hits.recall.low - 0.02 <= _recall(_lists(hits), truth)


def test_recall_is_that_of_the_queries_asked_not_of_the_corpus(points) -> None:
    """The same probes find less of what queries from elsewhere look for, and that is told."""
    _, corpus = points
    rng = np.random.default_rng(2)
    near = corpus[:QUERIES] + 0.01 * rng.standard_normal((QUERIES, 24)).astype(np.float32)
    far = rng.standard_normal((QUERIES, 24)).astype(np.float32)
    told = []
    for queries in (near, far):
        hits = sd.retrieve(queries, corpus, 1, probes=2)
        true = _recall(_lists(hits), _dense(queries, corpus, np.arange(ROWS), 1))
        assert hits.recall.low - 0.02 <= true <= hits.recall.high + 0.02
        told.append(hits.recall.estimate)
    assert told[0] > told[1] + 0.2


def test_stored_corpora_give_the_hits_of_arrays(points, stored) -> None:
    exact = sd.retrieve(*stored, K, method="exact")
    assert _same(exact.open(), sd.retrieve(*points, K, method="exact"))
    hits = sd.retrieve(*stored, K)
    truth = _dense(*points, np.arange(ROWS))
    assert hits.metrics["recall"]["low"] >= 0.95
    assert hits.metrics["recall"]["low"] - 0.02 <= _recall(_lists(hits.open()), truth)


def test_the_index_is_a_dataset_shared_with_knn_and_its_partition_with_graphs(stored) -> None:
    queries, corpus = stored
    index = sd.index(corpus)
    hits, near = sd.retrieve(queries, corpus, K), sd.knn(queries, corpus, K, method="approximate")
    assert index.stage == "index"
    assert hits.manifest.inputs["index"] == near.manifest.inputs["index"] == index.fingerprint
    assert (
        sd.knn_graph(corpus, K).manifest.inputs["partition"] == index.manifest.inputs["partition"]
    )
    assert sd.retrieve(queries, corpus, K, index=index).fingerprint == hits.fingerprint
    assert np.array_equal(near.open().indices.ravel(), hits.open().indices)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("share < 0.5", lambda share: share < 0.5),
        ("share < 0.01", lambda share: share < 0.01),
        ("share < 0.003 and even == true", lambda share: (share < 0.003) & (NUMBERS % 2 == 0)),
        ([["share", ">=", 0.5], ["id", "!=", "row 17"]], lambda s: (s >= 0.5) & (NUMBERS != 17)),
        (pc.field("share") > 2.0, lambda share: share > 2.0),
    ],
)
def test_conditions_on_kept_columns_are_applied_before_selection(
    points, stored, share, where, rows
) -> None:
    mask = rows(share)
    truth = _dense(*points, np.flatnonzero(mask))
    exact = sd.retrieve(*stored, K, where=where, method="exact")
    assert _lists(exact.open()) == truth
    assert exact.metrics["passing"] == mask.sum()
    hits = sd.retrieve(*stored, K, where=where)
    found = _lists(hits.open())
    if hits.metrics["method"] == "exact":
        assert found == truth
    else:
        assert mask[hits.open().indices].all()
        assert hits.metrics["recall"]["low"] - 0.02 <= _recall(found, truth)
    assert hits.metrics["shortest"] == min(K, int(mask.sum()))


def test_probing_cells_that_the_condition_emptied_still_gives_k(points, stored, share) -> None:
    hits = sd.retrieve(*stored, K, where="share < 0.05", probes=1, recall=None).open()
    assert (share[hits.indices] < 0.05).all()
    assert hits.lengths.tolist() == [K] * QUERIES


def test_lists_are_parquet_that_others_read(stored) -> None:
    hits = sd.retrieve(*stored, K, where="share < 0.001", method="exact")
    table = hits.store.read_table(hits.shards[0].objects["hits"])
    assert table.schema.names == ["row", "id", "neighbors", "values"]
    assert table.schema.field("neighbors").type == pa.list_(pa.int64())
    assert table.schema.field("values").type == pa.list_(pa.float32())
    assert table["neighbors"].null_count == 0


def test_the_fingerprint_knows_the_condition_and_not_how_it_was_written(stored) -> None:
    def made(where: object) -> str:
        return sd.retrieve(*stored, K, where=where, method="exact").fingerprint

    one = made("share < 0.01 and even == true")
    assert one == made([["share", "<", 0.01], ["even", "==", True]])
    assert one == made((pc.field("share") < 0.01) & (pc.field("even") == True))  # noqa: E712
    assert one != made("share < 0.02 and even == true")
    assert one != made(None)


def test_an_array_of_queries_asks_a_stored_corpus(points, stored) -> None:
    queries, corpus = points[0][:40], stored[1]
    hits = sd.retrieve(queries, corpus, K, where="share < 0.5")
    assert _lists(hits) == _dense(queries, points[1], np.flatnonzero(_share(corpus) < 0.5))


def test_k_beyond_the_corpus_gives_shorter_lists(points) -> None:
    queries, corpus = points
    hits = sd.retrieve(queries[:30], corpus[:5], K)
    assert hits.lengths.tolist() == [5] * 30
    assert hits[29].indices.tolist() == _dense(queries[29:30], corpus[:5], np.arange(5))[0]


def test_values_of_distances_are_never_negative_zero(points) -> None:
    _, corpus = points
    hits = sd.retrieve(corpus, corpus, 1, measure="euclidean")
    assert not np.signbit(hits.values).any()


def test_hits_are_looked_up_by_query(points) -> None:
    hits = sd.retrieve(points[0][:3], points[1], 2)
    assert np.array_equal(hits[-1].indices, hits[2].indices)
    with pytest.raises(IndexError, match="query 3 of 3"):
        hits[3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corpus": np.empty((0, 24), np.float32)}, "corpus: no rows or no columns"),
        ({"queries": np.empty((0, 24), np.float32)}, "queries: no rows or no columns"),
        ({"queries": np.ones((3, 5), np.float32)}, "queries have 5 dimensions, the corpus 24"),
        ({"queries": np.zeros((2, 24), np.float32)}, "row 0"),
        ({"corpus": np.full((2, 24), np.nan, np.float32)}, "nan"),
        ({"where": np.ones(3, bool)}, r"mask of bool \(3,\); of a corpus array of 4000 rows"),
        ({"where": "share < 1"}, "Conditions on columns are for stored datasets"),
        ({"corpus": np.ones(4, np.float32)}, r"corpus: expected rows \[n, d\]"),
    ],
)
def test_arrays_that_make_no_sense_are_refused(points, change, said) -> None:
    given = {"queries": points[0][:5], "corpus": points[1]} | change
    with pytest.raises(InputError, match=said):
        sd.retrieve(given.pop("queries"), given.pop("corpus"), K, **given)


def test_a_column_that_is_not_kept_is_refused_before_any_task(stored) -> None:
    said = r"keeps no column 'shared'. Did you mean 'share'\? It has: row, id, share, even"
    with pytest.raises(InputError, match=said):
        sd.retrieve(*stored, K, where="shared < 1")
    with pytest.raises(InputError, match="Arrow cannot ask this of the columns of"):
        sd.retrieve(*stored, K, where="share == 'much'")


def test_an_index_of_something_else_is_refused(points, stored) -> None:
    queries, corpus = points
    index = sd.index(corpus[:100])
    with pytest.raises(InputError, match="of 100 rows, which are not those of the corpus given"):
        sd.retrieve(queries, corpus, K, index=index)
    with pytest.raises(InputError, match=r"made for cosine .* and measure=.*euclidean.* was asked"):
        sd.retrieve(queries, corpus[:100], K, index=index, measure="euclidean")
    with pytest.raises(InputError, match=r"expected what sd\.index gave"):
        sd.retrieve(*stored, K, index=stored[1])
    with pytest.raises(InputError, match="is not of"):
        sd.retrieve(stored[0], stored[0], K, index=sd.index(stored[1]))
    with pytest.raises(ConfigError, match="stored queries only with a stored corpus"):
        sd.retrieve(stored[0], corpus, K)


def test_engines_agree(engine: Engine, points, stored, share, tmp_path: Path) -> None:
    options = {"where": "share < 0.5", "probes": 6, "measure": "cosine"}
    here = sd.retrieve(*stored, K, engine="local", **options)
    there = sd.retrieve(*stored, K, engine=engine, store=tmp_path / "other", **options)
    assert there.fingerprint == here.fingerprint
    assert there.manifest.to_bytes() == here.manifest.to_bytes()
    queries, corpus, mask = points[0][:50], points[1], share < 0.5
    found = sd.retrieve(queries, corpus, K, where=mask, engine=engine, scratch=tmp_path / "scratch")
    assert _same(found, sd.retrieve(queries, corpus, K, where=mask))
    assert found.corpus == ROWS


def _share(corpus: sd.Dataset) -> np.ndarray:
    tables = (corpus.store.read_table(s.objects["rows"], ["share"]) for s in corpus.shards)
    return np.concatenate([table["share"].to_numpy() for table in tables])


def test_a_flow_retrieves_with_a_condition(points, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", points[1][:300])
    np.save(tmp_path / "q.npy", points[0][:20])
    text = f"""\
name: found
store: {tmp_path}/store
inputs:
  x: {{path: {tmp_path}/x.npy}}
  q: {{path: {tmp_path}/q.npy}}
steps:
  cells: {{stage: index, of: x}}
  found: {{stage: retrieve, of: q, corpus: x, k: 4, where: id < 150}}
"""
    with pytest.raises(ConfigError, match="at character 4 expected one of == !="):
        parse(text.replace("id < 150", "id 150"), source="flow.yaml")
    (tmp_path / "flow.yaml").write_text(text)
    planned = CliRunner().invoke(app, ["plan", str(tmp_path / "flow.yaml")])
    assert planned.exit_code == 0, planned.output
    done = CliRunner().invoke(app, ["run", str(tmp_path / "flow.yaml")])
    assert done.exit_code == 0, done.output
    assert "80 hits among 150 of 300 rows; exact: every row was compared" in done.output
