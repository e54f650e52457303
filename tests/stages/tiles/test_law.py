"""Dense tiles are the dense answer, however they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.tiles.cases import Lopsided, dense, rows

from simdist.errors import InputError
from simdist.measures import SHIPPED, Measure, resolve
from simdist.stages.tiles.config import TilesConfig
from simdist.stages.tiles.encode import shard_bytes
from simdist.stages.tiles.grid import CHUNK, TASK_NBYTES, TILE, Grid
from simdist.stages.tiles.values import between, stored, within
from simdist.types import Float32

FIELDS = {
    "scaled": {"measure": "euclidean", "lengthscales": [0.5, 1, 2, 3, 1, 1]},
    "squash": {"measure": "sqeuclidean", "scale": 3.0},
}
BITS = {"hamming", "jaccard", "packed"}  # take other rows: tests/measures/test_bits.py
MEASURES: list[Measure] = [
    *(resolve({"name": name, **FIELDS.get(name, {})}) for name in SHIPPED if name not in BITS),
    Lopsided(),
]


def nothing() -> None:
    """What a task checks when nobody cancels it."""


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_a_block_against_itself_is_the_dense_answer_symmetric_and_exact_on_the_diagonal(
    measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simdist.stages.tiles.values.TILE", 32)  # several tiles in a small block
    x = rows(90)
    x[7] = x[80]  # a pair of equal rows, in different tiles
    values = within(measure, measure.prepare(x), nothing)
    np.testing.assert_allclose(values, dense(measure, x, x), rtol=2e-5, atol=3e-3)
    np.testing.assert_array_equal(values.diagonal(), measure.diag(x))
    if measure.traits.symmetric:
        np.testing.assert_array_equal(values, values.T)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_two_blocks_are_the_dense_answer(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simdist.stages.tiles.values.TILE", 32)
    x, y = rows(70), rows(41, seed=1)
    values = between(measure, measure.prepare(x), measure.prepare(y), nothing)
    np.testing.assert_allclose(values, dense(measure, x, y), rtol=2e-5, atol=1e-5)


@given(
    n=st.integers(1, 2000),
    m=st.none() | st.integers(1, 2000),
    block=st.sampled_from([16, 128, 512, None]),
    symmetric=st.booleans(),
)
def test_every_block_belongs_to_one_task(
    n: int, m: int | None, block: int | None, symmetric: bool
) -> None:
    grid = Grid.of(TilesConfig({"name": "dot"}, block=block), n, m, 8, symmetric=symmetric)
    down, across = grid.blocks
    done = list(grid.pairs())
    if grid.own:
        done += [(j, i) for i, j in done if i != j]
    assert sorted(done) == [(i, j) for i in range(down) for j in range(across)]
    assert down * grid.block >= n > (down - 1) * grid.block
    assert grid.block % grid.chunk == 0


@given(n=st.integers(1, 10**6), d=st.integers(1, 5000), half=st.booleans())
@settings(max_examples=50)
def test_tasks_stay_small_whatever_the_data(n: int, d: int, half: bool) -> None:
    config = TilesConfig({"name": "dot"}, dtype="float16" if half else "float32")
    grid = Grid.of(config, n, None, d, symmetric=True)
    assert grid.nbytes <= TASK_NBYTES
    assert grid.block >= min(CHUNK, TILE) or d > 1000


def test_the_usual_case_has_the_usual_blocks() -> None:
    grid = Grid.of(TilesConfig({"name": "cosine"}), 63_666, None, 384, symmetric=True)
    assert (grid.block, grid.chunk, grid.blocks) == (2048, 512, (32, 32))
    assert sum(1 for _ in grid.pairs()) == 32 * 33 // 2


# -- what is stored --------------------------------------------------------------------------------


def test_float16_is_the_nearest_half_and_a_value_beyond_it_is_refused_with_its_place() -> None:
    values = np.array([[0.1, -65504, 65519], [1e-9, 0.33333, 7]], np.float32)
    half = stored(values, "float16", corner=(0, 0), measure="dot")
    np.testing.assert_array_equal(half, values.astype(np.float16))
    assert half[0, 2] == 65504
    values[1, 2] = -65520
    with pytest.raises(
        InputError, match=r"the dot of row 101 and column 9 is -65520, and float16 ends at 65504"
    ):
        stored(values, "float16", corner=(100, 7), measure="dot")
    np.testing.assert_array_equal(stored(values, "float32", corner=(0, 0), measure="dot"), values)


def test_an_infinite_distance_stays_infinite() -> None:
    values = np.array([[np.inf, 1]], np.float32)
    assert stored(values, "float16", corner=(0, 0), measure="own")[0, 0] == np.inf


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_transposed_block_is_the_transposed_shard(dtype: str) -> None:
    grid = Grid.of(TilesConfig({}, dtype=dtype, block=32), 60, None, 4, symmetric=True)  # type: ignore[arg-type]
    values: Float32 = rows(32, 28).astype(dtype)
    plain = shard_bytes(grid, (0, 1), values)
    assert shard_bytes(grid, (0, 1), np.asfortranarray(values)) == plain
    assert shard_bytes(grid, (1, 0), values.T) == shard_bytes(
        grid, (1, 0), np.ascontiguousarray(values.T)
    )


def test_values_that_are_all_missing_are_written_all_the_same() -> None:
    grid = Grid.of(TilesConfig({}, block=16), 16, None, 4, symmetric=True)
    assert shard_bytes(grid, (0, 0), np.full((16, 16), np.nan, np.float32))
