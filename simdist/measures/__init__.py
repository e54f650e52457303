"""What is similar: the content of one entry of the matrix, and the fast way to a block of them.

    resolve("cosine")                         rows [n, d] float16/32/64
          │                                            │
          ▼                                            ▼ prepare, once
       Measure                              Prepared: A [n, d] float32, terms s [n]
       ├ pair      float64, the definition             │
       ├ block     [n, m] ◄── correct ◄── nearness ◄───┤  A @ B.T + s + t, larger is nearer
       └ pairs     [n], row by row ◄───────────────────┘  one fixed compiled kernel

    rows.py       rows checked and prepared
    base.py       Measure, Traits
    vectors.py    Dot, Cosine, SqEuclidean, Euclidean, Manhattan
    bits.py       Hamming, Jaccard on rows of 0 and 1; Packed(either), on rows of bytes
    modifiers.py  Scaled(measure, lengthscales), Squash(distance, scale)
    kernels/      RBF, Matern, Linear ... and their sums: covariances in float64, with gradients
    surrogates.py what a measure's cells are formed under, and rows shifted for precise products
    resolve.py    a name, a mapping or 'package.module:Class' -> Measure

A measure knows rows, never tiles, engines or storage. May import `compiled`, `errors` and `types`;
importing it imports numpy and nothing heavier.

A measure of your own is a dozen lines, and works everywhere that a shipped one does:

    @dataclass(frozen=True, slots=True)
    class Chebyshev(Measure):
        name = "chebyshev"
        traits = Traits(kind="distance", metric=True, low=0.0)

        def pair(self, x, y):
            return float(np.abs(x - y).max())

        def block(self, X, Y):
            A, B = self.both(X, Y)
            values = np.empty((len(A), len(B)), np.float32)
            for i, a in enumerate(A.vectors):
                values[i] = np.abs(a - B.vectors).max(axis=1)
            return values
"""

from simdist.measures.base import Measure, Prepared, Rows, Traits
from simdist.measures.bits import Hamming, Jaccard, Packed
from simdist.measures.modifiers import Scaled, Squash
from simdist.measures.resolve import SHIPPED, resolve
from simdist.measures.vectors import Cosine, Dot, Euclidean, Manhattan, SqEuclidean

__all__ = [
    "SHIPPED",
    "Cosine",
    "Dot",
    "Euclidean",
    "Hamming",
    "Jaccard",
    "Manhattan",
    "Measure",
    "Packed",
    "Prepared",
    "Rows",
    "Scaled",
    "SqEuclidean",
    "Squash",
    "Traits",
    "resolve",
]
