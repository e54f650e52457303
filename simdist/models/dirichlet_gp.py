"""Gaussian process classification with calibrated probabilities: `DirichletGP`.

    gp = DirichletGP(inducing=1024).fit(x, labels)
    gp.predict(x_new)              labels
    gp.predict_proba(x_new)        probabilities
    gp.held_out_                   accuracy, log loss and calibration error of rows held out

scikit-learn's conventions, so it stands in a Pipeline; scikit-learn is an extra:
`pip install 'simdist[sklearn]'`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from simdist.engine.base import Engine
from simdist.engine.threads import cpus_here, limited
from simdist.errors import ConfigError, InputError
from simdist.grams import Whitening, spans
from simdist.measures.kernels import resolve
from simdist.measures.rows import as_float32
from simdist.models.chain import run_links
from simdist.models.dirichlet_links import dirichlet_links, dirichlet_predict_links
from simdist.models.places import borrowed, in_scratch, refuse_unseen
from simdist.models.predictions import ProbabilitiesDataset
from simdist.models.vectors import import_array
from simdist.stages.dirichlet import DirichletConfig, Labels, Model, read_model
from simdist.stages.dirichlet.config import prepared_kernel
from simdist.stages.dirichlet.fit import Rows, class_sums, fit_kernel, settle
from simdist.stages.dirichlet.labels import refuse_many
from simdist.stages.dirichlet.story import RUN_ROWS, drawn_rows
from simdist.store.datasets import Dataset

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        f"DirichletGP needs scikit-learn 1.6 or later ({error}): pip install 'simdist[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from simdist.measures.kernels import Kernel
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Float32, Float64, Ids, Json

__all__ = ["DirichletGP"]


class DirichletGP(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Gaussian processes as a classifier: Dirichlet targets, inducing points, one Gram pass.

    kernel: a `simdist.kernels` kernel, its formula or mapping; None: RBF. One without a variance
        gets one. Without White: labels bring their own noise.
    inducing: points m, drawn from the rows; more predict better: m^2 flops a row and class.
    subset: rows of which the kernel is learned, by the collapsed bound of the first 256 points and,
        for its lengthscales, the log loss of a quarter. iterations: of L-BFGS; 0 takes the kernel
        as it is.
    held_out: share of the rows, at most 5,000, that choose the softness of labels, the kernel's
        scale and the temperature; the model that predicts has them too.
    random_state: draws all of these. engine: None, "local", "dask", "ray" or an address.
    scratch: a store for what lies between where arrays go to a cluster; see `knn_graph`.

    Fitted: classes_. kernel_: scaled as chosen. held_out_: rows, accuracy, log_loss, ece of the
    held-out rows, each half calibrated by the other; None where there are fewer than 8. bound_: of
    the subset, nats. model_: eps (softness), scale, temperature, kappa, trace_gap, jitter.
    dataset_: the committed model, where it was fitted on a dataset.

    X is an array [n, d], held as float32, with y [n] labels; or a stored vectors dataset, with y an
    array or the name of a kept column of integers, booleans or strings. Arrays give arrays,
    datasets give datasets.

    Raises InputError for a row without a label, more than 1,000 classes; scikit-learn's ValueError
    for rows it cannot take.
    Cost: one pass of 2 m (m + d) flops a row; some 20 factors of m^3 / 3 flops a class.
    Source: Milios et al., arXiv 1805.10915.
    """

    _model: Model
    _seed: int

    def __init__(
        self,
        kernel: Kernel | Json = None,
        *,
        inducing: int = 1024,
        subset: int = 2000,
        iterations: int = 15,
        held_out: float = 0.1,
        random_state: int | np.random.RandomState | None = 0,
        engine: Engine | str | None = None,
        scratch: str | None = None,
    ) -> None:
        self.kernel = kernel
        self.inducing = inducing
        self.subset = subset
        self.iterations = iterations
        self.held_out = held_out
        self.random_state = random_state
        self.engine = engine
        self.scratch = scratch

    @classmethod
    def open(cls, dataset: Dataset, **settings: Any) -> Self:
        """The classifier of a committed model. settings: where it runs: engine, scratch. Raises
        InputError for what is no such model."""
        made = cls(read_model(dataset).whitening.kernel, **settings)
        made._take(dataset)
        return made

    def fit(
        self, X: Array | Dataset, y: Array | str, *, listeners: Sequence[Listener] = ()
    ) -> Self:
        """Learn the kernel, sum over all rows, calibrate. listeners: see `knn_graph`."""
        self._seed = _seed(self.random_state)
        self.__dict__.pop("dataset_", None)
        if isinstance(X, Dataset):
            if "dim" not in X.metrics:
                raise InputError(
                    f"{X.uri} was made by stage {X.stage} and has no vectors: give a dataset that"
                    " import_vectors made"
                )
            with borrowed(self.engine, X.store) as engine:
                self._take(self._committed(X, y, X.store, engine, listeners))
            return self
        if isinstance(y, str):
            raise ConfigError(
                f"y={y!r} names a column, and X is an array: give y as an array, or X as a dataset"
                " whose import kept the column"
            )
        checked, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        refuse_many(len(self.classes_))
        rows = as_float32(checked, of="DirichletGP")
        remote = isinstance(self.engine, Engine) and self.engine.remote
        if self.engine in (None, "local") or (isinstance(self.engine, Engine) and not remote):
            self._model, told = _fit_here(self._config(Labels(column="y")), rows, codes)
            self._tell(told)
            return self
        with in_scratch(self.scratch, self.engine) as (place, engine):
            refuse_unseen(engine, place)
            data = import_array(rows, store=place, engine=engine, listeners=listeners)
            model = self._committed(data, y, place, engine, listeners)
            self._model = _held_in_memory(read_model(model))
            self._tell(model.metrics)
        return self

    def _committed(
        self,
        X: Dataset,
        y: Array | str,
        store: Store,
        engine: Engine,
        listeners: Sequence[Listener],
    ) -> Dataset:
        """The model of stored rows, by its links."""
        labels = Labels(column=y) if isinstance(y, str) else _written(y, store)
        links = dirichlet_links("model", "rows", self._config(labels))
        return run_links(links, {"rows": X}, store=store, engine=engine, listeners=listeners)[
            "model"
        ]

    @overload
    def predict(
        self, X: Dataset, *, listeners: Sequence[Listener] = ...
    ) -> ProbabilitiesDataset: ...
    @overload
    def predict(self, X: Array, *, listeners: Sequence[Listener] = ...) -> Array: ...
    def predict(
        self, X: Array | Dataset, *, listeners: Sequence[Listener] = ()
    ) -> Array | ProbabilitiesDataset:
        """The most probable labels. X: [m, d] -> [m]; a vectors dataset -> a dataset beside the
        model, with all probabilities."""
        if isinstance(X, Dataset):
            return self.predict_proba(X, listeners=listeners)
        best = self.predict_proba(X).argmax(axis=1)
        found: Array = self.classes_[best]
        return found

    @overload
    def predict_proba(
        self, X: Dataset, *, listeners: Sequence[Listener] = ...
    ) -> ProbabilitiesDataset: ...
    @overload
    def predict_proba(self, X: Array, *, listeners: Sequence[Listener] = ...) -> Float64: ...
    def predict_proba(
        self, X: Array | Dataset, *, listeners: Sequence[Listener] = ()
    ) -> Float64 | ProbabilitiesDataset:
        """Probabilities, a column a class of `classes_`. X: [m, d] -> [m, c]; a vectors dataset ->
        a dataset."""
        check_is_fitted(self, "classes_")
        if isinstance(X, Dataset):
            return self._predict_dataset(X, listeners)
        checked = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        rows = as_float32(checked, of="DirichletGP")
        parts = [rows[first : first + RUN_ROWS] for first in range(0, len(rows), RUN_ROWS)]
        with limited(1), ThreadPoolExecutor(cpus_here(), thread_name_prefix="simdist-gp") as pool:
            return np.concatenate(list(pool.map(self._model.probabilities, parts)))

    def _predict_dataset(self, X: Dataset, listeners: Sequence[Listener]) -> ProbabilitiesDataset:
        if not hasattr(self, "dataset_"):
            raise InputError(
                "this model was fitted on arrays, and lies in no store: fit it on a dataset to"
                " predict datasets, or give the rows as an array"
            )
        place, links = self.dataset_.store, dirichlet_predict_links("predictions", "rows", "model")
        given = {"rows": X, "model": self.dataset_}
        with borrowed(self.engine, place) as engine:
            made = run_links(links, given, store=place, engine=engine, listeners=listeners)
        return ProbabilitiesDataset.of(made["predictions"])

    def _config(self, labels: Labels) -> DirichletConfig:
        kernel = resolve("rbf" if self.kernel is None else self.kernel)
        return DirichletConfig(
            labels,
            kernel.spec(),
            self.inducing,
            self.subset,
            self.iterations,
            self.held_out,
            self._seed,
        )

    def _take(self, model: Dataset) -> None:
        """A committed model as this estimator's."""
        self._model, self.dataset_ = read_model(model), model
        self.classes_ = np.array(model.metrics["classes"])
        self.n_features_in_ = int(model.metrics["dim"])
        self._tell(model.metrics)

    def _tell(self, told: Any) -> None:
        settled = self._model.settled
        self.kernel_ = settled.softness.scale * self._model.whitening.kernel
        self.held_out_, self.bound_ = settled.held_out, float(told["bound"])
        self.model_ = {
            "eps": settled.softness.eps,
            "scale": settled.softness.scale,
            "temperature": settled.sharpness.t,
            "kappa": settled.sharpness.kappa,
            "trace_gap": float(told["trace_gap"]),
            "jitter": self._model.whitening.jitter,
        }


def _fit_here(config: DirichletConfig, X: Float32, codes: Ids) -> tuple[Model, dict[str, Json]]:
    """What the stage's rounds compute, in this process; and what their facts tell."""
    classes = int(codes.max()) + 1
    rng = np.random.default_rng([config.seed, zlib.crc32(b"start")])  # as Context.rng("start")
    drawn = drawn_rows(config, len(X), rng)
    Z = X[drawn.inducing].astype(np.float64)
    with limited(1):  # as in a task: the sums of one thread
        kernel, bound, _ = fit_kernel(
            prepared_kernel(config.kernel, X.shape[1]),
            Rows(X[drawn.subset], codes[drawn.subset]),
            classes,
            Z,
            iterations=config.iterations,
        )
        whitening = Whitening.of(kernel, Z)
        total = None
        for first, last in spans(len(X), min(config.inducing, len(X)), X.shape[1]):
            own = np.setdiff1d(np.arange(first, last), drawn.held, assume_unique=True)
            part = class_sums(whitening, Rows(X[own], codes[own]), classes)
            total = part if total is None else total + part
        assert total is not None  # there is a row
        settled = settle(whitening, total, Rows(X[drawn.held], codes[drawn.held]))
    return Model(whitening, settled, []), {"bound": bound, "trace_gap": total.trace_gap}


def _held_in_memory(model: Model) -> Model:
    """Copies of what is mapped from a store that goes."""
    found, white = model.settled.posterior, model.whitening
    copied = replace(
        found, alpha=found.alpha.copy(), mu=found.mu.copy(), factors=found.factors.copy()
    )
    whitening = replace(white, Z=white.Z.copy(), L=white.L.copy(order="F"))
    return Model(whitening, replace(model.settled, posterior=copied), model.classes)


def _written(y: Array, store: Store) -> Labels:
    labels = np.asarray(y)
    if labels.ndim != 1 or not len(labels):
        raise InputError(f"y has shape {labels.shape}; expected one label a row, [n]")
    check_classification_targets(labels)
    classes, codes = np.unique(labels, return_inverse=True)
    refuse_many(len(classes))
    array = store.write_array("label-codes", codes.astype(np.int64))
    return Labels(array=array, classes=tuple(classes.tolist()))


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))
