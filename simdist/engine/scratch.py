"""Where arrays are put when nobody named a store: .npy files that workers on this machine map."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from simdist.npy import HEADER_NBYTES, read_header
from simdist.types import Array

__all__ = ["FileArray", "FileScratch"]


@dataclass(frozen=True, slots=True)
class FileArray:
    """An array in a file; `load` maps it read-only: the page cache is the worker's cache."""

    path: str

    def load(self) -> Array:
        with open(self.path, "rb") as file:
            shape, dtype, fortran, begin = read_header(file.read(HEADER_NBYTES))
        if 0 in shape:
            return np.empty(shape, dtype)
        order: Literal["F", "C"] = "F" if fortran else "C"
        return np.memmap(self.path, dtype=dtype, mode="r", offset=begin, shape=shape, order=order)


class FileScratch:
    """A temporary folder of arrays, private to this user; `close` removes it.

    A worker that still maps a file keeps its bytes until it lets go.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="simdist-scratch-"))
        self._count = 0

    def save(self, array: Array) -> FileArray:
        self._count += 1
        path = self._folder / f"{self._count:06d}.npy"
        np.save(path, array, allow_pickle=False)
        return FileArray(str(path))

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
