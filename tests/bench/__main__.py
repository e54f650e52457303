"""`make bench`: the quick benchmarks in turn, or those named. Prints tables; asserts no times.

make bench                          the quick selection
make bench-full                     all, in full: several hours
make bench ARGS="frontier --rounds 5 --data mnist"

frontier     recall against time: simdist and its peers in turn; table, plot
weight       memory above imports and input, beside pynndescent
growth       time against rows, from 10,000 to 1,000,000
leaderboard  200,000 x 1024 in the unit of the 2026 indexing challenge
adversarial  is the recall asked for there, on data made to break it
exact        every pair: simdist and faiss in turn
engines      one and two workers of local, Dask and Ray: the same bytes, and what each costs
spill        a data set five times its memory, beside the same run with room
same         one seed, one graph: any engine, any number of workers
budgets      the same bytes under any memory and worker count; faiss on the reported recall
memory       what a worker holds against what it was given, on every engine
million      1,000,000 x 128 synthetic rows on the local engine: time, memory, recall
tiles        the whole matrix as a Zarr array: simdist, and numpy with zarr in one go
retrieve     a batch of queries: simdist, faiss IVF and HNSW at equal recall, in turn
join         all pairs above a cosine: simdist, faiss' range search, the dense answer
machines     kernel ridge on the UCI sets; KernelSVM on MNIST beside scikit-learn's SVC, in turn
neighbor_gp  NeighborGP on the UCI sets; DirichletGP on MNIST beside scikit-learn's SVC
attention    exact attention beside PyTorch's, in turn; --memory: a million keys
gp           sparse Gaussian processes: bound, seconds and scores beside GPyTorch and GPflow
spectral     eigenvectors of graphs: passes, one task against eigsh, shards against eigsh
sparse_attention  keys scored against an oracle's, time against exact attention, bounds checked

and only when it is named, for it takes half an hour:

coverage     does the reported interval hold the true recall, over 20 seeds
"""

from __future__ import annotations

import runpy
import sys

from tests.bench.ledger import machine

QUICK = (
    "frontier --data packages,mnist --rounds 3",
    "weight",
    "exact --repeats 1",
    "engines --rounds 1 --workers 1,2",
    "adversarial --rows 20000",
    "same --engines local:1,local:2,local:3,dask:2,ray:2",
)
FULL = (
    "frontier --full --data packages,mnist --rounds 3",
    "frontier --full --data easy,hard,leaderboard --rounds 3 --slow 60",
    "weight",
    "growth",
    "leaderboard",
    "adversarial --targets 0.9,0.95,0.99",
    "adversarial --data packages,mnist,easy,hard,leaderboard",
    "exact",
    "engines",
    "engines --rows 1000000 --rounds 1 --workers 2",
    "spill",
    "same",
    "budgets",
    "memory",
    "million",
    "tiles",
    "gp table",
    "gp scale",
    "join --dense",
    "retrieve --where",
    "attention",
    "spectral",
    "sparse_attention --plot docs/sparse-attention.svg",
    "machines",
    "neighbor_gp",
)
NAMES = {line.split()[0] for line in FULL} | {"coverage", "kernels", "scale", "weak"}


def main() -> None:
    """Run the named benchmarks, each with the arguments that follow the names, or a selection."""
    names = [word for word in sys.argv[1:] if word in NAMES]
    rest = [word for word in sys.argv[1:] if word not in NAMES and word != "full"]
    selection = names or (FULL if "full" in sys.argv[1:] else QUICK)
    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores, {here['gib']} GiB, Python {here['python']}")
    for line in selection:
        print(f"\n## {line}\n", flush=True)
        name, *own = line.split()
        sys.argv = [f"tests/bench/{name}.py", *own, *rest]  # of one said twice the last counts
        runpy.run_module(f"tests.bench.{name}", run_name="__main__")


if __name__ == "__main__":
    main()
