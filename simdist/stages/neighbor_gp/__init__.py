"""Gaussian processes from nearest neighbours (GPnn): a few rows say how, the nearest say what.

    vectors, y ── neighbor_gp_parameters ──> kernel, noise        exact likelihood of small subsets
         │                 │
         └── scale_vectors ┴──> rows in the kernel's own lengths, vectors again
                                  │
    a sample of them ── knn ──────┴──> their neighbours
         └── neighbor_gp ──> the model: kernel, noise, a calibrated variance, how well it does

    new rows ── scale_vectors ── knn ── neighbor_gp_predict ──> mean, variance, row by row

    space      in which lengths a kernel measures, so where neighbours are near
    targets    y of stored rows: a kept column, or an array beside them
    marginal   the exact log marginal likelihood of subsets, and its maximum
    local      a Gaussian process on each row's own k neighbours: k x k Cholesky factors
    scores     RMSE, NLPD, coverage, mean z^2
    parameters, scaled, story   the stages

Source: Allison, Stephenson, F, Pyzer-Knapp, Leveraging Locality and Robustness to Achieve Massively
Scalable Gaussian Process Regression, 2023 (arXiv 2306.14731).
"""

from simdist.stages.neighbor_gp.config import (
    ModelConfig,
    ParametersConfig,
    PlainConfig,
    PredictConfig,
    SampleConfig,
)
from simdist.stages.neighbor_gp.parameters import NeighborParameters, Parameters
from simdist.stages.neighbor_gp.scaled import SampleVectors, ScaleVectors
from simdist.stages.neighbor_gp.story import NeighborModel, NeighborPredict, Predicted
from simdist.stages.neighbor_gp.targets import Targets

__all__ = [
    "ModelConfig",
    "NeighborModel",
    "NeighborParameters",
    "NeighborPredict",
    "Parameters",
    "ParametersConfig",
    "PlainConfig",
    "PredictConfig",
    "Predicted",
    "SampleConfig",
    "SampleVectors",
    "ScaleVectors",
    "Targets",
]
