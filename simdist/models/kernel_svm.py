"""Support vector machines on rows by the million: `KernelSVM`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import ConfigError
from simdist.models.machine_links import kernel_svm_links
from simdist.models.machines import (
    BadRow,
    ClassifierMixin,
    KernelMachine,
    Places,
    check_classification_targets,
    checked_weights,
    columns_in_scratch,
    in_memory,
    validated,
)
from simdist.models.places import store_of
from simdist.solvers.hinge import Loss
from simdist.stages.machines.apply import classified
from simdist.stages.machines.columns import Class
from simdist.stages.machines.config import Centers, SvmConfig
from simdist.stages.machines.svm import Labelled, fit_svm
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.measures import kernels
    from simdist.runner import Listener
    from simdist.stages.machines.machine import Machine
    from simdist.store.store import Store
    from simdist.types import Array, Json

__all__ = ["KernelSVM"]


class KernelSVM(ClassifierMixin, KernelMachine):  # type: ignore[misc]
    """Support vector classifier: minimise |f|^2 / 2 + C sum loss(y (f(x) + b)).

    f is spanned by centres: where every row is one, this is the kernel machine itself.

    C: weight of the loss, as scikit-learn's SVC and LinearSVC have it.
    loss: "squared_hinge", max(0, 1 - z)^2; or "hinge", max(0, 1 - z), as SVC has it, its corner
        rounded over 2e-4 in the end. More classes than two: one against the rest, each its own.
    kernel, centers, random_state, engine, scratch: as for `KernelRidge`.
    fit_intercept: whether b is fitted; it has no penalty, as in SVC.
    tol: length of the gradient, of that at f = 0. max_iter: looks at the rows, at most.

    Fitted: classes_, centers_ [r, d], dual_coef_ [r, K], intercept_ [K], kernel_, n_iter_ (looks),
    metrics_; dataset_ where a store holds the model. K is 1 for two classes.

    Raises ValueError (scikit-learn's) for rows that it cannot take, and where there is one class; a
    RuntimeWarning where max_iter was not enough. Cost: n m (d + m) flops for the features, then
    some ten looks: m for each row and class, m^2 for each row inside a margin where the features
    of all rows take more than 512 MiB. Source: Keerthi and DeCoste 2005; Chapelle 2007.
    """

    stage: ClassVar[str] = "kernel_svm"

    def __init__(
        self,
        C: float = 1.0,
        *,
        loss: Loss = "squared_hinge",
        kernel: Json | kernels.Kernel = None,
        centers: int | Array = 1024,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 200,
        random_state: int = 0,
        engine: str | None = None,
        scratch: str | None = None,
    ) -> None:
        self.C = C
        self.loss = loss
        self.kernel = kernel
        self.centers = centers
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.engine = engine
        self.scratch = scratch

    def fit(
        self,
        X: Array | Dataset,
        y: Any = None,
        sample_weight: Any = None,
        *,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> KernelSVM:
        """Learn the classes of rows.

        X: [n, d] with y: [n] of integers or strings and sample_weight: [n]; or a vectors dataset
            with y the name of a kept column, and sample_weight that of another.
        store, engine, listeners: as for `KernelRidge.fit`.
        """
        places = self._places(Places(store, None, engine, listeners))
        self._forget()
        if isinstance(X, Dataset):
            if not isinstance(y, str):
                raise ConfigError("y of a stored dataset is the name of a kept column of classes")
            place = X.store if store is None else store_of(store)
            return self._fit_dataset(
                X, self._config(y, self._centers(place), sample_weight), places
            )
        rows = validated(self, X, reset=True)
        labels = _labels(y, len(rows))
        weights = checked_weights(sample_weight, len(rows))
        if weights is not None and not weights.all():
            there = np.flatnonzero(weights)  # a row without weight is not there, nor a centre
            rows, labels, weights = rows[there], labels[there], weights[there]
        classes, given = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise BadRow(
                f"the target has 1 class ({classes[0]!r}): a classifier needs at least 2 classes"
            )
        self.classes_ = classes
        if self._local(places):
            config = self._config("y", self._centers(None), None)
            numbers: list[Class] = list(range(len(classes)))
            fit = fit_svm(Labelled(rows, given, weights), numbers, self._chosen(rows), config)
            self._take(fit.machine, {**fit.metrics, "classes": classes.tolist()})
            self._warn()
            return self
        columns: dict[str, Array] = {"y": given.astype(np.int64)}
        if weights is not None:
            columns["weight"] = weights
        with columns_in_scratch(rows, columns, places) as (vectors, place, opened):
            inner = places._replace(store=place, engine=opened)
            name = None if weights is None else "weight"
            self._fit_dataset(vectors, self._config("y", self._centers(place), name), inner)
            self.classes_ = classes
            if places.store is None:
                del self.dataset_
        return self

    def decision_function(self, X: Array) -> Any:
        """f + b of rows. X: [n, d] -> [n] of two classes (above 0: the second), else [n, K]."""
        values = self._outputs(X)
        return values[:, 0] if values.shape[1] == 1 else values

    def predict(
        self,
        X: Array | Dataset,
        *,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Any:
        """Classes of rows. X: [n, d] -> [n]; a vectors dataset -> a dataset with the Parquet table
        (row, id, label, value) and "values" [rows, K], shard by shard, in `store`."""
        if isinstance(X, Dataset):
            return self._apply_stored(X, Places(store, None, engine, listeners))
        found = self._outputs(X)  # asks whether there is a fit
        return self.classes_[classified(found)]

    def score(self, X: Array | Dataset, y: Any, sample_weight: Any = None) -> float:
        """Share of rows whose class is right; of a dataset, y names the kept column."""
        if not isinstance(X, Dataset):
            return float(super().score(X, y, sample_weight))
        return float(self._apply_stored(X, Places(), targets=y).metrics["accuracy"])

    def _config(self, target: str, centers: Centers, weights: str | None) -> SvmConfig:
        return SvmConfig(
            kernel=self._spec(),
            target=target,
            centers=centers,
            C=float(self.C),
            loss=self.loss,
            weights=weights,
            intercept=self.fit_intercept,
            tolerance=self.tol,
            max_steps=self.max_iter,
        )

    def _fit_dataset(self, vectors: Dataset, config: SvmConfig, places: Places) -> KernelSVM:
        link = kernel_svm_links("model", "vectors", config)[0]
        self.dataset_ = self._fit_stored(vectors, link, places)
        self._take(*in_memory(self.dataset_))
        self._warn()
        return self

    def _take(self, machine: Machine, metrics: dict[str, Any]) -> None:
        super()._take(machine, metrics)
        self.classes_ = np.array(metrics["classes"])
        self.dual_coef_, self.intercept_ = machine.coefficients, machine.offsets
        self.n_iter_ = int(metrics["looks"])


def _labels(y: Any, rows: int) -> Array:
    """[n] labels, as they are; BadRow where there are none, or a row has none."""
    if y is None:
        raise BadRow("KernelSVM requires y to be passed, but the target y is None")
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        from sklearn.exceptions import DataConversionWarning  # noqa: PLC0415

        warnings.warn(
            "A column-vector y was passed when a 1d array was expected.",
            DataConversionWarning,
            stacklevel=3,
        )
        labels = labels[:, 0]
    if labels.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(labels).reshape(len(labels), -1).all(axis=1))
        if len(wrong):
            held = "infinity" if np.isinf(labels[wrong[0]]).any() else "NaN"
            raise BadRow(f"Input y contains {held}: row {wrong[0]}, and {len(wrong)} rows in all")
    if labels.ndim != 1 or len(labels) != rows:
        raise BadRow(f"y has shape {labels.shape}, X has {rows} rows: expected a class for each")
    check_classification_targets(labels)
    return labels
