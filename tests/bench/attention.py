"""Attention: simdist and PyTorch's scaled_dot_product_attention in turn; a million keys in memory.

    python -m tests.bench.attention [--rows 16384] [--dims 64,128] [--heads 8] [--threads 2]
                                    [--repeats 3] [--dtype float32] [--causal] [--backward]
                                    [--peer-python /path/to/python]
    python -m tests.bench.attention --memory [--keys 1000000] [--queries 4096] [--dims 64]

Both get the same arrays; the peer runs in a process of its own, with the python that has torch, and
waits while the other one computes. Errors are largest differences from float64 on the rows of
CHECKED. One core's CPU seconds are told too: on a shared machine they are the ones to compare.

--memory: vectors are imported first; then a process of its own attends over them, and is watched
from inside every 20 ms: its memory above imports and a small run, with and without pages of mapped
files; and its high-water mark, imports and all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import simdist as sd
from simdist.types import Array
from tests.bench.million import Peak

CHECKED = np.array([0, 1, 255, 256, 511, -1])  # rows compared with float64

PEER = """
import json, sys, time
import numpy as np, torch
folder, threads, causal, backward = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
torch.set_num_threads(threads)
attend = torch.nn.functional.scaled_dot_product_attention
for line in sys.stdin:
    q, k, v = (torch.from_numpy(np.load(f"{folder}/{line.strip()}-{x}.npy"))[None] for x in "qkv")
    if backward == "True":
        for x in (q, k, v):
            x.requires_grad_()
    wall, cpu = time.perf_counter(), time.process_time()
    output = attend(q, k, v, is_causal=causal == "True")
    if backward == "True":
        output.backward(output.detach())
    took = time.perf_counter() - wall, time.process_time() - cpu
    np.save(f"{folder}/{line.strip()}-peer.npy", output.detach()[0].numpy())
    print(json.dumps([*took, torch.__version__]), flush=True)
"""


def main() -> None:
    """Run and print the table."""
    arguments = _arguments()
    if arguments.inside:
        _inside(arguments)
    elif arguments.memory:
        _memory(arguments)
    else:
        _speed(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--dims", default="64,128")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--budget", default="300MiB", help="of the engine, in --memory")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)
    return parser.parse_known_args()[0]


def _speed(arguments: argparse.Namespace) -> None:
    n, heads, threads = arguments.rows, arguments.heads, arguments.threads
    kind = "causal" if arguments.causal else "all pairs"
    print(f"n_q = n_k = {n}, {heads} heads, {arguments.dtype}, {kind}, {threads} threads\n")
    print("| d | | wall s | CPU s | GFLOP/s | error | wall ratio | CPU ratio |")
    print("|---|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder,
        sd.open_engine("local", workers=threads) as engine,
    ):
        peer = _Peer(arguments, folder)
        for d in map(int, arguments.dims.split(",")):
            _compared(arguments, d, folder, engine, peer)
        peer.close()


def _compared(arguments: argparse.Namespace, d: int, folder: str, engine: Any, peer: _Peer) -> None:
    """Both in turn, warmed up on a part of the rows."""
    rng = np.random.default_rng(d)
    shape = (arguments.heads, arguments.rows, d)
    arrays = [rng.standard_normal(shape).astype(arguments.dtype) for _ in range(3)]
    for name, rows in (("small", 512), ("whole", arguments.rows)):
        for letter, array in zip("qkv", arrays, strict=True):
            np.save(f"{folder}/{name}-{letter}.npy", array[:, :rows])
    small = [array[:, :512] for array in arrays]
    _mine(arguments, small, engine)
    alone = peer.run("small") is not None
    runs: dict[str, list[Sequence[float]]] = {"simdist": [], "torch": []}
    output: Array = arrays[0]
    for _ in range(arguments.repeats):
        *took, output = _mine(arguments, arrays, engine)
        runs["simdist"].append(took)
        if alone:
            runs["torch"].append(peer.run("whole") or (np.nan, np.nan))
    flops = 4.0 * arguments.heads * arguments.rows**2 * d * (3.5 if arguments.backward else 1.0)
    exact = _exact(arrays, causal=arguments.causal)
    found = {"simdist": output}
    if alone:
        found["torch"] = np.load(f"{folder}/whole-peer.npy")
    medians = {name: np.median(took, axis=0) for name, took in runs.items() if took}
    for name, (wall, cpu) in medians.items():
        error = float(np.abs(found[name][:, CHECKED] - exact).max())
        against = medians.get("torch", (np.nan, np.nan))
        print(
            f"| {d} | {name} | {wall:.2f} | {cpu:.2f} | {flops / wall / 1e9:.0f} | {error:.1e}"
            f" | {wall / against[0]:.2f} | {cpu / against[1]:.2f} |",
            flush=True,
        )


def _mine(arguments: argparse.Namespace, arrays: list[Array], engine: Any) -> tuple[Any, ...]:
    q, k, v = arrays
    wall, cpu = time.perf_counter(), time.process_time()
    found = sd.attention(q, k, v, causal=arguments.causal, engine=engine)
    if arguments.backward:
        sd.attention_gradients(
            q, k, v, found.output, found, causal=arguments.causal, workers=arguments.threads
        )
    return time.perf_counter() - wall, time.process_time() - cpu, found.output


def _exact(arrays: list[Array], *, causal: bool) -> Array:
    """The definition in float64, on the rows that are checked."""
    q, k, v = (array.astype(np.float64) for array in arrays)
    q = q[:, CHECKED]
    logits = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    if causal:
        rows = np.arange(k.shape[1])[CHECKED]
        logits = np.where(np.arange(k.shape[1]) <= rows[:, None], logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights @ v / weights.sum(axis=-1, keepdims=True))


class _Peer:
    """PyTorch in a process of its own; none where it is not installed."""

    def __init__(self, arguments: argparse.Namespace, folder: str) -> None:
        options = str(arguments.threads), str(arguments.causal), str(arguments.backward)
        has = subprocess.run(
            [arguments.peer_python, "-c", "import torch"], capture_output=True, check=False
        )
        self._process: subprocess.Popen[str] | None = None
        if has.returncode:
            print(f"(no torch in {arguments.peer_python}: alone)\n")
            return
        self._process = subprocess.Popen(
            [arguments.peer_python, "-c", PEER, folder, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": options[0]},
        )

    def run(self, name: str) -> Sequence[float] | None:
        """Wall and CPU seconds of one call."""
        if self._process is None:
            return None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        wall, cpu, _ = json.loads(self._process.stdout.readline())
        return wall, cpu

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(60)


def _memory(arguments: argparse.Namespace) -> None:
    """Import, then attend in a process that holds nothing else."""
    d = int(arguments.dims.split(",")[0])
    with tempfile.TemporaryDirectory(prefix="simdist-bench-") as folder:
        names = {}
        for role, rows in (("queries", arguments.queries), ("keys", arguments.keys)):
            path = Path(folder) / f"{role}.npy"
            rng = np.random.default_rng(rows)
            out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, d))
            for first in range(0, rows, 1 << 16):
                part = out[first : first + (1 << 16)]
                part[...] = rng.standard_normal(part.shape, dtype=np.float32)
            names[role] = sd.import_vectors(str(path), store=f"{folder}/store").fingerprint
        given = json.dumps({"store": f"{folder}/store", **names})
        command = [sys.executable, "-m", "tests.bench.attention", *sys.argv[1:], "--inside", given]
        print(
            f"{arguments.queries} queries, {arguments.keys} keys = values, d = {d}, engine.memory"
            f" {arguments.budget}\n"
        )
        subprocess.run(command, check=True)


def _inside(arguments: argparse.Namespace) -> None:
    given = json.loads(arguments.inside)
    store = sd.open_store(given["store"])
    queries, keys = store.dataset(given["queries"]), store.dataset(given["keys"])
    with sd.open_engine("local", workers=arguments.threads, memory=arguments.budget) as engine:
        small = np.random.default_rng(0).standard_normal((600, 8), dtype=np.float32)
        sd.attention(small, small, small, engine=engine)
        sd.attention(queries, queries, queries, store=store, engine=engine)
        with Peak() as peak:
            wall, cpu = time.perf_counter(), time.process_time()
            found = sd.attention(queries, keys, keys, store=store, engine=engine)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        all_of_it = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        output = found.open().output
    x, y = (_rows(data) for data in (queries, keys))
    logits = x[:4].astype(np.float64) @ y.T / np.sqrt(x.shape[1])
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = np.abs(output[:4] - weights @ y / weights.sum(axis=1, keepdims=True)).max()
    print("| wall s | CPU s | anonymous MiB | with pages of files MiB | all MiB | error |")
    print("|---|---|---|---|---|---|")
    held = (peak.anonymous, peak.resident, all_of_it)
    sizes = " | ".join(f"{nbytes / 2**20:.0f}" for nbytes in held)
    print(f"| {wall:.1f} | {cpu:.1f} | {sizes} | {error:.1e} |")


def _rows(data: sd.Dataset) -> Array:
    parts = [data.store.read_array(shard.objects["vectors"]) for shard in data.shards]
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
