"""The whole matrix as a Zarr array: simdist's tiles, and numpy with zarr in one go, A B A B.

    python -m tests.bench.tiles [--rows 20000] [--repeats 2] [--data X.parquet]

Both get the same rows and write the same kind of array (shards of 2048, chunks of 512, zstd 1)
into a folder of this machine. numpy multiplies and casts the whole matrix in memory and hands it to
zarr; simdist imports the rows, computes each pair of blocks once and writes both halves, with
checksums, records and a manifest. CPU seconds are the ones to compare on a shared machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

import simdist as sd
from tests.bench.data import EMBEDDINGS, embeddings
from tests.bench.million import Peak

BLOCK, CHUNK = 2048, 512


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=EMBEDDINGS)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_known_args()[0]
    x = embeddings(arguments.data)[: arguments.rows]
    n, d = x.shape
    print(f"n={n} d={d}, cosine, {os.cpu_count()} cores\n")
    sd.similarity_tiles(x[:3000])  # imports and first threads
    print("| dtype | | wall s | CPU s | held MiB | on disk MiB |\n|---|---|---|---|---|---|")
    for dtype in ("float16", "float32"):
        contenders: dict[str, Callable[[str], float]] = {
            "simdist": lambda folder, dtype=dtype: _simdist(x, dtype, folder),
            "numpy, then zarr": lambda folder, dtype=dtype: _at_once(x, dtype, folder),
        }
        runs: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in contenders}
        for _ in range(arguments.repeats):
            for name, contender in contenders.items():
                runs[name].append(_measured(contender))
        for name, columns in runs.items():
            wall, cpu, held, size = (statistics.median(c) for c in zip(*columns, strict=True))
            print(f"| {dtype} | {name} | {wall:.1f} | {cpu:.1f} | {held:.0f} | {size:.0f} |")


def _measured(contender: Callable[[str], float]) -> tuple[float, float, float, float]:
    """Wall and CPU seconds, anonymous memory above the start in MiB, and MiB on disk."""
    with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder, Peak() as peak:
        wall, cpu = time.perf_counter(), time.process_time()
        size = contender(folder)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, peak.anonymous / 2**20, size / 2**20


def _simdist(x: np.ndarray, dtype: str, folder: str) -> float:
    with sd.open_engine("local") as engine:
        tiles = sd.similarity_tiles(x, dtype=dtype, scratch=folder, engine=engine)  # type: ignore[arg-type]
    values = tiles.array[:300, -300:]
    if np.abs(values - x[:300] @ x[-300:].T).max() > (1e-3 if dtype == "float16" else 1e-5):
        raise SystemExit("the answers disagree")
    return float(tiles.metrics["stored_nbytes"])


def _at_once(x: np.ndarray, dtype: str, folder: str) -> float:
    values = (x @ x.T).astype(dtype, copy=False)
    array = zarr.create_array(
        f"{folder}/matrix",
        shape=values.shape,
        dtype=dtype,
        shards=(BLOCK, BLOCK),
        chunks=(CHUNK, CHUNK),
        compressors=ZstdCodec(level=1, checksum=True),
    )
    array[...] = values
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
