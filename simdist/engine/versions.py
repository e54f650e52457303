"""Do driver and workers speak the same language? Compared when an engine connects, and by every
task where it runs, since workers join later."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import cache

from simdist.errors import EngineError

__all__ = ["here", "joined_late", "probe", "refuse_differences"]


def probe(folder: str) -> Callable[[], tuple[dict[str, str], bool]]:
    """A function that names the versions where it runs, and says whether it sees `folder`.

    An inner function travels by value: it works, and can say so, where simdist is not installed.
    """

    def look() -> tuple[dict[str, str], bool]:
        # Imported where it runs: what travels by value takes no module globals along.
        import importlib.metadata  # noqa: PLC0415
        import importlib.util  # noqa: PLC0415
        import os  # noqa: PLC0415
        import platform  # noqa: PLC0415

        found = {"python": ".".join(platform.python_version_tuple()[:2])}
        for package in ("simdist", "numpy"):
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                here = importlib.util.find_spec(package) is not None
                found[package] = "a checkout" if here else "not installed"
        return found, os.path.isdir(folder)

    return look


@cache
def here() -> dict[str, str]:
    """The versions of this process."""
    return probe(os.devnull)()[0]


def refuse_differences(mine: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]) -> None:
    """EngineError with a table where a worker's versions are not this process's.

    workers: address -> versions. The table has one line for each worker that differs.
    """
    differing = {name: found for name, found in workers.items() if dict(found) != dict(mine)}
    if differing:
        raise EngineError(
            f"{len(differing)} of {len(workers)} workers have other versions than this process, so "
            f"results could differ or not load:\n{_table({'this process': mine, **differing})}\n"
            "Install the same Python, simdist and numpy on both sides"
        )


def joined_late(asked: Mapping[str, str]) -> EngineError:
    """What a task raises on a worker whose versions are not those of the driver that sent it."""
    worker = f"{socket.gethostname()} pid {os.getpid()}"
    return EngineError(
        "a worker that joined later has other versions than the driver, so results could differ or "
        f"not load:\n{_table({'the driver': asked, worker: here()})}\n"
        "Remove it, or install the same Python, simdist and numpy there, and run again"
    )


def _table(versions: Mapping[str, Mapping[str, str]]) -> str:
    """A line for each name; the columns are those of the first."""
    packages = list(next(iter(versions.values())))
    rows = [["", *packages]]
    rows += [[name, *(found.get(p, "?") for p in packages)] for name, found in versions.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(["", *map(str.ljust, row, widths)]).rstrip() for row in rows)
