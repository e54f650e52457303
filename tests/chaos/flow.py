"""The flows that are killed, over small data cut into many tasks.

main       import, partition, k-NN graph
spectral   import, exact k-NN lists, similarity graph, components, eigenvectors by LOBPCG
attention  import, every row's softmax average over all rows
gp         import, a sparse Gaussian process fitted by L-BFGS, two passes an evaluation

The stages are the real ones. Around each task stands a watch that notes who computes it, and holds
the one task that a trial chose at the point that it chose (`gate.py`), so that a fault finds a
process exactly there. Constants that size tasks are lowered in the processes that compute, because
a few thousand rows would otherwise be one task.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simdist import grams, partitions
from simdist.models.attention import attention_links
from simdist.models.chain import Link
from simdist.models.gp_links import sparse_gp_links
from simdist.models.knn import knn_links
from simdist.models.similarity import similarity_links
from simdist.models.spectral import spectral_links
from simdist.models.vectors import import_link
from simdist.runner import Commit, Context, Job, Record, Round, Rounds, Stage, Task
from simdist.stages.attention import config as attention_sizes
from simdist.stages.attention import story as attention_story
from simdist.stages.links import shards as link_shards
from simdist.stages.vectors import shards, stage
from simdist.store import Manifest, Store, open_store
from simdist.types import Array, Json, ObjectRef
from tests.chaos.gate import claim, hold

ROWS, DIM, FILES = 2048, 24, 8


@dataclass(frozen=True)
class Flow:
    """steps: the links after the import of "vectors", with k neighbours (or so many inducing
    points). moments: which round a trial's word stands for. commits: stages in whose commits it may
    be killed."""

    steps: Callable[[int], tuple[Link, ...]]
    moments: Mapping[str, str]
    commits: tuple[str, ...]


def _graph(k: int) -> tuple[Link, ...]:
    return knn_links("graph", "vectors", k=k, measure="cosine", recall=0.9)


def _spectral(k: int) -> tuple[Link, ...]:
    return (
        *knn_links("graph", "vectors", k=k, measure="cosine", method="exact"),
        *similarity_links("links", "graph"),
        *spectral_links("embedding", "links", dim=4, solver="lobpcg", tolerance=1e-2),
    )


def _attention(k: int) -> tuple[Link, ...]:
    return attention_links("attention", "vectors", "vectors", scale=float(k))


def _gp(k: int) -> tuple[Link, ...]:
    small = {"evaluations": 4, "mini_rows": 256, "mini_evaluations": 3}
    return sparse_gp_links("model", "vectors", kernel=None, targets=("y",), inducing=k, **small)


FLOWS = {
    "main": Flow(
        _graph,
        {"import": "read", "leaf": "leaves-0", "merge": "merge-leaves-0"},
        ("import_vectors", "partition", "knn_graph"),
    ),
    "spectral": Flow(
        _spectral,
        {"product": "product-2", "solve": "solve-3", "update": "update-4"},
        ("similarity_graph", "connected_components", "spectral_embedding"),
    ),
    "attention": Flow(
        _attention,
        {"fold": "fold", "merge": "merge-1", "finish": "finish"},
        ("import_vectors", "attention"),
    ),
    "gp": Flow(
        _gp,
        {
            "begin": "begin",
            "pass": "pass-1",
            "sum": "pass-2-sum0",
            "slope": "slope-2",
            "step": "step-1",
        },
        ("import_vectors", "sparse_gp"),
    ),
}


def write_data(folder: Path) -> None:
    """Clustered rows as Parquet, a file a shard, and a smooth function of them."""
    rng = np.random.default_rng(7)
    centres = rng.standard_normal((40, DIM))
    near = centres[rng.integers(0, len(centres), ROWS)] + 0.4 * rng.standard_normal((ROWS, DIM))
    folder.mkdir(parents=True)
    for number, rows in enumerate(np.split(near.astype(np.float32), FILES)):
        names = [f"row-{number}-{place:04d}" for place in range(len(rows))]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIM)
        y = np.sin(rows[:, 0].astype(np.float64)) + 0.5 * rows[:, 1]
        table = pa.table({"id": names, "vector": vectors, "y": y})
        pq.write_table(table, folder / f"part-{number:03d}.parquet")


def links(flow: str, data: Path, folder: Path, run: str, k: int) -> tuple[Link, ...]:
    """The flow, watched. folder: the trial's. run: which driver's tasks they are."""
    first = import_link("vectors", path=str(data), id="id", vector="vector", keep=["y"])
    plain = (first, *FLOWS[flow].steps(k))
    return tuple(replace(link, stage=Watched(link.stage, str(folder), run)) for link in plain)


def make_tasks_small() -> None:
    """In the process that plans or computes: eight shards, blocks and files' tasks, not one."""
    stage.FILES_PER_TASK = 1
    shards.SHARD_NBYTES = 4 * DIM * (ROWS // FILES)
    partitions.MIN_BLOCK_ROWS = ROWS // FILES
    partitions.BLOCKS_WANTED = 2 * FILES
    link_shards.SHARD_ENTRIES = ROWS // FILES * 10
    attention_sizes.MOST_QUERIES = ROWS // FILES
    attention_sizes.GROUP_NBYTES = 4 * 2 * DIM * (ROWS // 16)
    attention_sizes.FAN = attention_story.FAN = 4
    grams.LEAST_ROWS = ROWS // FILES
    grams.FAN = 4


@dataclass(frozen=True)
class Watched:
    """A stage whose tasks are small, and of which a trial can stop one."""

    stage: Stage
    folder: str
    run: str

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        make_tasks_small()
        return self.stage.next(job, rounds, context)

    def compute(self, context: Context, task: Task) -> Record:
        return _watched(self, self.stage.compute, context, task)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "stage":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.stage, name)


def _watched(watch: Any, compute: Any, context: Context, task: Task) -> Record:
    """Notes that this process computes the task; holds it where the trial says."""
    make_tasks_small()
    folder = Path(watch.folder)
    fingerprint = context.fingerprint
    (folder / "ran" / f"{watch.run}~{os.getpid()}~{fingerprint}~{task.key}~{uuid4().hex}").touch()
    claim(folder, task.key)
    hold(folder, "started", task.key)
    record: Record = compute(HeldContext(context, folder, task.key), task)
    hold(folder, "computed", task.key)
    return record


class HeldContext(Context):
    """A context that may stop after the first object that its task writes."""

    def __init__(self, context: Context, folder: Path, key: str) -> None:
        super().__init__(context.spec)
        self._folder, self._key = folder, key

    def write_array(self, kind: str, array: Array) -> ObjectRef:
        return self._written(super().write_array(kind, array))

    def write_table(self, kind: str, table: pa.Table) -> ObjectRef:
        return self._written(super().write_table(kind, table))

    def _written(self, ref: ObjectRef) -> ObjectRef:
        hold(self._folder, "written", self._key)
        return ref


class HeldStore(Store):
    """A store that may stop around a record or a manifest."""

    folder: Path

    @classmethod
    def at(cls, uri: str, options: dict[str, str], folder: Path) -> HeldStore:
        store = cls(open_store(uri, **options).objects)
        store.folder = folder
        return store

    def write_record(self, fingerprint: str, task: str, value: dict[str, Json]) -> dict[str, Json]:
        stands = super().write_record(fingerprint, task, value)
        hold(self.folder, "recorded", task)
        return stands

    def commit(self, manifest: Manifest) -> Manifest:
        claim(self.folder, manifest.stage)
        hold(self.folder, "before", manifest.stage)
        made = super().commit(manifest)
        hold(self.folder, "after", manifest.stage)
        return made
