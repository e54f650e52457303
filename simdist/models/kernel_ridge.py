"""Kernel ridge regression on rows by the million: `KernelRidge`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import ConfigError
from simdist.models.machine_links import kernel_ridge_links
from simdist.models.machines import (
    BadRow,
    KernelMachine,
    Places,
    RegressorMixin,
    checked_numbers,
    checked_weights,
    columns_in_scratch,
    in_memory,
    validated,
)
from simdist.models.places import store_of
from simdist.stages.machines.config import Centers, Choice, RidgeConfig, Solver
from simdist.stages.machines.falkon import fit_falkon
from simdist.stages.machines.ridge import fit_ridge
from simdist.stages.machines.rows import Rows
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.measures import kernels
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Json

__all__ = ["KernelRidge"]


class KernelRidge(RegressorMixin, KernelMachine):  # type: ignore[misc]
    """Kernel ridge regression: minimise sum (y - f(x))^2 + alpha |f|^2, f spanned by centres.

    kernel: one of `sd.kernels`, its formula ("2.0 * RBF(ard=True)") or spec; None: an RBF with a
        lengthscale of sqrt(d v / 2), v the variance of the centres' entries: gamma="scale", as
        scikit-learn calls it. White noise is refused: alpha is that noise.
    alpha: the penalty, as scikit-learn's KernelRidge has it. alphas: several, of which one is
        chosen; all are solved from one pass over the rows, and judged in a second one.
    choice: "leave_one_out", each row predicted by a fit to all the others (by formula, exactly), or
        "held_out": a share `held_out` of the rows, which then take part in the last fit.
    centers: how many rows f is spanned by, drawn at random; all rows where there are no more, and
        then the fit is that of scikit-learn. Or points [m, d].
    fit_intercept: whether a constant without penalty is fitted too.
    solver: "direct": all products of centres' features, m x m; "cg": conjugate gradients, each step
        a pass over the rows (Falkon); "auto": direct up to 8192 centres. tol, max_iter: of cg.
    random_state: seed of the centres and of the rows held out.
    engine, scratch: where arrays are worked on: None here and now, or "dask", "ray", an address.

    Fitted: alpha_, alphas_, errors_ [a, t] (root mean squares of the choice), centers_ [r, d] and
    dual_coef_ [r] or [r, t], intercept_, kernel_, n_iter_ (steps of cg), metrics_; dataset_ where a
    store holds the model.

    Raises ValueError (scikit-learn's) for rows that it cannot take, InputError naming the row for a
    target that is not finite, ConfigError for settings that make no sense. A constant target,
    copies of rows and more centres than rows are fine. A RuntimeWarning where max_iter was not
    enough for cg: twenty steps often predict as well as all.
    Cost: n m (d + m) flops, twice that for alphas; of cg n m (d + 2) a step.
    Source: Saunders et al. 1998; Rudi, Carratino and Rosasco 2017 (cg); Allen 1974 (left out).
    """

    stage: ClassVar[str] = "kernel_ridge"

    def __init__(
        self,
        kernel: Json | kernels.Kernel = None,
        *,
        alpha: float = 1.0,
        alphas: Sequence[float] | None = None,
        choice: Choice = "leave_one_out",
        held_out: float = 0.2,
        centers: int | Array = 1024,
        fit_intercept: bool = False,
        solver: Solver = "auto",
        tol: float = 1e-5,
        max_iter: int = 100,
        random_state: int = 0,
        engine: str | None = None,
        scratch: str | None = None,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.alphas = alphas
        self.choice = choice
        self.held_out = held_out
        self.centers = centers
        self.fit_intercept = fit_intercept
        self.solver = solver
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
    ) -> KernelRidge:
        """Learn y from rows.

        X: [n, d] with y: [n] or [n, t] and sample_weight: [n]; or a vectors dataset with y the name
            of a kept column, or several, and sample_weight that of another. A row of weight 0 is
            not there; of a dataset, it may still be drawn as a centre.
        store: where the model is kept, as a dataset; beside a stored X by default.
        engine, listeners: as for `knn_graph`. A fit that was killed goes on at its last round.
        """
        places = self._places(Places(store, None, engine, listeners))
        self._forget()
        if isinstance(X, Dataset):
            names = (y,) if isinstance(y, str) else tuple(y or ())
            if not all(isinstance(name, str) for name in names):
                raise ConfigError("y of a stored dataset is the name of a kept column, or several")
            place = X.store if store is None else store_of(store)
            return self._fit_dataset(X, names, sample_weight, self._centers(place), places)
        rows = validated(self, X, reset=True)
        Y = self._targets(y, len(rows))
        weights = checked_weights(sample_weight, len(rows))
        if weights is not None and not weights.all():
            there = np.flatnonzero(weights)  # a row without weight is not there, nor a centre
            rows, Y, weights = rows[there], Y[there], weights[there]
        names = tuple(f"y{column}" for column in range(Y.shape[1]))
        if self._local(places):
            config = self._config(names, self._centers(None))
            fit = fit_falkon if config.taken == "cg" else fit_ridge
            found = fit(Rows(rows, Y, weights), self._chosen(rows), config)
            self._take(found.machine, found.metrics)
            self._warn()
            return self
        columns = dict(zip(names, Y.T, strict=True))
        if weights is not None:
            columns["weight"] = weights
        with columns_in_scratch(rows, columns, places) as (vectors, place, opened):
            inner = places._replace(store=place, engine=opened)
            name = None if weights is None else "weight"
            self._fit_dataset(vectors, names, name, self._centers(place), inner)
            if places.store is None:
                del self.dataset_
        return self

    def predict(
        self,
        X: Array | Dataset,
        *,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Any:
        """f of rows. X: [n, d] -> [n] or [n, t]; a vectors dataset -> a dataset with the Parquet
        table (row, id, prediction) and "values" [rows, t], shard by shard, in `store`."""
        if isinstance(X, Dataset):
            return self._apply_stored(X, Places(store, None, engine, listeners))
        values = self._outputs(X)
        return values[:, 0] if self._flat else values

    def score(self, X: Array | Dataset, y: Any, sample_weight: Any = None) -> float:
        """R^2 of predictions, the mean over targets; of a dataset, y names the kept columns."""
        if not isinstance(X, Dataset):
            return float(super().score(X, y, sample_weight))
        found = self._apply_stored(X, Places(), targets=y)
        shares = [share for share in found.metrics["r2"] if share is not None]
        return float(np.mean(shares)) if shares else float("nan")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.target_tags.required = True
        return tags

    def _config(
        self, targets: tuple[str, ...], centers: Centers, weights: str | None = None
    ) -> RidgeConfig:
        alphas = (self.alpha,) if self.alphas is None else tuple(self.alphas)
        return RidgeConfig(
            kernel=self._spec(),
            targets=targets,
            centers=centers,
            alphas=tuple(float(alpha) for alpha in alphas),
            choice=self.choice,
            held_out=self.held_out,
            weights=weights,
            intercept=self.fit_intercept,
            solver=self.solver,
            tolerance=self.tol,
            max_steps=self.max_iter,
        )

    def _fit_dataset(
        self,
        vectors: Dataset,
        targets: tuple[str, ...],
        weights: str | None,
        centers: Centers,
        places: Places,
    ) -> KernelRidge:
        config = self._config(targets, centers, weights)
        links = kernel_ridge_links("model", "vectors", config)
        self.dataset_ = self._fit_stored(vectors, links[0], places)
        if not hasattr(self, "_flat"):  # set by targets that were an array
            self._flat = len(targets) == 1
        self._take(*in_memory(self.dataset_))
        self._warn()
        return self

    def _targets(self, y: Any, rows: int) -> Float64:
        if y is None:
            raise BadRow(
                "KernelRidge requires y to be passed, but the target y is None: give [n] numbers"
            )
        Y = checked_numbers(y, "y", rows=rows)
        if Y.ndim not in (1, 2):
            raise BadRow(f"y has shape {Y.shape}: expected [n] or [n, targets]")
        self._flat = Y.ndim == 1
        return Y[:, None] if Y.ndim == 1 else Y

    def _take(self, machine: Any, metrics: dict[str, Any]) -> None:
        super()._take(machine, metrics)
        if not hasattr(self, "_flat"):  # opened
            self._flat = len(machine.offsets) == 1
        self.alpha_ = metrics["alpha"]
        self.alphas_ = np.array(metrics["alphas"])
        self.n_iter_ = max(1, metrics.get("steps", 1))
        errors = metrics.get("choice_rmse")
        self.errors_ = None if errors is None else np.array(errors)
        C, offsets = machine.coefficients, machine.offsets
        self.dual_coef_ = C[:, 0] if self._flat else C
        self.intercept_ = float(offsets[0]) if self._flat else offsets
