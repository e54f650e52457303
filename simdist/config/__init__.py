"""A flow as YAML: read, validated, and turned into the links that a run walks.

    YAML + --set ──> read ──> FlowConfig, frozen ──> links(flow): inputs first, then steps,
                      │       a Step per stage       each after what it needs
                      └─ ConfigError: file:line, dotted path, what is allowed, the nearest match

    flow       what may be written; a stage joins with a Step and one line in STEPS
    read       YAML, short forms, `--set a.b.c=value`
    problems   what is wrong, told at its line

Imports no stage: links are made by `simdist.models`, imported when a flow asks for them.
"""

from simdist.config.flow import (
    STEPS,
    EngineConfig,
    FlowConfig,
    InputConfig,
    KnnGraphStep,
    SimilarityTilesStep,
    Step,
    StoreConfig,
    links,
)
from simdist.config.read import Override, load, parse

__all__ = [
    "STEPS",
    "EngineConfig",
    "FlowConfig",
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
