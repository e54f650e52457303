"""The header of an .npy file, read without evaluating it.

numpy parses these headers with `ast`. On CPython 3.11 that parser keeps its depth per interpreter,
and threads that map and drop files at the same time can break it in mid-parse (SystemError: AST
constructor recursion depth mismatch). Reading the three fields by pattern has no such state.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np

__all__ = ["HEADER_NBYTES", "read_header"]

HEADER_NBYTES = 4096  # enough for the header of any plain matrix

_MAGIC = b"\x93NUMPY"
_PLAIN = "biufc"  # kinds of numbers and booleans
_LENGTH_NBYTES = {1: 2, 2: 4, 3: 4}  # by major version
_FIELDS = re.compile(
    r"\{\s*'descr':\s*'([<>|=]?[a-zA-Z]\d*)',\s*'fortran_order':\s*(True|False),"
    r"\s*'shape':\s*\(([\d\s,]*)\),?\s*\}\s*"
)


def read_header(start: bytes) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """(shape, dtype, Fortran order, where the data begins) of an .npy file of one plain dtype.

    start: the file's first bytes, HEADER_NBYTES of them or all there are.
    Raises ValueError where they are no such header (no .npy file, named fields, objects, cut).
    """
    if start[:6] != _MAGIC or len(start) < 10 or start[6] not in _LENGTH_NBYTES:
        raise ValueError(f"no .npy header; it begins with {start[:8]!r}")
    width = _LENGTH_NBYTES[start[6]]
    begin = 8 + width
    end = begin + int.from_bytes(start[8:begin], "little")
    fields = _FIELDS.fullmatch(start[begin:end].decode("latin1"))
    if end > len(start) or fields is None:
        raise ValueError(
            "its .npy header is cut short or names fields; expected one plain array of numbers"
        )
    descr, fortran, sides = fields.groups()
    shape = tuple(int(side) for side in sides.split(",") if side.strip())
    if max(shape, default=0) > sys.maxsize:
        raise ValueError(f"its .npy header tells a shape that no array has: {sides.strip()[:100]}")
    dtype = np.dtype(descr)
    if dtype.kind not in _PLAIN:  # objects would be pointers, taken from the file
        raise ValueError(f"its .npy header says {descr!r}; expected numbers or booleans")
    return shape, dtype, fortran == "True", end
