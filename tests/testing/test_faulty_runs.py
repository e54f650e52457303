"""The main job through a store that fails one request in ten: the bytes of an undisturbed run."""

from __future__ import annotations

from pathlib import Path

import pytest
from s3_server import S3Server
from testing.faulty_runs import MIXED, case, links, manifests, source

from simdist.engine import Engine
from simdist.store import open_store


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("kind", ["local", "dask"])
def test_the_job_commits_the_same_bytes_while_every_tenth_request_fails(
    kind: str,
    local_engine: Engine,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("SIMDIST_CACHE_DIR", str(tmp_path / "cache"))
    job = links(source(tmp_path, rows=800))
    expected = manifests(job, open_store(tmp_path / "undisturbed"), local_engine)
    engine = request.getfixturevalue(f"{kind}_engine")
    outcome = case(job, (kind, engine), s3_server, expected, fault=MIXED, rate=0.1)
    assert outcome.same, outcome
    assert outcome.hit > 10
