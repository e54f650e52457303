"""Gaussian process classification by Dirichlet targets, on the Gram pass of `simdist.grams`.

    labels   classes of every shard, and how many rows each has            task per shard
    start    inducing points; the kernel, by the bound on a subset         one task
    gram     P, a sum for every class, of all rows but those held out      task per span of rows
    settle   noise, scale and temperature chosen on held-out rows, which
             are added to the sums then; what predicts                     one task

    new rows ── dirichlet_gp_predict ──> probabilities and labels          task per shard

A label becomes one real target for each class: that of a Gamma variable with shape 1 + eps for the
class that it is and eps for the others, matched by a log-normal one. So there are two targets and
two noise variances, whatever the class, and sums over the rows of each class are enough: rows of
class r weigh 1 / s_1 for their own function and 1 / s_0 for all others. One pass therefore serves
every eps and every scale of the kernel.

    bound      targets, the collapsed bound and its gradient, what predicts
    calibrate  probabilities of latent means and variances; accuracy, log loss, ECE
    fit        inducing points and hyper-parameters from a subset; settling on held-out rows
    story      the stages

Source: Milios, Camoriano, Michiardi, Rosasco, Filippone, Dirichlet-based Gaussian Processes for
Large-scale Calibrated Classification, 2018 (arXiv 1805.10915).
"""

from simdist.stages.dirichlet.config import DirichletConfig, Labels, PlainConfig
from simdist.stages.dirichlet.story import DirichletModel, DirichletPredict, Model, read_model

__all__ = [
    "DirichletConfig",
    "DirichletModel",
    "DirichletPredict",
    "Labels",
    "Model",
    "PlainConfig",
    "read_model",
]
