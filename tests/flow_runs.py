"""Flows to run on Prefect, and what its API says of their runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

T = TypeVar("T")

FLOW = """\
name: {name}
store: {folder}/store
engine: {{kind: local, workers: 2, memory: 1GiB, retries: 0}}
inputs:
  fruit: {{path: "{folder}/fruit.parquet", id: name, vector: embedding}}
steps:
  graph: {{stage: knn_graph, of: fruit, k: 5, {graph}}}
"""


def salad(folder: Path, *, name: str, rows: int = 400, graph: str = "recall: 0.9") -> Path:
    """Write vectors and the YAML of a flow over them; the YAML's path. graph: its other keys."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(11)
    flat = pa.array(rng.standard_normal(rows * 8).astype(np.float32))
    vectors = pa.FixedSizeListArray.from_arrays(flat, 8)
    names = [f"fruit-{row}" for row in range(rows)]
    pq.write_table(pa.table({"name": names, "embedding": vectors}), folder / "fruit.parquet")
    path = folder / f"{name.replace('_', '-')}.yaml"
    path.write_text(FLOW.format(folder=folder, name=name, graph=graph))
    return path


def slow_salad(folder: Path, *, name: str, how: str, rows: int = 400, graph: str = "") -> Path:
    """A flow whose blocks take their time, and leave traces in its folder: see `slow_measure`."""
    measure = f'measure: {{name: "slow_measure:Slow", folder: "{folder}", {how}}}'
    return salad(folder, name=name, rows=rows, graph=f"recall: 0.9, {measure}{graph}")


def until(ask: Callable[[], T | None], *, seconds: float = 300.0, said: str = "") -> T:
    """What `ask` gives, when it gives something; the test fails, with `said`, past `seconds`."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if (found := ask()) is not None:
            return found
        time.sleep(0.2)
    pytest.fail(f"not seen within {seconds} s. {said}")


@dataclass(frozen=True)
class Runs:
    """Prefect's API as people use it. url: ends with /api."""

    url: str

    def ask(self, path: str, **body: Any) -> Any:
        """The answer to a POST."""
        return self.send("POST", path, body).json()

    def get(self, path: str) -> Any:
        return self.send("GET", path, None).json()

    def send(self, method: str, path: str, body: Any) -> httpx.Response:
        """As Prefect's own client: 503 means that the database is busy, and to ask again."""

        def answered() -> httpx.Response | None:
            got = httpx.request(method, f"{self.url}/{path}", json=body, timeout=180)
            return None if got.status_code == httpx.codes.SERVICE_UNAVAILABLE else got

        answer = until(answered)
        answer.raise_for_status()
        return answer

    def last(self, name: str) -> str:
        """The id of the last run of that name."""
        named = {"name": {"any_": [name]}}
        found = self.ask("flow_runs/filter", flow_runs=named, sort="START_TIME_DESC")
        return str(found[0]["id"])

    def run(self, run: str) -> Any:
        return self.get(f"flow_runs/{run}")

    def ended(self, run: str, *, said: str = "") -> Any:
        """The run, when its state is a final one."""

        def final() -> Any | None:
            found = self.run(run)
            ends = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            return found if found["state_type"] in ends else None

        return until(final, said=said)

    def tasks(self, run: str, *, number: int) -> list[Any]:
        """Its task runs in the order they began, when so many have ended: Prefect records them in
        the background."""

        def recorded() -> list[Any] | None:
            runs = self.ask("task_runs/filter", flow_runs={"id": {"any_": [run]}})
            ended = [r for r in runs if r["state_type"] in ("COMPLETED", "FAILED", "CRASHED")]
            return ended if len(ended) == number else None

        return sorted(until(recorded), key=lambda run: run["start_time"])

    def artifacts(self, run: str) -> Mapping[str, Any]:
        """The run's artifacts by key."""
        found = self.ask("artifacts/filter", flow_runs={"id": {"any_": [run]}})
        return {artifact["key"]: artifact for artifact in found if artifact["key"]}

    def everything(self) -> str:
        """All that the API shows of runs: for secrets to be looked for in."""
        paths = ("flow_runs", "task_runs", "artifacts", "logs", "variables", "deployments")
        return "\n".join(self.send("POST", f"{path}/filter", {}).text for path in paths)
