"""What driver and workers of one machine tell each other by files: cancelled, started, not ended.

Schedulers cancel by messages that race with the task: Dask's arrive some milliseconds later, and
`ray.cancel` aborts the whole driver when the task ends at that moment (a failed check on
`submissible_tasks_`, ray issue 54846). A file stands at once, and a worker looks for it just
before it would call the task's function.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

__all__ = ["Flags", "is_raised", "starts"]


class Flags:
    """A temporary folder with a file for each cancelled task; `close` removes it.

    Workers that see the folder see this machine's files, which `put` may then use as well.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="simdist-flags-"))
        self._counter = count()

    def new(self) -> str:
        """A flag, not raised: the path of a file that does not exist."""
        return str(self.folder / str(next(self._counter)))

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def is_raised(flag: str | None) -> bool:
    """None is a flag that nobody can raise: the worker is on another machine."""
    return flag is not None and os.path.exists(flag)


@contextmanager
def starts(flag: str | None) -> Iterator[int]:
    """How often a task has been started and its worker did not live to see the end, this included.

    A byte for each start in a file that the end removes. Schedulers count deaths of workers, and
    blame those that only waited there as well.
    """
    if flag is None:
        yield 1  # nobody can count them
        return
    path = f"{flag}-starts"
    # Missing only where the driver has closed, and its folder is gone.
    with suppress(FileNotFoundError), open(path, "ab") as file:
        file.write(b".")
    try:
        yield os.path.getsize(path) if os.path.exists(path) else 1
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
