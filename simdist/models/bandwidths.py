"""Bandwidths of Gaussian kernels, and the places that calls of the density family share.

x (array or dataset), rule or number ── gaussian_bandwidth ──> Bandwidth: what was used, and why
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from simdist.errors import ConfigError
from simdist.models.chain import Link, run_link, run_links
from simdist.models.places import PlaceOptions, borrowed, in_scratch, refuse_unseen, store_of
from simdist.panels import rows_between
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.stages.density import Kernel, Precision, Scale
    from simdist.store.store import Store
    from simdist.types import Array, Float64

__all__ = [
    "Arranged",
    "Bandwidth",
    "BandwidthLike",
    "FieldOptions",
    "arranged",
    "bandwidth_links",
    "bandwidth_of",
    "column",
]

Rule: TypeAlias = Literal["scott", "silverman", "knn", "likelihood"]
BandwidthLike: TypeAlias = "float | Sequence[float] | Array | Rule | Literal['leave_one_out']"


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The bandwidth that was used, and where it came from.

    widths: [d] float64, one for each feature; all equal unless rule or numbers tell them apart.
    rule: "given", or the rule asked for. scale: whose standard deviation was the unit, "dataset" or
        "feature"; None where it was given. factor: the bandwidth in these units, None likewise.
    sample: rows that chose it; None of a rule that asks none.
    tried: of "likelihood" and "leave_one_out", (factor, score) of the grid: mean log density of a
        left-out row, or the share of the values' variance that is explained.
    edge: whether the best of these was the first or last.
    """

    widths: Float64
    rule: str
    scale: str | None = None
    factor: float | None = None
    sample: int | None = None
    tried: tuple[tuple[float, float], ...] = ()
    edge: bool = False

    @property
    def value(self) -> float | None:
        """The one number, where it is the same for all features."""
        first = float(self.widths[0])
        return first if bool((self.widths == first).all()) else None

    def __repr__(self) -> str:
        value = f"{self.value:.6g}" if self.value is not None else f"{len(self.widths)} widths"
        return f"Bandwidth({value}, rule={self.rule!r})"


class FieldOptions(PlaceOptions, total=False):
    """What bandwidths and products take: see `kernel_density`."""

    scale: Scale
    neighbor: int
    sample: int
    seed: int
    precision: Precision


class Arranged(NamedTuple):
    """The inputs of a call as datasets, where its results go, and who computes them."""

    given: dict[str, Dataset]
    store: Store
    engine: Engine
    listeners: Sequence[Listener]

    def run(self, links: Sequence[Link]) -> dict[str, Dataset]:
        """All links in order; the datasets given and made, by name."""
        made = run_links(
            links, self.given, store=self.store, engine=self.engine, listeners=self.listeners
        )
        for link in links:
            if link.name == "bandwidth":
                _warn_edge(made[link.name])
        return made


@contextmanager
def arranged(
    x: Array | Dataset,
    others: Mapping[str, Array | Dataset | None],
    *,
    name: str = "data",
    values: Array | Dataset | None = None,
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Iterator[Arranged]:
    """Everything as datasets for the length of a call: x as `name`, others under theirs.

    A stored x keeps its place (results go to `store`, by default beside it), an array goes through
    a scratch store. What else is an array is written there too.
    """
    rows: dict[str, Any] = {name: x, **{k: v for k, v in others.items() if v is not None}}
    if isinstance(x, Dataset):
        place = x.store if store is None else store_of(store)
        with borrowed(engine, place) as opened:
            given = _given(rows, values, place, opened, listeners)
            yield Arranged(given, place, opened, listeners)
        return
    with in_scratch(scratch, engine) as (place, opened):
        refuse_unseen(opened, place)
        given = _given(rows, values, place, opened, listeners)
        yield Arranged(given, place, opened, listeners)


def _given(
    rows: Mapping[str, Any],
    values: Array | Dataset | None,
    store: Store,
    engine: Engine,
    listeners: Sequence[Listener],
) -> dict[str, Dataset]:
    from simdist.stages.density import GivenRows, write_given  # noqa: PLC0415

    given: dict[str, Dataset] = {}
    for name, array in {**rows, **({} if values is None else {"values": values})}.items():
        if isinstance(array, Dataset):
            given[name] = array
            continue
        role: Literal["vectors", "values"] = "values" if name == "values" else "vectors"
        config = write_given(np.asarray(array), store, role=role, what=name)
        link = Link(name, GivenRows(), config, {})
        given[name] = run_link(link, {}, store=store, engine=engine, listeners=listeners)
    return given


def bandwidth_links(
    name: str,
    of: str,
    bandwidth: BandwidthLike,
    *,
    scale: Scale = "dataset",
    neighbor: int = 10,
    sample: int = 1000,
    seed: int = 0,
    values: str | None = None,
    columns: Sequence[str] = (),
    kernel: Kernel = "gaussian",
) -> tuple[Link, ...]:
    """The step that finds the bandwidth of the vectors called `of`, for a kernel. values: what is
    to be predicted ("leave_one_out"), or the same dataset with `columns`."""
    from simdist.stages.density import BandwidthConfig, BandwidthStage  # noqa: PLC0415

    rule, widths = _asked(bandwidth)
    config = BandwidthConfig(
        rule,
        widths,
        scale=scale,
        neighbor=neighbor,
        sample=sample,
        seed=seed,
        columns=tuple(columns),
        kernel=kernel,
    )
    inputs = {"vectors": of}
    if values is not None and rule == "leave_one_out":
        inputs["values"] = values
    return (Link(name, BandwidthStage(), config, inputs),)


def _asked(bandwidth: BandwidthLike) -> tuple[Any, tuple[float, ...]]:
    """(rule, widths) of what was asked for."""
    if isinstance(bandwidth, str):
        return bandwidth, ()
    try:
        widths = np.atleast_1d(np.asarray(bandwidth, np.float64))
    except (TypeError, ValueError):
        widths = np.empty((0, 0))
    if widths.ndim != 1 or not len(widths) or isinstance(bandwidth, bool):
        raise ConfigError(
            f"bandwidth={bandwidth!r}: expected a number, one for each feature, or a rule"
        )
    return "given", tuple(float(width) for width in widths)


def bandwidth_of(dataset: Dataset) -> Bandwidth:
    """The bandwidth that a committed dataset of this family was made with."""
    if "bandwidth" in dataset.manifest.inputs:
        dataset = dataset.store.dataset(dataset.manifest.inputs["bandwidth"])
    metrics = dataset.metrics
    return Bandwidth(
        np.array(dataset.store.read_array(dataset.manifest.objects["widths"])),
        str(metrics["rule"]),
        metrics.get("scale"),
        metrics.get("factor"),
        metrics.get("sample"),
        tuple((float(factor), float(score)) for factor, score in metrics.get("tried", ())),
        bool(metrics.get("edge", False)),
    )


def column(dataset: Dataset, role: str) -> Array:
    """An array of all shards in memory, one under the other."""
    return np.array(rows_between(dataset, role, 0, dataset.rows))


def _warn_edge(dataset: Dataset) -> None:
    if dataset.metrics.get("edge"):
        warnings.warn(
            f"bandwidth={dataset.metrics['rule']!r}: the best of the widths tried,"
            f" {dataset.metrics['factor']:.3g} standard deviations, is the first or last of them."
            " Rows with copies pull it to 0: remove duplicates, or give a number.",
            RuntimeWarning,
            stacklevel=4,
        )
