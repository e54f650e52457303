"""Kernel principal components of rows by the million: `KernelPCA`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import ConfigError, InputError
from simdist.measures import kernels
from simdist.models.machine_links import kernel_pca_links
from simdist.models.machines import (
    BadRow,
    ClassNamePrefixFeaturesOutMixin,
    KernelMachine,
    Places,
    TransformerMixin,
    check_is_fitted,
    columns_in_scratch,
    in_memory,
    validated,
)
from simdist.models.places import store_of
from simdist.solvers.ridge import ridge_coefficients
from simdist.stages.machines.config import Centers, PcaConfig
from simdist.stages.machines.pca import fit_pca
from simdist.store.datasets import Dataset

if TYPE_CHECKING:
    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.stages.machines.machine import Machine
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Json

__all__ = ["KernelPCA"]


class KernelPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, KernelMachine):  # type: ignore[misc]
    """Principal components of rows in the space of a kernel, centred, spanned by centres.

    n_components: how many, largest variance first; None for all that have one. Where the rows have
        fewer, as many as they have.
    kernel, centers, random_state, engine, scratch: as for `KernelRidge`. Where every row is a
        centre, the components are those of scikit-learn's KernelPCA.
    fit_inverse_transform: also learns the way back: points whose scores are given, by ridge
        regression (penalty `alpha`) of the centres on their scores, with the same kernel.

    Fitted: eigenvalues_ [k] of the centred kernel matrix of the rows; centers_, kernel_, metrics_
    ("explained": shares of the variance in the kernel's space); dataset_ where a store holds it.

    The centre farthest along a component is on its positive side. Raises InputError where no two
    rows differ under the kernel. Cost: n m (d + m) flops, one pass.
    Source: Schoelkopf, Smola and Mueller 1998; the way back: Bakir, Weston and Schoelkopf 2004.
    """

    stage: ClassVar[str] = "kernel_pca"

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel: Json | kernels.Kernel = None,
        centers: int | Array = 1024,
        fit_inverse_transform: bool = False,
        alpha: float = 1.0,
        random_state: int = 0,
        engine: str | None = None,
        scratch: str | None = None,
    ) -> None:
        self.n_components = n_components
        self.kernel = kernel
        self.centers = centers
        self.fit_inverse_transform = fit_inverse_transform
        self.alpha = alpha
        self.random_state = random_state
        self.engine = engine
        self.scratch = scratch

    def fit(
        self,
        X: Array | Dataset,
        y: Any = None,
        *,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> KernelPCA:
        """Find the components. X: [n, d], or a vectors dataset; y is ignored.

        store, engine, listeners: as for `KernelRidge.fit`.
        """
        places = self._places(Places(store, None, engine, listeners))
        self._forget()
        if isinstance(X, Dataset):
            place = X.store if store is None else store_of(store)
            return self._fit_dataset(X, self._centers(place), places)
        rows = validated(self, X, reset=True)
        if len(rows) < 2:
            raise BadRow("KernelPCA needs rows that differ; got n_samples = 1")
        if self._local(places):
            fit = fit_pca(rows, self._chosen(rows), self._config(self._centers(None)))
            self._take(fit.machine, fit.metrics)
            return self
        with columns_in_scratch(rows, {}, places) as (vectors, place, opened):
            inner = places._replace(store=place, engine=opened)
            self._fit_dataset(vectors, self._centers(place), inner)
            if places.store is None:
                del self.dataset_
        return self

    def transform(
        self,
        X: Array | Dataset,
        *,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Any:
        """Scores of rows. X: [n, d] -> [n, k] float64; a vectors dataset -> a vectors dataset
        [n, k] float32, of which graphs and clusters can be made, in `store`."""
        if isinstance(X, Dataset):
            return self._apply_stored(X, Places(store, None, engine, listeners))
        return self._outputs(X)

    def inverse_transform(self, scores: Array) -> Float64:
        """Points of the rows' space whose scores are nearly these. scores: [n, k] -> [n, d].

        Raises ConfigError where the way back was not asked for.
        """
        check_is_fitted(self)
        if not self.fit_inverse_transform:
            raise ConfigError("the way back was not learned: KernelPCA(fit_inverse_transform=True)")
        scores = np.asarray(scores, np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(self.eigenvalues_):
            raise InputError(
                f"scores have shape {scores.shape}; expected [n, {len(self.eigenvalues_)}]"
            )
        kernel, known, coefficients = self._back()
        return np.asarray(kernel.matrix(scores, known) @ coefficients)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return len(self.eigenvalues_)

    def _config(self, centers: Centers) -> PcaConfig:
        return PcaConfig(self._spec(), centers, self.n_components)

    def _fit_dataset(self, vectors: Dataset, centers: Centers, places: Places) -> KernelPCA:
        links = kernel_pca_links("model", "vectors", self._config(centers))
        self.dataset_ = self._fit_stored(vectors, links[0], places)
        self._take(*in_memory(self.dataset_))
        return self

    def _take(self, machine: Machine, metrics: dict[str, Any]) -> None:
        super()._take(machine, metrics)
        self.eigenvalues_ = np.array(metrics["eigenvalues"])
        self._way_back: tuple[kernels.Kernel, Float64, Float64] | None = None

    def _back(self) -> tuple[kernels.Kernel, Float64, Float64]:
        """The kernel of scores, the centres' scores, and the coefficients [r, d] of their rows."""
        if self._way_back is None:
            known = self.machine_(self.centers_)
            kernel = self.kernel_.for_dim(known.shape[1])
            K = np.asarray(kernel.matrix(known, known))
            found = ridge_coefficients(K, self.centers_, float(self.alpha))
            self._way_back = (kernel, known, found)
        return self._way_back
