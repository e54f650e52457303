"""`KnnTransformer` in scikit-learn pipelines, beside scikit-learn's own KNeighborsTransformer."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import DBSCAN, SpectralClustering
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE, Isomap
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsTransformer, sort_graph_by_row_values
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import LabelSpreading
from sklearn.utils.estimator_checks import parametrize_with_checks

from simdist import KnnTransformer
from simdist.errors import ConfigError, InputError
from simdist.types import Array

NEW = slice(300, 340)
SEEN = slice(0, 300)


@pytest.fixture(scope="module")
def digits() -> tuple[Array, Array]:
    x, y = load_digits(return_X_y=True)
    noise = np.random.default_rng(0).standard_normal((340, 64))  # no two distances are equal
    return x[:340] + 1e-3 * noise, y[:340]


@parametrize_with_checks([KnnTransformer()])
def test_it_is_a_scikit_learn_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "cosine"])
def test_it_gives_what_kneighbors_transformer_gives(
    digits: tuple[Array, Array], mode: Any, metric: str
) -> None:
    x, _ = digits
    ours = KnnTransformer(mode=mode, n_neighbors=7, metric=metric, method="exact")
    theirs = KNeighborsTransformer(mode=mode, n_neighbors=7, metric=metric)
    for found, expected in (
        (ours.fit_transform(x[SEEN]), theirs.fit_transform(x[SEEN])),
        (ours.transform(x[NEW]), theirs.transform(x[NEW])),
    ):
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert found.nnz == expected.nnz
        assert sort_graph_by_row_values(found, warn_when_not_sorted=True) is found
        # A row with itself: exactly 0 here, what a matrix product leaves of 0 there.
        np.testing.assert_allclose(found.toarray(), expected.toarray(), rtol=1e-5, atol=5e-6)
    names = ours.get_feature_names_out()
    assert names[0] == "knntransformer0"
    assert len(names) == found.shape[1]


def test_the_row_itself_comes_first_and_the_graph_says_how_good_it_is(
    digits: tuple[Array, Array],
) -> None:
    x, _ = digits
    transformer = KnnTransformer(n_neighbors=7, recall=0.9)
    matrix = transformer.fit_transform(x.astype(np.float32))
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix.indices.reshape(-1, 8)[:, 0], np.arange(len(x)))
    assert transformer.graph_.recall.low >= 0.9
    assert np.array_equal(transformer.graph_.indices, matrix.indices.reshape(-1, 8)[:, 1:])


def test_one_neighbour_and_all_of_them_are_the_edges_of_what_can_be_asked(
    digits: tuple[Array, Array],
) -> None:
    x = digits[0][:9]
    alone = KnnTransformer(mode="connectivity", n_neighbors=1).fit_transform(x)
    assert np.array_equal(alone.toarray(), np.eye(9))
    everyone = KnnTransformer(mode="connectivity", n_neighbors=9).fit_transform(x)
    assert (everyone.toarray() == 1).all()
    with pytest.raises(InputError, match="k=9 neighbours need at least 10 rows"):
        KnnTransformer(n_neighbors=9).fit_transform(x)


def test_parameters_are_checked_copied_and_pickled(digits: tuple[Array, Array]) -> None:
    x, _ = digits
    with pytest.raises(ConfigError, match="mode='distances'"):
        KnnTransformer(mode="distances").fit(x)  # type: ignore[arg-type]
    transformer = KnnTransformer(n_neighbors=3, metric="manhattan", random_state=5)
    assert clone(transformer).get_params() == transformer.get_params()
    again = pickle.loads(pickle.dumps(transformer.fit(x[SEEN])))
    assert (again.transform(x[NEW]) != transformer.transform(x[NEW])).nnz == 0
    drawn = KnnTransformer(n_neighbors=3, random_state=np.random.RandomState(1))
    assert drawn.fit_transform(x).shape == (340, 340)


# -- what takes neighbours ready-made --------------------------------------------------------------


def test_tsne_and_isomap_take_it(digits: tuple[Array, Array]) -> None:
    x, _ = digits
    tsne = TSNE(metric="precomputed", init="random", perplexity=10, max_iter=250, random_state=0)
    assert np.isfinite(make_pipeline(KnnTransformer(n_neighbors=31), tsne).fit_transform(x)).all()

    def isomap(neighbors: Any) -> Array:
        pipeline = make_pipeline(neighbors, Isomap(n_neighbors=12, metric="precomputed"))
        return np.abs(np.concatenate([pipeline.fit_transform(x[SEEN]), pipeline.transform(x[NEW])]))

    ours, theirs = (
        KnnTransformer(n_neighbors=12, method="exact"),
        KNeighborsTransformer(n_neighbors=12),
    )
    np.testing.assert_allclose(isomap(ours), isomap(theirs), rtol=1e-3, atol=1e-3)


def test_spectral_clustering_and_dbscan_take_it(digits: tuple[Array, Array]) -> None:
    x, y = digits
    spectral = SpectralClustering(
        10, affinity="precomputed_nearest_neighbors", n_neighbors=15, random_state=0
    )
    exact = KnnTransformer(n_neighbors=15, method="exact")  # one edge holds 340 digits together
    found = make_pipeline(exact, spectral).fit_predict(x)
    assert adjusted_rand_score(y, found) > 0.5
    dense = DBSCAN(eps=20.0, min_samples=5)
    sparse = DBSCAN(eps=20.0, min_samples=5, metric="precomputed")
    graph = KnnTransformer(n_neighbors=60, method="exact")
    assert np.array_equal(make_pipeline(graph, sparse).fit_predict(x), dense.fit_predict(x))


def test_classifiers_and_label_spreading_take_it(digits: tuple[Array, Array]) -> None:
    x, y = digits
    classifier = KNeighborsClassifier(n_neighbors=5, metric="precomputed")
    pipeline = make_pipeline(KnnTransformer(n_neighbors=9, method="exact"), classifier)
    plain = KNeighborsClassifier(n_neighbors=5).fit(x[SEEN], y[SEEN])
    assert np.array_equal(pipeline.fit(x[SEEN], y[SEEN]).predict(x[NEW]), plain.predict(x[NEW]))

    def neighbors(fitted: Array, rows: Array) -> Any:
        graph = KnnTransformer(n_neighbors=8, mode="connectivity").fit(fitted).transform(rows)
        return graph if rows is fitted else graph.T

    few = np.where(np.arange(300) % 10 == 0, y[SEEN], -1)
    spread = LabelSpreading(kernel=neighbors).fit(x[SEEN], few)
    assert (spread.transduction_ == y[SEEN]).mean() > 0.8
    assert spread.score(x[NEW], y[NEW]) > 0.7


def test_without_scikit_learn_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import simdist as sd\n"
        "try: sd.KnnTransformer\n"
        "except sd.errors.ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert "pip install 'simdist[sklearn]'" in done.stdout
