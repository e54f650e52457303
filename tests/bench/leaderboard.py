"""Where simdist would stand on the 2026 indexing challenge's k-NN graph task, in its unit.

    python -m tests.bench.leaderboard [--rows 200000] [--rounds 1] [--out FILE [--resume]]

The challenge had 6,000,000 embeddings of 1024 dimensions, k = 15, on 8 vCPU; its unit, seconds x
vCPU / rows, in milliseconds, is compared at equal recall. Here: 200,000 synthetic rows of 1024
dimensions that are as hard as real embeddings and have their spectrum (see `datasets.leaderboard`),
on the cpus at hand. Fewer rows are easier, newer cpus quicker: it says where simdist stands, not
that it took part. pynndescent runs beside it, since an entry was built on it.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tests.bench.contenders import Contender
from tests.bench.curves import Point, cost_at
from tests.bench.datasets import FOLDER, opened
from tests.bench.frontier import in_turn
from tests.bench.ledger import Ledger, points

RECALL = 0.85
# entry, recall, ms x vCPU / row: parsed from the organisers' table of 2026-06-14 (8 vCPU, AVX2)
ENTRIES = (
    ("PiPNN, quickest", 0.818, 0.25),
    ("PiPNN", 0.902, 0.38),
    ("PiPNN", 0.962, 1.41),
    ("Plain Local Search", 0.889, 0.59),
    ("R-trunks", 0.801, 0.54),
    ("deglib", 0.803, 0.43),
    ("wh-team: projection, pynndescent, int8 re-rank", 0.855, 1.26),
    ("Apex", 0.819, 2.43),
    ("HaNSWurst", 0.884, 3.5),
    ("int8 IVF", 0.889, 4.4),
)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/leaderboard.jsonl"))
    parser.add_argument("--resume", action="store_true")
    arguments, _ = parser.parse_known_args()
    ledger = Ledger(arguments.out, resume=arguments.resume)
    data = opened("leaderboard", k=arguments.k, rows=arguments.rows, folder=arguments.folder)
    settings = [Contender("simdist", {"recall": recall}) for recall in (0.80, 0.85, 0.90, 0.95)]
    settings += [
        Contender("pynndescent", {"n_neighbors": neighbors, "n_trees": 4} | more)
        for neighbors, more in ((16, {"n_iters": 3}), (16, {}), (20, {"leaf_size": 200}), (30, {}))
    ]
    in_turn(data, settings, ledger, rounds=arguments.rounds, threads=arguments.threads, slow=600.0)
    runs = ledger.of(data, threads=arguments.threads)
    print(f"\n### {data.n:,} x {data.d}, k = {data.k}, {arguments.threads} vCPU\n")
    print("| | recall | wall s | CPU s | its own check s | ms x vCPU / row | with its check |")
    print("|" + "---|" * 7)
    unit = 1000 * arguments.threads / data.n
    for one in settings:
        own = runs[one.label]
        wall, cpu, check, recall = (
            statistics.median(getattr(run, name) for run in own)
            for name in ("wall", "cpu", "check", "recall")
        )
        print(
            f"| {one.label} | {recall:.4f} | {wall:.1f} | {cpu:.1f} | {check:.1f} |"
            f" {unit * (wall - check):.2f} | {unit * wall:.2f} |"
        )
    walls = points({one.label: runs[one.label] for one in settings})
    _stand({name: [Point(p.recall, unit * p.cost) for p in own] for name, own in walls.items()})


def _stand(units: dict[str, list[Point]]) -> None:
    """ms x vCPU / row at the recall of each entry, ours and pynndescent's beside theirs."""
    print(f"\n| at recall | {' | '.join(units)} | an entry with that recall | its unit |")
    print("|" + "---|" * (len(units) + 3))
    rows = [(RECALL, "", None), *((recall, name, own) for name, recall, own in ENTRIES)]
    for recall, name, theirs in sorted(rows, key=lambda row: row[0]):
        cells = [cost_at(own, recall) for own in units.values()]
        told = " | ".join("not reached" if cost is None else f"{cost:.2f}" for cost in cells)
        print(f"| {recall:.3f} | {told} | {name} | {'' if theirs is None else theirs} |")
    at = cost_at(units.get("simdist", []), RECALL)
    if at is not None:
        print(f"\nsimdist at recall {RECALL}: {at:.2f} ms x vCPU / row")


if __name__ == "__main__":
    main()
