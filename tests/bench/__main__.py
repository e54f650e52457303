"""`make bench`: every benchmark in turn, or those named. Prints tables; asserts no times.

make bench                      all
make bench ARGS="peers --rounds 5"

peers     the k-NN graph of real embeddings: simdist, pynndescent and faiss in turn
engines   the same job on local, Dask and Ray: the same bytes, and what each costs
budgets   the same bytes under any memory and worker count; faiss on the reported recall
memory    what a worker holds against what it was given, on every engine
million   1,000,000 x 128 synthetic rows on the local engine: time, memory, recall
exact     every pair: simdist and faiss in turn
tiles     the whole matrix as a Zarr array: simdist, and numpy with zarr in one go

and only when it is named, for it takes half an hour:

coverage  does the reported interval hold the true recall, over 20 seeds
"""

from __future__ import annotations

import os
import platform
import runpy
import sys

import psutil

BENCHES = ("peers", "engines", "budgets", "memory", "million", "exact", "tiles")
ASKED_FOR = ("coverage",)


def main() -> None:
    """Run the named benchmarks, each with the arguments that follow its name."""
    known = BENCHES + ASKED_FOR
    names = [word for word in sys.argv[1:] if word in known] or list(BENCHES)
    rest = [word for word in sys.argv[1:] if word not in known]
    print(_machine())
    for name in names:
        print(f"\n## {name}\n", flush=True)
        sys.argv = [f"tests/bench/{name}.py", *rest]
        runpy.run_module(f"tests.bench.{name}", run_name="__main__")


def _machine() -> str:
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            model = next((x.split(":")[1].strip() for x in lines if "model name" in x), model)
    memory = psutil.virtual_memory().total / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
