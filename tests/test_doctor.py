"""`simdist doctor`: fit stores pass, every lie is found by the check it is about, nothing stays."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server
from typer.testing import CliRunner, Result

from simdist.cli.app import app
from simdist.engine import Engine
from simdist.engine import doctor as engine_doctor
from simdist.engine.doctor import Reading
from simdist.errors import ObjectMissing, StoreError
from simdist.report.doctor import MARKS, WIDEST, checkup
from simdist.runner import doctor as pair_doctor
from simdist.runner.doctor import Visit
from simdist.store import ObjectInfo, Objects, open_store
from simdist.store.doctor import disk, examine, pace, promises, signed
from simdist.store.doctor.examine import CHECKS, Check
from simdist.store.doctor.room import Room
from simdist.testing import fault_proxy as faults
from simdist.testing.fault_proxy import FaultProxy, Rule
from simdist.types import Finding

STORES = ("reach", "conditional put", "raced by threads", "read after write", "bytes",
          "range reads", "large objects", "listing", "deletion", "keys", "clock", "pace"
          )  # fmt: skip
GIB = 2**30


def simdist(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == code, result.output
    return result


def verdicts(findings: list[dict[str, str]]) -> dict[str, str]:
    return {finding["check"]: finding["verdict"] for finding in findings}


def one(check: Check, objects: Objects) -> dict[str, Finding]:
    """Findings of one check."""
    with Room(objects) as room:
        room.objects.put(room.key("reach"), b"simdist doctor")
        return {finding.check: finding for finding in check(room)}


def memory() -> Objects:
    return open_store(f"memory://{uuid.uuid4().hex}").objects


# -- stores that are fit ---------------------------------------------------------------------------


@pytest.mark.s3
def test_a_real_s3_store_is_fit_and_is_left_as_it_was(s3_server: S3Server, s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.objects.put("data/mine", b"mine")
    result = simdist("doctor", s3_uri, "--json")
    told = json.loads(result.stdout)
    assert told["fit"]
    assert s3_server.access_key not in result.output
    assert s3_server.secret_key not in result.output
    found = verdicts(told["findings"])
    assert set(found) == {*STORES, "signatures", "checksums", "failed requests"}
    assert set(found.values()) == {"ok"}
    assert [info.key for info in store.objects.list("")] == ["data/mine"]


def test_a_folder_is_fit_and_is_left_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "used"
    open_store(place).objects.put("doctor/of/somebody/else", b"x")
    before = sorted(tmp_path.rglob("*"))
    out = simdist("doctor", place).stdout
    assert f"fit: {place.as_uri()}" in out
    assert all(check in out for check in (*STORES, "raced by processes", "fsync", "space"))
    assert out.startswith(f"  {MARKS['ok'][0]}  reach ")
    assert max(map(len, out.splitlines()[:-1])) <= 110
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_in_memory_is_fit_and_short_lived() -> None:
    told = json.loads(simdist("doctor", "memory://here", "--json").stdout)
    assert told["fit"]
    assert [f["check"] for f in told["findings"] if f["verdict"] == "warning"] == ["lifetime"]
    assert max(len(name) for name, _ in CHECKS) <= WIDEST


# -- lies over the network -------------------------------------------------------------------------


@pytest.fixture
def proxy(s3_server: S3Server, s3_uri: str) -> Iterator[FaultProxy]:
    with FaultProxy(upstream=s3_server.endpoint, rules=[], seed=0) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: FaultProxy, s3_uri: str) -> Objects:
    """The S3 store as the proxy shows it."""
    place = open_store(s3_uri, endpoint=proxy.endpoint).objects.place
    return Objects(place, retries=1)


@pytest.mark.s3
@pytest.mark.parametrize("check", [promises.conditional_put, promises.raced_put])
def test_ignored_conditions_are_found(proxy: FaultProxy, behind: Objects, check: Check) -> None:
    proxy.rules = [Rule(faults.IgnoreConditions())]
    [finding] = one(check, behind).values()
    assert finding.verdict == "unfit"
    assert "If-None-Match" in finding.found + finding.advice


@pytest.mark.s3
def test_ignored_checksums_are_found(proxy: FaultProxy, behind: Objects) -> None:
    assert one(signed.checksums, behind)["checksums"].verdict == "ok"
    proxy.rules = [Rule(faults.IgnoreChecksums())]
    finding = one(signed.checksums, behind)["checksums"]
    assert finding.verdict == "warning"
    assert "was accepted" in finding.found
    proxy.rules = [Rule(faults.Status(503), path="summed")]
    finding = one(signed.checksums, behind)["checksums"]
    assert finding.verdict == "warning"
    assert "could not be checked" in finding.found


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "check"),
    [
        (faults.Corrupt(side="answer"), "bytes"),
        (faults.Truncated(side="answer"), "bytes"),
        (faults.Corrupt(side="answer"), "range reads"),
        (faults.Status(500), "large objects"),
    ],
    ids=["corrupt-bytes", "truncated-bytes", "corrupt-ranges", "refused-parts"],
)
def test_a_store_that_damages_what_it_gives_is_found(
    proxy: FaultProxy, behind: Objects, fault: Any, check: str
) -> None:
    proxy.rules = [Rule(fault, methods=("GET",))]
    [finding] = one(guarded(check), behind).values()
    assert finding.verdict == "unfit"
    assert finding.check == check


def guarded(name: str) -> Check:
    from simdist.store.doctor.examine import _guarded

    return lambda room: _guarded(name, dict(CHECKS)[name], room)


@pytest.mark.s3
def test_requests_that_fail_now_and_then_are_counted(proxy: FaultProxy, behind: Objects) -> None:
    proxy.rules = [Rule(faults.Status(503), path="failed", probability=0.2)]
    finding = one(pace.failed_requests, behind)["failed requests"]
    assert finding.verdict == "warning"
    assert "of 100 failed when made once" in finding.found
    assert "503" in finding.found


@pytest.mark.s3
def test_a_slow_store_is_found(
    proxy: FaultProxy, behind: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SAMPLES", 3)
    monkeypatch.setattr(pace, "PART", 1000)
    monkeypatch.setattr(pace, "SLOW_SECONDS", 0.2)
    proxy.rules = [Rule(faults.Slow(0.3), path="small")]
    assert one(pace.speed, behind)["pace"].verdict == "warning"


@pytest.mark.s3
def test_a_store_that_accepts_any_signature_is_found(
    proxy: FaultProxy, behind: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert one(signed.signatures, behind)["signatures"].verdict == "ok"
    real = signed._answer
    for trusted, told in (("PUT", "signatures are not checked"), ("GET", "without any signature")):

        def trusting(method: str, *args: Any, trusted: str = trusted) -> int | None:
            return 200 if method == trusted else real(method, *args)

        monkeypatch.setattr(signed, "_answer", trusting)
        finding = one(signed.signatures, behind)["signatures"]
        assert finding.verdict == "warning"
        assert told in finding.found


# -- stores that are not there ---------------------------------------------------------------------


@pytest.mark.s3
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("secret", "Check the credentials"),
        ("bucket", "Check that the bucket or directory exists"),
        ("endpoint", "http://127.0.0.1:1/"),
    ],
)
def test_a_store_that_cannot_be_reached_is_unfit_and_says_why(
    proxy: FaultProxy, s3_uri: str, monkeypatch: pytest.MonkeyPatch, wrong: str, told: str
) -> None:
    if wrong == "secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-canary-secret")
    elif wrong == "bucket":  # the server of the tests would make it
        proxy.rules = [Rule(faults.Status(404))]
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    result = simdist("doctor", s3_uri, "--json", code=5)
    [finding] = json.loads(result.stdout)["findings"]
    assert (finding["check"], finding["verdict"]) == ("reach", "unfit")
    assert told in finding["found"]
    assert "canary" not in result.output
    assert "✗ unfit (reach): " in simdist("doctor", s3_uri, code=5).stdout


def test_a_folder_that_cannot_be_written_is_unfit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    told = json.loads(simdist("doctor", tmp_path / "file" / "store", "--json", code=5).stdout)
    assert verdicts(told["findings"]) == {"reach": "unfit"}


def test_an_address_that_makes_no_sense_ends_with_code_2() -> None:
    assert "scheme 'gs' is not known" in simdist("doctor", "gs://bucket", code=2).stderr
    assert "engine is 'dusk'" in simdist(
        "doctor", "memory://x", "--engine", "dusk", code=2
    ).stderr  # fmt: skip


# -- lies that no proxy tells ----------------------------------------------------------------------


class Flawed(Objects):
    """A store in memory with one flaw, by name."""

    def __init__(self, flaw: str) -> None:
        super().__init__(memory().place)
        self.flaw = flaw
        self.absent: set[str] = set()
        self.lists = 0

    def _is(self, flaw: str) -> bool:
        return self.flaw == flaw

    def _spelled(self, key: str) -> str:
        if self._is("one case"):
            return key.lower()
        return key.replace("+", " ") if self._is("plus is a space") else key

    def put(self, key: str, data: Any) -> None:
        if self._is("never overwrites") and self.head(key):
            return
        super().put(self._spelled(key), data[:-1] if self._is("cuts") and "large" in key else data)

    def head(self, key: str) -> ObjectInfo | None:
        found = super().head(key)
        if found is None:
            self.absent.add(key)
        return found

    def buffer(self, key: str) -> memoryview:
        if self._is("remembers absence") and key in self.absent:
            raise ObjectMissing(key)
        return super().buffer(self._spelled(key))

    def delete(self, keys: Any) -> None:
        if self._is("cannot delete"):
            raise StoreError("no such method: DeleteObjects")
        if not self._is("never deletes"):
            super().delete(keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.lists += 1
        if self._is("lists one page"):
            return islice(super().list(prefix), 1000)
        if self._is("lists late") and self.lists == 1:
            return islice(super().list(prefix), 7)
        if self._is("prefix is no folder"):
            return (i for i in super().list("") if i.key.startswith(prefix))
        return super().list(prefix)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if self._is("ignores ranges"):
            return self.get(key)
        if self._is("reads beyond") and start > len(self.get(key)):
            return b"what?"
        return super().get_range(key, start, length)


@pytest.mark.parametrize(
    ("flaw", "check", "verdict"),
    [
        ("remembers absence", "read after write", "unfit"),
        ("never overwrites", "read after write", "warning"),
        ("never deletes", "deletion", "warning"),
        ("cannot delete", "deletion", "unfit"),
        ("lists one page", "listing", "unfit"),
        ("lists late", "listing", "warning"),
        ("prefix is no folder", "listing", "unfit"),
        ("ignores ranges", "range reads", "unfit"),
        ("reads beyond", "range reads", "warning"),
        ("cuts", "large objects", "unfit"),
        ("plus is a space", "keys", "unfit"),
        ("one case", "keys", "warning"),
    ],
)
def test_each_flaw_is_found_by_the_check_that_is_about_it(
    flaw: str, check: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "LISTING_SECONDS", 2.0)
    finding = one(guarded(check), Flawed(flaw))[check]
    assert finding.verdict == verdict, finding
    assert finding.advice
    assert one(guarded(check), memory())[check].verdict == "ok"


@pytest.mark.parametrize(
    ("ahead", "verdict", "told"),
    [
        (timedelta(seconds=-1), "ok", "agree"),
        (timedelta(seconds=40), "ok", "40 s ahead of"),
        (timedelta(minutes=-7), "warning", "7 min behind"),
        (timedelta(hours=13), "unfit", "13.0 h ahead of"),
    ],
)
def test_a_clock_that_is_off_is_found(ahead: timedelta, verdict: str, told: str) -> None:
    finding = pace.told_clock(ahead)
    assert (finding.verdict, told in finding.found) == (verdict, True)


MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw - tmpfs tmpfs rw
41 22 0:40 / /mnt/two\040words rw - nfs4 host:/export rw
42 22 0:41 / /srv/s3 rw - fuse.s3fs s3fs rw
43 22 0:42 / /var/lib rw - overlay overlay rw
44 43 8:2 / /var/lib rw - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "verdict"),
    [
        ("/home/me/runs", "ext4", "ok"),
        ("/tmp/runs", "tmpfs", "warning"),
        ("/mnt/two words/runs", "nfs4", "warning"),
        ("/srv/s3", "fuse.s3fs", "warning"),
        ("/srv/s3-not", "ext4", "ok"),
        ("/var/lib/runs", "xfs", "ok"),
    ],
)
def test_the_kind_of_file_system_is_told(path: str, kind: str, verdict: str) -> None:
    assert disk.kind_of(Path(path), MOUNTS) == kind
    assert disk.told_kind(kind).verdict == verdict


def test_processes_that_do_not_race_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "CHILD", "raise SystemExit(1)")
    finding = one(disk.raced_by_processes, open_store(tmp_path).objects)["raced by processes"]
    assert finding.verdict == "warning"
    assert "could not be checked" in finding.found


def test_an_interrupted_examination_leaves_nothing_behind(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    findings = examine(store)
    next(findings)
    next(findings)
    assert (tmp_path / "store").exists()
    findings.close()
    assert not (tmp_path / "store").exists()


# -- engines ---------------------------------------------------------------------------------------


def reading(**changed: Any) -> Reading:
    plain = {"host": "a", "pid": 1, "versions": {"numpy": "2.4.6"}, "cpus": 4, "blas_threads": 1,
             "memory": 16 * GIB, "rss": GIB // 8}  # fmt: skip
    return Reading(**(plain | changed))


@pytest.mark.parametrize(
    ("changed", "places", "check", "told"),
    [
        ({"versions": {"numpy": "1.0"}}, 2, "versions", "numpy is 1.0 on a and 2.4.6 here"),
        ({"blas_threads": 8}, 2, "threads", "may use 8 threads"),
        ({}, 9, "threads", "9 tasks at once on 4 cpus"),
        ({"memory": 3 * GIB}, 2, "memory", "4.0 GiB declared for tasks"),
    ],
)
def test_what_is_wrong_with_workers_is_told(
    changed: dict[str, Any], places: int, check: str, told: str
) -> None:
    def judged(**changed: Any) -> dict[str, Finding]:
        readings, here = [reading(**changed), reading(pid=2)], reading(pid=3)
        found = engine_doctor.judge(
            readings, here=here, places=places, memory=2 * GIB, shared_memory=False
        )
        return {finding.check: finding for finding in found}

    finding = judged(**changed)[check]
    assert finding.verdict == "warning"
    assert told in finding.found
    if changed:
        assert {finding.verdict for finding in judged().values()} == {"ok"}


def test_the_memory_of_the_local_engine_is_shared_by_its_threads() -> None:
    found = engine_doctor.judge(
        [reading()], here=reading(), places=8, memory=12 * GIB, shared_memory=True
    )
    assert {finding.check: finding.verdict for finding in found}["memory"] == "ok"


@pytest.mark.parametrize(
    ("visit", "unread", "told"),
    [
        ({"problem": "s3://b/greeting does not exist"}, False, "on a, s3://b/greeting"),
        ({}, True, "wrote what this process does not see"),
    ],
)
def test_workers_that_see_another_store_are_found(
    visit: dict[str, str], unread: bool, told: str
) -> None:
    plain = {"host": "a", "pid": 1, "problem": "", "answer": "x", "cache": "/c",
             "cache_nbytes": GIB, "cache_problem": ""}  # fmt: skip
    seen = Visit(**(plain | visit))  # type: ignore[arg-type]
    [finding] = pair_doctor.judge([seen], unread=[seen] if unread else [])
    assert finding.verdict == "unfit"
    assert told in finding.found


def test_workers_of_every_engine_see_a_folder(engine: Engine, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    found = {f.check: f for f in engine_doctor.examine(engine)}
    assert [f.verdict for f in found.values()] == ["ok"] * 5
    [finding] = pair_doctor.examine(store, engine)
    assert finding.verdict == "ok"
    assert "2 of 2 read" in finding.found or engine.kind == "local"
    assert not (tmp_path / "store").exists()


@pytest.mark.s3
def test_the_cache_of_a_worker_must_be_writable(
    s3_uri: str, local_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / "cache"))
    store = open_store(s3_uri)
    found = {f.check: f for f in pair_doctor.examine(store, local_engine)}
    assert found["cache of workers"].verdict == "ok"
    assert list(store.objects.list("")) == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / "file" / "cache"))
    found = {f.check: f for f in pair_doctor.examine(store, local_engine)}
    assert found["cache of workers"].verdict == "unfit"
    assert "SIMDIST_CACHE_DIR" in found["cache of workers"].advice


def test_a_store_in_memory_is_unfit_for_workers_in_other_processes(dask_engine: Engine) -> None:
    [finding] = pair_doctor.examine(open_store("memory://x"), dask_engine)
    assert finding.verdict == "unfit"
    assert "cannot see memory://x" in finding.found


def test_the_command_examines_store_and_engine() -> None:
    out = simdist("doctor", "memory://here", "--engine", "local", "--workers", 2).stdout
    assert all(word in out for word in ("engine", "versions", "threads", "store seen by workers"))
    assert out.rstrip().endswith("fit, 1 warning: memory://here with local")


def test_a_scheduler_that_does_not_answer_makes_the_engine_unfit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("simdist.engine.dask.START_SECONDS", 1.0)
    options = ("--engine", "tcp://127.0.0.1:1", "--json")
    told = json.loads(simdist("doctor", "memory://here", *options, code=5).stdout)
    [unfit] = [finding for finding in told["findings"] if finding["verdict"] == "unfit"]
    assert unfit["check"] == "engine"
    assert "no Dask scheduler could be joined at tcp://127.0.0.1:1" in unfit["found"]


def test_an_engine_is_closed_when_its_examination_ends() -> None:
    from simdist.engine import open_engine

    opened: list[Engine] = []

    def opening() -> Engine:
        opened.append(open_engine("local", workers=1))
        return opened[0]

    opens: Callable[[], Engine] = opening
    assert list(checkup(open_store("memory://here"), opens))
    with pytest.raises(Exception, match="closed"):
        opened[0].submit(print, key="late")
