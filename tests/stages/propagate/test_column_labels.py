"""A column of imported vectors as class numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import simdist as sd
from simdist.errors import InputError, TaskFailed
from simdist.models.chain import run_link
from simdist.models.propagation import column_link
from simdist.store import Dataset, Store

COLOURS = ["red", None, "blue", "red", "green", None, "blue", "blue"]


@pytest.fixture
def vectors(tmp_path: Path) -> Dataset:
    """Eight rows from two files, with a column of each kind."""
    flat = pa.array(np.eye(8, dtype=np.float32).ravel())
    table = pa.table(
        {
            "v": pa.FixedSizeListArray.from_arrays(flat, 8),
            "colour": COLOURS,
            "number": [30, 10, 10, None, 20, 30, 30, 30],
            "share": np.linspace(0, 1, 8),
            "nothing": pa.nulls(8, pa.string()),
        }
    )
    pq.write_table(table[:5], tmp_path / "a.parquet")
    pq.write_table(table[5:], tmp_path / "b.parquet")
    keep = ["colour", "number", "share", "nothing"]
    store = sd.open_store(tmp_path / "store")
    return sd.import_vectors(str(tmp_path / "*.parquet"), vector="v", keep=keep, store=store)


def labelled(vectors: Dataset, column: str) -> Dataset:
    store: Store = vectors.store
    with sd.open_engine("local", workers=1) as engine:
        link = column_link("labels", "x", column)
        return run_link(link, {"x": vectors}, store=store, engine=engine)


def numbers(dataset: Dataset) -> list[int]:
    parts = [dataset.store.read_array(shard.objects["labels"]) for shard in dataset.shards]
    return [int(label) for label in np.concatenate(parts)]


def test_values_are_numbered_in_ascending_order_and_empty_ones_are_no_label(
    vectors: Dataset,
) -> None:
    found = labelled(vectors, "colour")
    assert found.metrics["classes"] == ["blue", "green", "red"]
    assert numbers(found) == [2, -1, 0, 2, 1, -1, 0, 0]
    assert found.metrics["labelled"] == 6
    assert numbers(labelled(vectors, "number")) == [2, 0, 0, -1, 1, 2, 2, 2]


def test_they_spread_over_a_graph_of_the_same_rows(vectors: Dataset) -> None:
    found = labelled(vectors, "colour")
    edges = np.array([[0, 1], [2, 3], [4, 5], [5, 6], [6, 7]])
    graph = sd.import_graph(edges, nodes=8, symmetrize="union", store=vectors.store)
    spread = sd.label_propagation(graph, found)
    assert numbers(spread)[1] == 2


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("colours", "no column 'colours'; kept with its vectors: colour, number, share, nothing"),
        ("share", "holds double; classes are strings, whole numbers or booleans"),
        ("nothing", "is empty in every row"),
    ],
)
def test_a_column_without_classes_is_refused(vectors: Dataset, column: str, said: str) -> None:
    with pytest.raises((InputError, TaskFailed), match=said):
        labelled(vectors, column)
