"""Do driver and workers speak the same language? Compared once, when an engine connects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simdist.errors import EngineError

__all__ = ["probe", "refuse_differences"]


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


def refuse_differences(here: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]) -> None:
    """EngineError with a table where a worker's versions are not this process's.

    workers: address -> versions. The table has one line for each worker that differs.
    """
    differing = {name: found for name, found in workers.items() if dict(found) != dict(here)}
    if not differing:
        return
    rows = [["", *here], ["this process", *here.values()]]
    rows += [[name, *(found.get(p, "?") for p in here)] for name, found in differing.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = "\n".join("  ".join(["", *map(str.ljust, row, widths)]).rstrip() for row in rows)
    raise EngineError(
        f"{len(differing)} of {len(workers)} workers have other versions than this process, so "
        f"results could differ or not load:\n{table}\n"
        "Install the same Python, simdist and numpy on both sides"
    )
