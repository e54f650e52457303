"""Kernel densities and outlier scores.

x ── gaussian_bandwidth ──┬── kernel_density ──> KernelDensity: log f at the points
                          └──────┴── outlier_scores ──> OutlierScores, larger is further out
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
    from simdist.stages.density import Method, Precision, Scale
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Ids

__all__ = [
    "DensityDataset",
    "KernelDensity",
    "OutlierScores",
    "OutliersDataset",
    "density_links",
    "kernel_density",
    "outlier_links",
    "outlier_scores",
]


@dataclass(frozen=True, slots=True)
class KernelDensity:
    """log_density: [m] float64, natural logarithm, in units of 1 / (volume of the space).

    bandwidth: what was used. leave_one_out: whether each row was left out of its own estimate.
    rows: of the data.
    """

    log_density: Float64
    bandwidth: Bandwidth
    leave_one_out: bool
    rows: int

    def __len__(self) -> int:
        return len(self.log_density)

    def __repr__(self) -> str:
        own = ", left out" if self.leave_one_out else ""
        return f"KernelDensity({len(self)} points under {self.rows} rows{own}; {self.bandwidth})"


@dataclass(frozen=True, slots=True)
class DensityDataset(Dataset):
    """Committed log densities: see `Dataset`; shards have "log_density" as .npy and the Parquet
    table (row, id, log_density)."""

    def open(self) -> KernelDensity:
        """All of it in memory, 8 bytes a point."""
        return KernelDensity(
            column(self, "log_density"),
            bandwidth_of(self),
            bool(self.metrics["leave_one_out"]),
            int(self.metrics["data_rows"]),
        )


@dataclass(frozen=True, slots=True)
class OutlierScores:
    """scores: [n] float64, larger is further out. method: "density" or "relative".

    log_density: [n] of each row under all others. bandwidth: what was used.
    """

    scores: Float64
    method: str
    log_density: Float64
    bandwidth: Bandwidth

    def top(self, count: int) -> Ids:
        """Rows with the largest scores, the largest first; of equal scores the lower row."""
        return np.argsort(-self.scores, kind="stable")[:count]

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return f"OutlierScores({len(self)} rows, {self.method!r}; {self.bandwidth})"


@dataclass(frozen=True, slots=True)
class OutliersDataset(Dataset):
    """Committed outlier scores: see `Dataset`; shards have "scores" as .npy and the Parquet table
    (row, id, scores)."""

    def open(self) -> OutlierScores:
        """All of it in memory, 16 bytes a row."""
        density = self.store.dataset(self.manifest.inputs["density"])
        return OutlierScores(
            column(self, "scores"),
            str(self.metrics["method"]),
            column(density, "log_density"),
            bandwidth_of(self),
        )


def density_links(
    name: str,
    of: str,
    at: str | None = None,
    *,
    bandwidth: BandwidthLike = "scott",
    found: str | None = None,
    precision: Precision = "auto",
    **rule: Any,
) -> tuple[Link, ...]:
    """The steps of a density of the vectors called `of`: its bandwidth, unless the link called
    `found` has it, and the estimate. rule: options of `bandwidth_links`."""
    from simdist.stages.density import FieldConfig, KernelDensityStage  # noqa: PLC0415

    first = () if found else bandwidth_links(f"{name}.bandwidth", of, bandwidth, **rule)
    inputs = {"vectors": of, "bandwidth": found or f"{name}.bandwidth"}
    if at is not None:
        inputs["at"] = at
    return (*first, Link(name, KernelDensityStage(), FieldConfig(precision), inputs))


def outlier_links(
    name: str,
    of: str,
    *,
    method: Method = "density",
    bandwidth: BandwidthLike = "scott",
    found: str | None = None,
    precision: Precision = "auto",
    **rule: Any,
) -> tuple[Link, ...]:
    """The steps of outlier scores of the vectors called `of`: bandwidth, leave-one-out density, and
    the scores."""
    from simdist.stages.density import OutlierConfig, OutlierStage  # noqa: PLC0415

    width = found or f"{name}.bandwidth"
    first = () if found else bandwidth_links(width, of, bandwidth, **rule)
    density = density_links(f"{name}.density", of, found=width, precision=precision)
    inputs = {"vectors": of, "bandwidth": width, "density": f"{name}.density"}
    config = OutlierConfig(precision, method)
    return (*first, *density, Link(name, OutlierStage(), config, inputs))


@overload
def kernel_density(
    x: Dataset,
    at: Array | Dataset | None = ...,
    bandwidth: BandwidthLike = ...,
    **options: Unpack[FieldOptions],
) -> DensityDataset: ...
@overload
def kernel_density(
    x: Array,
    at: Array | Dataset | None = ...,
    bandwidth: BandwidthLike = ...,
    **options: Unpack[FieldOptions],
) -> KernelDensity: ...
def kernel_density(
    x: Array | Dataset,
    at: Array | Dataset | None = None,
    bandwidth: BandwidthLike = "scott",
    *,
    scale: Scale = "dataset",
    neighbor: int = 10,
    sample: int = 1000,
    seed: int = 0,
    precision: Precision = "auto",
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> KernelDensity | DensityDataset:
    """log density of points under a Gaussian kernel on every row of a data set.

        f(x) = 1/n sum_j prod_f exp(-(x_f - x_jf)^2 / 2 h_f^2) / (h_f sqrt(2 pi))

    x: [n, d] array -> KernelDensity; vectors dataset -> DensityDataset.
    at: [m, d] points, array or dataset. None: the rows themselves, each left out of its own
        estimate (of its copies, which are rows of their own, it is not).
    bandwidth: h, a number or one for each feature, in units of the data; or a rule:
        "scott"       n^(-1/(d+4)) s                      s: a standard deviation, see `scale`
        "silverman"   (n (d+2) / 4)^(-1/(d+4)) s
        "knn"         median distance from a row to its `neighbor`-th nearest, over sqrt(d): most
                      of a Gaussian lies about h sqrt(d) from its center
        "likelihood"  the best mean log density of left-out rows, of 33 widths from 1/64 to 4 times
                      Scott's, in steps of 2^(1/4)
        The last two compare `sample` rows, drawn by `seed`, with all rows.
    scale: "dataset": s is one number, the root of the features' mean variance, and so is h.
        "feature": each feature's own; a constant feature is refused. The result says which.
    precision: of the matrix products. "auto": float64 where x or `at` is float64, or where rows lie
        more than 32 bandwidths from their mean (root mean square); else float32. Centred products
        are off by at most 1e-3 of |x - y|^2 / h^2 (1e-9 in float64): pairs of rows for which the
        bound is larger are computed from their differences where it matters.
    store: where a stored result is committed, by default beside x. scratch: where the data of
        arrays goes, by default memory and a temporary folder. engine: None or "local", "dask",
        "ray", an address, or an open Engine. listeners: told of progress.

    A point far from all rows has a very low log density, never -inf.
    Raises InputError for NaN, other dimensions, a single row with at=None, a rule on rows that are
    all equal; ConfigError for settings without a meaning. A RuntimeWarning where "likelihood" ends
    at the edge of its grid, as it does where many rows have copies.
    Cost: 2 m n d flops and m n exponentials; memory that of a tile. Sources: Scott, Multivariate
    Density Estimation (1992); Silverman (1986).
    """
    rule: dict[str, Any] = {"scale": scale, "neighbor": neighbor, "sample": sample, "seed": seed}
    with arranged(
        x, {"at": at}, store=store, scratch=scratch, engine=engine, listeners=listeners
    ) as there:
        links = (
            *bandwidth_links("bandwidth", "data", bandwidth, **rule),
            *density_links(
                "density",
                "data",
                None if at is None else "at",
                found="bandwidth",
                precision=precision,
            ),
        )
        made = DensityDataset.of(there.run(links)["density"])
        return made if isinstance(x, Dataset) else made.open()


@overload
def outlier_scores(
    x: Dataset,
    bandwidth: BandwidthLike = ...,
    *,
    method: Method = ...,
    **options: Unpack[FieldOptions],
) -> OutliersDataset: ...
@overload
def outlier_scores(
    x: Array,
    bandwidth: BandwidthLike = ...,
    *,
    method: Method = ...,
    **options: Unpack[FieldOptions],
) -> OutlierScores: ...
def outlier_scores(
    x: Array | Dataset,
    bandwidth: BandwidthLike = "scott",
    *,
    method: Method = "density",
    scale: Scale = "dataset",
    neighbor: int = 10,
    sample: int = 1000,
    seed: int = 0,
    precision: Precision = "auto",
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> OutlierScores | OutliersDataset:
    """How far out each row lies: its negative log density under all other rows.

    x: [n, d] array -> OutlierScores; vectors dataset -> OutliersDataset.
    method: "density": -log f_-i(x_i), f as in `kernel_density`, row i left out; or "relative": what
        is missing to the mean density of its neighbours, under a kernel three times as wide,
            log sum_j w_ij f_-j(x_j) - log f_-i(x_i),  w_i = softmax_j(-|x_i - x_j|^2 / 18 h^2),
        so that a row of a thin region is no outlier, and one beside a dense region is.
    All other options, errors: as for `kernel_density`. Two copies of an outlier are each other's
    neighbours: remove duplicates first, or take bandwidths that do not resolve them.
    Cost: one fold of 2 n^2 d flops, three where scores are relative.
    Source of the relative score: Latecki, Lazarevic, Pokrajac (2007), in logarithms.
    """
    rule: dict[str, Any] = {"scale": scale, "neighbor": neighbor, "sample": sample, "seed": seed}
    with arranged(x, {}, store=store, scratch=scratch, engine=engine, listeners=listeners) as there:
        links = (
            *bandwidth_links("bandwidth", "data", bandwidth, **rule),
            *outlier_links(
                "outliers", "data", method=method, found="bandwidth", precision=precision
            ),
        )
        made = OutliersDataset.of(there.run(links)["outliers"])
        return made if isinstance(x, Dataset) else made.open()
