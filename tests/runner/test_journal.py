"""How a job went is kept beside its dataset, and nothing depends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from runner.fakes import Script, Sums, job_of

from simdist.engine import Engine
from simdist.errors import StoreError, TaskFailed
from simdist.runner import Forecast, Job, RoundForecast, run
from simdist.runner.journal import Run, last_run
from simdist.store import Store, maintenance


class Foreseen(Sums):
    """Says what its rounds will write; its input has no shape of its own."""

    told: ClassVar[tuple[RoundForecast, ...]] = (
        RoundForecast("numbers", 4, written=4 * 192),
        RoundForecast("sums", 4),
    )

    def forecast(self, config: Script, rows: int, dim: int) -> Forecast:
        return Forecast(8, 1 << 10, 0.0, 0, self.told)


def went(store: Store, fingerprint: str) -> Run:
    found = last_run(store, fingerprint)
    assert found is not None
    return found


def test_a_run_keeps_what_each_round_took_and_left(
    script: Script, store: Store, one_worker: Engine
) -> None:
    dataset = run(job_of(script), store=store, engine=one_worker)
    told = went(store, dataset.fingerprint)
    assert (told.stage, told.rows, told.engine, told.workers) == ("sums", 4, "local", 1)
    assert [(step.name, step.tasks, step.ran) for step in told.rounds] == [
        ("numbers", 4, 4),
        ("sums", 4, 4),
    ]
    sums = told.rounds[1]
    assert sums.written == sum(s.objects["array"].nbytes for s in dataset.shards)
    assert sums.objects == 4
    assert sums.facts == {"sum": sum(dataset.metrics["sums"])}
    assert 0 < sums.longest <= sums.task_seconds <= told.seconds
    assert sum(step.seconds for step in told.rounds) <= told.seconds


def test_a_resumed_run_counts_only_what_it_did_itself(
    script: Script, store: Store, one_worker: Engine
) -> None:
    with pytest.raises(TaskFailed):
        run(job_of(script.failing("sums-002")), store=store, engine=one_worker)
    dataset = run(job_of(script), store=store, engine=one_worker)
    numbers, sums = went(store, dataset.fingerprint).rounds
    assert (numbers.tasks, numbers.ran) == (4, 0)
    assert numbers.written > 0
    assert 0 < sums.ran < 4


def test_a_run_with_nothing_to_do_leaves_the_journal_of_the_one_that_did(
    script: Script, store: Store, one_worker: Engine
) -> None:
    dataset = run(job_of(script), store=store, engine=one_worker)
    before = list(store.objects.list("runs"))
    run(job_of(script), store=store, engine=one_worker)
    assert list(store.objects.list("runs")) == before
    assert len(before) == 1
    assert before[0].key.startswith(f"runs/{dataset.fingerprint}/")


def test_a_dataset_whose_journal_is_lost_or_cannot_be_kept_is_a_dataset(
    script: Script, store: Store, one_worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise StoreError("no room")

    monkeypatch.setattr(Store, "write_run", refuse)
    with pytest.warns(RuntimeWarning, match="is committed, but how long it took is not kept: no"):
        dataset = run(job_of(script), store=store, engine=one_worker)
    assert store.manifest(dataset.fingerprint) is not None
    assert last_run(store, dataset.fingerprint) is None


def test_gc_leaves_journals(script: Script, store: Store, one_worker: Engine) -> None:
    dataset = run(job_of(script), store=store, engine=one_worker)
    maintenance.gc(store, delete=True, older_than=maintenance.GRACE * 0)
    assert went(store, dataset.fingerprint).rows == 4


def test_what_was_forecast_is_kept_beside_what_happened(
    script: Script, store: Store, one_worker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(Foreseen(), script, {})
    dataset = run(job, store=store, engine=one_worker)
    assert went(store, dataset.fingerprint).forecast == (), "nobody said what shape the input has"
    commit = Foreseen.next
    monkeypatch.setattr(Foreseen, "next", _with_dim(commit))
    monkeypatch.setattr(Foreseen, "VERSION", 2)
    again = run(job, store=store, engine=one_worker)
    told = went(store, again.fingerprint)
    assert told.forecast == Foreseen.told
    assert [(step.name, cost) for step, cost in told.paired()] == [
        ("numbers", Foreseen.told[0]),
        ("sums", Foreseen.told[1]),
    ]


def _with_dim(following: Callable[..., Any]) -> Callable[..., Any]:
    """`next` of a stage whose dataset says how many dimensions it has."""
    from dataclasses import replace

    def step(*arguments: Any) -> Any:
        made = following(*arguments)
        return replace(made, metrics={**made.metrics, "dim": 8}) if hasattr(made, "rows") else made

    return step
