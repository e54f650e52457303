"""The links of Dirichlet classification: fit, predict."""

from __future__ import annotations

from simdist.models.chain import Link
from simdist.stages.dirichlet import (
    DirichletConfig,
    DirichletModel,
    DirichletPredict,
    PlainConfig,
)

__all__ = ["dirichlet_links", "dirichlet_predict_links"]


def dirichlet_links(name: str, of: str, config: DirichletConfig) -> tuple[Link, ...]:
    """The step that fits a classifier called `name` on the vectors called `of`."""
    return (Link(name, DirichletModel(), config, {"vectors": of}),)


def dirichlet_predict_links(name: str, of: str, model: str) -> tuple[Link, ...]:
    """The step that predicts the vectors called `of` by the classifier called `model`."""
    return (Link(name, DirichletPredict(), PlainConfig(), {"queries": of, "model": model}),)
