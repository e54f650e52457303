"""One flow, and what it commits: the same bytes, wherever it is submitted."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clusters.servers import environment

WAIT = 240.0

FLOW = """
name: packages
store: {store}
engine: {engine}
inputs:
  packages: {{path: datasets://debian-packages, id: package, vector: embedding}}
steps:
  graph: {{stage: knn_graph, of: packages, k: 5, measure: cosine, recall: 0.5}}
"""


def write_flow(folder: Path, engine: Mapping[str, Any]) -> Path:
    """A config with a store of its own beside it."""
    folder.mkdir(parents=True)
    path = folder / "flow.yaml"
    path.write_text(FLOW.format(store=folder / "store", engine=json.dumps(dict(engine))))
    return path


def committed(flow: Path) -> dict[str, str]:
    """sha256 of each manifest, by the file's name, which is its fingerprint."""
    manifests = (flow.parent / "store" / "manifests").glob("*.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in manifests}


def simdist(*words: object, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return finish([sys.executable, "-W", "error", "-m", "simdist", *map(str, words)], env)


def finish(command: Sequence[str], env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**environment(), **env},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,  # what it said on stderr belongs into the assertion
    )
