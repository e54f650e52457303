"""What installing and importing simdist promises."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import simdist

ROOT = Path(__file__).parents[1]
HEAVY = [
    "ray",
    "dask",
    "distributed",
    "prefect",
    "torch",
    "numba",
    "pyarrow",
    "numpy",
    "scipy",
    "pydantic",
]


def imported_by(statement: str) -> set[str]:
    """Names of HEAVY that a fresh interpreter has imported after the statement."""
    code = f"import sys; {statement}; print(*(n for n in {HEAVY} if n in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_brings_in_no_scheduler_no_compiler_and_no_array_library() -> None:
    assert imported_by("import simdist") == set()


def test_the_command_line_starts_without_schedulers_and_compilers() -> None:
    heavy = imported_by("import simdist.cli")
    assert heavy <= {"numpy"}, heavy


def test_a_flow_is_read_without_schedulers_and_compilers() -> None:
    heavy = imported_by("import simdist.config as c; c.load('configs/debian-packages.yaml')")
    assert heavy <= {"numpy", "pydantic"}, heavy


@pytest.mark.parametrize("name", simdist.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(simdist, name) is not None
    assert name in dir(simdist)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'knn_grph'"):
        simdist.knn_grph  # noqa: B018


def project() -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def test_the_version_is_the_same_in_both_places() -> None:
    assert simdist.__version__ == project()["version"]


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_are_exact_versions_without_addresses_or_hashes() -> None:
    for line in constraints():
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.+]+( ; .+)?", line), line


def test_every_dependency_of_every_extra_is_constrained() -> None:
    pinned = {line.partition("==")[0] for line in constraints()}
    declared = project()
    wanted = list(declared["dependencies"])  # type: ignore[call-overload]
    for extra in declared["optional-dependencies"].values():  # type: ignore[attr-defined]
        wanted += extra
    names = {re.split(r"[\[<>=~! ]", need)[0].lower() for need in wanted} - {"simdist"}
    assert names
    assert names <= pinned
