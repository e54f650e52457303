"""Nadaraya-Watson regression: the mean of the values near a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, overload

from simdist.errors import ConfigError
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
    from simdist.stages.density import Precision, Scale
    from simdist.store.store import Store
    from simdist.types import Array, Float64

__all__ = [
    "KernelRegression",
    "RegressionDataset",
    "kernel_regression",
    "regression_links",
]


@dataclass(frozen=True, slots=True)
class KernelRegression:
    """predictions: [m] or [m, t] float64, as the values were given.

    bandwidth: what was used. leave_one_out: whether each row was left out of its own prediction.
    rows: of the data.
    """

    predictions: Float64
    bandwidth: Bandwidth
    leave_one_out: bool
    rows: int

    def __len__(self) -> int:
        return len(self.predictions)

    def __repr__(self) -> str:
        own = ", left out" if self.leave_one_out else ""
        return f"KernelRegression({len(self)} points by {self.rows} rows{own}; {self.bandwidth})"


@dataclass(frozen=True, slots=True)
class RegressionDataset(Dataset):
    """Committed predictions: see `Dataset`; shards have "predictions" [rows, t] as .npy and the
    Parquet table (row, id, a column for each of the values)."""

    def open(self) -> KernelRegression:
        """All of it in memory, m x t float64."""
        return KernelRegression(
            column(self, "predictions"),
            bandwidth_of(self),
            bool(self.metrics["leave_one_out"]),
            int(self.metrics["data_rows"]),
        )


def regression_links(
    name: str,
    of: str,
    values: str,
    at: str | None = None,
    *,
    columns: Sequence[str] = (),
    bandwidth: BandwidthLike = "leave_one_out",
    precision: Precision = "auto",
    found: str | None = None,
    **rule: Any,
) -> tuple[Link, ...]:
    """The steps that predict the values called `values` (or `columns` of that dataset's rows) from
    the vectors called `of`. found: a link that has the bandwidth. rule: options of
    `bandwidth_links`."""
    from simdist.stages.density import KernelRegressionStage, RegressionConfig  # noqa: PLC0415

    width = found or f"{name}.bandwidth"
    first = (
        ()
        if found
        else bandwidth_links(width, of, bandwidth, values=values, columns=columns, **rule)
    )
    inputs = {"vectors": of, "values": values, "bandwidth": width}
    if at is not None:
        inputs["at"] = at
    config = RegressionConfig(precision, tuple(columns))
    return (*first, Link(name, KernelRegressionStage(), config, inputs))


@overload
def kernel_regression(
    x: Dataset,
    y: Array | Dataset | str | Sequence[str],
    at: Array | Dataset | None = ...,
    bandwidth: BandwidthLike = ...,
    **options: Unpack[FieldOptions],
) -> RegressionDataset: ...
@overload
def kernel_regression(
    x: Array,
    y: Array | Dataset,
    at: Array | Dataset | None = ...,
    bandwidth: BandwidthLike = ...,
    **options: Unpack[FieldOptions],
) -> KernelRegression: ...
def kernel_regression(
    x: Array | Dataset,
    y: Array | Dataset | str | Sequence[str],
    at: Array | Dataset | None = None,
    bandwidth: BandwidthLike = "leave_one_out",
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
) -> KernelRegression | RegressionDataset:
    """The values near a point, averaged under a Gaussian kernel (Nadaraya-Watson).

        m(x) = sum_j w_j y_j,    w = softmax_j(-|x - x_j|^2 / 2 h^2)

    x: [n, d] array -> KernelRegression; vectors dataset -> RegressionDataset.
    y: [n] or [n, t] numbers, an array or a dataset with "values"; or the name or names of columns
        that were kept beside a stored x (`import_vectors(..., keep=[...])`).
    at: [m, d] points, array or dataset; None: the rows, each left out of its own prediction.
    bandwidth: as for `kernel_density`; or "leave_one_out": of 33 widths from 1/64 to 4 times
        Scott's, the one at which left-out rows (`sample` of them) are predicted best, by the mean
        over columns of the share of their variance that is explained.
    Other options, errors: as for `kernel_density`; InputError for another number of values than
    rows, and naming row and column of a value that is no number.
    A point far from all rows gets the value of the nearest. Cost: 2 m n (d + t) flops.
    Sources: Nadaraya (1964), Watson (1964).
    """
    rule: dict[str, Any] = {"scale": scale, "neighbor": neighbor, "sample": sample, "seed": seed}
    columns = _columns(x, y)
    source = "data" if columns else "values"
    with arranged(
        x,
        {"at": at},
        values=None if columns else y,  # type: ignore[arg-type]  # names are columns
        store=store,
        scratch=scratch,
        engine=engine,
        listeners=listeners,
    ) as there:
        links = (
            *bandwidth_links(
                "bandwidth", "data", bandwidth, values=source, columns=columns, **rule
            ),
            *regression_links(
                "regression",
                "data",
                source,
                None if at is None else "at",
                columns=columns,
                found="bandwidth",
                precision=precision,
            ),
        )
        made = RegressionDataset.of(there.run(links)["regression"])
        if isinstance(x, Dataset):
            return made
        found = made.open()
        if getattr(y, "ndim", 2) == 1:
            return KernelRegression(
                found.predictions[:, 0], found.bandwidth, found.leave_one_out, found.rows
            )
        return found


def _columns(x: Array | Dataset, y: object) -> tuple[str, ...]:
    """Names of kept columns; none where y is values itself."""
    if isinstance(y, str):
        names: tuple[str, ...] = (y,)
    elif isinstance(y, (list, tuple)) and y and all(isinstance(name, str) for name in y):
        names = tuple(y)
    else:
        return ()
    if not isinstance(x, Dataset):
        raise ConfigError(
            f"y={y!r}: columns are those of a stored dataset; give an array of values"
        )
    return names
