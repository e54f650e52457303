"""What a Gaussian process says of rows: means and variances, as arrays or as a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simdist.panels import rows_between
from simdist.store.datasets import Dataset
from simdist.types import Array, Float64

__all__ = ["JointPrediction", "Predictions", "PredictionsDataset"]


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """Row by row, in units of y and y^2. mean: [m]. variance: [m] of y, noise included.
    latent_variance: [m] of the function, without noise. Of several outputs [m, t] each."""

    mean: Float64
    variance: Float64
    latent_variance: Float64

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return f"Predictions({len(self)} rows)"


@dataclass(frozen=True, eq=False, slots=True)
class JointPrediction:
    """Rows together, in units of y. mean: [m], or [m, t] of several outputs. covariance: [m, m], or
    [t, m, m], of the function ("latent") or of y, noise included ("observed")."""

    mean: Float64
    covariance: Float64

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return f"JointPrediction({len(self)} rows)"


@dataclass(frozen=True, slots=True)
class PredictionsDataset(Dataset):
    """Committed predictions: see `Dataset`; a shard has "mean", "variance" and "latent" as .npy and
    the Parquet table (row, id, mean, variance, latent_variance). `open` reads them into arrays."""

    def open(self) -> Predictions:
        """All predictions in memory, 24 bytes a row."""
        roles = ("mean", "variance", "latent")
        return Predictions(*(np.array(rows_between(self, role, 0, self.rows)) for role in roles))


@dataclass(frozen=True, eq=False, slots=True)
class ClassProbabilities:
    """Row by row. probabilities: [m, c], rows sum to 1. classes: [c], the label of every column.
    labels: [m], the most probable."""

    probabilities: Float64
    classes: Array

    @property
    def labels(self) -> Array:
        found: Array = self.classes[self.probabilities.argmax(axis=1)]
        return found

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        return f"ClassProbabilities({len(self)} rows, {len(self.classes)} classes)"


@dataclass(frozen=True, slots=True)
class ProbabilitiesDataset(Dataset):
    """Committed class probabilities: see `Dataset`; a shard has "probabilities" [rows, c] as .npy
    and the Parquet table (row, id, label, probability). `open` reads them into arrays."""

    def open(self) -> ClassProbabilities:
        """All probabilities in memory, 8 c bytes a row."""
        found = np.array(rows_between(self, "probabilities", 0, self.rows))
        return ClassProbabilities(found, np.array(self.metrics["classes"]))
