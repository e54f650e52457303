"""What is asked of a spectral embedding, and which solver is taken for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np

from simdist.errors import ConfigError
from simdist.types import Float64, Json

__all__ = [
    "DEGREE",
    "DIRECT_NBYTES",
    "Laplacian",
    "Solver",
    "SpectralConfig",
    "direct_nbytes",
]

Laplacian: TypeAlias = Literal["symmetric", "random_walk"]
Solver: TypeAlias = Literal["auto", "direct", "lobpcg", "chebyshev"]

DIRECT_NBYTES = 256 << 20  # what the one task may hold that "auto" prefers to shards
SINGLE = 1e-5  # tolerance down to which blocks are float32
DEGREE = 8  # of the filter, in passes for each basis
FEWEST_GUARDS = 8  # columns beyond dim: those at the edge converge slowly


@dataclass(frozen=True, slots=True)
class SpectralConfig:
    """dim: eigenvectors, the null space not counted. tolerance: largest length of S v - value v.

    laplacian: "symmetric", I - S with vectors v; "random_walk", I - D^-1 W with D^-1/2 v.
    solver: see `taken`. guards: columns of a block beyond dim; None: half of dim, at least 8.
    seed: draws the first block. max_passes: products with a block before it ends unconverged.
    alpha: W is divided by (d_i d_j)^alpha first: 1 removes the density of the points from a
        diffusion map, 0 leaves it.
    time: steps t of a diffusion map, whose columns are (1 - eigenvalue)^t D^-1/2 v sqrt(sum of
        degrees); None: eigenvectors as `laplacian` says.
    """

    dim: int
    laplacian: Laplacian = "symmetric"
    tolerance: float = 1e-3
    solver: Solver = "auto"
    seed: int = 0
    guards: int | None = None
    max_passes: int = 1000
    alpha: float = 0.0
    time: int | None = None

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"dim={self.dim}: expected at least 1 eigenvector")
        if self.laplacian not in ("symmetric", "random_walk"):
            raise ConfigError(
                f"laplacian={self.laplacian!r}: expected 'symmetric' or 'random_walk'"
            )
        if self.solver not in ("auto", "direct", "lobpcg", "chebyshev"):
            raise ConfigError(
                f"solver={self.solver!r}: expected 'auto', 'direct', 'lobpcg' or 'chebyshev'"
            )
        if not 1e-12 <= self.tolerance < 1.0:
            raise ConfigError(
                f"tolerance={self.tolerance}: expected a residual from 1e-12, which is what float64"
                " can tell, to less than 1; 1e-3 is usual"
            )
        if self.guards is not None and self.guards < 1:
            raise ConfigError(f"guards={self.guards}: expected at least 1 column beyond dim")
        if self.max_passes < 1:
            raise ConfigError(f"max_passes={self.max_passes}: expected at least 1")
        if not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"alpha={self.alpha}: expected 0 to 1")
        if self.time is not None and (self.time < 0 or self.laplacian != "random_walk"):
            raise ConfigError(
                f"time={self.time} with laplacian={self.laplacian!r}: a diffusion map takes 0 or"
                " more steps of the random walk"
            )

    def to_json(self) -> Json:
        return asdict(self)

    def factors(self, largest: Float64, values: Float64, volume: float) -> Float64:
        """[dim] what eigenvectors are multiplied with: a sign that makes the entry of largest
        magnitude positive, and the scale of a diffusion map.

        values: [dim] eigenvalues of S. volume: sum of degrees.
        """
        signs = np.where(largest < 0, -1.0, 1.0)
        return signs if self.time is None else signs * values**self.time * np.sqrt(volume)

    @property
    def block(self) -> int:
        """Columns of a product: dim and the guards."""
        guards = max(FEWEST_GUARDS, self.dim // 2) if self.guards is None else self.guards
        return self.dim + guards

    @property
    def direct_block(self) -> int:
        """The same in one task, where a pass costs its flops and no barrier: fewer guards, a few
        more passes."""
        if self.guards is not None:
            return self.block
        return self.dim + max(FEWEST_GUARDS, self.dim // 4)

    @property
    def dtype(self) -> type:
        """Of all blocks at rest: float32, which halves what is moved, unless it cannot tell."""
        return np.float32 if self.tolerance >= SINGLE else np.float64

    def taken(self, nodes: int, entries: int) -> Solver:
        """The solver that "auto" stands for: "direct" where one task holds the matrix and all
        blocks in `DIRECT_NBYTES`, else "chebyshev", whose passes cost less than LOBPCG's."""
        if self.solver != "auto":
            return self.solver
        fits = direct_nbytes(nodes, entries, self.block) <= DIRECT_NBYTES
        return "direct" if fits else "chebyshev"

    def degree(self, nodes: int, entries: int) -> int:
        """Passes for each basis."""
        return DEGREE if self.taken(nodes, entries) == "chebyshev" else 1


def direct_nbytes(nodes: int, entries: int, block: int) -> int:
    """What the one task holds: the matrix as it is stored and normalised, and eleven blocks."""
    return 24 * entries + 4 * 11 * nodes * block + 64 * nodes
