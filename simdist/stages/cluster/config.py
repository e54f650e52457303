"""What may be asked of clusters, and how many there are where the spectrum is to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from simdist.errors import ConfigError, InputError
from simdist.types import Json

__all__ = ["Choice", "ClusterConfig", "Method", "choose"]

Method: TypeAlias = Literal["kmeans", "cluster_qr"]


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """clusters: how many; None reads it off the eigenvalues. method: see `spectral_clusters`.

    normalize: rows are scaled to length 1 first. restarts, iterations, tolerance: of k-means;
    tolerance: it stops when all centers together move, squared, by no more than this share of the
    mean squared distance to them. smallest: a component of fewer rows is a cluster of its own, cut
    no further; None: a tenth of what a cluster has on average. central: rows that describe one.
    """

    clusters: int | None
    method: Method = "kmeans"
    normalize: bool = True
    restarts: int = 10
    iterations: int = 300
    tolerance: float = 1e-5
    seed: int = 0
    smallest: int | None = None
    central: int = 5

    def __post_init__(self) -> None:
        if self.clusters is not None and self.clusters < 1:
            raise ConfigError(f"clusters={self.clusters}: expected at least 1, or 'auto'")
        if self.method not in ("kmeans", "cluster_qr"):
            raise ConfigError(f"method={self.method!r}: expected 'kmeans' or 'cluster_qr'")
        for name in ("restarts", "iterations", "central"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.smallest is not None and self.smallest < 1:
            raise ConfigError(f"smallest={self.smallest}: expected at least 1 row, or none")
        if not 0.0 < self.tolerance < 1.0:
            raise ConfigError(f"tolerance={self.tolerance}: expected a number between 0 and 1")

    def to_json(self) -> Json:
        value = asdict(self)
        if self.method == "cluster_qr":  # nothing random in it
            for name in ("restarts", "iterations", "tolerance", "seed"):
                del value[name]
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """How many clusters, and why. gaps: (k, eigenvalue k, eigenvalue k + 1, the gap between them),
    counted from 1, zeros of the components first."""

    clusters: int
    gaps: tuple[tuple[int, float, float, float], ...]
    why: str

    def to_json(self) -> dict[str, Json]:
        return {
            "clusters": self.clusters,
            "gaps": [list(gap) for gap in self.gaps],
            "why": self.why,
        }


def choose(eigenvalues: Sequence[float], components: int) -> Choice:
    """The largest eigengap: k clusters where eigenvalue k + 1 is the first that is not small.

    eigenvalues: of the normalised Laplacian, ascending, the zeros left out. components: how many
    zeros there are, one for each component that is to be clustered.
    One cluster is no answer, and fewer than the components are none either. Of equal gaps the
    first. Source: von Luxburg, A tutorial on spectral clustering (2007), section 8.3.
    """
    values = [0.0] * components + [float(value) for value in eigenvalues]
    least = max(components, 2)
    gaps = tuple(
        (k, values[k - 1], values[k], values[k] - values[k - 1]) for k in range(least, len(values))
    )
    if not gaps:
        raise InputError(
            f"clusters='auto' needs at least {least + 1 - components} eigenvalues above 0 to see a"
            f" gap; there are {len(eigenvalues)}. Say how many clusters, or embed in more"
            " dimensions."
        )
    k, low, high, gap = max(gaps, key=lambda entry: (entry[3], -entry[0]))
    why = (
        f"the largest gap of {len(gaps)} lies between eigenvalue {k} ({low:.6f}) and {k + 1}"
        f" ({high:.6f}): {gap:.6f}"
    )
    second = max((entry[3] for entry in gaps if entry[0] != k), default=0.0)
    if gap > 0:
        why += f", the next largest is {second / gap:.0%} of it"
    return Choice(k, gaps, why)
