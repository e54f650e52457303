"""The links that kernel machines are made of, for flows; estimators of arrays are beside them.

vectors ── kernel_ridge | kernel_svm | kernel_pca ──> model
vectors, model ── apply ──> predictions, or vectors again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simdist.models.chain import Link

if TYPE_CHECKING:
    from simdist.stages.machines.config import PcaConfig, RidgeConfig, SvmConfig

__all__ = ["apply_links", "kernel_pca_links", "kernel_ridge_links", "kernel_svm_links"]


def kernel_ridge_links(name: str, of: str, config: RidgeConfig) -> tuple[Link, ...]:
    """The step that learns kept columns of the vectors called `of`."""
    from simdist.stages.machines.ridge_stage import KernelRidgeStage  # noqa: PLC0415

    return (Link(name, KernelRidgeStage(), config, {"vectors": of}),)


def kernel_svm_links(name: str, of: str, config: SvmConfig) -> tuple[Link, ...]:
    """The step that learns the classes of a kept column of the vectors called `of`."""
    from simdist.stages.machines.svm_stage import KernelSvmStage  # noqa: PLC0415

    return (Link(name, KernelSvmStage(), config, {"vectors": of}),)


def kernel_pca_links(name: str, of: str, config: PcaConfig) -> tuple[Link, ...]:
    """The step that finds the components of the vectors called `of`."""
    from simdist.stages.machines.pca import KernelPcaStage  # noqa: PLC0415

    return (Link(name, KernelPcaStage(), config, {"vectors": of}),)


def apply_links(
    name: str, of: str, model: str, *, targets: str | Sequence[str] | None = None
) -> tuple[Link, ...]:
    """The step that applies the model called `model` to the vectors called `of`. targets: columns
    that they keep of what is true."""
    from simdist.stages.machines.apply import ApplyConfig, ApplyMachine  # noqa: PLC0415

    columns = (targets,) if isinstance(targets, str) else targets
    config = ApplyConfig(None if columns is None else tuple(columns))
    return (Link(name, ApplyMachine(), config, {"vectors": of, "model": model}),)
