"""Maps from rows to features, as arrays: what a fitted model is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import InputError
from simdist.grams import Whitening
from simdist.measures import kernels
from simdist.solvers.pivoted import pivoted_cholesky
from simdist.stages.features.centers import chosen, kernel_for
from simdist.stages.features.frequencies import drawn, normals, total_variance
from simdist.types import Array, Float64, Json

if TYPE_CHECKING:
    from simdist.stages.features.config import FeatureConfig
    from simdist.store.datasets import Dataset

__all__ = [
    "FeatureMap",
    "FourierMap",
    "NeuronMap",
    "NystroemMap",
    "fitted",
    "map_nbytes",
    "read_map",
]

BLOCK_NBYTES = 4 << 20  # of float64 features made at a time


@dataclass(frozen=True, eq=False, slots=True)
class FeatureMap(ABC):
    """f with k(x, y) ~ f(x) . f(y). kernel: k. columns: d of the rows it takes."""

    kernel: kernels.Kernel

    kind: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> int: ...

    @property
    @abstractmethod
    def components(self) -> int: ...

    @abstractmethod
    def arrays(self) -> Mapping[str, Array]:
        """What the map is made of, by role."""

    @abstractmethod
    def block(self, X: Array, out: Array) -> None:
        """f of a few rows. X: [b, d] -> out [b, components], float32 or float64."""

    def __call__(self, X: Array, *, dtype: Any, check: Callable[[], None] = lambda: None) -> Array:
        """f of rows, in blocks. X: [n, d] -> [n, components] of `dtype`, float32 or float64.

        Raises InputError for rows of another width, or that are not finite.
        """
        if X.ndim != 2 or X.shape[1] != self.columns:
            raise InputError(
                f"the feature map was fitted on rows of {self.columns} columns; got {X.shape}"
            )
        out = np.empty((len(X), self.components), dtype)
        step = max(64, BLOCK_NBYTES // (8 * max(self.components, self.columns)))
        for first in range(0, len(X), step):
            check()
            self.block(X[first : first + step], out[first : first + step])
        return out

    def facts(self) -> dict[str, Json]:
        """What a manifest says of the map."""
        return {
            "map": self.kind,
            "kernel": self.kernel.spec(),
            "formula": str(self.kernel),
            "columns": self.columns,
            "components": self.components,
        }


@dataclass(frozen=True, eq=False, slots=True)
class NystroemMap(FeatureMap):
    """f(x) = L^-1 k(Z, x) with L L' = k(Z, Z): exact between centres, never more than k elsewhere.

    Z: [r, d] centres. L: [r, r] lower. Source: Williams and Seeger 2001.
    """

    Z: Float64
    L: Float64

    kind = "nystroem"

    @property
    def columns(self) -> int:
        return int(self.Z.shape[1])

    @property
    def components(self) -> int:
        return len(self.Z)

    def arrays(self) -> Mapping[str, Array]:
        return {"centers": self.Z, "whitening": np.ascontiguousarray(self.L)}

    def block(self, X: Array, out: Array) -> None:
        L = np.asfortranarray(self.L)
        out[:] = Whitening(self.kernel, self.Z, L, 0.0).columns(X).T


@dataclass(frozen=True, eq=False, slots=True)
class FourierMap(FeatureMap):
    """f(x) = a (cos w_1.x, ..., cos w_D.x, sin w_1.x, ..., sin w_D.x), a = sqrt(k(x, x) / D).

    W: [d, D] frequencies; 2 D components. phase: [0], or [1] for an odd number of components: the
    last frequency then has one, sqrt(2) cos(w.x + phase), whose mean over phases is as good.
    """

    W: Float64
    phase: Float64

    kind = "fourier"

    @property
    def columns(self) -> int:
        return int(self.W.shape[0])

    @property
    def components(self) -> int:
        return 2 * int(self.W.shape[1]) - len(self.phase)

    def arrays(self) -> Mapping[str, Array]:
        return {"frequencies": self.W, "phase": self.phase}

    def block(self, X: Array, out: Array) -> None:
        frequencies = self.W.shape[1]
        paired = frequencies - len(self.phase)
        turns = _finite(X) @ self.W
        turns[:, paired:] += self.phase
        if out.dtype == np.float32:  # whole turns taken off, so that float32 has all its digits
            turns -= 2.0 * np.pi * np.round(turns / (2.0 * np.pi))
        turns = turns.astype(out.dtype, copy=False)
        np.cos(turns, out=out[:, :frequencies])
        np.sin(turns[:, :paired], out=out[:, frequencies:])
        out[:, paired:frequencies] *= np.sqrt(2.0)
        out *= np.sqrt(total_variance(self.kernel) / frequencies)


@dataclass(frozen=True, eq=False, slots=True)
class NeuronMap(FeatureMap):
    """f(x) = sqrt(2 v / D) max(0, w.x)^order of ArcCosine, with a column of bias beside x.

    W: [d + 1, D] weights, the last row of the bias.
    """

    W: Float64

    kind = "neurons"

    @property
    def columns(self) -> int:
        return int(self.W.shape[0]) - 1

    @property
    def components(self) -> int:
        return int(self.W.shape[1])

    def arrays(self) -> Mapping[str, Array]:
        return {"weights": self.W}

    def block(self, X: Array, out: Array) -> None:
        variance, kernel = _unscaled(self.kernel)
        heights = _finite(X) @ self.W[:-1]
        heights += self.W[-1]
        np.maximum(heights, 0.0, out=heights)
        order = getattr(kernel, "order", 1)
        values = (heights > 0) if order == 0 else heights**order
        np.multiply(values, np.sqrt(2.0 * variance / self.components), out=out, casting="same_kind")


def fitted(
    config: FeatureConfig,
    X: Array,
    given: Array | None,
    rng: Callable[[str], np.random.Generator],
    check: Callable[[], None] = lambda: None,
) -> FeatureMap:
    """The map asked for. X: [s, d], a sample. given: [m, d] centres of one's own. rng: by key."""
    X = np.ascontiguousarray(X, np.float64)
    kernel = kernel_for(config.kernel, X)
    if config.kind == "random_features":
        return _random(config, kernel, X.shape[1], rng("frequencies"))
    if given is None:
        Z = chosen(kernel, X, config.components, config.centers, rng("centers"), check)
    else:
        Z = np.ascontiguousarray(given, np.float64)
        if Z.ndim != 2 or Z.shape[1] != X.shape[1]:
            raise InputError(f"the centres have shape {Z.shape}; rows have {X.shape[1]} columns")
    K = kernel.matrix(Z, Z)
    found = pivoted_cholesky(0.5 * (K + K.T))
    return NystroemMap(kernel, Z[found.kept], found.factor)


def read_map(model: Dataset) -> FeatureMap:
    """The map of a committed model; InputError where the dataset is none."""
    kind = model.metrics.get("map")
    if kind not in _KINDS:
        raise InputError(
            f"{model.uri} is a dataset of {model.stage}, no feature map: expected a model that"
            " Nystroem or RandomFeatures committed"
        )
    kernel = kernels.resolve(model.metrics["kernel"])
    cls, roles = _KINDS[kind]
    objects = model.shards[0].objects
    return cls(kernel, *(np.array(model.store.read_array(objects[role])) for role in roles))


_KINDS: dict[str, tuple[Callable[..., FeatureMap], tuple[str, ...]]] = {
    "nystroem": (NystroemMap, ("centers", "whitening")),
    "fourier": (FourierMap, ("frequencies", "phase")),
    "neurons": (NeuronMap, ("weights",)),
}


def map_nbytes(rows: int, components: int, columns: int) -> int:
    """What mapping so many rows holds: they, their float32 features, blocks, and the map."""
    block = max(64 * components, BLOCK_NBYTES // 8)
    model = components * (columns + components)
    return rows * (8 * columns + 4 * components) + 8 * (4 * block + 2 * model)


def _random(
    config: FeatureConfig, kernel: kernels.Kernel, d: int, rng: np.random.Generator
) -> FeatureMap:
    _, inside = _unscaled(kernel)
    if isinstance(inside, kernels.ArcCosine):
        columns = np.arange(d) if inside.active is None else np.array(inside.active)
        w = normals(config.components, len(columns) + 1, rng, orthogonal=config.orthogonal)
        W = np.zeros((d + 1, config.components))
        W[columns] = (w[:, :-1] * np.sqrt(inside.variance)).T
        W[-1] = w[:, -1] * np.sqrt(inside.bias)
        return NeuronMap(kernel, W)
    frequencies, odd = -(-config.components // 2), config.components % 2
    W = drawn(kernel, frequencies, d, rng, orthogonal=config.orthogonal)
    return FourierMap(kernel, np.ascontiguousarray(W.T), rng.uniform(0.0, 2.0 * np.pi, odd))


def _unscaled(kernel: kernels.Kernel) -> tuple[float, kernels.Kernel]:
    if isinstance(kernel, kernels.Scale):
        return kernel.variance, kernel.kernel
    return 1.0, kernel


def _finite(X: Array) -> Float64:
    """Rows as float64; InputError naming the first entry that is not finite."""
    rows = np.asarray(X, dtype=np.float64)
    if not np.isfinite(rows).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise InputError(f"row {row}, column {column} is {rows[row, column]}: expected a number")
    return rows
