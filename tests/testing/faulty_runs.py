"""The main job through a store that fails by chance: each fault, 1 % and 10 %, on each engine.

    python -m tests.testing.faulty_runs --engines local dask --rates 0.01 0.1

A case is an empty store behind a proxy with one rule (or all of them, "mixed"). The job runs until
it ends without an error, a few times at most, and its manifests are compared byte for byte with
those of a run that nothing disturbed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from simdist import datasets
from simdist.engine import Engine, open_engine
from simdist.errors import SimdistError
from simdist.models.chain import Link, run_links
from simdist.models.knn import knn_links
from simdist.models.vectors import import_link
from simdist.store import Store, open_store
from simdist.testing.fault_proxy import (
    Corrupt,
    Fault,
    FaultProxy,
    LostAnswer,
    ResetInBody,
    Rule,
    Slow,
    Status,
    Truncated,
)
from tests.s3_server import BUCKET, S3Server, serve

FAULTS: Mapping[str, Fault] = {
    "500": Status(500),
    "503": Status(503),
    "429": Status(429),
    "slow by 0.3 s": Slow(0.3),
    "reset in the request": ResetInBody(side="request"),
    "reset in the answer": ResetInBody(side="answer"),
    "truncated request": Truncated(side="request"),
    "truncated answer": Truncated(side="answer"),
    "lost answer": LostAnswer(),
    "corrupt request": Corrupt(side="request"),
    "corrupt answer": Corrupt(side="answer"),
}
MIXED = "all mixed"
ROWS = 3000
RUNS = 5  # at most, until the job ends without an error

Manifests = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case went. errors: one a run that failed, by type and first words. same: whether all
    manifests are those of the undisturbed run."""

    engine: str
    fault: str
    rate: float
    requests: int
    hit: int
    runs: int
    errors: tuple[str, ...]
    same: bool
    seconds: float

    def row(self) -> str:
        told = "same bytes" if self.same else "DIFFERENT BYTES"
        if self.runs > 1:
            told += f" at run {self.runs}, after {'; '.join(self.errors)}"
        return (
            f"| {self.engine} | {self.fault} | {self.rate:.0%} | {self.requests} | {self.hit} |"
            f" {told} | {self.seconds:.0f} s |"
        )


def source(folder: Path, rows: int = ROWS) -> Path:
    """The first rows of the bundled packages, as a file."""
    import pyarrow.parquet as pq

    path = folder / "packages.parquet"
    pq.write_table(pq.read_table(datasets.path("debian-packages")).slice(0, rows), path)
    return path


def links(path: Path) -> tuple[Link, ...]:
    """Import, partition and graph."""
    return (
        import_link(
            "packages", path=str(path), id="package", vector="embedding", keep=("section",)
        ),
        *knn_links("graph", "packages", k=10, measure="cosine", recall=0.9),
    )


def manifests(job: Sequence[Link], store: Store, engine: Engine) -> Manifests:
    """Run the job; the bytes of every manifest by its step."""
    made = run_links(job, {}, store=store, engine=engine)
    return {
        name: store.objects.get(f"manifests/{data.fingerprint}.json") for name, data in made.items()
    }


def rules(fault: str, rate: float) -> list[Rule]:
    """One fault at this rate, or all of them at this rate in total."""
    if fault != MIXED:
        return [Rule(FAULTS[fault], probability=rate)]
    return [Rule(one, probability=rate / len(FAULTS)) for one in FAULTS.values()]


def case(
    job: Sequence[Link],
    engine: tuple[str, Engine],
    server: S3Server,
    expected: Manifests,
    *,
    fault: str,
    rate: float,
    seed: int = 0,
) -> Outcome:
    """Run the job in an empty store behind a faulty proxy until it ends well."""
    clear_cache()
    errors: list[str] = []
    began = time.monotonic()
    # The key is the case, so that a seed draws the same faults whenever it is run.
    name = f"{engine[0]}-{fault}-{rate}-{seed}".replace(" ", "-")
    uri = f"s3://{BUCKET}/faulty/{name}"
    with FaultProxy(upstream=server.endpoint, rules=rules(fault, rate), seed=seed) as proxy:
        store = opened(uri, server, endpoint=proxy.endpoint)
        while len(errors) < RUNS:
            try:
                run_links(job, {}, store=store, engine=engine[1])
                break
            except SimdistError as error:
                errors.append(f"{type(error).__name__}: {str(error)[:150]}")
        proxy_log = proxy.log
    runs, same = len(errors), False
    if runs < RUNS:
        runs += 1
        same = manifests(job, opened(uri, server), engine[1]) == expected
    hit = sum(seen.fault is not None for seen in proxy_log)
    seconds = time.monotonic() - began
    return Outcome(engine[0], fault, rate, len(proxy_log), hit, runs, tuple(errors), same, seconds)


def opened(uri: str, server: S3Server, *, endpoint: str | None = None) -> Store:
    """A store on the server, or on the proxy before it; workers need no environment to reach it."""
    return open_store(
        uri,
        endpoint=endpoint or server.endpoint,
        region="us-east-1",
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
    )


def clear_cache() -> None:
    """Empty the worker cache: what is cached is not asked of the store."""
    folder = Path(os.environ["SIMDIST_CACHE_DIR"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def matrix(
    engines: Sequence[str], faults: Sequence[str], rates: Sequence[float], *, seed: int = 0
) -> Iterator[Outcome]:
    """Every fault at every rate on every engine, with a server of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="simdist-faulty-")))
        server = stack.enter_context(serve(folder / "server"))
        os.environ["SIMDIST_CACHE_DIR"] = str(folder / "cache")
        job = links(source(folder))
        expected: Manifests | None = None
        for kind in engines:
            with open_engine(kind, workers=2) as engine:
                if expected is None:
                    clear_cache()
                    expected = manifests(job, opened(server.new_uri(), server), engine)
                for fault in faults:
                    for rate in rates:
                        yield case(
                            job, (kind, engine), server, expected, fault=fault, rate=rate, seed=seed
                        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engines", nargs="+", default=["local", "dask"])
    parser.add_argument("--faults", nargs="+", default=[*FAULTS, MIXED], choices=[*FAULTS, MIXED])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.01, 0.1])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        "| engine | fault | rate | requests | hit | outcome | time |\n"
        "|---|---|---:|---:|---:|---|---:|",
        flush=True,
    )
    for outcome in matrix(given.engines, given.faults, given.rates, seed=given.seed):
        print(outcome.row(), flush=True)


if __name__ == "__main__":
    main()
