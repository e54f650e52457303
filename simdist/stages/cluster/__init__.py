"""Clusters of rows, and what a cut of a graph costs.

    embedding ──┐
    components ─┴── spectral_clusters ──> labels, sizes, central rows      graph ──┐
                                             │                                     │
                                             └── labels, or any others ──> normalized_cut

    config   what may be asked; how many clusters, by the eigengap     points  rows as clustered
    lloyd    k-means on runs of rows, pure       kmeans  its rounds    labels  rows to clusters
    pivots   cluster_qr on runs of rows, pure    qr      its rounds    tasks   what rounds share
    stage    which round follows which                                 cut     the normalised cut

Lloyd's steps and pivots are sums and maxima over panels of rows, added up in plan order by one
task: the same labels on any engine. No task holds more than a panel, except `solve`, where a rule
of rows and columns says that one task can hold them all.
"""

from simdist.stages.cluster.config import ClusterConfig
from simdist.stages.cluster.cut import CutConfig, NormalizedCutStage
from simdist.stages.cluster.stage import SpectralClusters

__all__ = ["ClusterConfig", "CutConfig", "NormalizedCutStage", "SpectralClusters"]
