"""How well `simdist plan --machine` predicts: calibrated on small runs, checked on large ones.

    python -m tests.bench.scale calibrate [--sizes 10000x128,...] [--rounds 3] [--machine FILE]
                                          [--by cpu]   where the machine cannot be idle
    python -m tests.bench.scale predict   [--shapes 1000000x128,300000x384]
    python -m tests.bench.scale check     [--shapes ...]      runs them: minutes
    python -m tests.bench.scale driver    what a task costs the driver of each engine

calibrate, predict and check leave docs/scale/*.json, so that a prediction can be committed before
what it predicts is run. All of it is about rows of `simdist.datasets.manifold`, intrinsic dimension
16, k = 15, euclidean, recall 0.95 asked for, on the local engine: from a .npy file to the
committed graph.

The formulas say what work there is; the machine file how fast it goes; and what only the data
decides (pairs a row, joins until the recall is reached) is followed over the sizes calibrated, as a
plane in log(rows) and log(dim). No run of more than 100,000 rows is used; wide rows among them show
what a round costs whose tasks look into more than a cache holds, and some are joined twice, as more
rows will be. Of the turns of calibration each round of tasks counts by its median: the sum of the
quickest is a run that nobody has seen. Let the machine be idle.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import simdist as sd
from simdist.config.machine import load_machine, save_machine
from simdist.models.calibration import (
    Sample,
    Timed,
    costs_of,
    driver_of,
    machine_rates,
    seen_in,
    timed,
)
from simdist.models.knn import knn_links
from simdist.models.vectors import import_link
from simdist.runner import RoundForecast
from simdist.simulation import Machine, Measured, Simulation, fitted, simulate
from simdist.stages.costs import Typical
from simdist.stages.graph import KnnParams
from tests.bench.follow import Followed

FOLDER = Path(__file__).parents[2] / "docs" / "scale"
MACHINES = Path(__file__).parents[2] / "configs" / "machines"
SIZES = "10000x128,30000x128,100000x128,30000x64,30000x256,100000x256,100000x512"
TWICE = "30000x128,100000x128,100000x512"  # joined once more than their recall asks for
SHAPES = "1000000x128,300000x384"
K, RECALL, INTRINSIC, SEED = 15, 0.95, 16, 7
MOST_ROWS = 100_000  # of a run that anything is fitted to
WARM_ROWS = 4000
MEMORY = "2GiB"
BETWEEN_ROUNDS = 0.01  # seconds, where it cannot be measured: a few looks at the store
DISTURBED = 1.3  # times their CPU seconds that tasks take where something else runs


def main() -> None:
    """Do what the first word says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["calibrate", "predict", "check", "driver"])
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--twice", default=TWICE)
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--by", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--machine", type=Path, default=MACHINES / "this-machine.yaml")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    {
        "calibrate": calibrate,
        "predict": predict,
        "check": check,
        "driver": driver,
    }[arguments.what](arguments)


# -- calibrate -------------------------------------------------------------------------------------


def calibrate(arguments: argparse.Namespace) -> None:
    """Run the small sizes in turn, keep their journals, and write the machine file they give."""
    once, twice = _shapes(arguments.sizes), _shapes(arguments.twice)
    if max(rows for rows, _ in (*once, *twice)) > MOST_ROWS:
        raise SystemExit(f"--sizes {arguments.sizes}: at most {MOST_ROWS:,} rows")
    sizes = [(*shape, joins) for joins, shapes in ((1, once), (2, twice)) for shape in shapes]
    rates = machine_rates(2)
    print(f"{rates.flops / 1e9:.0f} GFLOP/s, {rates.ops / 1e9:.0f} GOP/s a cpu", flush=True)
    runs: list[dict] = []
    seen: dict[tuple, list[Measured]] = {}
    with sd.open_engine("local", workers=2, memory=MEMORY) as engine:
        costs = driver_of(engine)
        _run_once(engine, WARM_ROWS, sizes[0][1])
        for number in range(arguments.rounds):
            for rows, dim, joins in sizes:
                links, recalls = _run_once(engine, rows, dim, joins=joins)
                runs.append(_kept(links, recalls))
                for key, it in _measured(links, arguments.by):
                    seen.setdefault(key, []).append(it)
                print(f"{number + 1}  {rows:>9,} x {dim}: {_told(links)}", flush=True)
    machine = Machine(
        name="2 cpus of this machine",
        cpus=2,
        memory=2 << 30,
        rates=fitted(rates, map(_median, seen.values())),
        driver=costs,
    )
    between = _between_rounds(machine, runs) if arguments.by == "wall" else BETWEEN_ROUNDS
    machine = replace(machine, driver=replace(costs, round=between))
    comment = f"By `python -m tests.bench.scale calibrate` on {now()}, runs of {arguments.sizes}."
    save_machine(machine, arguments.machine, comment=comment)
    save(
        arguments.folder / "calibration.json",
        {"commit": standing_on(), "made": now(), "runs": runs},
        indent=None,
    )
    print(f"\nfit, {between * 1000:.0f} ms between rounds:")
    for run in runs:
        took, said = _seconds_of(run), sum(s.seconds for s in _again(machine, run).values())
        print(f"  {run['rows']:>9,} x {run['dim']}: {took:.2f} s, fitted {said:.2f}")
    busy = _stolen(runs)
    if busy > DISTURBED:
        print(f"\nTasks took {busy:.2f} times their CPU seconds: something else was running.")


def _measured(links: Sequence[Timed], by: str) -> Iterator[tuple[tuple, Measured]]:
    """by: wall, or the CPU seconds of the tasks' own threads."""
    for it in links:
        for step, cost in costs_of(it):
            key = (it.rows, it.dim, it.link.name, step.name)
            seconds = step.task_seconds if by == "wall" else step.cpu_seconds
            yield key, Measured(cost, seconds, step.spread)


def _median(found: list[Measured]) -> Measured:
    return sorted(found, key=lambda it: it.seconds)[len(found) // 2]


def _stolen(runs: Sequence[dict]) -> float:
    """Seconds of all tasks over their CPU seconds."""
    rounds = [step for run in runs for link in run["links"].values() for step in link["rounds"]]
    return sum(r["task_seconds"] for r in rounds) / sum(r["cpu_seconds"] for r in rounds)


def _run_once(
    engine: sd.Engine, rows: int, dim: int, *, joins: int = 1
) -> tuple[list[Timed], dict[str, float]]:
    """A graph's links, and its recall after each join. joins: made before it is first measured."""
    sample = Sample(_rows, k=K, recall=RECALL, params=KnnParams(joins=joins))
    with tempfile.TemporaryDirectory(prefix="simdist-scale-") as folder:
        links = list(timed(sample, rows, dim, engine=engine, folder=Path(folder) / "run"))
        return links, _recalls(links[-1])


def _rows(rows: int, dim: int) -> np.ndarray:
    return sd.datasets.manifold(rows, dim, INTRINSIC, seed=SEED)


def _kept(links: Sequence[Timed], recalls: Mapping[str, float]) -> dict:
    """A run as JSON: every link's journal, what the data decided, and the recall."""
    graph = links[-1]
    return {
        "rows": graph.rows,
        "dim": graph.dim,
        "links": {it.link.name: it.run.to_json() for it in links},
        "costs": {it.link.name: [asdict(cost) for _, cost in costs_of(it)] for it in links},
        "typical": asdict(_typical(graph)),
        "recalls": recalls,
    }


def _recalls(graph: Timed) -> dict[str, float]:
    """The lower end of the recall measured after so many joins of the first level."""
    store, fingerprint = graph.dataset.store, graph.dataset.fingerprint
    found = {}
    for step in graph.run.rounds:
        if step.name.startswith("check-0-"):
            joins = step.name.split("-")[2]
            record = store.read_record(fingerprint, step.name)
            found[joins] = record["facts"]["recall"]["low"]
    return found


def _typical(graph: Timed) -> Typical:
    seen = seen_in(graph.run.rounds)
    return graph.link.stage.typical(graph.link.config, graph.rows, graph.dim, seen)


def _again(machine: Machine, run: dict) -> dict[str, Simulation]:
    """The simulation of a run that was kept, with the work it turned out to be."""
    return {
        name: simulate([_cost(c) for c in costs], machine, workers=1)
        for name, costs in run["costs"].items()
    }


def _between_rounds(machine: Machine, runs: Sequence[dict]) -> float:
    """Seconds that a round takes beside its tasks: what the simulation leaves unexplained."""
    free = replace(machine, driver=replace(machine.driver, round=0.0))
    gaps = []
    for run in runs:
        rounds = sum(len(link["rounds"]) for link in run["links"].values())
        explained = sum(s.seconds for s in _again(free, run).values())
        gaps.append((_seconds_of(run) - explained) / rounds)
    return max(float(np.median(gaps)), 0.0)


# -- predict and check -----------------------------------------------------------------------------


def predict(arguments: argparse.Namespace) -> None:
    """Write what the machine file and the journals say of sizes that nobody has run."""
    runs = _load(arguments.folder / "calibration.json")["runs"]
    machine = load_machine(arguments.machine)
    predictions = []
    for rows, dim in _shapes(arguments.shapes):
        typical = Followed(runs, RECALL).at(rows, dim)
        rounds = forecasts(rows, dim, typical)
        told = {name: simulate(costs, machine, workers=1) for name, costs in rounds.items()}
        each = {f"{link}/{r.name}": r.seconds for link, s in told.items() for r in s.rounds}
        predictions.append(
            {
                "rows": rows,
                "dim": dim,
                "seconds": sum(s.seconds for s in told.values()),
                "links": {name: s.seconds for name, s in told.items()},
                "rounds": each,
                "typical": asdict(typical),
            }
        )
        print(
            f"{rows:,} x {dim}: {predictions[-1]['seconds']:.1f} s, {typical.joins} joins", end="; "
        )
        print(", ".join(f"{name} {s.seconds:.1f}" for name, s in told.items()))
    made = {"made": now(), "commit": standing_on(), "predictions": predictions}
    save(arguments.folder / "predictions.json", made)


def check(arguments: argparse.Namespace) -> None:
    """Run what was predicted, and compare."""
    path = arguments.folder / "predictions.json"
    predictions = {(p["rows"], p["dim"]): p for p in _load(path)["predictions"]}
    checked = []
    for rows, dim in _shapes(arguments.shapes):
        said = predictions[rows, dim]
        with sd.open_engine("local", workers=2, memory=MEMORY) as engine:
            _run_once(engine, WARM_ROWS, dim)
            links, recalls = _run_once(engine, rows, dim)
        took = sum(it.run.seconds for it in links)
        kinds = _by_kind(
            (f"{it.link.name}/{s.name}", s.seconds) for it in links for s in it.run.rounds
        )
        expected = _by_kind(said["rounds"].items())
        checked.append(
            {
                "rows": rows,
                "dim": dim,
                "seconds": took,
                "predicted": said["seconds"],
                "ratio": said["seconds"] / took,
                "kinds": {kind: [kinds[kind], expected.get(kind, 0.0)] for kind in kinds},
                "cpu_seconds": sum(s.cpu_seconds for it in links for s in it.run.rounds),
                "recall": links[-1].dataset.metrics["recall"],
                "recalls": recalls,
                "typical": asdict(_typical(links[-1])),
            }
        )
        print(f"\n{rows:,} x {dim}: {took:.1f} s, predicted {said['seconds']:.1f}", end=" ")
        print(f"({said['seconds'] / took:.2f}); recall {links[-1].dataset.metrics['recall']}\n")
        print("| rounds | s | predicted |\n|---|---|---|")
        for kind, seconds in sorted(kinds.items(), key=lambda item: -item[1]):
            print(f"| {kind} | {seconds:.2f} | {expected.get(kind, 0.0):.2f} |")
    save(arguments.folder / "check.json", {"made": now(), "commit": standing_on(), "runs": checked})


def forecasts(rows: int, dim: int, typical: Typical) -> dict[str, tuple[RoundForecast, ...]]:
    """Every link's rounds, for data that need not exist."""
    with tempfile.TemporaryDirectory(prefix="simdist-scale-") as folder:
        np.save(Path(folder) / "rows.npy", np.ones((2, dim), np.float32))
        links = (
            import_link("vectors", path=f"{folder}/rows.npy"),
            *knn_links("graph", "vectors", k=K, measure="euclidean", recall=RECALL),
        )
        found = {}
        for link in links:
            known = {"typical": typical} if hasattr(link.stage, "typical") else {}
            found[link.name] = link.stage.forecast(link.config, rows, dim, **known).rounds
        return found


def _by_kind(rounds: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, seconds in rounds:
        kind = name.rstrip("-0123456789")
        sums[kind] = sums.get(kind, 0.0) + seconds
    return sums


# -- the driver -----------------------------------------------------------------------------------


def driver(arguments: argparse.Namespace) -> None:
    """What giving out a task and collecting it costs the driver of each engine."""
    for kind in ("local", "dask", "ray"):
        with sd.open_engine(kind, workers=2, memory=MEMORY) as engine:
            driver_of(engine)
            costs = driver_of(engine)
        print(f"{kind:6} {1000 * (costs.submit + costs.collect):.2f} ms a task")


# -- files and words -------------------------------------------------------------------------------


def _shapes(text: str) -> list[tuple[int, int]]:
    """`10000x128,30000x64`."""
    pairs = (item.split("x") for item in text.split(","))
    return [(int(float(rows)), int(dim)) for rows, dim in pairs]


def _seconds_of(run: Mapping) -> float:
    return sum(link["seconds"] for link in run["links"].values())


def _cost(value: Mapping) -> RoundForecast:
    return RoundForecast(**value)


def _told(links: Sequence[Timed]) -> str:
    recall = links[-1].dataset.metrics["recall"]
    joins = sum(step.name.startswith("join") for step in links[-1].run.rounds)
    each = ", ".join(f"{it.link.name} {it.run.seconds:.2f}" for it in links)
    total = sum(it.run.seconds for it in links)
    return f"{total:.2f} s ({each}), {joins} joins, recall {recall['estimate']:.3f}"


def save(path: Path, value: dict, *, indent: int | None = 1) -> None:
    path.write_text(json.dumps(_rounded(value), indent=indent) + "\n")
    print(f"\n{path}")


def _load(path: Path) -> dict:
    return json.loads(path.read_text())


def _rounded(value):
    """Four digits that count."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def standing_on() -> str:
    """What the working tree stands on."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
