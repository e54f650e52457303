"""What tables say of runs follows from the runs."""

from __future__ import annotations

import pytest

from tests.bench.alone import Run
from tests.bench.curves import Point, cost_at, frontier, slope
from tests.bench.ledger import points


def test_a_setting_that_costs_more_and_finds_less_is_not_on_the_frontier():
    points = [Point(0.9, 2.0), Point(0.8, 3.0), Point(0.99, 5.0), Point(0.9, 2.5)]
    assert frontier(points) == [Point(0.9, 2.0), Point(0.99, 5.0)]


def test_a_cost_between_two_settings_lies_between_theirs():
    points = [Point(0.9, 1.0), Point(0.99, 4.0)]
    assert cost_at(points, 0.9) == 1.0
    assert cost_at(points, 1 - 10**-1.5) == pytest.approx(2.0)  # half way in both logarithms
    assert 1.0 < cost_at(points, 0.95) < 2.0


def test_no_cost_is_guessed_outside_the_settings():
    points = [Point(0.9, 1.0), Point(0.99, 4.0)]
    assert cost_at(points, 0.995) is None
    assert cost_at(points, 0.5) == 1.0  # the cheapest setting gives more than that
    assert cost_at([], 0.5) is None


def test_a_perfect_sample_can_be_interpolated_to():
    assert 1.0 < cost_at([Point(0.9, 1.0), Point(1.0, 4.0)], 0.99) < 4.0


def test_the_slope_of_a_power_law_is_its_exponent():
    sizes = [1e4, 1e5, 1e6]
    assert slope(sizes, [0.5 * n**1.15 for n in sizes]) == pytest.approx(1.15)


def _run(recall: float, wall: float, check: float = 0.0) -> Run:
    return Run(wall, 2 * wall, check, 2 * check, 0.0, 0, 0, recall, recall, 0, None, [])


def test_settings_that_make_the_same_graph_count_as_one():
    runs = {
        "simdist recall=0.9": [_run(0.97, 1.0)],
        "simdist recall=0.95": [_run(0.97, 3.0)],
        "simdist recall=0.99": [_run(0.99, 6.0, check=1.0)],
    }
    assert points(runs) == {"simdist": [Point(0.97, 2.0), Point(0.99, 5.0)]}
