"""Message passing on a links graph: what the neighbours have, averaged, step after step.

    features ── start ──> X0 by (row shard, column block)          labels ── start ──> one-hot X0
                            │                                                  │
               walk-00000, walk-00001, ...   a task a row shard and step       │
               X' = keep W X + restart X0    a round of records a step  <──────┘
                            │
                         finish ──> vectors, or labels and scores

    config     what may be asked; each method as a walk     walk      the recurrence, and its rounds
    features   stage `propagate`                            labels    stage `label_propagation`
    correct    stage `correct_and_smooth`                   given     labels from an array
    column     stage `column_labels`, labels from a column of vectors
    finish     results in runs of rows that fit a task

All methods are one recurrence on one operator, W = D^(p-1) (A + l I) D^-p with D the degrees after
self-loops of weight l. What a method is called is a choice of p, l, keep and restart.
"""

from simdist.stages.propagate.column import ColumnConfig, ColumnLabels
from simdist.stages.propagate.config import (
    CorrectConfig,
    LabelConfig,
    PropagateConfig,
)
from simdist.stages.propagate.correct import CorrectAndSmoothStage
from simdist.stages.propagate.features import PropagateStage
from simdist.stages.propagate.given import GivenLabels, write_labels
from simdist.stages.propagate.labels import LabelPropagationStage

__all__ = [
    "ColumnConfig",
    "ColumnLabels",
    "CorrectAndSmoothStage",
    "CorrectConfig",
    "GivenLabels",
    "LabelConfig",
    "LabelPropagationStage",
    "PropagateConfig",
    "PropagateStage",
    "write_labels",
]
