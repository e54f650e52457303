"""One trial: a run, a fault in the middle of it, recovery, and what must hold afterwards."""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simdist.errors import ObjectMissing
from simdist.store import Manifest, Store, maintenance, open_store
from tests.chaos.driver import KILLED, Drive, Driver
from tests.chaos.gate import Held, open_gate, set_gate, wait_held
from tests.chaos.schedule import Trial
from tests.chaos.world import (
    World,
    computed,
    filled,
    journal,
    keys_of,
    same_manifests,
    staged,
    sweep,
)

__all__ = ["Outcome", "carry_out"]

RESUMABLE = 3  # the exit code that says: run again to go on


@dataclass(slots=True)
class Outcome:
    """What a trial found. problems: what must not be; none where all is well.

    recovered: without being run again. before: tasks with a record when the fault struck. after:
    tasks that ended after it. redone: tasks begun more than once. staged: files that killed writers
    left. seconds: of the whole trial.
    """

    id: str
    sort: str
    engine: str
    stage: str
    moment: str
    recovered: bool = False
    before: int = 0
    after: int = 0
    redone: int = 0
    staged: int = 0
    extra: int = 0
    same: bool = False
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def carry_out(trial: Trial, world: World) -> Outcome:
    """The trial from an empty store to the last check; never raises for what the run did."""
    began = time.monotonic()
    outcome = Outcome(trial.id, trial.sort, trial.engine, trial.stage, str(trial))
    folder = world.folder / "trials" / trial.id
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "ran").mkdir(parents=True)
    attempt = _Attempt(trial, world, folder, outcome)
    try:
        attempt.run()
    except Exception as error:
        outcome.problems.append(f"{type(error).__name__}: {error}")
        (folder / "trial.log").write_text(traceback.format_exc())
        attempt.give_up()
        world.forget(trial.engine)
    if trial.sort in ("worker", "node"):
        world.repair(trial.engine)
    outcome.seconds = round(time.monotonic() - began, 2)
    if not outcome.problems:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


class _Attempt:
    """The parts of a trial, in the order in which `run` calls them."""

    def __init__(self, trial: Trial, world: World, folder: Path, outcome: Outcome) -> None:
        self.trial, self.world, self.folder, self.outcome = trial, world, folder, outcome
        self.uri, self.options = self._place()
        self.store = open_store(self.uri, **self.options)
        self.drivers: list[Driver] = []

    def run(self) -> None:
        set_gate(self.folder, self.trial.gate)
        first = self._start("first")
        held = wait_held(self.folder, alive=first.alive)
        time.sleep(self.trial.jitter_ms / 1000)
        with self._fault(first, held):
            recorded, struck = self._recorded(first), time.time_ns()
            self.outcome.before = len(recorded)
            if self.trial.sort != "server":
                self._check_visible("at the fault")
            open_gate(self.folder)
            if self.trial.sort == "disk":
                first.wait()
        code = first.wait()
        self._check_visible("after the fault")
        self.outcome.recovered = code == 0
        if code != 0:
            self._again(first, code)
        self._check_work(recorded, struck)
        self._check_store()

    def give_up(self) -> None:
        """Nothing of this trial may live on beside the next."""
        open_gate(self.folder)
        for driver in self.drivers:
            with suppress(Exception):
                driver.kill()

    def _place(self) -> tuple[str, dict[str, str]]:
        if self.trial.sort == "server":
            where = self.world.server.where
            return where.new_uri(), {
                "endpoint": where.endpoint,
                "region": "us-east-1",
                "access_key_id": where.access_key,
                "secret_access_key": where.secret_key,
            }
        at = self.world.disk if self.trial.sort == "disk" else self.folder
        shutil.rmtree(at / "store", ignore_errors=True)
        return str(at / "store"), {}

    def _start(self, run: str) -> Driver:
        engine = self.world.engine(self.trial.engine)
        drive = Drive(
            str(self.world.data),
            str(self.folder),
            run,
            self.uri,
            engine,
            self.options,
            flow=self.world.flow,
        )
        self.drivers.append(self.world.nursery.start(drive))
        return self.drivers[-1]

    @contextmanager
    def _fault(self, driver: Driver, held: Held) -> Iterator[None]:
        """Strikes when entered; what can be repaired from outside is, when left."""
        match self.trial.sort:
            case "driver":
                driver.kill()
                yield
            case "worker":
                os.kill(self._victim(held), 9)
                yield
            case "node":
                cluster = self.world.cluster(self.trial.engine)
                assert cluster is not None
                cluster.remove_node(None if self.trial.stage == "commit" else held.pid)
                yield
            case "server":
                self.world.server.kill()
                yield
                time.sleep(self.trial.outage_ms / 1000)
                self.world.server.start()
            case "disk":
                with filled(self.world.disk, left=self.trial.left_nbytes):
                    yield

    def _victim(self, held: Held) -> int:
        """The worker that is held, or where the driver is, the one that last began a task."""
        if self.trial.stage != "commit":
            return held.pid
        return max(journal(self.folder), key=lambda begun: begun.at).pid

    def _recorded(self, driver: Driver) -> set[tuple[str, str]]:
        """Tasks that have a record now; of a server that is gone, those the driver was told of."""
        if self.trial.sort != "server":
            return _recorded(self.store)
        stage, told = "", set()
        for event in driver.events():
            if event["event"] == "stage_started":
                stage = event["fingerprint"]
            if event["event"] == "task_done":
                told.add((stage, event["key"]))
        return told

    def _again(self, first: Driver, code: int) -> None:
        """The first run ended: as it should have? Then run again."""
        expected = KILLED if self.trial.sort == "driver" else RESUMABLE
        if code != expected:
            self.outcome.problems.append(f"the first run ended with {code}, expected {expected}")
        if self.trial.sort == "disk" and "No space left" not in first.said:
            self.outcome.problems.append("the error does not say that the disk is full")
        ended = self._start("second").wait()
        if ended != 0:
            self.outcome.problems.append(f"the second run ended with {ended}")

    def _check_visible(self, when: str) -> None:
        """Each manifest that stands is a whole one of the undisturbed run's."""
        for info in self.store.objects.list("manifests"):
            try:
                data = self.store.objects.get(info.key)
            except ObjectMissing:
                continue
            if data != self.world.reference.manifests.get(info.key):
                self.outcome.problems.append(f"{when}: {info.key} is not the undisturbed run's")
                continue
            manifest = Manifest.from_bytes(data, where=info.key)
            lost = [ref.key for ref in manifest.refs() if not self.store.whole(ref)]
            if lost:
                self.outcome.problems.append(f"{when}: {info.key} stands, {lost} do not")

    def _check_work(self, recorded: set[tuple[str, str]], struck: int) -> None:
        """Only what was missing was done again."""
        begun = journal(self.folder)
        later = [entry for entry in begun if entry.at > struck]
        again = {(e.fingerprint, e.task) for e in later} & recorded
        if again:
            self.outcome.problems.append(f"computed again though recorded: {sorted(again)}")
        all_begun = computed(self.folder)
        self.outcome.after = len({(e.fingerprint, e.task) for e in later})
        self.outcome.redone = len(all_begun) - len(set(all_begun))
        if set(all_begun) != self.world.reference.tasks:
            self.outcome.problems.append("other tasks were begun than in the undisturbed run")
        if self.trial.sort == "driver" and self.trial.engine == "local":
            second = {(e.fingerprint, e.task) for e in begun if e.run == "second"}
            if second != self.world.reference.tasks - recorded:
                self.outcome.problems.append("the second run did not compute just what was missing")

    def _check_store(self) -> None:
        """The store holds what the undisturbed run's holds, and nothing else."""
        reference, store = self.world.reference, self.store
        keys = keys_of(store)
        self.outcome.same = same_manifests(store, reference)
        if not self.outcome.same:
            self.outcome.problems.append("the manifests are not the undisturbed run's")
        visible = ("manifests/", "names/")
        extra = [key for key in keys - reference.keys if key.startswith(visible)]
        self.outcome.extra = len(extra)
        if keys != reference.keys:
            self.outcome.problems.append(
                f"extra objects {sorted(keys - reference.keys)}, missing"
                f" {sorted(reference.keys - keys)}"
            )
        for key in keys & reference.manifests.keys():
            found = maintenance.verify(store, store.dataset(_fingerprint(key)))
            self.outcome.problems += [f"{item.key}: {item.problem}" for item in found.damaged]
        self.outcome.staged = len(staged(store))
        sweep(store)
        if keys_of(store) != reference.swept:
            self.outcome.problems.append("gc left other objects than in the undisturbed run's")
        if staged(store):
            self.outcome.problems.append(f"gc left staged files: {staged(store)}")


def _recorded(store: Store) -> set[tuple[str, str]]:
    found = set()
    for info in store.objects.list("records"):
        _, fingerprint, name = info.key.split("/", 2)
        if not name.startswith("round-"):
            found.add((fingerprint, name.removesuffix(".json")))
    return found


def _fingerprint(key: str) -> str:
    return key.removeprefix("manifests/").removesuffix(".json")
