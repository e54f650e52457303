"""Everything that follows from one softmax fold with Gaussian logits.

    data ── gaussian_bandwidth ──> center, widths ──┐
                                                    v
    points ──┐                           peak, sum-exp, weighted sum of each point
    data ────┴── exp(-|x - x_j|^2 / 2 h^2) ──┬── no values ──> kernel_density ──> outlier_scores
                                             ├── values x ───> score_field, denoise, mean_shift
                                             └── values y ───> kernel_regression

    given      rows and values from arrays          sides       what is read: panels, chunks
    moments    mean, variance, range, rules         fold        the fold in tasks, merged in order
    bandwidth  stage gaussian_bandwidth             estimate    densities, outlier scores
    field      score fields, denoising              regression  Nadaraya-Watson
    climb      mean-shift on rows in memory, pure   modes       which ends are one mode, pure
    seeding    what may be asked of mean-shift      ascent      its tasks
    shift      stage mean_shift: which round follows which

The tile itself is simdist.tiles.gaussian. A task folds a chunk of points over a run of panels of
the data; how large either is follows from rows and columns alone. Nothing n x n is held.
"""

from simdist.stages.density.bandwidth import BandwidthConfig, BandwidthStage, Scale
from simdist.stages.density.climb import Kernel
from simdist.stages.density.estimate import (
    KernelDensityStage,
    Method,
    OutlierConfig,
    OutlierStage,
)
from simdist.stages.density.field import DenoiseConfig, DenoiseStage, ScoreFieldStage
from simdist.stages.density.fold import FieldConfig, Precision
from simdist.stages.density.given import GivenRows, write_given
from simdist.stages.density.regression import KernelRegressionStage, RegressionConfig
from simdist.stages.density.seeding import Seeds, ShiftConfig
from simdist.stages.density.shift import MeanShiftStage

__all__ = [
    "BandwidthConfig",
    "BandwidthStage",
    "DenoiseConfig",
    "DenoiseStage",
    "FieldConfig",
    "GivenRows",
    "Kernel",
    "KernelDensityStage",
    "KernelRegressionStage",
    "MeanShiftStage",
    "Method",
    "OutlierConfig",
    "OutlierStage",
    "Precision",
    "RegressionConfig",
    "Scale",
    "ScoreFieldStage",
    "Seeds",
    "ShiftConfig",
    "write_given",
]
