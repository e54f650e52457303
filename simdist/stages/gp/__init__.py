"""Sparse Gaussian process regression: the collapsed bound over shards, by passes that add up.

    vectors (kept columns: targets)
      │ survey: means and spreads, a sample of the rows                       task a span
      v begin:  inducing points, and a fit of the sample's first rows         one task
    ┌──> pass:   P, b and the traces of a span; summed in plan order          task a span
    │    bound:  F and its gradient by the sums                               one task
    │    slope:  its gradient by theta and Z, through a span's rows           task a span
    └─── step:   what L-BFGS makes of it                                      one task
         final:  a pass at the best point ──> model, what predicts            spans, one task
         test:   scores of the rows held out                                  task a span

    model, vectors ──> gp_predict: means and variances, row by row            task a span

    config    what is asked, and the sizes that follow
    table     rows, wherever they lie; which of them are held out
    survey    moments and the sample
    choose    starting lengthscales, inducing points
    space     what is fitted, as one vector
    bound     the bound from the sums of a pass
    fit       where a fit begins and how it goes on; the same in memory
    passes    the tasks of the rounds above
    story     which round follows which, and the manifest
    model     what predicts, and scores; report: what a fit says of itself
    predict   the stage of predictions

The Gram pass itself is `simdist.grams`. Every evaluation is committed with the state of L-BFGS, so
a run that is killed goes on at its last one.
"""

from simdist.stages.gp.config import SparseGPConfig
from simdist.stages.gp.predict import PredictConfig, PredictStage, read_model
from simdist.stages.gp.story import SparseGPStage

__all__ = ["PredictConfig", "PredictStage", "SparseGPConfig", "SparseGPStage", "read_model"]
