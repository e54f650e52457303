"""Solvers on anything that offers a product; pure: arrays in, arrays out, no store, no engine.

    A X = product(X)       one pass: as many columns at once as there are
        │
    lobpcg ──> basis [X, P, W] ── moments ──> [m, w] sums, added over row blocks
        ^                                          │ rayleigh_ritz
        └───── combined rows <── coefficients ──────┘
    chebyshev: W = residuals through a polynomial of A, so that fewer bases are needed

    rayleigh    the small dense problem: a basis orthonormalised by its Gram's eigenvectors
    chebyshev   the polynomial that damps what is not wanted
    lobpcg      the steps of a block solver on row blocks, and the solver for a matrix in memory

and for what a Gram pass leaves, kernel machines and the like:

    pivoted     a Cholesky factor that leaves out what it cannot resolve
    ridge       ridge regression for every penalty at once, and rows left out
    cg          conjugate gradients, a column each; its state is what a round commits
    hinge       Newton's method for margins, from sums over rows

A step works on some rows of every block: whoever holds all rows runs it once, a distributed stage
runs it shard by shard and adds up the moments. May import `errors` and `types`.
"""
