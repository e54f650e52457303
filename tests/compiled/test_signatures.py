"""Each kernel is compiled once, whatever arrays come: a second type costs every process seconds."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json
import numpy as np
from simdist.compiled import assign, codes, distances, graph, joins, leaves, lists, selection, simd
from simdist.engine import open_engine
from simdist.models.knn import knn_graph
from simdist.stages.graph import KnnParams

x = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
weak = KnnParams(fanout=1, links=2, joins=0, keep=6, leaf_rows=32)
scaled = {"name": "scaled", "measure": "cosine", "lengthscales": [2.0] * 8}
squash = {"name": "squash", "measure": "euclidean", "scale": 3.0}
with open_engine("local", workers=1) as engine:
    for scratch in ("memory://signatures", None):  # held, and memory-mapped read-only
        for measure in ("cosine", "dot", "euclidean", "manhattan", scaled, squash):
            for options in ({"recall": 0.999, "params": weak}, {"method": "exact"}):
                knn_graph(x, 6, measure=measure, scratch=scratch, engine=engine, **options)
    knn_graph(x.astype(np.float16), 6, engine=engine)
print(json.dumps({
    f"{module.__name__.rpartition('.')[2]}.{name}": [str(s) for s in kernel.signatures]
    for module in (assign, codes, distances, graph, joins, leaves, lists, selection, simd)
    for name, kernel in vars(module).items()
    if hasattr(kernel, "signatures")
}))
"""


def test_every_kernel_has_one_signature_after_all_measures_and_methods():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    signatures = json.loads(done.stdout)
    for kernel in (
        "codes._encode",
        "leaves._cell_leaves",
        "joins._join",
        "lists.link",
        "graph.walk",
    ):
        assert signatures[kernel], kernel
    several = {name: found for name, found in signatures.items() if len(found) > 1}
    assert not several
