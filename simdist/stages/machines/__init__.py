"""Kernel machines: one Gram pass over the rows, a small dense problem, a model that is a dataset.

    vectors ──> centres: some rows, L from K_uu         one task
       │           │ a = L^-1 k(Z, x), so that a . a' is nearly k(x, x')
       │           v
       └──> P = sum a a^T, b = sum a y                  `simdist.grams`, a task per span of rows
              │
              ├── ridge    U D U^T = P: every alpha; held-out rows or each left out choose one
              ├── cg       P is never made: K_uf (K_fu p) a span, conjugate gradients (Falkon)
              ├── pca      eigenvectors of P around the mean
              └── svm      Newton's method; a look at the rows is such a pass each time
                     │
                     v
           centres [r, d], coefficients [r, t], offsets [t]:    f(x) = k(x, Z) C + offset
                     │
    vectors ──> apply: predictions, classes or coordinates of other rows, shard by shard

    config     what is asked, checked          centers    which rows stand for all
    columns    targets, weights, classes       machine    the model as arrays, and at rest
    ridge, falkon, pca, svm                    the work, on arrays
    ridge_stage, falkon_stage, ...             the same as rounds over a stored dataset
    apply      a model on other rows           given      arrays as columns of a dataset

Everything behind the kernel is float64. Stages and estimators on arrays call the same functions.
May import grams, panels, runner, store, solvers, measures.
"""

from simdist.stages.machines.config import PcaConfig, RidgeConfig, SvmConfig

__all__ = ["PcaConfig", "RidgeConfig", "SvmConfig"]
