"""The rows that contenders are measured on, each with exact neighbours of some of them.

    opened("packages", k=15)               real: 63,666 x 384 sentence embeddings, cosine
    opened("easy", k=15, rows=100_000)     the first 100,000 of a seeded synthetic million

A set is written once as .npy into a folder, with the exact neighbours of 2,000 sampled rows, as
faiss finds them, beside it. Rows are drawn by a seed that nothing else uses: what simdist samples
to measure its own recall are other rows (but for chance).
"""

from __future__ import annotations

import hashlib
import inspect
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import simdist as sd
from tests.bench.data import EMBEDDINGS, embeddings

__all__ = ["ADVERSARIAL", "FOLDER", "MAKERS", "DataSet", "Made", "Truth", "opened"]

FOLDER = Path(os.environ.get("SIMDIST_BENCH_DATA", tempfile.gettempdir())) / "simdist-bench-data"
MNIST = EMBEDDINGS.with_name("mnist-10k.npz")
SAMPLED = 2000
SEED = 4711  # of the rows whose exact neighbours are known


class Made(NamedTuple):
    """Rows [n, d] float32, and the measure they are compared by."""

    rows: np.ndarray
    measure: str


class Truth(NamedTuple):
    """Sampled rows [m], their exact neighbours [m, k], and how far the k-th of each is [m]."""

    rows: np.ndarray
    ids: np.ndarray
    kth: np.ndarray


@dataclass(frozen=True, slots=True)
class DataSet:
    """A set on disk. path: .npy of n rows of d float32 each. truth: .npz of a `Truth` for k."""

    name: str
    measure: str
    n: int
    d: int
    k: int
    path: Path
    truth: Path

    @property
    def nbytes(self) -> int:
        return 4 * self.n * self.d


# -- real --


def packages(n: int | None) -> Made:
    """63,666 Debian packages, all-MiniLM-L6-v2 embeddings of "package: summary", unit rows of 384
    (the 12,000 x 128 that ship where the shared file is not here). Fewer: drawn at random."""
    x = embeddings()
    if n is not None and n < len(x):
        x = x[np.sort(np.random.default_rng(5).permutation(len(x))[:n])]
    return Made(x, "cosine")


def mnist(n: int | None) -> Made:
    """The MNIST test set, 10,000 images of 784 pixels from 0 to 255, euclidean."""
    if not MNIST.exists():
        raise SystemExit(f"mnist: {MNIST} is not on this machine; leave it out with --data")
    return Made(np.load(MNIST)["images"].astype(np.float32)[:n], "euclidean")


# -- synthetic --


def easy(n: int | None) -> Made:
    """1,000,000 x 128 of intrinsic dimension 16: `sd.datasets.manifold`, x = sin(z A + b) B with
    z ~ N(0, I_16), and noise of 0.01 a coordinate. Fewer rows are the first of them."""
    return Made(sd.datasets.manifold(n or 1_000_000, 128, 16, seed=7), "euclidean")


def hard(n: int | None) -> Made:
    """300,000 x 384 of intrinsic dimension 60: `sd.datasets.manifold` with z ~ N(0, I_60)."""
    return Made(sd.datasets.manifold(n or 300_000, 384, 60, seed=7), "euclidean")


def leaderboard(n: int | None) -> Made:
    """200,000 x 1024 unit rows that are as hard as real embeddings and have their spectrum.

    Rows lie in families, families in 300 topics (a topic's share falls as 1 / rank), all in a
    latent space of 20 dimensions; sin features of random direction make 1024 of these, a row adds
    noise of its own scale, and feature j is scaled to variance lambda_j: the eigenvalues of the
    package embeddings, stretched from 384 to 1024 places. Then a mean as long as theirs (0.38),
    a random rotation, unit length. Full rank, nothing padded.

    The constants were chosen so that 30,000 rows resemble 30,000 package embeddings in what makes
    the neighbours hard to find; `python -m tests.bench.datasets` prints both.
    """
    n, d, latent, topics = n or 200_000, 1024, 20, 300
    rng = np.random.default_rng(1024)
    families = n // 8
    topic = rng.choice(topics, families, p=_falling(topics, 1.0))
    wide = 0.6 * np.exp(0.4 * rng.standard_normal(topics))[topic]
    middle = rng.standard_normal((topics, latent))[topic]
    middle += wide[:, None] * rng.standard_normal((families, latent))
    narrow = 0.5 * np.exp(0.7 * rng.standard_normal(families)) * wide
    family = rng.choice(families, n, p=_falling(families, 0.5))
    A = (1.5 * rng.standard_normal((latent, d)) / np.sqrt(latent)).astype(np.float32)
    b = rng.uniform(0, 2 * np.pi, d).astype(np.float32)
    spectrum = _spectrum(d)
    scale = np.sqrt(spectrum).astype(np.float32)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0].astype(np.float32)
    mean = rng.standard_normal(d)
    mean *= np.sqrt(1 - spectrum.sum()) / np.linalg.norm(mean)
    x = np.empty((n, d), np.float32)
    for start in range(0, n, 16_384):
        part = family[start : start + 16_384]
        z = middle[part] + narrow[part, None] * rng.standard_normal((len(part), latent))
        rows = np.sqrt(np.float32(2)) * np.sin(z.astype(np.float32) @ A + b)
        own = 0.2 * np.exp(0.4 * rng.standard_normal((len(part), 1), dtype=np.float32))
        rows += own * rng.standard_normal(rows.shape, dtype=np.float32)
        rows = (rows * scale) @ rotation + mean.astype(np.float32)
        x[start : start + 16_384] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Made(x, "cosine")


def _spectrum(d: int) -> np.ndarray:
    """Eigenvalues of the packages' covariance, stretched to d places; their sum stays the same."""
    x = embeddings()
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    values = values[values > 1e-6 * values[0]]  # one direction of theirs is empty
    places = (np.arange(d) + 0.5) / d * len(values) - 0.5
    stretched = np.interp(places, np.arange(len(values)), values)
    return stretched * values.sum() / stretched.sum()


def _falling(n: int, power: float) -> np.ndarray:
    """Shares that fall as 1 / rank^power."""
    share = np.arange(1, n + 1) ** -power
    return share / share.sum()


# -- adversarial --


def duplicates(n: int | None) -> Made:
    """The packages with 30 % of the rows replaced by exact copies of the others: a row's copies
    fall as 1 / rank, so that the first has some 1,600, far more than k."""
    x, measure = packages(n)
    rng = np.random.default_rng(30)
    n = len(x)
    order = rng.permutation(n)
    distinct = order[: n - round(0.3 * n)]
    copies = rng.choice(distinct, n - len(distinct), p=_falling(len(distinct), 1.0))
    rows = x[np.concatenate([distinct, copies])]
    return Made(rows[rng.permutation(n)], measure)


def giant(n: int | None) -> Made:
    """60,000 x 384, euclidean: six rows of ten in one cluster a hundredth as wide as the distance
    to the rest (a manifold of 16 dimensions inside), the others in 1,000 clusters."""
    n, d = n or 60_000, 384
    one = round(0.6 * n)
    rest = sd.datasets.clusters(n - one, d, 1000, seed=61, spread=0.3).rows
    inside = sd.datasets.manifold(one, d, 16, seed=62, noise=0.001)
    inside *= np.float32(0.01)
    rows = np.concatenate([inside, rest])
    return Made(rows[np.random.default_rng(63).permutation(n)], "euclidean")


def plane(n: int | None) -> Made:
    """60,000 points of a square, each turned into 384 columns by one random linear map: intrinsic
    dimension 2, no noise, euclidean."""
    n = n or 60_000
    rng = np.random.default_rng(2)
    rows = rng.random((n, 2)) @ rng.standard_normal((2, 384))
    return Made(rows.astype(np.float32), "euclidean")


def heavy(n: int | None) -> Made:
    """60,000 x 384, euclidean: a manifold of 16 dimensions, every row stretched by a Pareto factor
    of index 1.5 (no variance): a few rows lie thousands of times as far out as the others."""
    n = n or 60_000
    rows = sd.datasets.manifold(n, 384, 16, seed=15)
    rows *= 1 + np.random.default_rng(16).pareto(1.5, (n, 1)).astype(np.float32)
    return Made(rows, "euclidean")


def hubs(n: int | None) -> Made:
    """20,000 x 512 Gaussian rows with log-normal lengths (`sd.datasets.hub_gaussian`), euclidean:
    no structure for a partition to find, and the shortest rows are everybody's neighbours."""
    return Made(sd.datasets.hub_gaussian(n or 20_000, 512, seed=512), "euclidean")


ADVERSARIAL = ("duplicates", "giant", "plane", "heavy", "hubs")
MAKERS: dict[str, Callable[[int | None], Made]] = {
    maker.__name__: maker
    for maker in (
        packages,
        mnist,
        easy,
        hard,
        leaderboard,
        duplicates,
        giant,
        plane,
        heavy,
        hubs,
    )
}


# -- on disk, with the truth --


def opened(name: str, *, k: int, rows: int | None = None, folder: Path = FOLDER) -> DataSet:
    """The set, made and written where the folder does not have it as it is made now."""
    if name not in MAKERS:
        raise SystemExit(f"--data {name}: expected some of {', '.join(MAKERS)}")
    folder.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(inspect.getsource(MAKERS[name]).encode()).hexdigest()[:6]
    stem = f"{name}-{rows or 'all'}-{recipe}"
    path, measure = folder / f"{stem}.npy", folder / f"{stem}.measure"
    if not measure.exists():  # written last
        made = MAKERS[name](rows)
        np.save(path, made.rows)
        measure.write_text(made.measure)
    x = np.load(path, mmap_mode="r")
    truth = folder / f"{stem}-k{k}.truth.npz"
    if not truth.exists():
        found = _truth(np.load(path), measure.read_text(), k)
        part = truth.with_suffix(".part.npz")
        np.savez(part, **found._asdict())
        part.rename(truth)
    return DataSet(name, measure.read_text(), *x.shape, k, path, truth)


def _truth(x: np.ndarray, measure: str, k: int) -> Truth:
    import faiss

    rows = np.sort(np.random.default_rng(SEED).choice(len(x), min(SAMPLED, len(x)), replace=False))
    inner = measure == "cosine"  # unit rows
    metric = faiss.METRIC_INNER_PRODUCT if inner else faiss.METRIC_L2
    # more than k, recomputed in float64: the order among near-ties is then right
    _, near = faiss.knn(x[rows], x, min(k + 101, len(x)), metric=metric)
    ids = np.empty((len(rows), k), np.int64)
    kth = np.empty(len(rows))
    for place, (row, candidates) in enumerate(zip(rows, near, strict=True)):
        others = candidates[candidates != row]
        far = distances(x, row, others, measure)
        order = np.lexsort((others, far))[:k]
        ids[place], kth[place] = others[order], far[order[-1]]
    return Truth(rows, ids, kth)


def distances(x: np.ndarray, row: int, others: np.ndarray, measure: str) -> np.ndarray:
    """How far one row is from others, in float64: 1 - cosine, or euclidean."""
    a, b = x[row].astype(np.float64), x[others].astype(np.float64)
    if measure == "cosine":
        return 1 - b @ a / (np.linalg.norm(b, axis=1) * np.linalg.norm(a))
    return np.linalg.norm(b - a, axis=1)


# -- how hard the synthetic embeddings are, beside the real ones --


def main() -> None:
    """Print what makes neighbours hard to find, of real and of synthetic embeddings."""
    print(
        "| 30,000 rows of | local dimension, 20 neighbours: p10, median, p90 | 100 neighbours |"
        " distance of the 1st, 15th, 100th | skew of in-degrees | IVF 8 of 256 | NN-Descent 16 |"
    )
    print("|" + "---|" * 7)
    for name in ("packages", "leaderboard"):
        x = MAKERS[name](None).rows
        chosen = np.sort(np.random.default_rng(1).choice(len(x), min(len(x), 30_000), False))
        print(f"| {name} | {_difficulty(x[chosen])} |", flush=True)


def _difficulty(x: np.ndarray, k: int = 15) -> str:
    import faiss
    import pynndescent

    rows = np.random.default_rng(1).choice(len(x), SAMPLED, replace=False)
    squares, ids = faiss.knn(x[rows], x, 101)
    far = np.sqrt(np.maximum(squares[:, 1:], 1e-12))
    degrees = np.bincount(ids[:, 1 : k + 1].ravel(), minlength=len(x))
    skew = ((degrees - degrees.mean()) ** 3).mean() / degrees.std() ** 3
    index = faiss.index_factory(x.shape[1], "IVF256,Flat")
    index.train(x[:10_000])
    index.add(x)
    index.nprobe = 8
    ivf = index.search(x[rows], k + 1)[1]
    graph = pynndescent.NNDescent(x, n_neighbors=k + 1, n_trees=4, random_state=1)
    descent = graph.neighbor_graph[0][rows]
    near = np.percentile(_local_dimension(far[:, :20]), [10, 50, 90])
    shares = []
    for found in (ivf, descent):
        pairs = zip(found, ids[:, : k + 1], strict=True)
        shares.append(np.mean([(len(set(a) & set(b)) - 1) / k for a, b in pairs]))
    return (
        f"{near[0]:.1f}, {near[1]:.1f}, {near[2]:.1f} | {np.median(_local_dimension(far)):.1f} |"
        f" {', '.join(f'{np.median(far[:, i]):.2f}' for i in (0, 14, 99))} | {skew:.1f} |"
        f" {shares[0]:.3f} | {shares[1]:.3f}"
    )


def _local_dimension(far: np.ndarray) -> np.ndarray:
    """Maximum-likelihood estimate from each row's distances, ascending (Levina & Bickel 2004)."""
    logs = np.log(far[:, -1:] / far[:, :-1]).sum(axis=1)
    return (far.shape[1] - 1) / np.maximum(logs, 1e-9)


if __name__ == "__main__":
    main()
