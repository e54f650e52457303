"""k-means and cluster_qr over panels of rows: as good as scikit-learn's, and in rounds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.cluster._spectral import cluster_qr
from sklearn.metrics import adjusted_rand_score
from stages.partitioning import vectors_dataset
from stages.sharded import carried_out, column

from simdist.errors import ConfigError, InputError
from simdist.stages.cluster import ClusterConfig, SpectralClusters, points, stage
from simdist.stages.cluster.config import choose
from simdist.stages.cluster.lloyd import moved, nearest_center, plus_plus, tally
from simdist.store import Dataset
from simdist.types import Array

N, DIM, K = 1500, 6, 7


@pytest.fixture(scope="module")
def blobs() -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    truth = rng.choice(K, N, p=np.arange(1, K + 1) / 28)
    centers = 4 * rng.standard_normal((K, DIM))
    return (centers[truth] + rng.standard_normal((N, DIM))).astype(np.float32), truth


@pytest.fixture
def in_panels(monkeypatch):
    """Rows in panels of 256, and nothing in one task: every round is run."""
    monkeypatch.setattr(points, "block_rows", lambda rows, dim: 256)
    monkeypatch.setattr(stage, "ONE_TASK", 0)


def clustered(x: Array, clusters: int | None, **options) -> Dataset:
    source = vectors_dataset(x, cuts=(len(x) // 3,))
    config = ClusterConfig(clusters, **{"normalize": False, **options})
    return carried_out(SpectralClusters(), config, {"embedding": source})


def test_one_task_is_as_good_as_scikit_learn(blobs):
    x, _ = blobs
    made = clustered(x, K)
    best = KMeans(K, n_init=10, random_state=0).fit(x.astype(np.float64))
    assert made.metrics["inertia"] <= 1.001 * best.inertia_
    assert adjusted_rand_score(column(made, "labels"), best.labels_) > 0.99
    assert made.metrics["state"] == "converged"


def test_rounds_over_panels_are_as_good_as_scikit_learn(blobs, in_panels):
    x, _ = blobs
    made = clustered(x, K, restarts=3)
    best = KMeans(K, n_init=10, random_state=0).fit(x.astype(np.float64))
    assert len(made.shards) == 6
    assert made.metrics["inertia"] <= 1.001 * best.inertia_
    assert adjusted_rand_score(column(made, "labels"), best.labels_) > 0.99
    assert made.metrics["iterations"] > 1


def test_the_inertia_is_that_of_the_labels(blobs, in_panels):
    x, _ = blobs
    made = clustered(x, K, restarts=2)
    labels, wide = column(made, "labels"), x.astype(np.float64)
    means = np.stack([wide[labels == c].mean(axis=0) for c in range(K)])
    assert made.metrics["inertia"] == pytest.approx(np.sum((wide - means[labels]) ** 2), rel=1e-4)


def test_clusters_are_numbered_by_size_and_described_by_central_rows(blobs):
    x, _ = blobs
    made = clustered(x, K)
    labels = column(made, "labels")
    sizes = np.bincount(labels)
    assert made.metrics["sizes"] == sorted(sizes.tolist(), reverse=True) == sizes.tolist()
    for cluster, rows in enumerate(made.metrics["central"]):
        members = np.flatnonzero(labels == cluster)
        apart = np.linalg.norm(x[members] - x[members].mean(axis=0), axis=1)
        assert set(rows) <= set(members.tolist())
        assert np.mean([apart[members == row][0] for row in rows]) < np.quantile(apart, 0.1)


def test_the_table_says_the_same_as_the_arrays(blobs, in_panels):
    x, _ = blobs
    made = clustered(x, K, restarts=1)
    tables = [made.store.read_table(shard.objects["clusters"]) for shard in made.shards]
    assert np.array_equal(np.concatenate([t["row"].to_numpy() for t in tables]), np.arange(N))
    said = np.concatenate([t["cluster"].to_numpy() for t in tables])
    assert np.array_equal(said, column(made, "labels"))


def test_an_empty_cluster_takes_the_farthest_row():
    X = np.array([[0.0, 0], [0, 1], [1, 0], [50, 50], [51, 50]])
    centers = np.array([[0.2, 0.2], [900.0, 900.0], [800.0, 800.0]])
    step = moved([tally(X[:3], centers), tally(X[3:], centers)], centers)
    assert step.empty == 2
    assert np.array_equal(step.centers[1], [51, 50])
    assert np.array_equal(step.centers[2], [50, 50])
    assert np.array_equal(np.bincount(nearest_center(X, step.centers)[0], minlength=3), [3, 1, 1])


def test_equal_rows_become_one_center_only():
    X = np.array([[0.0], [0], [9], [9], [9]])
    step = moved([tally(X, np.array([[0.0], [99.0], [98.0]]))], np.array([[0.0], [99.0], [98.0]]))
    assert sorted(step.centers[:, 0].tolist()) == [5.4, 9.0, 98.0]


def test_seeds_are_distinct_rows_while_there_are_any():
    X = np.repeat(np.eye(4), 50, axis=0)
    seeds = plus_plus(X, np.ones(200), 4, np.random.default_rng(0))
    assert np.array_equal(np.sort(seeds.argmax(axis=1)), np.arange(4))


@pytest.mark.parametrize("in_rounds", [False, True])
def test_more_clusters_than_distinct_rows_are_refused(in_rounds, request):
    if in_rounds:
        request.getfixturevalue("in_panels")
    x = np.repeat(np.eye(4, dtype=np.float32), 200, axis=0)
    with pytest.raises(InputError, match=r"6 clusters were asked for, and only 4 have rows"):
        clustered(x, 6, restarts=1, iterations=4)


def test_too_few_iterations_are_not_called_converged(blobs, in_panels):
    assert clustered(blobs[0], K, restarts=2, iterations=1).metrics["state"] == "unconverged"


@pytest.mark.parametrize("in_rounds", [False, True])
def test_cluster_qr_is_that_of_scikit_learn(in_rounds, request):
    if in_rounds:
        request.getfixturevalue("in_panels")
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 5, N)
    indicator = np.eye(5)[truth] + 0.1 * rng.standard_normal((N, 5))
    basis = np.linalg.qr(indicator)[0].astype(np.float32)
    made = clustered(basis, 5, method="cluster_qr")
    expected = cluster_qr(basis.astype(np.float64))
    assert adjusted_rand_score(column(made, "labels"), expected) == 1.0
    assert adjusted_rand_score(column(made, "labels"), truth) > 0.95


def test_rows_are_told_apart_by_direction_where_they_are_normalised(blobs):
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(3), 100)
    x = (np.eye(3)[truth] + 0.05 * rng.standard_normal((300, 3))) * rng.uniform(0.01, 10, (300, 1))
    made = clustered(x.astype(np.float32), 3, normalize=True)
    assert adjusted_rand_score(column(made, "labels"), truth) == 1.0


def test_the_eigengap_chooses_and_says_why():
    choice = choose([0.011, 0.013, 0.2, 0.21, 0.24], components=2)
    assert choice.clusters == 4
    assert choice.gaps[0] == (2, 0.0, 0.011, 0.011)
    assert "between eigenvalue 4 (0.013000) and 5 (0.200000)" in choice.why
    assert choose([0.001, 0.3, 0.31], components=1).clusters == 2
    with pytest.raises(InputError, match="needs at least 2 eigenvalues above 0"):
        choose([0.3], components=1)


def test_vectors_without_eigenvalues_cannot_say_how_many(blobs):
    with pytest.raises(InputError, match="reads the number off the eigenvalues"):
        clustered(blobs[0], None)


def test_cluster_qr_needs_as_many_columns_as_clusters(blobs):
    with pytest.raises(InputError, match=r"7 clusters need 7 columns .* and 6 do"):
        clustered(blobs[0], K, method="cluster_qr")


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(InputError, match="9 clusters need at least as many rows"):
        clustered(np.eye(4, dtype=np.float32), 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "clusters=0: expected at least 1, or 'auto'"),
        ({"clusters": 3, "method": "discretize"}, "method='discretize': expected 'kmeans'"),
        ({"clusters": 3, "restarts": 0}, "restarts=0: expected at least 1"),
        ({"clusters": 3, "tolerance": 0.0}, r"tolerance=0\.0: expected a number between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ClusterConfig(**options)
