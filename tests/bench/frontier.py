"""Recall against time: simdist and its peers in turn (A B A B), each in a process of its own.

    python -m tests.bench.frontier [--data packages,mnist,easy,hard,leaderboard] [--rows N]
        [--rounds 3] [--full] [--only "simdist,pynndescent n_neighbors=30"] [--slow 60]
        [--out FILE [--resume]] [--plot docs/frontier.svg]

Every library holds the rows in memory in its own process, on the same two cpus, and has run every
setting on 3,000 rows before anything is timed; then settings take turns, a library after the
other, round after round. simdist is timed array to array, its import of the array included, and
once more from a stored dataset to a committed graph. The seconds in which it measures its own
recall, which no other does, stand in a column of their own; `wall` is without them. Recall is
measured by faiss on 2,000 rows. `others` is the share of the cpus that other processes had: where
it is not near 0, look at CPU seconds.

--slow S: a setting whose first round took longer than that is not run again. --only: families or
whole settings as the table names them. --pin '{"joins": 2}': simdist with these knobs of KnnParams
and no recall asked for, as often as wanted. --resume: runs in the file are not made again, unless
simdist's source or a peer's version is another. --tell: only print what the file has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.alone import Alone, Failed, Run
from tests.bench.contenders import Contender, chosen
from tests.bench.curves import cost_at
from tests.bench.datasets import FOLDER, MAKERS, DataSet, opened
from tests.bench.ledger import Key, Ledger, cpu_seconds, points, wall_seconds

TARGETS = (0.85, 0.90, 0.95, 0.99)
OURS = "simdist"


def main() -> None:
    """Run what is missing and print the tables."""
    arguments = _arguments()
    ledger = Ledger(arguments.out, resume=arguments.resume or arguments.tell)
    sets = [
        opened(name, k=arguments.k, rows=arguments.rows, folder=arguments.folder)
        for name in arguments.data.split(",")
    ]
    for data in sets:
        settings = wanted(data.name, full=arguments.full, only=arguments.only)
        settings += [Contender("simdist-pinned", json.loads(knobs)) for knobs in arguments.pin]
        if not arguments.tell:
            in_turn(
                data,
                settings,
                ledger,
                rounds=arguments.rounds,
                threads=arguments.threads,
                slow=arguments.slow,
            )
        tell(data, _ordered(ledger.of(data, threads=arguments.threads), settings))
    if arguments.plot is not None:
        from tests.bench.plots import plot_frontiers

        measured = [ledger.of(data, threads=arguments.threads) for data in sets]
        plot_frontiers(arguments.plot, list(zip(sets, measured, strict=True)))
        print(f"\nplotted to {arguments.plot}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="packages", help=f"some of {', '.join(MAKERS)}")
    parser.add_argument("--rows", type=int)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--pin", action="append", default=[], help='as {"fanout": 4, "joins": 2}')
    parser.add_argument("--slow", type=float, default=120.0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/frontier.jsonl"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--tell", action="store_true")
    parser.add_argument("--plot", type=Path)
    return parser.parse_known_args()[0]


def wanted(data: str, *, full: bool, only: str = "") -> list[Contender]:
    """The settings of a set, or those of them that are named."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    settings = chosen(data, full=full)
    if not names:
        return settings
    found = [one for one in settings if one.family in names or one.label in names]
    if not found:
        labels = "\n  ".join(one.label for one in settings)
        raise SystemExit(f"--only {only}: no such setting of {data}; expected some of\n  {labels}")
    return found


# -- running --


def in_turn(
    data: DataSet,
    settings: Sequence[Contender],
    ledger: Ledger,
    *,
    rounds: int,
    threads: int,
    slow: float,
) -> None:
    """Every setting once a round, a family after the other, until each has `rounds` runs."""

    def key(contender: Contender, number: int) -> Key:
        return Key.of(data, contender, threads=threads, round=number)

    def due(contender: Contender, number: int) -> bool:
        first = ledger.runs.get(key(contender, 0))
        if number and first is not None and first.wall > slow:
            return False
        return key(contender, number) not in ledger.runs

    missing = [one for one in settings if any(due(one, number) for number in range(rounds))]
    families = {one.family: [s for s in missing if s.family == one.family] for one in missing}
    with ExitStack() as stack:
        processes = {}
        for family, own in families.items():
            try:
                process = Alone(data, own, threads=threads)
            except Failed as error:
                _note(f"{family}: {error}; left out")
                continue
            processes[family] = stack.enter_context(process)
        for number in range(rounds):
            for contender in _interleaved([families[family] for family in processes]):
                if contender.family not in processes or not due(contender, number):
                    continue
                try:
                    run = processes[contender.family].run(contender)
                except Failed as error:
                    _note(f"{contender.label}: {error}; its library is left out from here")
                    del processes[contender.family]
                    continue
                ledger.add(key(contender, number), run)
                _note(
                    f"{data.name} round {number + 1}: {contender.label}: {run.wall:.2f} s,"
                    f" {run.cpu:.2f} CPU s, recall {run.recall:.4f}, others {run.others:.1f} CPU s"
                )


def _interleaved(groups: Sequence[Sequence[Contender]]) -> list[Contender]:
    """First of each group, second of each, ..."""
    longest = max((len(group) for group in groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _note(line: str) -> None:
    print(f"  {line}", file=sys.stderr, flush=True)


# -- telling --


def _ordered(runs: dict[str, list[Run]], settings: Sequence[Contender]) -> dict[str, list[Run]]:
    """Those of the settings that were run, in their order."""
    return {one.label: runs[one.label] for one in settings if one.label in runs}


def tell(data: DataSet, runs: dict[str, list[Run]]) -> None:
    """Print the table of a set, and what each recall costs."""
    print(f"\n### {data.name}: {data.n:,} x {data.d}, {data.measure}, k = {data.k}\n")
    if not runs:
        print("nothing measured")
        return
    print(
        "| | recall | with ties | wall s | CPU s | its own check s | peak MiB | anonymous MiB |"
        " others | rounds |\n|" + "---|" * 10
    )
    for label, own in runs.items():
        print(_line(label, own))
    if holes := {label: own[0].holes for label, own in runs.items() if own[0].holes}:
        told = ", ".join(f"{label}: {count:,}" for label, count in holes.items())
        print(f"\nplaces without a neighbour, of {2000 * data.k:,} looked at: {told}")
    _tell_ratios(runs)


def _line(label: str, runs: Sequence[Run]) -> str:
    def median(of: Callable[[Run], float]) -> float:
        return statistics.median(map(of, runs))

    others = median(lambda run: run.others / max(run.cpu + run.others, 1e-9))
    return (
        f"| {label} | {median(lambda run: run.recall):.4f} | {median(lambda run: run.ties):.4f} |"
        f" {median(wall_seconds):.2f} | {median(cpu_seconds):.2f} |"
        f" {median(lambda run: run.check):.2f} |"
        f" {max(run.peak for run in runs) >> 20} | {max(run.anonymous for run in runs) >> 20} |"
        f" {others:.0%} | {len(runs)} |"
    )


def _tell_ratios(runs: dict[str, list[Run]]) -> None:
    """What each recall costs in each library, between settings, and ours over the best peer."""
    for what, of in (("wall", wall_seconds), ("CPU", cpu_seconds)):
        by_family = points(runs, of)
        print(
            f"\n| {what} seconds at recall | "
            + " | ".join(f"{target:.2f}" for target in TARGETS)
            + " |\n|"
            + "---|" * (1 + len(TARGETS))
        )
        costs = {name: [cost_at(own, t) for t in TARGETS] for name, own in by_family.items()}
        for name, own in costs.items():
            cells = ["not reached" if cost is None else f"{cost:.2f}" for cost in own]
            print(f"| {name} | " + " | ".join(cells) + " |")
        if OURS in costs:
            cells = []
            for place, cost in enumerate(costs[OURS]):
                peers = [
                    seconds
                    for name, own in costs.items()
                    if not name.startswith(OURS) and (seconds := own[place]) is not None
                ]
                known = cost is not None and peers
                cells.append(f"**{cost / min(peers):.2f}**" if known else "-")
            print("| simdist / best peer | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
