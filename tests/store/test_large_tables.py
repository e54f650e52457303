"""Tables that go up in several parts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from simdist.store import open_store
from simdist.store.objects import PART


def test_a_table_larger_than_a_part_is_read_back(tmp_path):
    numbers = np.random.default_rng(0).random(PART // 4)
    store = open_store(tmp_path)
    ref = store.write_table("large", pa.table({"x": numbers}))
    assert ref.nbytes > PART
    assert np.array_equal(store.read_table(ref)["x"].to_numpy(), numbers)
