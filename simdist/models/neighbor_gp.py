"""Gaussian process regression from nearest neighbours: `NeighborGP`.

    gp = NeighborGP(neighbors=200).fit(x, y)
    gp.predict(x_new)                  means
    gp.predict_distribution(x_new)     means and variances
    gp.held_out_                       RMSE, NLPD, coverage of training rows left out in turn

scikit-learn's conventions, so it stands in a Pipeline; scikit-learn is an extra:
`pip install 'simdist[sklearn]'`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

import numpy as np

from simdist.engine.base import Engine
from simdist.errors import ConfigError, InputError
from simdist.measures.kernels import resolve
from simdist.measures.rows import as_float32
from simdist.models.chain import run_links
from simdist.models.neighbor_links import (
    neighbor_gp_links,
    neighbor_predict_links,
    parts_of,
    refuse_no_rows,
)
from simdist.models.neighbor_local import LocalModel, fit_local
from simdist.models.places import borrowed, in_scratch, refuse_unseen
from simdist.models.predictions import Predictions, PredictionsDataset
from simdist.models.vectors import import_array
from simdist.panels import values_between
from simdist.stages.neighbor_gp import Parameters, ParametersConfig, SampleConfig, Targets
from simdist.store.datasets import Dataset

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        f"NeighborGP needs scikit-learn 1.6 or later ({error}): pip install 'simdist[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from simdist.measures.kernels import Kernel
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Float32, Float64, Json

__all__ = ["NeighborGP"]

KERNEL = "Matern52(ard=True)"
EXACT_ROWS = 1 << 17  # training rows up to which "auto" looks at every pair


class NeighborGP(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A Gaussian process that predicts every row from its nearest training rows alone (GPnn).

    kernel: a `simdist.kernels` kernel, its formula ("RBF(ard=True) + Constant()") or mapping; None:
        Matern52 with a lengthscale a column. One without a variance gets one; White in it is the
        noise to start with. It has to fall with a distance in one of its parts: that is the space
        in which rows are near, columns over lengthscales (of sums, weighted by variance).
    neighbors: k, 64 to 400; a row costs k^3 / 3 flops.
    noise: its variance to start with, as a share of that of y.
    subset, subsets: rows of which hyper-parameters are learned, by the exact marginal likelihood of
        so many subsets drawn at random. iterations: of L-BFGS; 0 takes kernel and noise as given.
    calibration: training rows that are predicted without themselves, for the one factor that makes
        variances right and for `held_out_`.
    method: "exact" neighbours, "approximate" with the recall asked for, or "auto": exact up to
        131,072 training rows. recall: of the approximate search.
    random_state: draws subset and sample. engine: None, "local", "dask", "ray" or an address.
    scratch: a store for what lies between where arrays go to a cluster; see `knn_graph`.

    Fitted: kernel_, without White; its lengthscales in units of the columns, its variance of y with
    variance 1. noise_: variance, in units of y^2. calibration_: what variances are multiplied with.
    held_out_: rmse, nlpd, coverage, mean_z2, r2 of the calibration rows, each left out of its own
        prediction and scored with the other half's calibration. report_: these, the likelihood of
        the subsets in nats, hyper-parameters by name, and the seconds of the fit.
    dataset_: the committed model, where it was fitted on a dataset.

    X is an array [n, d], held as float32, with y [n]; or a stored vectors dataset, with y an array
    or the name of a column that the import kept. Arrays give arrays, datasets give datasets.

    Raises InputError (ValueError from scikit-learn's checks) for NaN with its row, fewer than 2
    rows; ConfigError for a kernel without a distance. A constant y is predicted with next to no
    variance. Copies of rows are fine: noise is at least 1e-6 of y's variance.
    Cost: some 40 evaluations of 1.5 b^3 flops for subsets of b rows; k-NN; k^3 / 3 a row.
    Source: Allison et al., arXiv 2306.14731.
    """

    _model: LocalModel | None  # of arrays
    _seed: int

    def __init__(
        self,
        kernel: Kernel | Json = None,
        *,
        neighbors: int = 200,
        noise: float = 0.1,
        subset: int = 1500,
        subsets: int = 1,
        iterations: int = 30,
        calibration: int = 2000,
        method: Literal["auto", "approximate", "exact"] = "auto",
        recall: float = 0.95,
        random_state: int | np.random.RandomState | None = 0,
        engine: Engine | str | None = None,
        scratch: str | None = None,
    ) -> None:
        self.kernel = kernel
        self.neighbors = neighbors
        self.noise = noise
        self.subset = subset
        self.subsets = subsets
        self.iterations = iterations
        self.calibration = calibration
        self.method = method
        self.recall = recall
        self.random_state = random_state
        self.engine = engine
        self.scratch = scratch

    @classmethod
    def open(cls, dataset: Dataset, **settings: Any) -> Self:
        """The estimator of a committed model. settings: arguments that have to do with where it
        runs: engine, scratch. Raises InputError for what is no such model."""
        parts_of(dataset)
        metrics = dataset.metrics
        made = cls(
            Parameters.of(dataset).kernel,
            neighbors=int(metrics["neighbors"]),
            method=metrics["method"],
            recall=float(metrics["recall"] or 0.95),
            **settings,
        )
        made._take(dataset)
        return made

    # -- fitting --

    def fit(
        self, X: Array | Dataset, y: Array | str, *, listeners: Sequence[Listener] = ()
    ) -> Self:
        """Learn the hyper-parameters, calibrate the variance. listeners: see `knn_graph`."""
        if self.method not in ("auto", "approximate", "exact"):
            raise ConfigError(f"method={self.method!r}: expected 'auto', 'approximate' or 'exact'")
        started = time.monotonic()
        self._seed = _seed(self.random_state)
        self._model = None
        self.__dict__.pop("dataset_", None)
        if isinstance(X, Dataset):
            refuse_no_rows(X)
            with borrowed(self.engine, X.store) as engine:
                self._take(self._committed(X, y, _Place(X.store, engine), listeners))
        elif isinstance(y, str):
            raise ConfigError(
                f"y={y!r} names a column, and X is an array: give y as an array, or X as a dataset"
                " whose import kept the column"
            )
        else:
            checked, y = validate_data(
                self, X, y, dtype=[np.float64, np.float32], y_numeric=True, ensure_min_samples=2
            )
            rows = as_float32(checked, of="NeighborGP")
            self._model = self._fit_arrays(rows, np.asarray(y, np.float64), listeners)
            self._tell(self._model.parameters, self._model.calibration, self._model.held_out)
        self.report_["seconds"] = time.monotonic() - started
        return self

    def _fit_arrays(self, X: Float32, y: Float64, listeners: Sequence[Listener]) -> LocalModel:
        """Here, or on the engine through a scratch store: the same model."""
        if self._in_process(len(X)):
            sample = SampleConfig(self.calibration, self._seed)
            config = self._config(Targets(column="y"))
            return fit_local(config, X, y, neighbors=self.neighbors, sample=sample)
        with self._somewhere() as at:
            model = self._committed(self._array(X, at, listeners), y, at, listeners)
            parameters = Parameters.of(model)
            return LocalModel(
                parameters,
                X,
                y,
                parameters.scaled(X),
                self.neighbors,
                float(model.metrics["calibration"]),
                dict(model.metrics["held_out"]),
            )

    def _committed(
        self, X: Dataset, y: Array | str, at: _Place, listeners: Sequence[Listener]
    ) -> Dataset:
        """The model of stored rows, by its links."""
        targets = Targets(column=y) if isinstance(y, str) else _written(y, at.store)
        links = neighbor_gp_links(
            "model",
            "rows",
            self._config(targets),
            neighbors=min(self.neighbors, X.rows - 1),
            calibration=self.calibration,
            **self._search(X.rows),
        )
        made = run_links(links, {"rows": X}, store=at.store, engine=at.engine, listeners=listeners)
        return made["model"]

    # -- predicting --

    @overload
    def predict(self, X: Dataset, *, listeners: Sequence[Listener] = ...) -> PredictionsDataset: ...
    @overload
    def predict(self, X: Array, *, listeners: Sequence[Listener] = ...) -> Float64: ...
    def predict(
        self, X: Array | Dataset, *, listeners: Sequence[Listener] = ()
    ) -> Float64 | PredictionsDataset:
        """Means. X: [m, d] -> [m]; a vectors dataset -> a dataset of predictions beside the model,
        which has the variances too."""
        found = self.predict_distribution(X, listeners=listeners)
        return found.mean if isinstance(found, Predictions) else found

    @overload
    def predict_distribution(
        self, X: Dataset, *, listeners: Sequence[Listener] = ...
    ) -> PredictionsDataset: ...
    @overload
    def predict_distribution(
        self, X: Array, *, listeners: Sequence[Listener] = ...
    ) -> Predictions: ...
    def predict_distribution(
        self, X: Array | Dataset, *, listeners: Sequence[Listener] = ()
    ) -> Predictions | PredictionsDataset:
        """Means and calibrated variances. X: [m, d] -> arrays; a vectors dataset -> a dataset."""
        check_is_fitted(self, "kernel_")
        if isinstance(X, Dataset):
            return self._predict_dataset(X, listeners)
        checked = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        rows = as_float32(checked, of="NeighborGP")
        if self._model is not None and self._in_process(len(self._model.X)):
            found = self._model.predict(rows)
            return Predictions(found.mean, found.variance, found.latent)
        with self._somewhere() as at:
            queries = self._array(rows, at, listeners)
            return self._run(self._stored(at, listeners), queries, at, listeners).open()

    def leave_one_out(
        self, *, listeners: Sequence[Listener] = ()
    ) -> Predictions | PredictionsDataset:
        """Every training row predicted from its neighbours without itself: arrays where the model
        was fitted on arrays, else a dataset."""
        check_is_fitted(self, "kernel_")
        if self._model is None:
            with borrowed(self.engine, self.dataset_.store) as engine:
                at = _Place(self.dataset_.store, engine)
                return self._run(self.dataset_, None, at, listeners)
        if self._in_process(len(self._model.X)):
            found = self._model.predict_left_out()
            return Predictions(found.mean, found.variance, found.latent)
        with self._somewhere() as at:
            return self._run(self._stored(at, listeners), None, at, listeners).open()

    def score(
        self, X: Array | Dataset, y: Array | str, sample_weight: Array | None = None
    ) -> float:
        """R^2 of the means. X, y as for `fit`; of datasets without weights."""
        if not isinstance(X, Dataset):
            return float(super().score(X, y, sample_weight))
        from sklearn.metrics import r2_score  # noqa: PLC0415 - a second that fitting does not need

        known = values_between(X, (y,), 0, X.rows)[:, 0] if isinstance(y, str) else np.asarray(y)
        mean = self.predict(X).open().mean
        return float(r2_score(known, mean, sample_weight=sample_weight))

    def _predict_dataset(self, X: Dataset, listeners: Sequence[Listener]) -> PredictionsDataset:
        if self._model is not None:
            raise InputError(
                "this model was fitted on arrays, and lies in no store: fit it on a dataset to"
                " predict datasets, or give the rows as an array"
            )
        with borrowed(self.engine, self.dataset_.store) as engine:
            at = _Place(self.dataset_.store, engine)
            return self._run(self.dataset_, X, at, listeners)

    def _run(
        self, model: Dataset, X: Dataset | None, at: _Place, listeners: Sequence[Listener]
    ) -> PredictionsDataset:
        """Predictions of stored rows by a committed model; X None: of the training rows, each left
        out."""
        parts = parts_of(model)
        training = parts["vectors"]
        spare = int(X is None)
        links = neighbor_predict_links(
            "predictions",
            "rows",
            "model",
            scaled="scaled",
            neighbors=min(int(model.metrics["neighbors"]), training.rows - spare),
            leave_one_out=X is None,
            seed=self._seed,
            **self._search(training.rows),
        )
        given = {"rows": training if X is None else X, "model": model, "scaled": parts["scaled"]}
        made = run_links(links, given, store=at.store, engine=at.engine, listeners=listeners)
        return PredictionsDataset.of(made["predictions"])

    def _stored(self, at: _Place, listeners: Sequence[Listener]) -> Dataset:
        """The model as a dataset: the one committed, or that of arrays written once more, with the
        hyper-parameters it has."""
        if self._model is None:
            return self.dataset_
        held = self._model
        rows, targets = self._array(held.X, at, listeners), _written(held.y, at.store)
        links = neighbor_gp_links(
            "model",
            "rows",
            self._config(targets, held.parameters),
            neighbors=min(self.neighbors, rows.rows - 1),
            calibration=self.calibration,
            **self._search(rows.rows),
        )
        made = run_links(
            links, {"rows": rows}, store=at.store, engine=at.engine, listeners=listeners
        )
        return made["model"]

    # -- helpers --

    def _config(self, targets: Targets, known: Parameters | None = None) -> ParametersConfig:
        kernel = resolve(KERNEL if self.kernel is None else self.kernel)
        return ParametersConfig(
            targets,
            (kernel if known is None else known.kernel).spec(),
            self.noise if known is None else known.noise,
            self.subset,
            self.subsets,
            self.iterations if known is None else 0,
            self._seed,
        )

    def _search(self, n: int) -> dict[str, Any]:
        exact = self.method == "exact" or (self.method == "auto" and n <= EXACT_ROWS)
        return {"method": "exact" if exact else "approximate", "recall": self.recall}

    def _in_process(self, n: int) -> bool:
        """Whether arrays stay here: where neighbours are exact and no cluster was asked for."""
        here = self.engine in (None, "local") or (
            isinstance(self.engine, Engine) and not self.engine.remote
        )
        return here and self._search(n)["method"] == "exact"

    @contextmanager
    def _somewhere(self) -> Iterator[_Place]:
        """Where arrays that do not stay here go."""
        with in_scratch(self.scratch, self.engine) as (place, engine):
            refuse_unseen(engine, place)
            yield _Place(place, engine)

    def _array(self, rows: Array, at: _Place, listeners: Sequence[Listener]) -> Dataset:
        return import_array(rows, store=at.store, engine=at.engine, listeners=listeners)

    def _take(self, model: Dataset) -> None:
        """A committed model as this estimator's."""
        self._seed = _seed(self.random_state)
        self._model, self.dataset_ = None, model
        self.n_features_in_ = int(model.metrics["dim"])
        self._tell(
            Parameters.of(model), float(model.metrics["calibration"]), model.metrics["held_out"]
        )

    def _tell(self, parameters: Parameters, calibration: float, held_out: Json) -> None:
        self.kernel_ = parameters.kernel
        self.noise_ = parameters.noise * parameters.scale**2
        self.calibration_ = calibration
        self.held_out_ = held_out
        self.report_ = {
            "likelihood": parameters.likelihood,
            "subsets": list(parameters.subset),
            "evaluations": parameters.evaluations,
            "noise": self.noise_,
            "hyperparameters": parameters.named,
            "calibration": calibration,
            "held_out": held_out,
        }


class _Place(NamedTuple):
    """A store, and the engine whose workers see it."""

    store: Store
    engine: Engine


def _written(y: Array, store: Store) -> Targets:
    values = np.asarray(y, np.float64)
    if values.ndim != 1:
        raise InputError(f"y has shape {values.shape}; expected one value a row, [n]")
    return Targets(array=store.write_array("targets", values))


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
