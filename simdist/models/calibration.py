"""Rates of the machine at hand: a few short loops, and small graphs whose rounds are timed.

    GEMM, int8 tiles, gathered pairs ──> Rates ──┐
    graphs of synthetic rows ──> journals ───────┴─> fitted ──> Machine, for `plan --machine`

Everything runs with all cpus at work, as it would in a job: what one cpu does alone is not asked.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from simdist.engine import Engine, map_window, open_engine
from simdist.engine.ops import Call
from simdist.engine.threads import cpus_here, limited
from simdist.models.chain import Link, job_of
from simdist.models.knn import knn_links
from simdist.models.vectors import import_link
from simdist.runner import RoundForecast, run
from simdist.runner.journal import RoundRun, Run, last_run
from simdist.simulation import Driver, Machine, Measured, Rates, fitted
from simdist.store.datasets import Dataset
from simdist.store.store import Store, open_store

if TYPE_CHECKING:
    from simdist.stages.graph import KnnParams

__all__ = [
    "SIZES",
    "Sample",
    "Timed",
    "calibrate",
    "costs_of",
    "driver_of",
    "machine_rates",
    "timed",
]

SIZES = ((4_000, 64), (16_000, 128), (32_000, 128), (16_000, 256))
LOOP_SECONDS = 1.0  # of each short loop
WARM_ROWS = 2_000  # of a graph whose times do not count: kernels are loaded
TILE = 512
PAIRS, PAIR_ROWS = 100_000, 200_000
NOTHINGS = 300  # tasks that do nothing: what the driver costs


@dataclass(frozen=True, slots=True)
class Sample:
    """A graph to build for its times. make: (rows, dim) -> [n, d] float32. params: knobs to pin."""

    make: Callable[[int, int], Any]
    measure: str = "euclidean"
    k: int = 15
    recall: float | None = 0.95
    params: KnnParams | None = None


@dataclass(frozen=True, slots=True)
class Timed:
    """A link of a graph that was built: its dataset, and how it went."""

    link: Link
    rows: int
    dim: int
    dataset: Dataset
    run: Run


def calibrate(
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    sample: Sample | None = None,
    workers: int | None = None,
    memory: str = "2GiB",
    folder: str | Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Machine:
    """This machine's rates.

    sizes: (rows, dim) of the graphs to build, by default SIZES: about 20 s on two cpus.
    sample: what to build them of, by default the synthetic manifold of simdist.datasets.
    workers: tasks side by side, by default every cpu. folder: where to work, by default a temporary
    one. tell: is told what is being done.
    """
    cpus, sizes = workers or cpus_here(), sizes or SIZES
    tell("loops")
    rates = machine_rates(cpus)
    measured: list[Measured] = []
    with (
        tempfile.TemporaryDirectory(prefix="simdist-calibrate-", dir=folder) as room,
        open_engine("local", workers=cpus, memory=memory) as engine,
    ):
        driver = driver_of(engine)
        sample = sample or Sample(_manifold)
        for turn, (rows, dim) in enumerate(((WARM_ROWS, sizes[0][1]), *sizes)):
            tell(f"{rows:,} x {dim}" if turn else "kernels")
            for it in timed(sample, rows, dim, engine=engine, folder=Path(room) / f"{turn}"):
                measured += _measured(it) if turn else []
    return Machine(
        name="this machine",
        cpus=cpus,
        memory=psutil.virtual_memory().total,
        rates=fitted(rates, measured),
        driver=driver,
    )


def machine_rates(cpus: int) -> Rates:
    """Matrix products, int8 tiles and gathered pairs a second of one cpu, all of them at work."""
    from simdist.compiled import codes  # noqa: PLC0415 - numba only where it is run
    from simdist.compiled.distances import dots  # noqa: PLC0415

    rng = np.random.default_rng(0)
    dim = 128
    rows = rng.standard_normal((PAIR_ROWS, dim), dtype=np.float32)
    tile = rows[:TILE]
    coded = np.empty((TILE, codes.code_nbytes(dim)), np.int8)
    facts = np.empty((TILE, codes.FACTS), np.float32)
    codes.encode(tile, np.zeros(dim), coded, facts)
    chosen = np.arange(TILE, dtype=np.int32)
    own = np.sort(rng.integers(0, PAIR_ROWS, PAIRS))  # as lists are: row after row
    other = rng.integers(0, PAIR_ROWS, PAIRS)

    def leaves() -> None:
        room = codes.Room(TILE, coded.shape[1])
        codes.leaf_top(coded, facts, chosen, chosen, room, np.empty((TILE, 10), np.int64))

    operations = 2.0 * TILE * TILE * dim
    return Rates(
        flops=operations / _seconds_each(lambda: tile @ tile[::-1].T, cpus),
        ops=operations / _seconds_each(leaves, cpus),
        pair=_seconds_each(lambda: dots(rows, own, rows, other), cpus) / PAIRS,
    )


def timed(sample: Sample, rows: int, dim: int, *, engine: Engine, folder: Path) -> Iterator[Timed]:
    """Build one graph in `folder`, from a file to the committed dataset; each link as it ends."""
    folder.mkdir(parents=True)
    path = folder / "rows.npy"
    np.save(path, sample.make(rows, dim))
    store = open_store(folder / "store")
    links = (
        import_link("vectors", path=str(path)),
        *knn_links(
            "graph",
            "vectors",
            k=sample.k,
            measure=sample.measure,
            recall=sample.recall,
            params=sample.params,
        ),
    )
    yield from _walk(links, rows, dim, store=store, engine=engine)


def costs_of(it: Timed) -> Iterator[tuple[RoundRun, RoundForecast]]:
    """Each round that a link ran, with its forecast as it turned out: what the data decided
    (pairs, proposals, copies) taken from what tasks recorded."""
    forecast = forecast_of(it.link, it.rows, it.dim, it.run.rounds)
    for step, cost in replace(it.run, forecast=forecast).paired():
        if cost is not None:
            yield step, cost


def forecast_of(
    link: Link, rows: int, dim: int, seen: Sequence[RoundRun] = ()
) -> tuple[RoundForecast, ...]:
    """Forecast of a link's rounds; seen: rounds of one that ran, for what only the data decides."""
    stage: Any = link.stage
    rounds: tuple[RoundForecast, ...]
    if seen and hasattr(stage, "typical"):
        typical = stage.typical(link.config, rows, dim, seen_in(seen))
        rounds = stage.forecast(link.config, rows, dim, typical=typical).rounds
    else:
        rounds = stage.forecast(link.config, rows, dim).rounds
    return rounds


def seen_in(rounds: Sequence[RoundRun]) -> dict[str, Mapping[str, float]]:
    """What the rounds of a run recorded, by name, and the bytes they left."""
    return {step.name: {**step.facts, "written": step.written} for step in rounds}


def driver_of(engine: Engine) -> Driver:
    """What giving out a task and collecting it costs, half of it each."""
    calls = (Call(f"nothing-{number}", _nothing) for number in range(NOTHINGS))
    began = time.perf_counter()
    for _ in map_window(engine, calls):
        pass
    each = (time.perf_counter() - began) / NOTHINGS
    return Driver(submit=each / 2, collect=each / 2)


def _walk(
    links: Sequence[Link], rows: int, dim: int, *, store: Store, engine: Engine
) -> Iterator[Timed]:
    made: dict[str, Dataset] = {}
    for link in links:
        made[link.name] = run(job_of(link, made), store=store, engine=engine, name=link.name)
        went = last_run(store, made[link.name].fingerprint)
        if went is not None:
            yield Timed(link, rows, dim, made[link.name], went)


def _measured(it: Timed) -> Iterator[Measured]:
    for step, cost in costs_of(it):
        if step.ran:
            yield Measured(cost, step.task_seconds, step.spread)


def _nothing() -> None:
    """What is measured is everything around it."""


def _seconds_each(work: Callable[[], object], cpus: int) -> float:
    """Seconds of one call on one cpu, while all cpus call it."""

    def repeat(until: float) -> int:
        done = 0
        while not done or time.perf_counter() < until:  # once, however late the thread began
            work()
            done += 1
        return done

    with ThreadPoolExecutor(cpus) as pool, limited(1):
        work()  # compiled
        began = time.perf_counter()
        done = sum(pool.map(repeat, [began + LOOP_SECONDS] * cpus))
        return cpus * (time.perf_counter() - began) / done


def _manifold(rows: int, dim: int) -> Any:
    from simdist.datasets import manifold  # noqa: PLC0415 - only where nothing else was given

    return manifold(rows, dim, 16, seed=7)
