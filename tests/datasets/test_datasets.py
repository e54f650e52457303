"""Bundled and synthetic data are what their docstrings say."""

from __future__ import annotations

import numpy as np
import pytest

from simdist import datasets
from simdist.datasets.synthetic import BLOCK
from simdist.errors import ConfigError
from simdist.types import Float32


def test_the_bundled_packages_are_unit_rows_with_unique_names() -> None:
    packages = datasets.load("debian-packages")
    assert packages.num_rows == 12_000
    assert packages.column_names == ["package", "section", "summary", "embedding"]
    assert len(packages["package"].unique()) == 12_000
    rows = np.stack(packages["embedding"].to_numpy()).astype(np.float32)
    assert rows.shape == (12_000, 128)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)


def test_the_path_of_a_bundled_set_is_a_file_and_others_are_refused_by_name() -> None:
    assert datasets.names() == ("debian-packages", "friedman")
    assert datasets.path("debian-packages").is_file()
    with pytest.raises(ConfigError, match=r"no data set 'debian'.*'debian-packages'"):
        datasets.path("debian")


@pytest.mark.parametrize("cut", [0, 1, 1000, BLOCK - 1, BLOCK, 2 * BLOCK + 5])
def test_a_row_does_not_depend_on_the_piece_it_is_made_in(cut: int) -> None:
    n = 2 * BLOCK + 100
    whole = datasets.manifold(n, 24, 4, seed=3)
    pieces = [
        datasets.manifold(cut, 24, 4, seed=3),
        datasets.manifold(n - cut, 24, 4, seed=3, start=cut),
    ]
    assert np.array_equal(np.concatenate(pieces), whole)
    clustered = datasets.clusters(n, 24, 7, seed=3)
    late = datasets.clusters(n - cut, 24, 7, seed=3, start=cut)
    assert np.array_equal(late.rows, clustered.rows[cut:])
    assert np.array_equal(late.labels, clustered.labels[cut:])


def test_seeds_give_other_rows_and_blocks_do_not_repeat() -> None:
    one, other = datasets.manifold(2 * BLOCK, 16, 4), datasets.manifold(100, 16, 4, seed=1)
    assert not np.array_equal(one[:100], other)
    assert not np.array_equal(one[:BLOCK], one[BLOCK:])
    assert one.dtype == np.float32


def intrinsic_dim_of(rows: Float32, queries: int = 1000, k: int = 20) -> float:
    """Maximum-likelihood estimate from nearest-neighbour distances (Levina and Bickel, 2004)."""
    import faiss

    squared, _ = faiss.knn(rows[:queries], rows, k + 1)
    distances = np.sqrt(np.maximum(squared[:, 1:], 1e-12))
    return float(1 / np.mean(np.log(distances[:, -1:] / distances[:, :-1])) * k / (k - 1))


@pytest.mark.parametrize("r", [2, 4, 8])
def test_a_manifold_has_the_intrinsic_dimension_it_was_given(r: int) -> None:
    rows = datasets.manifold(20_000, 64, r, seed=5, noise=0)
    assert intrinsic_dim_of(rows) == pytest.approx(r, rel=0.15)
    spread = np.linalg.svd(rows[:4000] - rows[:4000].mean(0), compute_uv=False)
    assert np.sum(spread > 0.02 * spread[0]) > 3 * r  # curved: it spans more than r directions


def test_noise_fills_all_dimensions() -> None:
    rows = datasets.manifold(5000, 32, 2, noise=0.5)
    assert intrinsic_dim_of(rows) > 8


@pytest.mark.parametrize("r", [0, 17])
def test_an_impossible_intrinsic_dimension_is_refused(r: int) -> None:
    with pytest.raises(ConfigError, match=f"got intrinsic_dim={r}, d=16"):
        datasets.manifold(10, 16, r)


def test_rows_gather_around_the_centre_of_their_cluster() -> None:
    rows, labels = datasets.clusters(5000, 32, 5, spread=0.1)
    means = np.stack([rows[labels == c].mean(0) for c in range(5)])
    nearest = np.argmin(((rows[:, None] - means) ** 2).sum(-1), axis=1)
    assert np.array_equal(nearest, labels)
    sizes = np.bincount(labels)
    assert sizes[0] > 1.5 * sizes[1] > 0
    assert sizes.min() > 0


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_the_asked_share_of_rows_are_copies(share: float) -> None:
    rows = datasets.duplicates(2000, 8, share=share)
    distinct = len(np.unique(rows, axis=0))
    assert rows.shape == (2000, 8)
    assert distinct == max(1, 2000 - round(2000 * share))


def test_two_far_clusters_are_far() -> None:
    rows, labels = datasets.two_far_clusters(3000, 16)
    assert rows[labels == 1, 0].min() - rows[labels == 0, 0].max() > 900
    assert 200 < labels.sum() < 400


def test_constant_columns_are_constant() -> None:
    rows = datasets.constant_columns(500, 10, varying=3)
    assert np.array_equal(np.ptp(rows, axis=0) > 0, [True] * 3 + [False] * 7)
    assert len(np.unique(datasets.constant_columns(50, 10, varying=0), axis=0)) == 1


def test_hubs_are_neighbours_of_very_many_rows() -> None:
    import faiss

    rows = datasets.hub_gaussian(3000, 64)
    _, found = faiss.knn(rows, rows, 11)
    counts = np.bincount(found[:, 1:].ravel(), minlength=3000)
    assert counts.max() > 30 * counts.mean()
    assert (counts == 0).mean() > 0.3


def test_the_bundled_regression_is_what_its_formula_gives() -> None:
    table = datasets.load("friedman")
    made = datasets.friedman(table.num_rows)
    rows = np.stack(table["x"].to_numpy())
    assert np.array_equal(rows, made.rows)
    assert np.allclose(table["y"].to_numpy(), made.y, rtol=1e-12)
    assert 0.9 < np.std(made.y - made.truth) < 1.1
    with pytest.raises(ConfigError, match="at least 5 columns"):
        datasets.friedman(10, 4)
