"""Features whose inner products are a kernel's values: k(x, y) ~ f(x) . f(y).

    vectors ──> fit_features: a sample, centres or frequencies       one task
                       │  model: a few small arrays, named like any dataset
    vectors, model ──> map_features: f of runs of rows                task a run of 16 MiB
                       │  a vectors dataset: float32, the ids and kept columns of the rows
                       v
    anything that takes vectors: graphs, clusters, linear models

    config     what is asked
    maps       the maps as arrays: NystroemMap, FourierMap, NeuronMap
    centers    which rows stand for all
    frequencies   draws from a kernel's spectral density
    fit, apply the two stages; given: a map that arrays were fitted to, as a model

The same functions work on arrays in memory: simdist.models.features.
"""

from simdist.stages.features.apply import ApplyConfig, MapFeatures
from simdist.stages.features.config import FeatureConfig
from simdist.stages.features.fit import FitFeatures
from simdist.stages.features.given import GivenFeatures, GivenMap

__all__ = [
    "ApplyConfig",
    "FeatureConfig",
    "FitFeatures",
    "GivenFeatures",
    "GivenMap",
    "MapFeatures",
]
