"""`mean_shift` as a user calls it: scikit-learn's labels on small data, all rows on large."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import MeanShift
from sklearn.datasets import load_digits, load_iris, make_blobs
from sklearn.metrics import adjusted_rand_score

import simdist as sd
from simdist.errors import ConfigError, InputError
from simdist.models.vectors import import_array
from simdist.stages.density import seeding, shift
from simdist.stages.density.climb import Keys, climb, inside_tile
from simdist.stages.density.sides import Width
from simdist.tiles.gaussian import scaled
from simdist.types import Array

ROWS = 160


def blobs() -> Array:
    return make_blobs(ROWS, 3, centers=5, random_state=1)[0]


def lattice() -> Array:
    """Whole numbers: rows exactly one bandwidth apart, and copies."""
    return np.random.default_rng(0).integers(0, 12, (120, 2)).astype(float)


SETS = {
    "blobs": (blobs, 2.5),
    "iris": (lambda: load_iris().data[::2], 0.8),
    "digits": (lambda: load_digits().data[:80], 26.0),
    "lattice": (lattice, 2.0),
    "far": (lambda: blobs() + 1e6, 2.5),
}


def same_parts(a: Array, b: Array) -> bool:
    """Whether two labellings are one, up to the numbers."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a)) == len(set(b))


@pytest.mark.parametrize("name", SETS)
def test_labels_are_those_of_scikit_learn(name):
    make, bandwidth = SETS[name]
    x = make()
    made, theirs = sd.mean_shift(x, bandwidth), MeanShift(bandwidth=bandwidth).fit(x)
    assert same_parts(made.labels, theirs.labels_)
    assert made.seeding == "all"
    assert made.seeds == (len(x),)
    # Numbered by weight; modes of equal weight may change places by a rounding of coordinates.
    assert np.all(np.diff(made.weights) <= 0)
    assert len(made) == len(theirs.cluster_centers_)
    assert np.array_equal(np.sort(made.sizes), np.sort(np.bincount(theirs.labels_)))


@pytest.mark.parametrize("name", ["blobs", "iris", "far"])
def test_bins_are_those_of_scikit_learn(name):
    make, bandwidth = SETS[name]
    x = make()
    made = sd.mean_shift(x, bandwidth, seeds="bins", least=2)
    theirs = MeanShift(bandwidth=bandwidth, bin_seeding=True, min_bin_freq=2).fit(x)
    assert same_parts(made.labels, theirs.labels_)
    assert made.seeds[0] < len(x)


def test_rows_far_from_all_modes_may_stay_without_a_label():
    x = np.concatenate([blobs(), [[100.0, 0, 0]]])
    made = sd.mean_shift(x, 1.5, everyone=False, seeds="bins", least=5)
    theirs = MeanShift(bandwidth=1.5, cluster_all=False, bin_seeding=True, min_bin_freq=5).fit(x)
    assert np.array_equal(made.labels < 0, theirs.labels_ < 0)
    assert made.labels[-1] == -1
    assert made.sizes.sum() == np.sum(made.labels >= 0)


def test_turns_end_as_many_moves_as_scikit_learn_allows():
    x = load_iris().data[::2]
    made = sd.mean_shift(x, 0.8, turns=2, tolerance=1e-12, merge=1e-6)
    theirs = MeanShift(bandwidth=0.8, max_iter=2).fit(x)
    ends = {tuple(np.round(end, 6)) for end in made.modes}
    assert {tuple(np.round(center, 6)) for center in theirs.cluster_centers_} <= ends


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_flat_kernel_takes_in_is_exact_in_any_precision(dtype):
    """Rows on, just within and just beyond the rim, far from the center."""
    rng = np.random.default_rng(6)
    x = rng.integers(-50, 50, (300, 4)).astype(float)
    x[:20] = x[20:40] * (1 + 1e-9)
    width = Width(x.mean(axis=0), np.full(4, 5.0), 1.0, 1.0)
    rows = scaled(x, width.center, width.widths, dtype)
    expected = np.sum((x[:, None] - x) ** 2, axis=2) <= 25.0
    assert np.array_equal(inside_tile(x, rows, x, rows, width), expected)


def test_gaussian_modes_are_where_the_score_vanishes():
    x = blobs()
    made = sd.mean_shift(x, 1.0, kernel="gaussian", tolerance=1e-6)
    assert len(made) == 5
    field = sd.score_field(x, made.modes, 1.0)
    assert np.allclose(field.scores, 0, atol=1e-4)
    count = np.log(len(x)) + 1.5 * np.log(2 * np.pi)
    assert np.allclose(made.weights, field.log_density + count, atol=1e-4)
    assert same_parts(made.labels, make_blobs(ROWS, 3, centers=5, random_state=1)[1])


def test_a_few_seeds_find_the_modes_of_all(monkeypatch):
    """Waves of 40 seeds instead of 4,096: the same clusters, every row near a mode or a seed."""
    monkeypatch.setattr(seeding, "WAVE", 40)
    monkeypatch.setattr("simdist.stages.density.ascent.WAVE", 40)
    x, truth = make_blobs(500, 4, centers=12, cluster_std=0.6, random_state=3)
    x = np.concatenate([x, x.max() + 40 * np.arange(1.0, 6.0)[:, None] * np.ones(4)])
    made = sd.mean_shift(x, 2.5, seeds="cover")
    assert len(made.seeds) > 1
    assert adjusted_rand_score(truth, made.labels[:500]) > 0.99
    assert len(set(made.labels[500:])) == 5  # rows that stand alone are modes of their own
    apart = np.linalg.norm(x - made.modes[made.labels], axis=1)
    everywhere = sd.mean_shift(x, 2.5)
    assert adjusted_rand_score(everywhere.labels, made.labels) > 0.99
    assert np.mean(apart <= 2.5) > 0.99


def test_a_climb_ends_where_a_known_mode_is_near():
    """One hill: points on its slope need not climb to the top again; one on another hill does."""
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.standard_normal(2000), 40 + rng.standard_normal(200)])[:, None]
    width = Width(x.mean(axis=0), np.ones(1), 1.0, 1.0)
    keys = Keys(x, scaled(x, width.center, width.widths, "float64"))
    given = {"kernel": "flat", "dtype": "float64", "tolerance": 1e-6, "last": False}
    start = np.array([[2.5], [-2.5], [42.0]])

    def climbed(**known):
        return climb(start, lambda: [keys], width, turns=50, check=lambda: None, **known, **given)

    top = climbed()
    assert not top.caught.any()
    modes = scaled(top.points[:1], width.center, width.widths, "float64")
    found = climbed(known=modes, reach=1.0)
    assert found.caught.tolist() == [True, True, False]
    assert not found.moving.any()
    assert np.abs(found.points[:2] - top.points[:2]).max() <= 1.5
    assert np.abs(found.points[0] - top.points[0]) > 0.01  # it stopped on the way
    assert np.array_equal(found.points[2], top.points[2])


def test_points_that_arrived_leave_and_the_others_go_on_in_further_rounds(monkeypatch):
    x = blobs()
    at_once = sd.mean_shift(x, 2.5)
    monkeypatch.setattr(shift, "TASK_FLOPS", 1.0)  # a turn a round
    monkeypatch.setattr(shift, "CHUNK", 32)
    in_rounds = sd.mean_shift(x, 2.5)
    assert same_parts(at_once.labels, in_rounds.labels)
    assert np.allclose(at_once.weights, in_rounds.weights)


def test_a_stored_dataset_gives_the_same_modes_in_a_dataset(tmp_path, local_engine):
    x = blobs().astype(np.float32)
    store = sd.open_store(tmp_path / "store")
    stored = import_array(x, store=store, engine=local_engine)
    made = sd.mean_shift(stored, "knn", neighbor=25, engine=local_engine)
    plain = sd.mean_shift(x, "knn", neighbor=25)
    assert made.open().labels.tobytes() == plain.labels.tobytes()
    assert made.open().modes.tobytes() == plain.modes.tobytes()
    assert plain.bandwidth.rule == "knn"
    assert made.metrics["sizes"] == plain.sizes.tolist()
    table = store.read_table(made.shards[0].objects["clusters"])
    assert table.column_names == ["row", "id", "cluster"]
    assert repr(plain).startswith(f"Modes({len(plain)} of 160 rows: ")


def test_rules_give_a_flat_kernel_the_radius_of_a_ball_of_the_same_variance():
    x = blobs()
    flat, smooth = (sd.mean_shift(x, "scott", kernel=k).bandwidth for k in ("flat", "gaussian"))
    assert flat.value == pytest.approx(np.sqrt(5) * smooth.value)
    gaps = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)
    near = sd.mean_shift(x, "knn", neighbor=25).bandwidth
    assert near.value == pytest.approx(np.median(gaps[:, 25]))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"kernel": "box"}, ConfigError, "kernel='box'"),
        ({"seeds": "some"}, ConfigError, "seeds='some'"),
        ({"turns": 0}, ConfigError, "turns=0"),
        ({"tolerance": 0.0}, ConfigError, "tolerance=0.0"),
        ({"bandwidth": -1.0}, ConfigError, "above 0"),
        ({"seeds": "bins", "least": 200}, InputError, "no bin of the grid has 200 rows"),
    ],
)
def test_what_cannot_be_answered_is_refused(options, error, said):
    with pytest.raises(error, match=said):
        sd.mean_shift(blobs(), **{"bandwidth": 2.5, **options})


def test_a_bandwidth_at_which_nearly_every_row_is_a_mode_is_refused(monkeypatch):
    monkeypatch.setattr(shift, "MODES_VALUES", 400)
    with pytest.raises(InputError, match="160 ends of climbs in 3 dimensions are more than one"):
        sd.mean_shift(blobs(), 1e-3)
