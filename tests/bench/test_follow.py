"""What the data decides, carried from the shapes that were run to those that were not."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from simdist.stages.costs import Typical
from tests.bench.follow import Followed

SHAPES = [(10_000, 128), (30_000, 128), (100_000, 128), (30_000, 64), (100_000, 512)]


def run(rows: int, dim: int) -> dict:
    """More is missed of more rows and of wider ones; pairs a row grow with the rows alone."""
    missed = 1e-3 * (rows / 10_000) ** 0.5 * (dim / 64) ** 0.25
    pairs = 400 + 10 * math.log(rows)
    typical = Typical(pairs=(pairs,), proposals=(5.0,))
    return {"rows": rows, "dim": dim, "typical": asdict(typical), "recalls": {"1": 1 - missed}}


def test_rows_and_dimensions_are_followed_apart() -> None:
    followed = Followed([run(*shape) for shape in SHAPES], recall=0.99)
    found = followed.at(1_000_000, 384)
    assert found.pairs[0] == pytest.approx(400 + 10 * math.log(1_000_000))
    assert found.proposals[0] == pytest.approx(5.0)
    assert found.joins == 2  # 1.6 % missed after one, and a second was never run
    assert len(found.pairs) == 2
    assert found.pairs[1] < found.pairs[0]
    assert followed.at(100_000, 384).joins == 1


def test_runs_of_one_shape_say_the_same_of_every_other() -> None:
    found = Followed([run(30_000, 128)] * 3, recall=0.9).at(1_000_000, 64)
    assert found.pairs == pytest.approx((400 + 10 * math.log(30_000),))
    assert found.joins == 1
