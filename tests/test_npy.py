"""Headers of .npy files are read by pattern, as numpy reads them."""

from __future__ import annotations

import gc
import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from simdist.npy import HEADER_NBYTES, read_header


def _bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "i1", "<u8", "?", "<c8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5), (4, 0, 2)])
def test_what_numpy_writes_is_read(dtype, shape):
    data = _bytes(np.zeros(shape, dtype))
    found, kind, fortran, begin = read_header(data[:HEADER_NBYTES])
    assert (found, kind, fortran) == (shape, np.dtype(dtype), False)
    assert len(data) - begin == np.zeros(shape, dtype).nbytes


def test_fortran_order_is_told():
    assert read_header(_bytes(np.asfortranarray(np.ones((3, 4)))))[2] is True


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1 and more bytes", _bytes(np.zeros((9, 9)))[:40], _bytes(np.zeros(3, "f4,i8"))],
    ids=["empty", "parquet", "cut short", "named fields"],
)
def test_anything_else_is_refused(data):
    with pytest.raises(ValueError, match=r"\.npy header"):
        read_header(data)


def test_threads_that_map_and_drop_files_do_not_disturb_each_other(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((64, 8), np.float32))

    def read(_: int) -> float:
        with open(tmp_path / "x.npy", "rb") as file:
            shape, dtype, _, begin = read_header(file.read(HEADER_NBYTES))
            mapped = np.memmap(file, dtype=dtype, mode="r", offset=begin, shape=shape)
        cycle = [mapped]
        cycle.append(cycle)  # freed by the collector, in whichever thread it strikes
        if _ % 50 == 0:
            gc.collect()
        return float(mapped[0, 0])

    gc.freeze()  # what the session holds already is not looked at again and again
    try:
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(read, range(2000), timeout=60)) == {1.0}
    finally:
        gc.unfreeze()
