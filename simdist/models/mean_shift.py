"""Mean-shift: clusters that are the modes of a density.

x, bandwidth ── seeds climb ──> modes ── nearest ──> Modes: labels, modes, weights, sizes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from simdist.models.bandwidths import (
    Bandwidth,
    BandwidthLike,
    FieldOptions,
    arranged,
    bandwidth_links,
    bandwidth_of,
    column,
)
from simdist.models.chain import Link
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.stages.density import Kernel, Precision, Scale, Seeds
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Ids

__all__ = ["Modes", "ModesDataset", "mean_shift", "mean_shift_links"]


@dataclass(frozen=True, slots=True)
class Modes:
    """labels: [n] int64, the mode of each row, 0 the heaviest; -1 where no mode is near and only
    near rows were to be labelled.

    modes: [k, d] float64. weights: [k] rows within a bandwidth (flat), or the natural log of the
    kernel's sum (gaussian), descending. sizes: [k] int64 rows labelled. bandwidth: what was used.
    kernel: "flat" or "gaussian". seeding: "all", "bins" or "cover". seeds: climbs of each wave.
    """

    labels: Ids
    modes: Float64
    weights: Float64
    sizes: Ids
    bandwidth: Bandwidth
    kernel: str
    seeding: str
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.modes)

    def __repr__(self) -> str:
        few = ", ".join(str(size) for size in self.sizes[:5])
        more = ", ..." if len(self) > 5 else ""
        return f"Modes({len(self)} of {len(self.labels)} rows: {few}{more}; {self.bandwidth})"


@dataclass(frozen=True, slots=True)
class ModesDataset(Dataset):
    """Committed modes: see `Dataset`; shards have "labels" as .npy and the Parquet table (row, id,
    cluster), `metrics` the sizes of the heaviest hundred."""

    def open(self) -> Modes:
        """All labels in memory, 8 bytes a row, and the modes."""
        objects, metrics = self.manifest.objects, self.metrics
        labels = column(self, "labels")
        modes = np.array(self.store.read_array(objects["modes"]))
        return Modes(
            labels,
            modes,
            np.array(self.store.read_array(objects["weights"])),
            np.bincount(labels[labels >= 0], minlength=len(modes)),
            bandwidth_of(self),
            str(metrics["kernel"]),
            str(metrics["seeding"]),
            tuple(int(count) for count in metrics["seeds"]),
        )


def mean_shift_links(
    name: str,
    of: str,
    bandwidth: BandwidthLike,
    *,
    kernel: Kernel = "flat",
    seeds: Seeds = "auto",
    least: int = 1,
    turns: int = 300,
    tolerance: float = 1e-3,
    merge: float | None = None,
    everyone: bool = True,
    seed: int = 0,
    precision: Precision = "auto",
    found: str | None = None,
    **rule: Any,
) -> tuple[Link, ...]:
    """The steps of mean-shift on the vectors called `of`: its bandwidth, unless the link called
    `found` has it, and the modes. rule: options of `bandwidth_links`."""
    from simdist.stages.density import MeanShiftStage, ShiftConfig  # noqa: PLC0415

    width = found or f"{name}.bandwidth"
    first = () if found else bandwidth_links(width, of, bandwidth, seed=seed, kernel=kernel, **rule)
    config = ShiftConfig(
        kernel=kernel,
        seeds=seeds,
        turns=turns,
        tolerance=tolerance,
        merge=(1.0 if kernel == "flat" else 0.5) if merge is None else merge,
        least=least,
        everyone=everyone,
        seed=seed,
        precision=precision,
    )
    return (*first, Link(name, MeanShiftStage(), config, {"vectors": of, "bandwidth": width}))


class ShiftOptions(FieldOptions, total=False):
    """Keyword options of `mean_shift`, for its typed overloads."""

    kernel: Kernel
    seeds: Seeds
    least: int
    turns: int
    tolerance: float
    merge: float | None
    everyone: bool


@overload
def mean_shift(
    x: Dataset, bandwidth: BandwidthLike, **options: Unpack[ShiftOptions]
) -> ModesDataset: ...
@overload
def mean_shift(x: Array, bandwidth: BandwidthLike, **options: Unpack[ShiftOptions]) -> Modes: ...
def mean_shift(
    x: Array | Dataset,
    bandwidth: BandwidthLike,
    *,
    kernel: Kernel = "flat",
    seeds: Seeds = "auto",
    least: int = 1,
    turns: int = 300,
    tolerance: float = 1e-3,
    merge: float | None = None,
    everyone: bool = True,
    scale: Scale = "dataset",
    neighbor: int = 10,
    sample: int = 1000,
    seed: int = 0,
    precision: Precision = "auto",
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Modes | ModesDataset:
    """Clusters of rows around the modes of their density; how many follows from the bandwidth.

    x: [n, d] array -> Modes; vectors dataset -> ModesDataset.
    bandwidth: a number, one for each feature, or a rule of `kernel_density`. For the flat kernel
        "knn" is the median distance to the `neighbor`-th nearest row itself, and the other rules
        are times sqrt(d + 2): the radius of a ball of the same variance.
    kernel: "flat", the mean of the rows within a bandwidth, or "gaussian".
    seeds: "all" rows climb; "bins": the corners of a grid of bandwidths that at least `least` rows
        round to; "cover": 4,096 rows, then rows that no mode is near, and so on, until every row is
        within a bandwidth of a mode or has climbed itself. "auto": "all" where n n d is at most
        2^34 (12,000 rows of 100 dimensions), else "cover".
    turns: moves of a climb; tolerance: bandwidths of a move by which it has arrived.
    merge: bandwidths within which ends are one mode, that of more weight; None: 1 for the flat
        kernel, 1/2 for the gaussian.
    everyone: each row belongs to its nearest mode; False: rows with none in a bandwidth get -1.
    Other options, errors: as for `kernel_density`; InputError where no row is near any seed, and
    where nearly every row is a mode of its own, of more values than one task merges.

    With seeds "all" or "bins" and the flat kernel labels are those of scikit-learn's MeanShift, the
    modes in its order. Cost: 4 n d flops for a seed and turn; who has arrived leaves. Rounds of a
    few turns are committed: a run that is killed goes on at the last.
    Sources: Fukunaga and Hostetler (1975); Comaniciu and Meer (2002).
    """
    rule: dict[str, Any] = {"scale": scale, "neighbor": neighbor, "sample": sample, "seed": seed}
    with arranged(x, {}, store=store, scratch=scratch, engine=engine, listeners=listeners) as there:
        links = (
            *bandwidth_links("bandwidth", "data", bandwidth, kernel=kernel, **rule),
            *mean_shift_links(
                "modes",
                "data",
                bandwidth,
                kernel=kernel,
                seeds=seeds,
                least=least,
                turns=turns,
                tolerance=tolerance,
                merge=merge,
                everyone=everyone,
                seed=seed,
                precision=precision,
                found="bandwidth",
            ),
        )
        made = ModesDataset.of(there.run(links)["modes"])
        return made if isinstance(x, Dataset) else made.open()
