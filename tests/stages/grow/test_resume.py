"""Growing is a job like any other: the same bytes everywhere, resumed where it broke off."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stages.graph.nasty import random
from stages.grow.growing import DisturbedAppend, DisturbedDelete, built, chain, computed

from simdist.engine import Engine, open_engine
from simdist.errors import TaskFailed
from simdist.models.chain import Link, run_link, run_links
from simdist.models.graphs import GraphDataset
from simdist.models.grow import append, append_links, compact, delete, delete_links
from simdist.models.vectors import import_array
from simdist.runner import Event
from simdist.runner.events import RoundStarted, StageDone
from simdist.store import Dataset, Store, open_store

ROWS, NEW = 4800, 300  # two blocks
X = random(ROWS + NEW, 8)
GONE = list(range(0, ROWS + NEW, 40))


def story(store: Store, engine: Engine) -> GraphDataset:
    """Built, appended to, thinned and compacted."""
    graph = append(built(X[:ROWS], engine, store=store), X[ROWS:], engine=engine)
    return compact(delete(graph, GONE, engine=engine), engine=engine)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Manifests of an undisturbed run with one worker."""
    with open_engine("local", workers=1) as engine:
        return chain(story(open_store(str(tmp_path_factory.mktemp("store"))), engine))


@pytest.mark.parametrize("kind", ["local", "dask"])  # two workers each
def test_the_same_bytes_whatever_the_engine_and_the_workers(
    kind: str, expected: dict[str, bytes], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine: Engine = request.getfixturevalue(f"{kind}_engine")
    assert chain(story(open_store(str(tmp_path)), engine)) == expected


@pytest.fixture
def graph(tmp_path: Path, local_engine: Engine) -> GraphDataset:
    return built(X[:ROWS], local_engine, store=open_store(str(tmp_path / "store")))


def appending(graph: Dataset, engine: Engine) -> tuple[Link, dict[str, Dataset]]:
    """The append itself, and what it needs."""
    *before, last = append_links("grown", "graph", "new")
    given = {"graph": graph, "new": import_array(X[ROWS:], store=graph.store, engine=engine)}
    return last, run_links(before, given, store=graph.store, engine=engine)


def deleting(graph: Dataset, engine: Engine) -> tuple[Link, dict[str, Dataset]]:
    """A delete after an append, and what it needs."""
    link, given = appending(graph, engine)
    made = run_link(link, given, store=graph.store, engine=engine)
    gone = graph.store.write_array("deleted", _rows(GONE))
    *before, last = delete_links("less", "grown", "vectors", gone)
    known = {"grown": made, "vectors": given["grown.vectors"]}
    return last, run_links(before, known, store=graph.store, engine=engine)


def _rows(rows: list[int]) -> Any:
    import numpy as np

    return np.array(rows, np.int64)


@pytest.mark.parametrize(
    ("prepare", "stage"), [(appending, DisturbedAppend), (deleting, DisturbedDelete)]
)
def test_a_failure_in_any_round_is_resumed_to_the_same_bytes(
    prepare: Any, stage: Any, graph: GraphDataset, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    told: list[Event] = []
    with open_engine("local", workers=1) as engine:  # one after the other: others are not lost
        link, given = prepare(graph, engine)
        rounds, tasks = _rounds_of(link, given, expected)
        for task in tasks:
            failing = replace(link, stage=stage(task, str(tmp_path)))
            with pytest.raises(TaskFailed, match=f"InjectedError: {task}$"):
                run_link(failing, given, store=graph.store, engine=engine)
        made = run_link(failing, given, store=graph.store, engine=engine, listeners=[told.append])
    assert made.manifest.to_bytes() == expected[made.fingerprint]
    assert list(made.metrics["rounds"]) == rounds
    assert set(computed(tmp_path).values()) == {1}
    starts = [event for event in told if isinstance(event, RoundStarted)]
    assert [event.tasks - event.done for event in starts[:-1]] == [0] * (len(starts) - 1)


def _rounds_of(
    link: Link, given: dict[str, Dataset], expected: dict[str, bytes]
) -> tuple[list[str], list[str]]:
    """The rounds of the undisturbed job, and the first task of each."""
    from simdist.models.chain import job_of
    from simdist.store import Manifest

    fingerprint = job_of(link, given).fingerprint
    rounds = list(Manifest.from_bytes(expected[fingerprint], where="").metrics["rounds"])
    names = {name: f"{name}-000000" for name in rounds}
    names |= {name: name for name in rounds if name.startswith("check")}
    return rounds, [names[name] for name in rounds if name != "finish"] + ["finish-000000"]


def test_a_process_killed_in_the_middle_is_resumed_to_the_same_bytes(
    graph: GraphDataset, tmp_path: Path, local_engine: Engine, expected: dict[str, bytes]
) -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parents[2])!r}]\n"
        "from stages.grow.test_resume import killed\n"
        f"killed({graph.store.uri!r}, {graph.fingerprint!r}, {str(tmp_path)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert computed(tmp_path)
    told: list[Event] = []
    made = append(graph, X[ROWS:], engine=local_engine, listeners=[told.append])
    assert made.manifest.to_bytes() == expected[made.fingerprint]
    assert sum(event.done for event in told if isinstance(event, RoundStarted)) > 0


def killed(uri: str, fingerprint: str, folder: str) -> None:
    """An append that kills its own process in the middle."""
    store = open_store(uri)
    with open_engine("local", workers=2) as engine:
        link, given = appending(store.dataset(fingerprint), engine)
        stage = DisturbedAppend("settle-0-000001", folder, dies=True)
        run_link(replace(link, stage=stage), given, store=store, engine=engine)


def test_a_second_call_does_nothing(graph: GraphDataset, local_engine: Engine) -> None:
    first = append(graph, X[ROWS:], engine=local_engine)
    told: list[Event] = []
    assert append(graph, X[ROWS:], engine=local_engine, listeners=[told.append]) == first
    assert all(event.reused for event in told if isinstance(event, StageDone))
    assert not any(isinstance(event, RoundStarted) for event in told)
