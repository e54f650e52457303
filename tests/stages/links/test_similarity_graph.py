"""`similarity_graph`: directed k-NN lists as a symmetric weighted graph, against dense formulas."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest
import scipy.sparse as sp
from stages.grow.growing import built
from stages.importing import fresh_store

from simdist.engine import Engine
from simdist.errors import ConfigError, InputError
from simdist.measures import resolve
from simdist.models.components import connected_components
from simdist.models.graphs import KnnGraph
from simdist.models.grow import append, delete
from simdist.models.knn import knn_graph
from simdist.models.search import knn
from simdist.models.similarity import similarity_graph
from simdist.operators import ShardedCsr
from simdist.stages.links import SimilarityConfig, SimilarityGraphStage
from simdist.store import open_store
from simdist.types import Array

K = 8
WEIGHTS = ("value", "binary", "self_tuning", "umap")
SYMMETRIZE = ("union", "mutual")
TINY = float(np.finfo(np.float32).tiny)


def _rows(seed: int = 0, n: int = 300) -> Array:
    rng = np.random.default_rng(seed)
    centres = 3 * rng.standard_normal((6, 5))
    rows = centres[rng.integers(0, 6, n)] + rng.standard_normal((n, 5))
    rows[20:24] = rows[20]  # copies of one another
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def graphs() -> dict[str, KnnGraph]:
    return {m: knn_graph(_rows(), K, measure=m, method="exact") for m in ("cosine", "euclidean")}


def _directed(graph: KnnGraph, values: Array) -> Array:
    """[n, n] what each list says, NaN where it says nothing."""
    dense = np.full((len(graph), len(graph)), np.nan)
    np.put_along_axis(dense, graph.indices, values.astype(np.float64), axis=1)
    return dense


def _umap_memberships(distances: Array) -> Array:
    """UMAP's smooth_knn_dist and compute_membership_strengths, as its source has them: a row's list
    begins with the row itself, at distance 0."""
    n, k = distances.shape
    listed = np.insert(distances.astype(np.float64), 0, 0.0, axis=1)
    out = np.empty((n, k))
    for i, row in enumerate(listed):
        nonzero = row[row > 0]
        rho = nonzero[0] if len(nonzero) else 0.0
        low, high, middle = 0.0, np.inf, 1.0
        for _ in range(64):
            total = sum(np.exp(-(d - rho) / middle) if d > rho else 1.0 for d in row[1:])
            if abs(total - np.log2(k + 1)) < 1e-5:
                break
            if total > np.log2(k + 1):
                high = middle
                middle = (low + high) / 2
            else:
                low = middle
                middle = middle * 2 if high == np.inf else (low + high) / 2
        sigma = max(middle, 1e-3 * (row.mean() if rho > 0 else listed.mean()))
        out[i] = [1.0 if d <= rho else np.exp(-(d - rho) / sigma) for d in row[1:]]
    return np.maximum(out, TINY)  # where UMAP lets an edge go


def _oracle(graph: KnnGraph, weights: str, symmetrize: str) -> Array:
    """[n, n] weights by the formulas, 0 for no edge."""
    mutual = symmetrize == "mutual"
    if weights == "umap":
        directed = _directed(graph, _umap_memberships(graph.distances))
        a = np.nan_to_num(directed)
        joined = np.maximum(a * a.T, TINY) if mutual else a + a.T - a * a.T
        return np.where(_edges(directed, mutual), joined, 0.0)
    if weights == "self_tuning":
        d = _directed(graph, graph.distances)
        mean_of_row = graph.distances.sum(axis=1, dtype=np.float64) / (K + 1)
        s = np.maximum(graph.distances[:, 6], 1e-3 * mean_of_row)
        w = np.maximum(np.exp(-(np.fmin(d, d.T) ** 2) / np.outer(s, s)), TINY)
        return np.where(_edges(d, mutual), w, 0.0)
    v = _directed(graph, graph.values)
    joined = np.fmin(v, v.T) if mutual else np.fmax(v, v.T)
    values = np.ones_like(v) if weights == "binary" else joined
    return np.where(_edges(v, mutual), values, 0.0)


def _edges(directed: Array, mutual: bool) -> Array:
    there = ~np.isnan(directed)
    return there & there.T if mutual else there | there.T


def _refuse_broken(matrix: sp.csr_matrix) -> None:
    """What every graph promises: symmetric to the last bit, sorted, no loops, positive."""
    assert (matrix != matrix.T).nnz == 0
    for i in range(matrix.shape[0]):
        columns = matrix.indices[matrix.indptr[i] : matrix.indptr[i + 1]]
        assert (np.diff(columns) > 0).all()
        assert i not in columns
    assert (matrix.data > 0).all()
    assert np.isfinite(matrix.data).all()


@pytest.mark.parametrize("symmetrize", SYMMETRIZE)
@pytest.mark.parametrize(
    ("measure", "weights"),
    [(m, w) for m in ("cosine", "euclidean") for w in WEIGHTS if (m, w) != ("euclidean", "value")],
)
def test_weights_are_those_of_the_formula(graphs, measure, weights, symmetrize, many_shards):
    graph = graphs[measure]
    made = similarity_graph(graph, weights=weights, symmetrize=symmetrize)
    matrix = made.to_scipy()
    _refuse_broken(matrix)
    expected = _oracle(graph, weights, symmetrize)
    assert np.array_equal(matrix.toarray() > 0, expected > 0)
    assert np.allclose(matrix.toarray(), expected, rtol=1e-5, atol=1e-7)
    assert np.allclose(made.degrees, matrix.toarray().sum(axis=1, dtype=np.float64))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_graph_does_not_depend_on_how_it_is_cut(graphs, weights, monkeypatch, request):
    whole = similarity_graph(graphs["cosine"], weights=weights)
    request.getfixturevalue("many_shards")
    cut = similarity_graph(graphs["cosine"], weights=weights)
    for name in ("indptr", "indices", "weights"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name)), name


def test_similarities_that_are_not_positive_are_no_edges_and_are_counted(local_engine: Engine):
    rows = np.array([[1, 0], [0.9, 0.1], [-1, 0.05], [-1, 0], [0, 1]], np.float32)
    graph = knn_graph(rows, 3, measure="cosine", method="exact")
    assert (graph.values <= 0).any()
    made = similarity_graph(graph).to_scipy()
    _refuse_broken(made)
    assert np.allclose(made.toarray(), np.maximum(_oracle(graph, "value", "union"), 0))
    stored = similarity_graph(built(rows, local_engine, k=3, method="exact"), engine=local_engine)
    assert stored.metrics["dropped"] == int((graph.values <= 0).sum())


def test_copies_of_one_row_get_finite_weights():
    rows = np.ones((40, 3), np.float32)
    graph = knn_graph(rows, 5, measure="euclidean", method="exact")
    for weights in ("self_tuning", "umap"):
        assert np.array_equal(np.unique(similarity_graph(graph, weights=weights).weights), [1.0])


def test_a_weight_too_small_for_float32_stays_an_edge():
    rows = np.zeros((12, 1), np.float32)
    rows[:, 0] = [*(1e-6 * np.arange(10)), 100.0, 200.0]
    graph = knn_graph(rows, 3, measure="euclidean", method="exact")
    for weights in ("self_tuning", "umap"):
        made = similarity_graph(graph, weights=weights).to_scipy()
        _refuse_broken(made)
        assert np.array_equal(made.toarray() > 0, _oracle(graph, "binary", "union") > 0)


def test_a_row_that_all_others_list_is_sorted_like_any_other(many_shards):
    n = 400
    neighbors = np.stack([np.zeros(n), 1 + np.arange(n) * 7 % (n - 1)], axis=1).astype(np.int64)
    neighbors[0] = [5, 9]
    values = np.linspace(0.9, 0.1, 2 * n, dtype=np.float32).reshape(n, 2)
    graph = KnnGraph(neighbors, values, None, "cosine")
    made = similarity_graph(graph).to_scipy()
    _refuse_broken(made)
    dense = _directed(graph, values)
    np.fill_diagonal(dense, np.nan)
    assert np.array_equal(made.toarray(), np.nan_to_num(np.fmax(dense, dense.T)).astype(np.float32))


def test_rows_that_were_deleted_are_isolated_nodes(local_engine: Engine, many_shards):
    rows = _rows(3, 320)
    graph = built(rows[:260], local_engine, measure="euclidean")
    graph = append(graph, rows[260:], engine=local_engine)
    gone = np.array([0, 21, 100, 300])
    graph = delete(graph, gone, engine=local_engine)
    for weights in ("umap", "self_tuning"):
        links = similarity_graph(graph, weights=weights, engine=local_engine)
        matrix = links.open().to_scipy()
        _refuse_broken(matrix)
        degrees = np.asarray(matrix.sum(axis=1)).ravel()
        assert np.array_equal(np.flatnonzero(degrees == 0), gone)
        assert links.metrics["isolated"] == len(gone)
        living, numbers = graph.open().living()
        expected = similarity_graph(living, weights=weights).to_scipy()
        assert np.allclose(matrix[numbers][:, numbers].toarray(), expected.toarray(), rtol=1e-6)
        in_memory = similarity_graph(graph.open(), weights=weights).to_scipy()
        assert (in_memory != matrix).nnz == 0


def test_a_stored_graph_is_read_by_other_tools(tmp_path, local_engine: Engine, many_shards):
    store = open_store(tmp_path)
    graph = built(_rows(), local_engine, store=store, measure="cosine")
    links = similarity_graph(graph, engine=local_engine)
    matrix = links.open().to_scipy()
    assert len(links.shards) > 3
    assert links.rows == 300
    assert links.metrics["entries"] == matrix.nnz
    assert links.metrics["symmetric"]
    files = [str(tmp_path / shard.objects["edges"].key) for shard in links.shards]
    found = duckdb.sql(
        f"select row, sum(weight::double) as degree, count(*) as edges from read_parquet({files})"
        " group by row order by row"
    ).fetchnumpy()
    assert np.array_equal(found["row"], np.arange(300))
    assert np.array_equal(found["edges"], np.diff(matrix.indptr))
    operator = ShardedCsr.of(links)
    degrees = np.concatenate([operator.degrees(i) for i in range(operator.shards)])
    assert np.allclose(found["degree"], degrees, rtol=1e-12)


def test_every_engine_makes_the_same_graph_and_the_same_components(
    engine: Engine, local_engine: Engine, tmp_path: Path, many_shards
):
    store = open_store(tmp_path)
    graph = built(_rows(5), local_engine, store=store, measure="euclidean", k=4)
    links = similarity_graph(graph, weights="self_tuning", symmetrize="mutual", engine=engine)
    parts = connected_components(links, engine=engine)
    other = fresh_store()
    here = similarity_graph(
        graph, weights="self_tuning", symmetrize="mutual", store=other, engine=local_engine
    )
    for one, two in zip(links.shards, here.shards, strict=True):
        assert {r: ref.sha256 for r, ref in one.objects.items()} == {
            r: ref.sha256 for r, ref in two.objects.items()
        }
    count, labels = sp.csgraph.connected_components(here.open().to_scipy(), directed=False)
    assert count > 1
    assert np.array_equal(parts.open().labels, labels)


def test_distances_are_no_weights_and_say_what_is(graphs):
    with pytest.raises(InputError, match=r"euclidean, a distance.*self_tuning.*umap"):
        similarity_graph(graphs["euclidean"])


def test_an_unbounded_similarity_gives_no_distances():
    graph = knn_graph(_rows(), 3, measure="dot", method="exact")
    with pytest.raises(InputError, match=r"dot has no upper bound.*binary"):
        similarity_graph(graph, weights="umap")
    assert (similarity_graph(graph).weights > 0).all()


def test_what_is_no_graph_of_rows_among_themselves_is_refused(local_engine: Engine):
    rows = _rows()
    with pytest.raises(InputError, match="300 rows of another set"):
        similarity_graph(knn(rows[:20], rows, 3))
    with pytest.raises(InputError, match=r"got ndarray.*import_graph"):
        similarity_graph(rows)
    graph = built(rows, local_engine)
    with pytest.raises(InputError, match="made by stage similarity_graph"):
        similarity_graph(similarity_graph(graph, engine=local_engine), engine=local_engine)


@pytest.mark.parametrize(
    "options", [{"weights": "gaussian"}, {"symmetrize": "max"}, {"scale_neighbor": 0}]
)
def test_an_option_that_there_is_not_is_refused(graphs, options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}="):
        similarity_graph(graphs["cosine"], **options)


@pytest.mark.parametrize("bad", [-1, 300, None])
def test_a_neighbour_that_is_not_there_or_listed_twice_is_refused_by_its_row(graphs, bad):
    graph = graphs["cosine"]
    neighbors = graph.indices.copy()
    neighbors[17, 2] = neighbors[17, 0] if bad is None else bad
    with pytest.raises(InputError, match="row 17 of the k-NN graph"):
        similarity_graph(KnnGraph(neighbors, graph.values, None, "cosine"))


def test_a_value_that_is_no_number_is_refused_by_its_row(graphs):
    values = graphs["cosine"].values.copy()
    values[4, 0] = np.nan
    with pytest.raises(InputError, match="row 4 of the k-NN graph"):
        similarity_graph(KnnGraph(graphs["cosine"].indices, values, None, "cosine"))


def test_a_measure_of_the_graph_is_what_its_distances_are(graphs):
    traits = resolve("cosine").traits
    made = similarity_graph(graphs["cosine"], weights="umap")
    lacking = np.float32(traits.high) - graphs["cosine"].values
    again = KnnGraph(graphs["cosine"].indices, lacking, None, "euclidean")
    assert np.allclose(made.weights, similarity_graph(again, weights="umap").weights, rtol=1e-5)


def test_a_forecast_grows_with_the_rows_but_what_a_task_holds_does_not():
    small, large = (
        SimilarityGraphStage().forecast(SimilarityConfig(), n, 128, entries=15 * n)
        for n in (10**6, 10**8)
    )
    assert large.tasks > 50 * small.tasks
    assert large.nbytes < 1.5 * small.nbytes < 500 << 20
