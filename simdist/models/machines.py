"""What the kernel machines share: arrays or datasets in, a model out, a model at rest.

fit(X, y)                  arrays: here and now, the stage's own functions on its own blocks
fit(X, y, engine="dask")   arrays through a scratch store
fit(vectors, "price")      a stored dataset and its kept column: the model is a dataset too
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures import kernels
from simdist.models.chain import Link, run_link, run_links
from simdist.models.machine_links import apply_links
from simdist.models.places import borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.stages.machines.centers import Chosen, choose, drawn
from simdist.stages.machines.config import Centers
from simdist.stages.machines.machine import Machine, read_machine
from simdist.store.datasets import Dataset

try:
    from sklearn.base import (
        BaseEstimator,
        ClassifierMixin,
        ClassNamePrefixFeaturesOutMixin,
        RegressorMixin,
        TransformerMixin,
    )
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        f"kernel machines need scikit-learn 1.6 or later ({error}): pip install 'simdist[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Json

__all__ = [
    "BadRow",
    "ClassNamePrefixFeaturesOutMixin",
    "ClassifierMixin",
    "KernelMachine",
    "Places",
    "RegressorMixin",
    "TransformerMixin",
    "check_classification_targets",
    "check_is_fitted",
    "checked_numbers",
    "checked_weights",
    "columns_in_scratch",
    "in_memory",
    "validated",
]


class BadRow(InputError, ValueError):
    """Numbers that cannot be learned from, with the row; a ValueError, as scikit-learn wants it."""


class Places(NamedTuple):
    """Where a fit or a prediction of stored rows happens: see `knn_graph`."""

    store: Store | str | None = None
    scratch: Store | str | None = None
    engine: Engine | str | None = None
    listeners: Sequence[Listener] = ()


class KernelMachine(BaseEstimator):  # type: ignore[misc]
    """Parameters and fitted state that all three have; see KernelRidge, KernelPCA, KernelSVM."""

    kernel: Json | kernels.Kernel
    centers: int | Array
    random_state: int
    engine: str | None
    scratch: str | None
    tol: float
    stage: ClassVar[str]
    metrics_: dict[str, Any]
    n_iter_: int

    @classmethod
    def open(cls, model: Dataset) -> Any:
        """A fitted estimator from a model's dataset: of `fit`, or `store.dataset("name")`.

        Raises InputError where the dataset is another kind of model.
        """
        if model.stage != cls.stage:
            raise InputError(
                f"{model.uri} is a dataset of {model.stage}, not of {cls.stage}: open it with what"
                " made it"
            )
        opened = cls()
        opened._take(read_machine(model), dict(model.metrics))
        opened.dataset_ = model
        return opened

    def _take(self, machine: Machine, metrics: dict[str, Any]) -> None:
        """Fitted attributes from a machine and what its manifest says."""
        self.machine_ = machine
        self.kernel_ = machine.kernel
        self.centers_ = machine.Z
        self.metrics_ = metrics
        if not hasattr(self, "n_features_in_"):
            self.n_features_in_ = machine.Z.shape[1]

    def _forget(self) -> None:
        """An earlier fit."""
        for name in ("dataset_", "n_features_in_", "feature_names_in_", "_flat"):
            self.__dict__.pop(name, None)

    def _warn(self) -> None:
        """RuntimeWarning where a solver was stopped before it had converged."""
        if self.metrics_.get("state") == "unconverged":
            left = self.metrics_.get("residual", self.metrics_.get("gradient"))
            warnings.warn(
                f"{type(self).__name__} did not converge: {left:.2g} of the start is left after"
                f" {self.n_iter_} passes, asked for {self.tol:g}. Raise max_iter, or tol.",
                RuntimeWarning,
                stacklevel=3,
            )

    def _places(self, places: Places) -> Places:
        """Those given to a method, else those of the estimator."""
        return places._replace(
            scratch=self.scratch if places.scratch is None else places.scratch,
            engine=self.engine if places.engine is None else places.engine,
        )

    def _local(self, places: Places) -> bool:
        """Whether arrays are worked on here and now."""
        return places.engine is None and places.store is None and places.scratch is None

    def _centers(self, store: Store | None) -> Centers:
        """What the stages ask. store: takes given centres along; None for none."""
        if isinstance(self.centers, int | np.integer) and not isinstance(self.centers, bool):
            return Centers(int(self.centers), _seed(self.random_state))
        points = _points(self.centers)
        ref = None if store is None else store.write_array("centers", points)
        return Centers(len(points), _seed(self.random_state), ref)

    def _chosen(self, X: Array) -> Chosen:
        """Centres of an array, ready. X: [n, d]."""
        asked = self._centers(None)
        if isinstance(self.centers, int | np.integer):
            return choose(self.kernel, X[drawn(len(X), asked.count, asked.seed)])
        points = _points(self.centers)
        if points.shape[1] != X.shape[1]:
            raise BadRow(f"the centres have {points.shape[1]} columns, the rows {X.shape[1]}")
        return choose(self.kernel, points)

    def _spec(self) -> Json:
        """The kernel as JSON, or None for one that the centres decide."""
        return None if self.kernel is None else kernels.resolve(self.kernel).spec()

    def _fit_stored(self, vectors: Dataset, link: Link, places: Places) -> Dataset:
        """The model of a link on stored vectors, in `store`, by default beside them."""
        place = vectors.store if places.store is None else store_of(places.store)
        with borrowed(places.engine, place) as opened:
            made = run_links(
                (link,),
                {"vectors": vectors},
                store=place,
                engine=opened,
                listeners=places.listeners,
            )
        return made["model"]

    def _outputs(self, X: Any) -> Float64:
        """The machine's values of an array."""
        check_is_fitted(self)
        return self.machine_(validated(self, X, reset=False))

    def _apply_stored(
        self, vectors: Dataset, places: Places, *, targets: str | Sequence[str] | None = None
    ) -> Dataset:
        """The machine's values of stored rows, as a dataset beside them or in `store`."""
        check_is_fitted(self)
        model = getattr(self, "dataset_", None)
        if model is None:
            raise ConfigError(
                f"{type(self).__name__} was fitted on arrays, so there is no stored model to apply"
                " to a dataset: fit it on a dataset, or predict arrays"
            )
        places = self._places(places)
        place = vectors.store if places.store is None else store_of(places.store)
        given = {"vectors": vectors, "model": model}
        links = apply_links("applied", "vectors", "model", targets=targets)
        with borrowed(places.engine, place) as opened:
            made = run_links(links, given, store=place, engine=opened, listeners=places.listeners)
        return made["applied"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags


@contextmanager
def columns_in_scratch(
    X: Array, columns: Mapping[str, Array], places: Places
) -> Iterator[tuple[Dataset, Store, Engine]]:
    """Arrays as a vectors dataset with kept columns, in a store for the length of a call."""
    from simdist.stages.machines.given import GivenColumns, write_columns  # noqa: PLC0415

    kept = places.store if places.store is not None else places.scratch
    with in_scratch(kept, places.engine) as (place, opened):
        refuse_unseen(opened, place)
        vectors = import_array(X, store=place, engine=opened, listeners=places.listeners)
        if columns:
            link = Link(
                "columns", GivenColumns(), write_columns(vectors, columns), {"vectors": "vectors"}
            )
            vectors = run_link(link, {"vectors": vectors}, store=place, engine=opened)
        yield vectors, place, opened


def in_memory(model: Dataset) -> tuple[Machine, dict[str, Any]]:
    """A model's arrays, read before its scratch store goes."""
    return read_machine(model), dict(model.metrics)


def validated(machine: KernelMachine, X: Any, *, reset: bool) -> Array:
    """X checked as scikit-learn checks it: [n, d] float32 or float64, finite."""
    rows: Array = validate_data(machine, X, reset=reset, dtype=[np.float64, np.float32])
    return rows


def checked_numbers(values: Any, what: str, *, rows: int) -> Float64:
    """[n] or [n, t] float64, finite; BadRow names the first row that is not."""
    out = np.asarray(values)
    if out.dtype.kind not in "biuf":
        try:
            out = out.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise BadRow(f"{what} holds {out.dtype}; expected numbers ({error})") from None
    out = out.astype(np.float64)
    if len(out) != rows:
        raise BadRow(f"{what} has {len(out)} rows, X has {rows}: expected as many")
    wrong = np.flatnonzero(~np.isfinite(out.reshape(rows, -1)).all(axis=1))
    if len(wrong):
        held = "infinity" if np.isinf(out.reshape(rows, -1)[wrong[0]]).any() else "NaN"
        raise BadRow(
            f"Input {what} contains {held}: row {wrong[0]}, and {len(wrong)} rows in all. Leave"
            " such rows out, or fill them."
        )
    return out


def checked_weights(sample_weight: Any, rows: int) -> Float64 | None:
    """[n] float64, at least 0; None for 1 each. A single number weighs all rows."""
    if sample_weight is None:
        return None
    sample_weight = np.asarray(sample_weight)
    if sample_weight.ndim == 0:
        sample_weight = np.full(rows, sample_weight)
    if sample_weight.ndim != 1:
        raise BadRow("Sample weights must be 1D array or scalar")
    weights = checked_numbers(sample_weight, "sample_weight", rows=rows)
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise BadRow(f"sample_weight is {weights[row]:g} in row {row}; expected at least 0")
    if not weights.any():
        raise BadRow("every sample_weight is zero: there is nothing to learn from")
    return weights


def _points(centers: Any) -> Float64:
    points = np.ascontiguousarray(centers, np.float64)
    if points.ndim != 2 or not points.size:
        raise ConfigError(
            f"centers has shape {np.shape(centers)}: expected a number, or points [m, d]"
        )
    return points


def _seed(random_state: Any) -> int:
    if random_state is None:
        return 0
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    raise ConfigError(f"random_state={random_state!r}: expected an integer of at least 0")
