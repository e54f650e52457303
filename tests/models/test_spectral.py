"""`spectral_embedding` and `diffusion_map` as a user calls them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.linalg import eigvalsh
from scipy.sparse.linalg import eigsh
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from stages.importing import shared_file

from simdist.errors import InputError
from simdist.models.links import links_of
from simdist.models.spectral import diffusion_map, spectral_embedding
from simdist.store import open_store


@pytest.fixture(scope="module")
def digits() -> sp.csr_matrix:
    """Bundled digits, 10 nearest neighbours, either way."""
    graph = kneighbors_graph(load_digits().data, 10)
    return sp.csr_matrix(graph.maximum(graph.T))


def normalised(A: sp.csr_matrix) -> sp.csr_matrix:
    degrees = np.asarray(A.sum(axis=1), dtype=np.float64).ravel()
    scale = sp.diags(np.divide(1, np.sqrt(degrees), out=np.zeros(len(degrees)), where=degrees > 0))
    return sp.csr_matrix(scale @ A.astype(np.float64) @ scale)


def largest(S: sp.csr_matrix, known: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """ARPACK's eigenpairs beside the known ones, to a tight tolerance."""
    values, vectors = eigsh(S, known + dim, which="LA", tol=1e-12, ncv=4 * (known + dim))
    order = np.argsort(-values)[known:]
    return values[order], vectors[:, order]


@pytest.mark.parametrize("solver", ["direct", "lobpcg", "chebyshev"])
def test_digits_agree_with_arpack(digits, solver):
    made = spectral_embedding(digits, 9, solver=solver, tolerance=1e-6)
    values, vectors = largest(normalised(digits), 1, 9)
    assert made.converged
    assert np.allclose(1 - made.eigenvalues, values, atol=1e-9)
    overlap = np.linalg.svd(vectors.T @ made.vectors.astype(np.float64), compute_uv=False)
    assert overlap.min() > 1 - 1e-6
    assert repr(made) == "SpectralEmbedding(1797 nodes, dim=9, converged)"


def test_the_same_call_gives_the_same_bytes(digits):
    one, two = (spectral_embedding(digits, 4) for _ in range(2))
    assert one.vectors.tobytes() == two.vectors.tobytes()
    assert one.eigenvalues.tobytes() == two.eigenvalues.tobytes()
    assert one.passes == two.passes


def test_a_stored_graph_gives_a_dataset_beside_it(digits, tmp_path, local_engine):
    links = links_of(digits, open_store(tmp_path / "store"), engine=local_engine)
    made = spectral_embedding(links, 4)
    assert made.uri.startswith(links.store.uri)
    assert made.converged
    assert made.metrics["solver"] == "direct"
    opened = made.open()
    assert opened.vectors.shape == (1797, 4)
    assert opened.eigengap == pytest.approx(made.metrics["eigengap"])


@pytest.mark.parametrize("laplacian", ["symmetric", "random_walk"])
def test_nodes_of_the_graph_are_placed_where_they_are(digits, laplacian):
    made = spectral_embedding(digits, 5, laplacian=laplacian, tolerance=1e-8)
    assert np.allclose(made.transform(digits[:50]), made.vectors[:50], atol=1e-6)


def test_a_diffusion_map_places_nodes_of_the_graph_where_they_are(digits):
    made = diffusion_map(digits, 5, t=2, alpha=1.0, tolerance=1e-8)
    assert np.allclose(made.transform(digits[:50]), made.vectors[:50], atol=1e-4)


def test_a_point_without_affinity_and_affinities_that_are_none(digits):
    made = spectral_embedding(digits, 3)
    assert np.all(made.transform(sp.csr_matrix((2, 1797))) == 0)
    with pytest.raises(InputError, match=r"shape \(1, 7\); expected \[m, 1797\]"):
        made.transform(np.ones((1, 7)))
    with pytest.raises(InputError, match="negative weight, NaN"):
        made.transform(-np.ones((1, 1797)))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("solver", ["direct", "chebyshev"])
def test_distances_in_a_whole_diffusion_map_are_diffusion_distances(alpha, solver):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((30, 2))
    W = np.exp(-np.sum((points[:, None] - points) ** 2, axis=2)).astype(np.float32)
    np.fill_diagonal(W, 0)
    made = diffusion_map(
        sp.csr_matrix(W), 29, t=3, alpha=alpha, solver=solver, tolerance=1e-10, guards=1
    )
    W = W.astype(np.float64)
    degrees = W.sum(axis=1)
    W /= np.outer(degrees, degrees) ** alpha
    degrees = W.sum(axis=1)
    steps = np.linalg.matrix_power(W / degrees[:, None], 3)
    share = degrees / degrees.sum()
    for i, j in ((0, 1), (5, 20)):
        expected = np.sqrt(np.sum((steps[i] - steps[j]) ** 2 / share))
        found = np.linalg.norm(made.vectors[i] - made.vectors[j])
        assert found == pytest.approx(expected, rel=1e-5)


def test_what_did_not_converge_is_said_aloud(digits):
    with pytest.warns(RuntimeWarning, match="did not converge: .* asked for 1e-06"):
        made = spectral_embedding(digits, 4, solver="lobpcg", tolerance=1e-6, max_passes=4)
    assert not made.converged
    assert "UNCONVERGED" in repr(made)


def test_a_directed_graph_is_refused(digits):
    with pytest.raises(InputError):
        spectral_embedding(sp.csr_matrix(sp.triu(digits)), 3)


def test_as_many_eigenvectors_as_nodes_are_refused(digits):
    with pytest.raises(InputError, match=r"Ask for dim <= 1796"):
        spectral_embedding(digits, 1797)


def _edges(name: str) -> sp.csr_matrix:
    """A shared graph, every edge both ways with weight 1."""
    with np.load(shared_file(name), allow_pickle=True) as held:
        edges, n = held["edges"], len(held["labels"])
    edges = edges if edges.shape[1] == 2 else edges.T
    A = sp.coo_matrix((np.ones(len(edges)), edges.T), shape=(n, n)).tocsr()
    A = A.maximum(A.T)
    A.setdiag(0)
    A.eliminate_zeros()
    A.data[:] = 1
    return sp.csr_matrix(A)


@pytest.mark.shared
def test_pages_agree_with_arpack_in_no_more_passes_than_the_field_needs():
    A = _edges("musae-facebook.npz")
    made = spectral_embedding(A, 16, solver="lobpcg", guards=8)
    v0 = np.random.default_rng(0).standard_normal(A.shape[0])  # ARPACK would draw another each time
    values = eigsh(normalised(A), 17, which="LA", tol=1e-6, ncv=60, v0=v0)[0]
    values = np.sort(values)[::-1][1:]
    assert made.converged
    assert np.abs(1 - made.eigenvalues - values).max() < 1e-4
    assert made.passes <= 55


@pytest.mark.shared
def test_citations_in_78_components_agree_with_all_eigenvalues_at_once():
    """ARPACK misses copies of the known eigenvalue here, even at a tight tolerance."""
    A = _edges("cora.npz")
    made = spectral_embedding(A, 16, tolerance=1e-6)
    known = sp.csgraph.connected_components(A)[0]
    n = A.shape[0]
    span = [n - known - 16, n - known - 1]
    values = eigvalsh(normalised(A).toarray(), subset_by_index=span)[::-1]
    assert known == 78
    assert made.converged
    assert np.abs(1 - made.eigenvalues - values).max() < 1e-8
