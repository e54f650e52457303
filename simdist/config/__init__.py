"""A flow as YAML: read, validated, and turned into the links that a run walks.

    YAML + --set ──> read ──> FlowConfig, frozen ──> links(flow): inputs first, then steps,
                      │       a Step per stage       each after what it needs
                      └─ ConfigError: file:line, dotted path, what is allowed, the nearest match

    fields       kinds of values
    inputs       what is imported: vectors, graphs
    steps        steps on vectors and k-NN graphs
    gp_steps     steps that fit a Gaussian process and predict with it
    graph_steps  steps on similarity graphs
    density_steps  densities, modes, kernel regression of vectors
    stages       STEPS, by the name of their stage: a stage joins with a Step and one line there
    flow         the whole flow, and its links
    read         YAML, short forms, `--set a.b.c=value`
    problems     what is wrong, told at its line

Imports no stage: links are made by `simdist.models`, imported when a flow asks for them.
"""

from simdist.config.flow import EngineConfig, FlowConfig, StoreConfig, links
from simdist.config.inputs import GraphInputConfig, InputConfig
from simdist.config.read import Override, load, parse
from simdist.config.stages import STEPS
from simdist.config.steps import KnnGraphStep, SimilarityTilesStep, Step

__all__ = [
    "STEPS",
    "EngineConfig",
    "FlowConfig",
    "GraphInputConfig",
    "InputConfig",
    "KnnGraphStep",
    "Override",
    "SimilarityTilesStep",
    "Step",
    "StoreConfig",
    "links",
    "load",
    "parse",
]
