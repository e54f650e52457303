"""The score of a smoothed data set, and its closed-form denoiser.

points, data, sigma ──┬── score_field ──> ScoreField: gradient of log p_sigma
                      └── denoise ──────> Denoised: the points after a few steps
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Unpack, overload

import numpy as np

from simdist.errors import ConfigError
from simdist.models.bandwidths import arranged, bandwidth_links, bandwidth_of, column
from simdist.models.chain import Link
from simdist.models.places import PlaceOptions
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.stages.density import Precision
    from simdist.store.store import Store
    from simdist.types import Array, Float64

__all__ = [
    "Denoised",
    "DenoisedDataset",
    "ScoreField",
    "ScoreFieldDataset",
    "denoise",
    "denoise_links",
    "score_field",
    "score_links",
    "sigmas_of",
]


@dataclass(frozen=True, slots=True)
class ScoreField:
    """scores: [m, d] float64, gradient of the log density at each point.

    log_density: [m] float64, natural logarithm. sigma: the bandwidth. rows: of the data.
    """

    scores: Float64
    log_density: Float64
    sigma: float
    rows: int

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return f"ScoreField({len(self)} points under {self.rows} rows, sigma={self.sigma:.6g})"


@dataclass(frozen=True, slots=True)
class ScoreFieldDataset(Dataset):
    """A committed score field: see `Dataset`; shards have "scores" and "log_density" as .npy and
    the Parquet table (row, id, score, log_density)."""

    def open(self) -> ScoreField:
        """All of it in memory, m x d float64."""
        sigma = float(bandwidth_of(self).widths[0])
        scores, log_density = (column(self, role) for role in ("scores", "log_density"))
        return ScoreField(scores, log_density, sigma, int(self.metrics["data_rows"]))


@dataclass(frozen=True, slots=True)
class Denoised:
    """points: [m, d], float64 where the noisy ones were, else float32. sigmas: of the steps, as
    they were taken. rows: of the data."""

    points: Array
    sigmas: tuple[float, ...]
    rows: int

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        first, last = self.sigmas[0], self.sigmas[-1]
        steps = f"{len(self.sigmas)} steps, sigma {first:.4g} to {last:.4g}"
        return f"Denoised({len(self)} points by {self.rows} rows in {steps})"


@dataclass(frozen=True, slots=True)
class DenoisedDataset(Dataset):
    """Committed denoised points, a vectors dataset that every stage on vectors takes: see
    `Dataset`."""

    def open(self) -> Denoised:
        """All of it in memory, m x d values."""
        sigmas = tuple(float(sigma) for sigma in self.metrics["sigmas"])
        return Denoised(column(self, "vectors"), sigmas, int(self.metrics["data_rows"]))


def score_links(
    name: str, of: str, at: str, sigma: float, *, precision: Precision = "auto"
) -> tuple[Link, ...]:
    """The steps of a score field: of the vectors called `of`, at those called `at`."""
    from simdist.stages.density import FieldConfig, ScoreFieldStage  # noqa: PLC0415

    width = f"{name}.bandwidth"
    inputs = {"vectors": of, "at": at, "bandwidth": width}
    return (
        *bandwidth_links(width, of, _number(sigma)),
        Link(name, ScoreFieldStage(), FieldConfig(precision), inputs),
    )


def denoise_links(
    name: str,
    noisy: str,
    data: str,
    sigma: float,
    *,
    steps: int = 1,
    last: float | None = None,
    precision: Precision = "auto",
) -> tuple[Link, ...]:
    """The steps that denoise the vectors called `noisy` by those called `data`."""
    from simdist.stages.density import DenoiseConfig, DenoiseStage  # noqa: PLC0415

    width, sigmas = f"{name}.bandwidth", sigmas_of(sigma, steps, last)
    inputs = {"vectors": data, "at": noisy, "bandwidth": width}
    return (
        *bandwidth_links(width, data, sigmas[0]),
        Link(name, DenoiseStage(), DenoiseConfig(sigmas, precision), inputs),
    )


def _number(sigma: float) -> float:
    """A noise level; ConfigError where it is none."""
    try:
        number = float(sigma)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ConfigError(
            f"sigma={sigma!r}: expected a finite number above 0, in units of the data"
        )
    return number


def sigmas_of(sigma: float, steps: int, last: float | None = None) -> tuple[float, ...]:
    """Noise levels of the steps, from `sigma` to `last` (by default a tenth of it), each the same
    share of the one before."""
    first = _number(sigma)
    if steps < 1:
        raise ConfigError(f"steps={steps}: expected at least 1")
    if steps == 1:
        return (first,)
    end = first / 10 if last is None else _number(last)
    if end >= first:
        raise ConfigError(f"last={end}: expected less than sigma={first}")
    return tuple(float(s) for s in np.geomspace(first, end, steps))


@overload
def score_field(
    x: Dataset,
    at: Array | Dataset,
    sigma: float,
    *,
    precision: Precision = ...,
    **options: Unpack[PlaceOptions],
) -> ScoreFieldDataset: ...
@overload
def score_field(
    x: Array,
    at: Array | Dataset,
    sigma: float,
    *,
    precision: Precision = ...,
    **options: Unpack[PlaceOptions],
) -> ScoreField: ...
def score_field(
    x: Array | Dataset,
    at: Array | Dataset,
    sigma: float,
    *,
    precision: Precision = "auto",
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> ScoreField | ScoreFieldDataset:
    """The gradient of log p_sigma, p_sigma the data smoothed by Gaussian noise of size sigma.

        score(x) = (Attn(x) - x) / sigma^2,  Attn(x) = sum_j softmax_j(-|x - x_j|^2 / 2 sigma^2) x_j

    x: [n, d] data; an array -> ScoreField, a vectors dataset -> ScoreFieldDataset.
    at: [m, d] points, array or dataset. sigma: in units of the data.
    precision, store, scratch, engine, listeners, errors: as for `kernel_density`.
    Error: that of `precision` on the logits, a share of |Attn(x) - x| / sigma^2. Cost: 4 m n d
    flops. The log density comes from the same sums. Source: Scarvelis et al., Closed-Form Diffusion
    Models (2023).
    """
    links = score_links("field", "data", "at", sigma, precision=precision)
    with arranged(
        x, {"at": at}, store=store, scratch=scratch, engine=engine, listeners=listeners
    ) as there:
        made = ScoreFieldDataset.of(there.run(links)["field"])
        return made if isinstance(x, Dataset) else made.open()


@overload
def denoise(
    noisy: Dataset,
    data: Array | Dataset,
    sigma: float,
    steps: int = ...,
    *,
    last: float | None = ...,
    precision: Precision = ...,
    **options: Unpack[PlaceOptions],
) -> DenoisedDataset: ...
@overload
def denoise(
    noisy: Array,
    data: Array | Dataset,
    sigma: float,
    steps: int = ...,
    *,
    last: float | None = ...,
    precision: Precision = ...,
    **options: Unpack[PlaceOptions],
) -> Denoised: ...
def denoise(
    noisy: Array | Dataset,
    data: Array | Dataset,
    sigma: float,
    steps: int = 1,
    *,
    last: float | None = None,
    precision: Precision = "auto",
    store: Store | str | None = None,
    scratch: Store | str | None = None,
    engine: Engine | str | None = None,
    listeners: Sequence[Listener] = (),
) -> Denoised | DenoisedDataset:
    """Points freed of Gaussian noise by the best denoiser there is for a data set: in closed form.

    noisy: [m, d] points with noise of size sigma (standard deviation of each coordinate); an array
        -> Denoised, a vectors dataset -> DenoisedDataset, again vectors.
    data: [n, d] clean rows, array or dataset.
    steps: 1 gives the posterior mean D(x, sigma) = Attn(x), the least squared error, a blend of the
        rows that may be behind x. More follow the flow of falling noise to one sharp answer,
            x <- D(x, s_t) + (s_t+1 / s_t) (x - D(x, s_t)),
        s from sigma to `last` (a tenth of sigma) in equal ratios, then D. As `last` goes to 0 the
        answer becomes a row of the data: this denoiser knows nothing else.
    precision, store, scratch, engine, listeners, errors: as for `kernel_density`. Cost: 4 m n d
    flops a step; each step is committed, and a run that is killed goes on at the last.
    Sources: Karras et al. (NeurIPS 2022), Euler's steps of the flow; Scarvelis et al. (2023).
    """
    links = denoise_links(
        "points", "noisy", "data", sigma, steps=steps, last=last, precision=precision
    )
    with arranged(
        noisy,
        {"data": data},
        name="noisy",
        store=store,
        scratch=scratch,
        engine=engine,
        listeners=listeners,
    ) as there:
        made = DenoisedDataset.of(there.run(links)["points"])
        return made if isinstance(noisy, Dataset) else made.open()
