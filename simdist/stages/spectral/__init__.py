"""The smallest eigenpairs of a graph's normalised Laplacian, in one task or over its shards.

    links, components ──> start: scales, roots of degrees, random W          task per shard
                            │
              ┌──> filter:  Y_j from A Y_(j-1), degree - 1 times             task per shard
              │    product: A W, inner products of [X P W]                   task per shard
              │    solve:   the small dense problem                          one task
              │    update:  X, A X, P, A P and what is filtered next         task per shard
              └──── residuals of the first `dim` above the tolerance? ──┐
                                                                        v no, or passes are used up
                            measure: residuals from a product, signs         task per shard
                            vectors: scaled, signed, as .npy and Parquet     task per shard

    direct                  the same on blocks in memory                     one task

    config    what is asked, and which way is taken: a rule of n and entries
    story     which round follows which, and the manifest
    nulls     the vectors that are known: one for each component
    sharded   the tasks of the rounds above
    direct    the one task
    cost      what the rounds are expected to cost

A is S = D^-1/2 W D^-1/2, with eigenvalues in [-1, 1]: those of the Laplacian I - S are 1 minus
these. Every round leaves its blocks in the store, so a run that is killed goes on at its last one.
"""

from simdist.stages.spectral.config import SpectralConfig
from simdist.stages.spectral.story import SpectralStage

__all__ = ["SpectralConfig", "SpectralStage"]
