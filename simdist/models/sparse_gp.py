"""Gaussian process regression over millions of rows: `SparseGP`, and its links in a chain.

fit(X, y)                  arrays: here and now, on all cores
fit(X, y, engine="dask")   arrays through a scratch store
fit(vectors, "price")      a stored dataset and its kept column: the model is a dataset too
                             │
predict, predict_distribution, sample, log_density, score        arrays
predict_distribution(vectors)                                    a dataset, row by row
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures.kernels import Kernel
from simdist.models.chain import Link, run_links
from simdist.models.gp_inputs import given_points, refuse_not_finite, seed_of, targets_of
from simdist.models.gp_links import predict_links, regression_kernel
from simdist.models.machines import BadRow, Places, checked_numbers, columns_in_scratch
from simdist.models.places import borrowed, store_of
from simdist.models.predictions import JointPrediction, Predictions, PredictionsDataset
from simdist.stages.gp.config import SparseGPConfig, Start
from simdist.stages.gp.local import fit_local
from simdist.stages.gp.model import Fitted
from simdist.stages.gp.predict import read_model
from simdist.stages.gp.story import SparseGPStage
from simdist.stages.gp.table import Arrays, weights_of
from simdist.store.datasets import Dataset

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        f"SparseGP needs scikit-learn 1.6 or later ({error}): pip install 'simdist[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Json

__all__ = ["SparseGP"]

Of = Literal["latent", "observed"]
MOST_JOINT = 20_000  # rows of a covariance: 3.2 GB


class SparseGP(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Sparse Gaussian process regression (SGPR): the collapsed bound, maximised by L-BFGS.

    kernel: a Kernel, its name or formula, None: 1.0 * RBF(ard=True). A kernel whose variance is 1
        by its formula, such as RBF() alone, is given a free one. White parts are refused: the model
        has a noise of its own, one an output.
    inducing: how many inducing points, or the points [m, d]. More than there are rows are cut, with
        a RuntimeWarning.
    select: how they are chosen from a sample of the rows: "greedy" (by conditional variance) or
        "kmeans". optimize_inducing: moved by gradient then; else chosen anew `reselections` times,
        as hyper-parameters change.
    optimize: False keeps the kernel and `noise` as they are.
    start: lengthscales begin in units of the columns' spread ("data"), or as they are ("kernel").
    noise: variance to begin with, noise_floor: the least, as shares of the variance of y.
    held_out: share of the rows kept for the report; None: 0.1 of a dataset, none of arrays.
    evaluations: of the bound and its gradient on all rows, at most. tolerance: relative gain of
        three steps below which the fit ends.
    mini_rows, mini_evaluations: the fit of a sample that goes before, where there are at least
        twice as many rows; 0: none.
    calibrate: multiply the variances of a fitted model by the one number that makes squared errors,
        each row left out in turn, agree with them; the bound pays for what inducing points leave
        unexplained with noise, and its variances are too wide without.
    jitter: added to K_uu, relative to its mean diagonal.
    random_state: draws the sample and what is held out.
    engine, scratch: for arrays, as for `knn_graph`; named, not opened: scikit-learn copies them.
    targets are standardised inside; predictions, noise and the bound are in units of y.

    Fitted: kernel_ (for standardised y); noise_variance_ (float, [t] of several outputs), which is
    calibrated as all variances are; inducing_points_ [m, d]; report_: bound, trace gap, noise,
    parameters, passes, and of rows held out RMSE, NLPD, coverage, mean z^2; bounds_, F / (n t) of
    every evaluation on arrays; dataset_, of a fit on a dataset; n_features_in_.

    Float64 throughout, whitened: K_uu is never inverted. Cost: 4 to 5 n m^2 flops an evaluation.
    Source: Titsias 2009; Burt, Rasmussen and van der Wilk 2020 (inducing points).
    """

    def __init__(
        self,
        kernel: Json | Kernel | None = None,
        *,
        inducing: int | Array = 512,
        select: Literal["greedy", "kmeans"] = "greedy",
        optimize: bool = True,
        optimize_inducing: bool = True,
        start: Start = "data",
        noise: float = 0.1,
        noise_floor: float = 1e-6,
        held_out: float | None = None,
        evaluations: int = 128,
        tolerance: float = 1e-5,
        mini_rows: int = 4096,
        mini_evaluations: int = 30,
        reselections: int = 1,
        calibrate: bool = True,
        jitter: float = 1e-8,
        random_state: int = 0,
        engine: str | None = None,
        scratch: str | None = None,
    ) -> None:
        self.kernel = kernel
        self.inducing = inducing
        self.select = select
        self.optimize = optimize
        self.optimize_inducing = optimize_inducing
        self.start = start
        self.noise = noise
        self.noise_floor = noise_floor
        self.held_out = held_out
        self.evaluations = evaluations
        self.tolerance = tolerance
        self.mini_rows = mini_rows
        self.mini_evaluations = mini_evaluations
        self.reselections = reselections
        self.calibrate = calibrate
        self.jitter = jitter
        self.random_state = random_state
        self.engine = engine
        self.scratch = scratch

    def fit(
        self,
        X: Array | Dataset,
        y: Any = None,
        *,
        noise: Any = None,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        scratch: Store | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> SparseGP:
        """Fit the model. X: [n, d] and y: [n] or [n, t]; or a vectors dataset and the name(s) of
        kept columns.

        noise: [n] positive, or the name of a kept column: the noise variance of row i is
            noise_variance_ * noise[i]; only ratios matter to the fit.
        store: where a dataset's model goes, by default beside it.

        A fit on a dataset that is killed goes on at its last evaluation when it is called again.
        Raises InputError for NaN in y, with its row, for a constant target and for fewer than 2
        rows; ConfigError for settings that make no sense.
        """
        places = Places(
            store=store,
            scratch=self.scratch if scratch is None else scratch,
            engine=self.engine if engine is None else engine,
            listeners=listeners,
        )
        started = time.monotonic()
        for name in ("dataset_", "bounds_"):
            self.__dict__.pop(name, None)
        if isinstance(X, Dataset):
            self._fit_stored(X, y, noise, places)
        else:
            self._fit_arrays(X, y, noise, places)
        self.report_["seconds"] = time.monotonic() - started
        return self

    def predict(self, X: Array) -> Float64:
        """Means. X: [m, d] -> [m], or [m, t] of several outputs. Rows of a dataset:
        `predict_distribution`."""
        check_is_fitted(self)
        return self._shaped(self.model_.means(_rows(self, X)))

    @overload
    def predict_distribution(
        self,
        X: Dataset,
        *,
        joint: None = ...,
        store: Store | str | None = ...,
        engine: Engine | str | None = ...,
        listeners: Sequence[Listener] = ...,
    ) -> PredictionsDataset: ...
    @overload
    def predict_distribution(self, X: Array, *, joint: None = ...) -> Predictions: ...
    @overload
    def predict_distribution(self, X: Array, *, joint: Of) -> JointPrediction: ...
    def predict_distribution(
        self,
        X: Array | Dataset,
        *,
        joint: Of | None = None,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Predictions | JointPrediction | PredictionsDataset:
        """Means and variances: of y, noise included, and of the function without noise.

        X: [m, d] -> Predictions; a vectors dataset -> PredictionsDataset, in `store` or beside it
            (the model must be a dataset as well: fitted on one, or opened).
        joint: "latent" or "observed": the covariance of all rows, as a JointPrediction; for small
            sets, m x m.
        """
        check_is_fitted(self)
        if isinstance(X, Dataset):
            if joint is not None:
                raise ConfigError(
                    "joint= is of arrays: a covariance of all rows of a dataset is n x n"
                )
            return self._predict_stored(X, store=store, engine=engine, listeners=listeners)
        rows = _rows(self, X)
        if joint is None:
            mean, latent = self.model_.moments(rows)
            made = (mean, latent + self.model_.noise_variance, latent)
            return Predictions(*(self._shaped(values) for values in made))
        mean, covariance = self._joint(rows, joint)
        return JointPrediction(
            self._shaped(mean), covariance[0] if self.model_.outputs == 1 else covariance
        )

    def sample(
        self, X: Array, samples: int = 1, *, of: Of = "latent", random_state: int = 0
    ) -> Float64:
        """Draws of the function ("latent"), or of y ("observed"), at rows together.

        X: [m, d] -> [samples, m], or [samples, m, t]. Cost: m^3 / 3 flops.
        """
        check_is_fitted(self)
        rows = _rows(self, X)
        mean, covariance = self._joint(rows, of)
        rng = check_random_state(random_state)
        drawn = np.empty((samples, len(rows), self.model_.outputs))
        for j, own in enumerate(covariance):
            values, vectors = np.linalg.eigh(own)  # psd up to rounding: no jitter to explain
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            drawn[:, :, j] = mean[:, j] + rng.standard_normal((samples, len(rows))) @ root.T
        return drawn[:, :, 0] if self.model_.outputs == 1 else drawn

    def log_density(self, X: Array, y: Array, *, noise: Array | None = None) -> Float64:
        """log p(y_i | x_i) of each row, in nats: [m], or [m, t]. noise: as in `fit`."""
        check_is_fitted(self)
        rows = _rows(self, X)
        Y = targets_of(y, len(rows))
        if Y.shape[1] != self.model_.outputs:
            raise BadRow(
                f"y has {Y.shape[1]} outputs; the model was fitted on {self.model_.outputs}"
            )
        mean, latent = self.model_.moments(rows)
        share = 1.0 if noise is None else checked_numbers(noise, "noise", rows=len(rows))[:, None]
        variance = latent + self.model_.noise_variance * share
        return self._shaped(-0.5 * (np.log(2.0 * np.pi * variance) + (Y - mean) ** 2 / variance))

    @classmethod
    def open(cls, model: Dataset) -> SparseGP:
        """A fitted estimator from a model's dataset: `dataset_` of a fit, or `store.dataset(name)`.

        Raises InputError where the dataset is another kind of model.
        """
        opened = cls()
        opened._take(read_model(model), dict(model.metrics))
        opened.dataset_ = model
        return opened

    def _fit_arrays(self, X: Any, y: Any, noise: Any, places: Places) -> None:
        if y is None:
            raise BadRow(f"{type(self).__name__} requires y to be passed, but the target y is None")
        refuse_not_finite(y)
        X, y = validate_data(*(self, X, y), dtype=np.float64, multi_output=True, y_numeric=True)
        if len(X) < 2:
            raise BadRow(f"n_samples={len(X)}: a Gaussian process needs at least 2 rows")
        Y = targets_of(y, len(X))
        self._single = np.ndim(y) == 1
        columns = {f"y{j}" if Y.shape[1] > 1 else "y": Y[:, j] for j in range(Y.shape[1])}
        if noise is not None:
            noise = checked_numbers(noise, "noise", rows=len(X))
            weights_of(noise, 0)
        config = self._config(
            *(tuple(columns), X.shape[1], len(X)),
            held_out=0.0 if self.held_out is None else self.held_out,
            noise_column=None if noise is None else "noise",
        )
        if places.engine in (None, "local") and places.store is None and places.scratch is None:
            found = fit_local(
                Arrays(X, Y, noise), config, given=given_points(self.inducing, X.shape[1])
            )
            self._take(found.model, found.report)
            self.bounds_ = found.bounds
            return
        if noise is not None:
            columns["noise"] = noise
        with columns_in_scratch(X, columns, places) as (vectors, store, opened):
            model = self._run(vectors, config, store, opened, places)
            self._take(read_model(model), dict(model.metrics))

    def _fit_stored(self, vectors: Dataset, y: Any, noise: Any, places: Places) -> None:
        targets = (y,) if isinstance(y, str) else tuple(() if y is None else y)
        if not targets or not all(isinstance(name, str) for name in targets):
            raise ConfigError(
                f"y is {type(y).__name__}: with a dataset, name the kept column(s) of its targets,"
                " as fit(vectors, 'price')"
            )
        if noise is not None and not isinstance(noise, str):
            raise ConfigError("noise: with a dataset, the name of a kept column")
        self._single = isinstance(y, str)
        dim = int(vectors.metrics.get("dim", 0))
        config = self._config(
            *(targets, dim, vectors.rows),
            held_out=0.1 if self.held_out is None else self.held_out,
            noise_column=noise,
        )
        place = vectors.store if places.store is None else store_of(places.store)
        with borrowed(places.engine, place) as opened:
            model = self._run(vectors, config, place, opened, places)
        self._take(read_model(model), dict(model.metrics))
        self.n_features_in_ = dim
        self.dataset_ = model

    def _run(
        self,
        vectors: Dataset,
        config: SparseGPConfig,
        store: Store,
        engine: Engine,
        places: Places,
    ) -> Dataset:
        given = given_points(self.inducing, int(vectors.metrics["dim"]))
        if given is not None:
            config = replace(config, given=store.write_array("inducing", given))
        link = Link("model", SparseGPStage(), config, {"vectors": "vectors"})
        made = run_links(
            *((link,), {"vectors": vectors}),
            store=store,
            engine=engine,
            listeners=places.listeners,
        )
        return made["model"]

    def _config(
        self, targets: tuple[str, ...], dim: int, n: int, *, held_out: float, noise_column: Any
    ) -> SparseGPConfig:
        given = given_points(self.inducing, dim)
        count = int(self.inducing) if given is None else len(given)
        config = SparseGPConfig(
            *(regression_kernel(self.kernel), targets),
            inducing=min(count, n) if given is None else count,
            select=self.select if given is None else "given",
            noise_column=noise_column,
            optimize=self.optimize,
            optimize_inducing=self.optimize_inducing,
            start=self.start,
            noise=self.noise,
            noise_floor=self.noise_floor,
            held_out=held_out,
            evaluations=self.evaluations,
            tolerance=self.tolerance,
            mini_rows=self.mini_rows,
            mini_evaluations=self.mini_evaluations,
            reselections=self.reselections,
            calibrate=self.calibrate,
            jitter=self.jitter,
            seed=seed_of(self.random_state),
        )
        if given is None and count > n:
            warnings.warn(
                f"inducing={count} inducing points for {n} rows: cut to {n}; the model is then"
                " exact, and costs what an exact one does",
                RuntimeWarning,
                stacklevel=4,
            )
        return config

    def _take(self, model: Fitted, report: dict[str, Any]) -> None:
        """Fitted attributes."""
        self.model_ = model
        self.report_ = {name: value for name, value in report.items() if name != "model"}
        self.kernel_ = model.kernel
        self.inducing_points_ = model.Z
        self.n_features_in_ = model.Z.shape[1]
        noise = model.noise_variance
        self.noise_variance_ = float(noise[0]) if model.outputs == 1 else noise
        if report["noise_at_floor"]:
            warnings.warn(
                "the noise is at its floor: y is explained to rounding. Bound and variances follow"
                f" from noise_floor={self.noise_floor:g}.",
                RuntimeWarning,
                stacklevel=4,
            )

    def _joint(self, rows: Array, of: Of) -> tuple[Float64, Float64]:
        """Means [m, t] and covariances [t, m, m]."""
        if of not in ("latent", "observed"):
            raise ConfigError(f"{of!r}: expected 'latent' or 'observed'")
        if len(rows) > MOST_JOINT:
            raise InputError(
                f"a covariance of {len(rows)} rows has {8 * len(rows) ** 2 / 2**30:.0f} GiB;"
                f" expected at most {MOST_JOINT} rows. Without joint= there are variances."
            )
        covariance = np.stack([self.model_.covariance(rows, j) for j in range(self.model_.outputs)])
        if of == "observed":
            at = np.arange(len(rows))
            covariance[:, at, at] += self.model_.noise_variance[:, None]
        return self.model_.means(rows), covariance

    def _predict_stored(
        self,
        vectors: Dataset,
        *,
        store: Store | str | None,
        engine: Engine | str | None,
        listeners: Sequence[Listener],
    ) -> PredictionsDataset:
        model = getattr(self, "dataset_", None)
        if model is None:
            raise ConfigError(
                "SparseGP was fitted on arrays, so there is no stored model to apply to a dataset:"
                " fit it on a dataset, or predict arrays"
            )
        place = vectors.store if store is None else store_of(store)
        with borrowed(self.engine if engine is None else engine, place) as opened:
            made = run_links(
                *(predict_links("predictions", "vectors", "model"),),
                {"vectors": vectors, "model": model},
                store=place,
                engine=opened,
                listeners=listeners,
            )
        return PredictionsDataset.of(made["predictions"])

    def _shaped(self, values: Float64) -> Float64:
        """[m, t] as y came: [m] of one output."""
        return values[:, 0] if getattr(self, "_single", values.shape[1] == 1) else values

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags


def _rows(model: SparseGP, X: Any) -> Array:
    """X checked as scikit-learn checks it: [m, d] float64, finite."""
    rows: Array = validate_data(model, X, reset=False, dtype=np.float64)
    return rows
