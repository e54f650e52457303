"""Data to try things on: a small real set that ships with the package, and seeded generators.

    datasets://debian-packages ──> path ──> Parquet file      12,000 Debian packages, 128 dims
                                   load ──> Arrow table
    synthetic                      manifold, clusters: data of known shape, any size, by blocks
                                   duplicates, two_far_clusters, ...: data that breaks shortcuts
    regression                     friedman: rows with a number to predict

`debian-packages`: `package` (unique), `section` (58 weak labels), `summary`, and `embedding`, a
fixed_size_list<float16>[128]: sentence embeddings (all-MiniLM-L6-v2) of "package: summary" from the
Debian 12 package index, reduced by PCA and scaled to unit length.

`friedman`: `id`, `x` (fixed_size_list<float32>[10]) and `y`: 5,000 rows of `friedman(5000)`.

May import: measures, compiled, errors, types. Knows nothing of stores, engines or stages.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from simdist.datasets.regression import Regression, friedman
from simdist.datasets.synthetic import (
    Labelled,
    clusters,
    constant_columns,
    duplicates,
    hub_gaussian,
    manifold,
    two_far_clusters,
)
from simdist.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Labelled",
    "Regression",
    "clusters",
    "constant_columns",
    "duplicates",
    "friedman",
    "hub_gaussian",
    "load",
    "manifold",
    "names",
    "path",
    "two_far_clusters",
]

_DATA = Path(__file__).parent / "data"


def names() -> tuple[str, ...]:
    """The bundled data sets, by name."""
    return tuple(sorted(file.stem for file in _DATA.glob("*.parquet")))


def path(name: str) -> Path:
    """The Parquet file behind `datasets://name`. ConfigError for a name that does not ship."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no data set {name!r} ships with simdist.{hint} There is: {names()}.")
    return _DATA / f"{name}.parquet"


def load(name: str) -> pa.Table:
    """A bundled data set as an Arrow table. ConfigError for a name that does not ship."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - generators need no Arrow

    return pq.read_table(path(name))
