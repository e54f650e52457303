"""BLAS and LAPACK that other threads run beside, on float64 matrices in Fortran order.

SciPy's own wrappers hold the interpreter's lock while they compute: two threads that factor two
matrices take turns, on however many cores. The same routines of the same library are there for
Cython as plain pointers; called through them, the lock is free, and the bits are the same.

    syrk  C += A A^T          trsm  B = L^-1 B         potrf  A = L L^T
    gemm  C = beta C + A B    trmm  B = L B            potrs  B = A^-1 B    potri  A^-1

All write into their last argument. A triangle is the lower one; above it nothing is read or
written, but where `potrf` is asked to.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from simdist.types import Float64

__all__ = ["gemm", "potrf", "potri", "potrs", "syrk", "trmm", "trsm"]

_LOWER, _LEFT, _PLAIN, _TURNED = (ctypes.c_char(letter) for letter in (b"L", b"L", b"N", b"T"))
_UPPER = ctypes.c_char(b"U")


def syrk(A: Float64, C: Float64) -> None:
    """C + A A^T into the lower triangle of C. A: [m, r], C: [m, m]."""
    m, r = A.shape
    _shaped(C, m, m)
    one = ctypes.c_double(1.0)
    _call("blas", "dsyrk", _LOWER, _PLAIN, m, r, one, A, m, one, C, m)


def gemm(A: Float64, B: Float64, C: Float64, *, beta: float = 0.0, turned: bool = False) -> None:
    """beta C + A B into C. A: [m, k], B: [k, n], or [n, k] where it is `turned`, C: [m, n]."""
    m, k = A.shape
    n = B.shape[0 if turned else 1]
    _shaped(B, *((n, k) if turned else (k, n)))
    _shaped(C, m, n)
    way, one, share = _TURNED if turned else _PLAIN, ctypes.c_double(1.0), ctypes.c_double(beta)
    _call("blas", "dgemm", _PLAIN, way, m, n, k, one, A, m, B, len(B), share, C, m)


def trsm(L: Float64, B: Float64, *, turned: bool = False) -> None:
    """L^-1 B into B, or L^-T B where L is `turned`. L: [m, m], B: [m, n]."""
    _triangular("dtrsm", L, B, turned)


def trmm(L: Float64, B: Float64, *, turned: bool = False) -> None:
    """L B into B, or L^T B where L is `turned`. L: [m, m], B: [m, n]."""
    _triangular("dtrmm", L, B, turned)


def potrf(A: Float64, *, upper: bool = False, clean: bool = False) -> int:
    """The Cholesky factor L of A into its lower triangle, or L^T into its `upper` one. A: [m, m].

    clean: the other triangle becomes 0. Returns 0, or the first row, counted from 1, where A is
    not positive definite.
    """
    info = _factor("dpotrf", A, _UPPER if upper else _LOWER)
    if clean:
        rows = A.T if upper else A
        for j in range(1, len(A)):
            rows[:j, j] = 0.0
    return info


def potrs(L: Float64, B: Float64) -> None:
    """A^-1 B into B, where L is what `potrf` left of A. L: [m, m], B: [m, n]."""
    m, n = B.shape
    _shaped(L, m, m)
    _call("lapack", "dpotrs", _LOWER, m, n, L, m, B, m, ctypes.c_int())


def potri(L: Float64) -> None:
    """The lower triangle of A^-1 into L, which `potrf` left of A. L: [m, m]."""
    _factor("dpotri", L, _LOWER)


def _triangular(name: str, L: Float64, B: Float64, turned: bool) -> None:
    m, n = B.shape
    _shaped(L, m, m)
    way, one = _TURNED if turned else _PLAIN, ctypes.c_double(1.0)
    _call("blas", name, _LEFT, _LOWER, way, _PLAIN, m, n, one, L, m, B, m)


def _factor(name: str, A: Float64, triangle: ctypes.c_char) -> int:
    m, info = len(A), ctypes.c_int()
    _shaped(A, m, m)
    _call("lapack", name, triangle, m, A, m, info)
    return info.value


def _shaped(A: Float64, rows: int, columns: int) -> None:
    if A.shape != (rows, columns):
        raise ValueError(f"a matrix of shape {A.shape}: expected {(rows, columns)}")


def _call(of: str, name: str, *arguments: Any) -> None:
    """A routine, which takes every argument by its address; a number is one of its integers."""
    passed = []
    for argument in arguments:
        if isinstance(argument, int):
            passed.append(ctypes.byref(ctypes.c_int(max(1, argument))))
        elif isinstance(argument, ctypes._SimpleCData):
            passed.append(ctypes.byref(argument))
        else:
            if argument.dtype != "float64" or not argument.flags.f_contiguous:
                raise ValueError(
                    f"{name} of a matrix {argument.shape} of {argument.dtype}: expected float64 in"
                    " Fortran order"
                )
            passed.append(argument.ctypes.data_as(ctypes.c_void_p))
    _routine(of, name)(*passed)


@cache
def _routine(of: str, name: str) -> Callable[..., None]:
    """A routine of "blas" or "lapack"; a function that ctypes calls without the lock."""
    from importlib import import_module  # noqa: PLC0415 - only where something is computed

    capsule = import_module(f"scipy.linalg.cython_{of}").__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = (
        ctypes.c_char_p,
        [ctypes.py_object],
    )
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    pointer = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    return ctypes.CFUNCTYPE(None)(pointer)
