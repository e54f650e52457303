"""This process's environment, changed only while others start and inherit it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["keep"]


@contextmanager
def keep(names: Iterable[str]) -> Iterator[None]:
    """Whatever happens to these variables meanwhile, they are afterwards as they were.

    Thread counts meant for workers must not stay here: a library loaded later would take them up,
    and numba refuses to compile when its own has changed.
    """
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
