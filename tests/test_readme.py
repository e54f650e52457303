"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
import yaml

from simdist.config import load, parse
from simdist.store import open_store

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_config_shown_is_the_one_that_ships() -> None:
    shown = parse(blocks("yaml")[0])
    shipped = load(ROOT / "configs" / "debian-packages.yaml")
    assert shown == shipped.model_copy(update={"examples": ()})


def test_every_line_to_change_is_valid() -> None:
    for line in blocks("yaml")[1].splitlines():
        key, value = next(iter(yaml.safe_load(line).items()))
        changed = parse(blocks("yaml")[0], overrides=[f"{key}={yaml.safe_dump(value)}"])
        assert getattr(changed, key) != getattr(parse(blocks("yaml")[0]), key)


@pytest.mark.parametrize("shown", [b for b in blocks("python") if "import simdist" in b])
def test_the_python_calls_run(shown: str, tmp_path: Path) -> None:
    script = tmp_path / "shown.py"
    script.write_text(shown)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


def test_the_query_finds_the_neighbors_of_a_package(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "simdist",
            "run",
            "configs/debian-packages.yaml",
            "--store",
            tmp_path,
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=240,
    )
    graph = open_store(tmp_path).dataset("debian-packages.graph")
    query = blocks("sql")[0].replace("runs/debian", str(tmp_path))
    rows = duckdb.sql(query.replace("FINGERPRINT", graph.fingerprint)).fetchall()
    assert [row[0] for row in rows] == ["tshark"] * 5
    assert rows[0][1:] == ("wireshark-dev", pytest.approx(0.832))


def test_the_measure_shown_agrees_with_itself() -> None:
    space: dict[str, object] = {}
    exec(next(b for b in blocks("python") if "class Chebyshev" in b), space)
    measure = space["Chebyshev"]()  # type: ignore[operator]
    rows = np.random.default_rng(3).standard_normal((4, 3), dtype=np.float32)
    expected = [[measure.pair(x, y) for y in rows] for x in rows]
    assert np.allclose(measure.block(rows, rows), expected)
