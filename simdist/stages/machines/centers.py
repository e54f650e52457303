"""Which rows stand for all, and the features that follow: a = L^-1 k(Z, x)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.grams import Whitening
from simdist.measures import kernels
from simdist.runner.plan import Record, Round, Task
from simdist.runner.resident import keep_within
from simdist.solvers.pivoted import pivoted_cholesky
from simdist.types import Array, Float64, Ids, Json

if TYPE_CHECKING:
    from simdist.runner.context import Context
    from simdist.stages.machines.config import Centers
    from simdist.store.datasets import Dataset

__all__ = [
    "Chosen",
    "centers_round",
    "choose",
    "compute_centers",
    "drawn",
    "kernel_for",
    "read_chosen",
]


@dataclass(frozen=True, eq=False, slots=True)
class Chosen:
    """What stands for the rows. whitening: of the centres that are kept, without jitter.

    asked: how many there were; those that the others explain to 1e-12 of the largest variance, as
    copies are, were left out. left: the largest variance that any of them has beside the kept.
    """

    whitening: Whitening
    asked: int
    left: float

    def facts(self) -> dict[str, Json]:
        """What a manifest says of them."""
        return {
            "kernel": self.whitening.kernel.spec(),
            "formula": str(self.whitening.kernel),
            "centers": self.whitening.m,
            "asked": self.asked,
            "left": self.left,
        }


def drawn(n: int, count: int, seed: int) -> Ids:
    """Rows that stand for all n, ascending: `count` drawn at random, all where there are fewer."""
    if n <= count:
        return np.arange(n)
    rng = np.random.default_rng([seed, zlib.crc32(b"centers")])
    return np.sort(rng.choice(n, count, replace=False)).astype(np.int64)


def choose(spec: Json | kernels.Kernel, Z: Array) -> Chosen:
    """Centres made ready. spec: a kernel, or None for one as wide as the centres lie apart.

    Z: [m, d]. Raises ConfigError for a kernel with white noise (a penalty is that noise),
    InputError where no centre has a variance. Cost: m^2 (d + r) flops for the r that are kept.
    """
    Z = np.ascontiguousarray(Z, np.float64)
    kernel = kernel_for(spec, Z)
    found = pivoted_cholesky(np.asarray(kernel.matrix(Z, Z)), overwrite=True)
    L = np.asfortranarray(found.factor)
    return Chosen(
        Whitening(kernel, np.ascontiguousarray(Z[found.kept]), L, 0.0), len(Z), found.left
    )


def kernel_for(spec: Json | kernels.Kernel, Z: Float64) -> kernels.Kernel:
    """The kernel asked for, for rows of that many columns; see `choose`."""
    if spec is None:
        spread = float(np.unique(Z, axis=0).var())  # copies of a row weigh no more than it does
        width = np.sqrt(0.5 * Z.shape[1] * spread) if spread > 0 else 1.0
        return kernels.RBF(float(width))
    kernel = kernels.resolve(spec).for_dim(Z.shape[1])
    noiseless = kernel.noiseless()
    if noiseless is None or repr(noiseless) != repr(kernel):
        raise ConfigError(
            f"kernel {kernel} has white noise, which tells a row from its copy: a kernel machine"
            " cannot compare new rows by it. Leave White out; the penalty (alpha, 1 / 2C) is its"
            " variance."
        )
    return kernel


def centers_round(vectors: Dataset, centers: Centers) -> Round:
    """One task, which draws the centres and factors their kernel matrix."""
    dim = int(vectors.metrics["dim"])
    m = centers.count if centers.given else min(centers.count, vectors.rows)
    nbytes = 8 * (5 * m * m + 3 * m * dim) + (16 << 20)
    return Round("centers", (Task("centers", "centers", {}, nbytes),))


def compute_centers(context: Context, task: Task) -> Record:
    """Objects: Z and L. Facts: the kernel as it is now, and how many centres were left out."""
    vectors, centers = context.inputs["vectors"], context.config.centers
    if centers.given is None:
        Z = _rows_at(vectors, drawn(vectors.rows, centers.count, centers.seed))
    else:
        Z = np.array(context.load(centers.given))
        dim = int(vectors.metrics["dim"])
        if Z.shape[1] != dim:
            raise InputError(
                f"the centres have {Z.shape[1]} columns, the rows of {vectors.uri} {dim}"
            )
    found = choose(context.config.kernel, Z)
    objects = {
        "Z": context.write_array("centers", found.whitening.Z),
        "upper": context.write_array("whitening", found.whitening.L.T),  # C order: no copy
    }
    return Record(task.key, objects, found.facts())


def read_chosen(context: Context) -> Chosen:
    """What the round left."""
    record = context.records("centers")[0]
    Z, upper = (np.asarray(context.load(record.objects[role])) for role in ("Z", "upper"))
    facts = record.facts
    kernel = kernels.resolve(facts["kernel"])
    whitening = Whitening(kernel, Z, upper.T, 0.0)
    return Chosen(whitening, int(facts["asked"]), float(facts["left"]))


def _rows_at(vectors: Dataset, rows: Ids) -> Array:
    """Some rows, ascending, one shard open at a time: [m, d]."""
    parts, offset = [], 0
    for shard in vectors.shards:
        low, high = np.searchsorted(rows, [offset, offset + shard.rows])
        if low < high:
            keep_within()
            held = vectors.store.read_array(shard.objects["vectors"])
            parts.append(held[rows[low:high] - offset].astype(np.float64))
        offset += shard.rows
    return np.concatenate(parts)
