"""Sparse Gaussian processes as steps of a chain, and the kernel that such a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simdist.errors import ConfigError
from simdist.measures.kernels import RBF, Kernel, Scale, resolve
from simdist.measures.kernels.leaf import Leaf
from simdist.models.chain import Link
from simdist.stages.gp.config import SparseGPConfig
from simdist.stages.gp.predict import PredictConfig, PredictStage
from simdist.stages.gp.story import SparseGPStage

if TYPE_CHECKING:
    from simdist.types import Json

__all__ = ["predict_links", "regression_kernel", "sparse_gp_links"]


def sparse_gp_links(
    name: str, of: str, *, kernel: Json | Kernel | None, targets: Sequence[str], **settings: Any
) -> tuple[Link, ...]:
    """The step that fits the vectors called `of`. kernel, settings: as for `SparseGP`."""
    config = SparseGPConfig(regression_kernel(kernel), tuple(targets), **settings)
    return (Link(name, SparseGPStage(), config, {"vectors": of}),)


def predict_links(name: str, of: str, model: str) -> tuple[Link, ...]:
    """The step that applies the model called `model` to the vectors called `of`."""
    return (Link(name, PredictStage(), PredictConfig(), {"vectors": of, "model": model}),)


def regression_kernel(kernel: Json | Kernel | None) -> Kernel:
    """A kernel with a free variance, and no White."""
    found = 1.0 * RBF(ard=True) if kernel is None else resolve(kernel)
    if found.noiseless() != found:
        raise ConfigError(
            f"kernel {found} has a White part; SparseGP has a noise of its own: leave White out,"
            " and say with noise= where it begins"
        )
    if isinstance(found, Leaf) and "variance" not in found.parameters:
        found = Scale(found, 1.0)
    return found
