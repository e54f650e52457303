"""Kernels as features: `Nystroem` and `RandomFeatures`, as steps of a pipeline and on datasets.

    make_pipeline(sd.Nystroem(sd.kernels.RBF(5.0), 512), RidgeClassifier())     arrays
    sd.Nystroem("rbf", 512).fit(vectors).transform(vectors)                     stored datasets

k(x, y) ~ f(x) . f(y), so that what is linear in f is a kernel machine of k. scikit-learn is an
extra: `pip install 'simdist[sklearn]'`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from simdist.errors import ConfigError
from simdist.measures import kernels
from simdist.models.chain import Link, run_link
from simdist.models.places import borrowed, in_scratch, refuse_unseen, store_of
from simdist.models.vectors import import_array
from simdist.stages.features.centers import sample_rows, sampled
from simdist.stages.features.config import CENTERS, Centers, FeatureConfig, Kind
from simdist.stages.features.maps import FeatureMap, fitted, read_map
from simdist.store.datasets import Dataset

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ConfigError(
        f"feature maps need scikit-learn 1.6 or later ({error}): pip install 'simdist[sklearn]'"
    ) from error

if TYPE_CHECKING:
    from typing import Self

    from simdist.engine.base import Engine
    from simdist.runner import Listener
    from simdist.store.store import Store
    from simdist.types import Array, Float64, Json

__all__ = ["Nystroem", "RandomFeatures", "feature_links"]


class _Features(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What both have: a map, fitted to arrays or to a stored dataset, and applied to either."""

    kernel: Json | kernels.Kernel
    n_components: int
    random_state: int | np.random.RandomState | None

    kind: ClassVar[Kind]

    @classmethod
    def open(cls, model: Dataset) -> Self:
        """The fitted transformer of a committed model: of `fit`, or `store.dataset("name")`.

        Raises InputError where the dataset is no feature map.
        """
        opened = cls()
        opened._take(read_map(model), model)
        return opened

    def fit(
        self,
        X: Array | Dataset,
        y: object = None,
        *,
        store: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Self:
        """Fit the map. X: [n, d] float32 or float64, or a stored vectors dataset; y is ignored.

        Of a dataset the map is a dataset too, `dataset_`, in `store`, by default beside it; one
        task of `engine` makes it, from a sample of the rows. An array is looked at here.

        Raises ConfigError for settings that make no sense, InputError (arrays: scikit-learn's
        ValueError) for rows that cannot be taken.
        """
        if isinstance(X, Dataset):
            place = X.store if store is None else store_of(store)
            link = Link("model", _fit_stage(), self._config(place), {"vectors": "vectors"})
            with borrowed(engine, place) as opened:
                model = run_link(
                    link, {"vectors": X}, store=place, engine=opened, listeners=listeners
                )
            self._take(read_map(model), model)
            return self
        rows = validate_data(self, X, dtype=[np.float64, np.float32])
        config = self._config(None)
        seed = config.seed

        def rng(key: str) -> np.random.Generator:
            return np.random.default_rng([seed, zlib.crc32(key.encode())])

        size = sample_rows(len(rows), config.components, config.centers)
        sample = rows[sampled(len(rows), size, rng("sample"))]
        self._take(fitted(config, sample, self._given(), rng), None)
        return self

    def transform(
        self,
        X: Array | Dataset,
        *,
        store: Store | str | None = None,
        scratch: Store | str | None = None,
        engine: Engine | str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Any:
        """Features of rows. X: [m, d] -> [m, components] of X's precision; or a stored vectors
        dataset -> a vectors dataset of float32, with its ids and kept columns.

        store: where the dataset goes, by default beside X. engine: who maps it; an array only
        where this is given, through `scratch`, else here.
        """
        check_is_fitted(self)
        if isinstance(X, Dataset):
            place = X.store if store is None else store_of(store)
            with borrowed(engine, place) as opened:
                return self._mapped(X, place, opened, listeners)
        rows = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        if engine is None:
            return self.map_(rows, dtype=rows.dtype)
        with in_scratch(scratch, engine) as (place, opened):
            refuse_unseen(opened, place)
            vectors = import_array(rows, store=place, engine=opened, listeners=listeners)
            found = self._mapped(vectors, place, opened, listeners)
            parts = [place.read_array(shard.objects["vectors"]) for shard in found.shards]
            return np.concatenate(parts).astype(rows.dtype)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _mapped(
        self, vectors: Dataset, place: Store, engine: Engine, listeners: Sequence[Listener]
    ) -> Dataset:
        from simdist.stages.features import GivenFeatures, GivenMap  # noqa: PLC0415

        model = getattr(self, "dataset_", None)
        if model is None or model.store.uri != place.uri:
            link = Link("model", GivenFeatures(), GivenMap.write(self.map_, place), {})
            model = run_link(link, {}, store=place, engine=engine, listeners=listeners)
        link = _map_link("features", "vectors", "model", self.map_.components)
        given = {"vectors": vectors, "model": model}
        return run_link(link, given, store=place, engine=engine, listeners=listeners)

    def _take(self, found: FeatureMap, model: Dataset | None) -> None:
        """Fitted attributes."""
        self.map_ = found
        self.kernel_ = found.kernel
        self.n_features_in_ = found.columns
        self._n_features_out = found.components
        if model is not None:
            self.dataset_ = model
        elif hasattr(self, "dataset_"):
            del self.dataset_

    def _spec(self) -> Json:
        return None if self.kernel is None else kernels.resolve(self.kernel).spec()

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _config(self, store: Store | None) -> FeatureConfig:
        """What the stage asks. store: takes arrays along that are part of it; None for none."""
        return FeatureConfig(self.kind, self._spec(), int(self.n_components), seed=self._seed())

    def _given(self) -> Float64 | None:
        return None


class Nystroem(_Features):
    """Features from a kernel's values with a few rows that stand for all: L^-1 k(Z, x).

    kernel: a Kernel, its name, spec or formula; None for an RBF as wide as the rows lie apart
        (scikit-learn's gamma "scale").
    n_components: centres, and features: fewer where centres cannot be told apart, as copies are.
    centers: how they are chosen, from a sample of max(20,000, 4 n_components) rows: "kmeans++"
        (far from one another, as the kernel sees it), "random", "pivots" (randomly pivoted
        Cholesky), "greedy" (pivoted Cholesky); or the centres themselves, [m, d].
    random_state: seed of the choice.

    Fitted: centers_ [r, d], kernel_ (with lengthscales for d columns), map_, n_features_in_;
    dataset_ where a dataset was fitted. Inner products of features are exact between centres, and
    k(x, x) is never exceeded. Takes every kernel but White; unlike scikit-learn's Nystroem, whose
    features are these turned, it leaves out what the kernel matrix cannot resolve.

    Cost: n m (d + m) 2 flops to transform n rows. Source: Williams and Seeger 2001.
    """

    kind = "nystroem"

    def __init__(
        self,
        kernel: Json | kernels.Kernel = None,
        n_components: int = 100,
        *,
        centers: Centers | Array = "kmeans++",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.centers = centers
        self.random_state = random_state

    @property
    def centers_(self) -> Array:
        """[r, d] float64, the rows that stand for all."""
        check_is_fitted(self)
        return self.map_.arrays()["centers"]

    def _config(self, store: Store | None) -> FeatureConfig:
        points = self._given()
        if points is None:
            how: Any = self.centers  # a word, which the config looks at
            count = int(self.n_components)
            return FeatureConfig(self.kind, self._spec(), count, how, seed=self._seed())
        ref = None if store is None else store.write_array("centers", points)
        return FeatureConfig(self.kind, self._spec(), len(points), "random", ref, seed=self._seed())

    def _given(self) -> Float64 | None:
        if isinstance(self.centers, str):
            return None
        points = np.ascontiguousarray(self.centers, np.float64)
        if points.ndim != 2 or not points.size:
            raise ConfigError(
                f"centers has shape {points.shape}: expected points [m, d], or one of"
                f" {', '.join(CENTERS)}"
            )
        return points


class RandomFeatures(_Features):
    """Features drawn at random, before any row is seen: cos and sin of w.x for a stationary kernel.

    kernel: RBF, Matern12, Matern32, Matern52, RationalQuadratic (alpha = 1 is Cauchy's), Laplacian,
        Cosine, Constant, their sums, products and multiples, or ArcCosine, whose features are
        neurons max(0, w.x)^order; by name, spec or formula too. None as for `Nystroem`.
    n_components: features, best even: cosine and sine of one frequency belong together.
    orthogonal: frequencies in blocks of d at right angles: less variance, the same mean. Laplacian,
        whose columns are independent, is not changed by it.
    random_state: seed of the draw.

    Fitted: kernel_, map_, n_features_in_; dataset_ where a dataset was fitted. The error of an
    inner product is about k(x, x) / sqrt(n_components). float64 rows give float64 features;
    those of float32 rows and datasets are good to 1e-7, and made several times as fast.

    Cost: n d n_components flops and as many sines to transform n rows. Source: Rahimi and Recht
    2007; Yu et al. 2016 (orthogonal); Cho and Saul 2009 (ArcCosine).
    """

    kind = "random_features"

    def __init__(
        self,
        kernel: Json | kernels.Kernel = None,
        n_components: int = 100,
        *,
        orthogonal: bool = True,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.kernel = kernel
        self.n_components = n_components
        self.orthogonal = orthogonal
        self.random_state = random_state

    def _config(self, store: Store | None) -> FeatureConfig:
        return FeatureConfig(
            self.kind,
            self._spec(),
            int(self.n_components),
            "random",
            orthogonal=bool(self.orthogonal),
            seed=self._seed(),
        )


def feature_links(
    name: str,
    of: str,
    kind: Kind,
    *,
    kernel: Json | kernels.Kernel = None,
    components: int = 100,
    centers: Centers = "kmeans++",
    orthogonal: bool = True,
    seed: int = 0,
) -> tuple[Link, ...]:
    """The steps from the vectors called `of` to their features: the map, and what it makes of them.

    kind: "nystroem" or "random_features"; else as for those.
    """
    spec = None if kernel is None else kernels.resolve(kernel).spec()
    config = FeatureConfig(kind, spec, components, centers, orthogonal=orthogonal, seed=seed)
    model = f"{name}.model"
    first = Link(model, _fit_stage(), config, {"vectors": of})
    return first, _map_link(name, of, model, components)


def _fit_stage() -> Any:
    from simdist.stages.features import FitFeatures  # noqa: PLC0415

    return FitFeatures()


def _map_link(name: str, of: str, model: str, components: int) -> Link:
    from simdist.stages.features import ApplyConfig, MapFeatures  # noqa: PLC0415
    from simdist.stages.vectors.shards import shard_rows  # noqa: PLC0415 - imports pyarrow

    config = ApplyConfig(components, shard_rows(components))
    return Link(name, MapFeatures(), config, {"vectors": of, "model": model})
