"""The links of Gaussian processes from neighbours: fit, predict, leave one out.

x, y ── NAME.parameters ──┬── NAME.scaled ──┬── NAME.sample ── NAME.hits ── NAME: the model
                          └─────────────────┴──────────────────────┘
rows ── P.scaled ── P.hits (in NAME.scaled) ── P: predictions
"""

from __future__ import annotations

from typing import Literal

from simdist.errors import InputError
from simdist.models.chain import Link
from simdist.models.search import search_links
from simdist.stages.neighbor_gp import (
    ModelConfig,
    NeighborModel,
    NeighborParameters,
    NeighborPredict,
    ParametersConfig,
    PlainConfig,
    PredictConfig,
    SampleConfig,
    SampleVectors,
    ScaleVectors,
)
from simdist.store.datasets import Dataset

__all__ = ["Method", "neighbor_gp_links", "neighbor_predict_links", "parts_of", "refuse_no_rows"]

Method = Literal["approximate", "exact"]
MODEL = NeighborModel.name


def neighbor_gp_links(
    name: str,
    of: str,
    config: ParametersConfig,
    *,
    neighbors: int,
    calibration: int = 2000,
    method: Method = "exact",
    recall: float = 0.95,
) -> tuple[Link, ...]:
    """The steps that fit a model called `name` on the vectors called `of`."""
    parameters, scaled = f"{name}.parameters", f"{name}.scaled"
    sample, hits = f"{name}.sample", f"{name}.hits"
    model = ModelConfig(neighbors, method, None if method == "exact" else recall)
    given = {"vectors": of, "parameters": parameters, "scaled": scaled}
    return (
        Link(parameters, NeighborParameters(), config, {"vectors": of}),
        Link(scaled, ScaleVectors(), PlainConfig(), {"vectors": of, "parameters": parameters}),
        Link(sample, SampleVectors(), SampleConfig(calibration, config.seed), {"vectors": scaled}),
        *search_links(
            hits,
            sample,
            scaled,
            k=neighbors + 1,
            measure="euclidean",
            method=method,
            recall=recall,
            seed=config.seed,
        ),
        Link(name, NeighborModel(), model, {**given, "sample": sample, "hits": hits}),
    )


def neighbor_predict_links(
    name: str,
    of: str,
    model: str,
    *,
    scaled: str | None = None,
    neighbors: int,
    leave_one_out: bool = False,
    method: Method = "exact",
    recall: float = 0.95,
    seed: int = 0,
) -> tuple[Link, ...]:
    """The steps that predict the vectors called `of` by the model called `model`.

    scaled: its training rows in scaled space, by default those made with it. leave_one_out: `of`
    are the training rows, and each is predicted without itself.
    """
    corpus = f"{model}.scaled" if scaled is None else scaled
    own, hits = f"{name}.scaled", f"{name}.hits"
    given = {"vectors": of, "parameters": model}
    scale = () if leave_one_out else (Link(own, ScaleVectors(), PlainConfig(), given),)
    return (
        *scale,
        *search_links(
            hits,
            corpus if leave_one_out else own,
            corpus,
            k=neighbors + int(leave_one_out),
            measure="euclidean",
            method=method,
            recall=recall,
            seed=seed,
        ),
        Link(
            name,
            NeighborPredict(),
            PredictConfig(neighbors, leave_one_out),
            {"queries": of, "hits": hits, "model": model},
        ),
    )


def parts_of(model: Dataset) -> dict[str, Dataset]:
    """What a committed model was made from, by role: vectors, parameters, scaled, ...

    Raises InputError for what is no model, or where a part is gone.
    """
    if model.stage != MODEL:
        raise InputError(f"{model.uri} was made by stage {model.stage}; expected a {MODEL} model")
    found = {}
    for role, fingerprint in model.manifest.inputs.items():
        manifest = model.store.manifest(fingerprint)
        if manifest is None:
            raise InputError(
                f"the {role} of model {model.uri} ({fingerprint}) are gone from its store: fit it"
                " again"
            )
        found[role] = Dataset(model.store, manifest)
    return found


def refuse_no_rows(vectors: Dataset) -> None:
    """InputError for what has no vectors, or one row."""
    if "dim" not in vectors.metrics:
        raise InputError(
            f"{vectors.uri} was made by stage {vectors.stage} and has no vectors: give a dataset"
            " that import_vectors made"
        )
    if vectors.rows < 2:
        raise InputError(f"{vectors.uri} has 1 row; NeighborGP needs at least 2")
