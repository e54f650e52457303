"""Rates found again from the seconds they explain."""

from __future__ import annotations

import pytest

from simdist.runner import RoundForecast
from simdist.simulation import KindRates, Measured, Rates, fitted

TRUE = KindRates(task=0.01, row=2e-6, byte=3e-9, work=2.0, pair=0.3, spread=0.2)
SHAPES = [(4, 1e4, 64), (8, 3e4, 64), (8, 3e4, 128), (16, 1e5, 128), (16, 1e5, 256), (5, 2e4, 512)]


def rounds(kind: str) -> list[RoundForecast]:
    return [
        RoundForecast(
            f"{kind}-0-{i}",
            tasks,
            flops=600 * n * d,
            pairs=40 * n,
            read=int(4 * n * d),
            written=int(90 * n),
            rows=int(n),
        )
        for i, (tasks, n, d) in enumerate(SHAPES)
    ]


def test_rates_are_found_again_from_the_seconds_they_gave() -> None:
    rates = Rates(1e10, 1e10, 1e-8, {"leaves": TRUE})
    seen = [Measured(cost, rates.seconds(cost), 0.2) for cost in rounds("leaves")]
    found = fitted(Rates(1e10, 1e10, 1e-8), seen)
    larger = RoundForecast(
        "leaves-0",
        100,
        flops=600 * 1e6 * 384,
        read=4 * 384 * 10**6,
        written=90 * 10**6,
        pairs=4e7,
        rows=10**6,
    )
    assert found.seconds(larger) == pytest.approx(rates.seconds(larger), rel=0.1)
    assert found.of("leaves").spread == pytest.approx(0.2)


def test_no_rate_is_negative_and_one_point_is_met() -> None:
    costs = rounds("merge")[:1]
    found = fitted(Rates(1e10, 1e10), [Measured(costs[0], 2.5, 0.1)])
    kind = found.of("merge")
    assert min(kind.task, kind.row, kind.byte, kind.work, kind.pair) >= 0
    assert found.seconds(costs[0]) == pytest.approx(2.5, rel=0.05)


def test_a_kind_that_was_not_measured_takes_the_rates_of_all() -> None:
    rates = Rates(1e10, 1e10, 1e-8, {"leaves": TRUE})
    cost = RoundForecast("unheard-of", 10, rows=1000)
    assert rates.of(cost.kind) == rates.other
    assert rates.seconds(cost) == pytest.approx(10 * rates.other.task + 1000 * rates.other.row)


def test_a_cpu_twice_as_fast_takes_half_the_seconds() -> None:
    rates = Rates(1e10, 2e10, 1e-8, {"leaves": TRUE})
    for cost in rounds("leaves"):
        assert rates.times(2.0).seconds(cost) == pytest.approx(rates.seconds(cost) / 2)


def test_what_grows_with_the_bytes_looked_into_is_told_from_what_does_not() -> None:
    """Wide rows among few tell what a cache does not hold: the rest is for more of them."""
    true = Rates(1e10, 1e10, 1e-8, {"join": KindRates(task=0.01, row=2e-6, growth=0.2)})
    shapes = [(4, 10_000, 128), (8, 30_000, 128), (8, 100_000, 128), (8, 100_000, 512)]
    costs = [
        RoundForecast("join-0-1", tasks, common=4 * n * d, written=90 * n, rows=n)
        for tasks, n, d in shapes
    ]
    seen = [Measured(cost, true.seconds(cost), 0.2) for cost in costs]
    found = fitted(Rates(1e10, 1e10, 1e-8), seen)
    assert found.of("join").growth == pytest.approx(0.2)
    larger = RoundForecast("join-0-1", 16, common=10**9, written=9 * 10**7, rows=10**6)
    assert found.seconds(larger) == pytest.approx(true.seconds(larger), rel=0.05)
    flat = Rates(1e10, 1e10, 1e-8, {"join": KindRates(task=0.01, row=2e-6)})
    seen = [Measured(cost, flat.seconds(cost), 0.2) for cost in costs]
    assert fitted(Rates(1e10, 1e10, 1e-8), seen).of("join").growth == 0.0
