"""Time against the number of rows, from 10,000 to 1,000,000, on a log-log plot.

    python -m tests.bench.growth [--data easy] [--sizes 10000,30000,...] [--rounds 1]
        [--recall 0.95] [--out FILE [--resume]] [--plot docs/growth.svg]

The same synthetic sequence, cut at each size (a cut of other data is drawn at random), asked for
the same recall. simdist is array to array; the slope is that of its build, and once more of the
build with the check of its recall. The best peer at that recall stands beside it. The slope between
neighbouring sizes tells whether a straight line is the right picture.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from tests.bench.alone import Run
from tests.bench.contenders import Contender
from tests.bench.curves import slope
from tests.bench.datasets import FOLDER, opened
from tests.bench.frontier import in_turn
from tests.bench.ledger import Ledger, wall_seconds

SIZES = "10000,30000,100000,300000,1000000"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="easy")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/growth.jsonl"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--plot", type=Path)
    arguments, _ = parser.parse_known_args()
    ledger = Ledger(arguments.out, resume=arguments.resume)
    settings = [
        Contender("simdist", {"recall": arguments.recall}),
        Contender("pynndescent", {"n_neighbors": 16, "n_trees": 4}),
    ]
    runs: dict[str, dict[int, Run]] = {one.label: {} for one in settings}
    for n in map(int, arguments.sizes.split(",")):
        data = opened(arguments.data, k=arguments.k, rows=n, folder=arguments.folder)
        in_turn(
            data,
            settings,
            ledger,
            rounds=arguments.rounds,
            threads=arguments.threads,
            slow=600.0,
        )
        for label, own in ledger.of(data, threads=arguments.threads).items():
            if label in runs:
                runs[label][data.n] = sorted(own, key=wall_seconds)[len(own) // 2]
    print(f"\n### {arguments.data}, k = {arguments.k}, {arguments.threads} threads\n")
    for label, by_size in runs.items():
        _tell(label, by_size)
    if arguments.plot is not None:
        from tests.bench.plots import plot_growth

        plot_growth(
            arguments.plot,
            {
                label: {n: wall_seconds(run) for n, run in own.items()}
                for label, own in runs.items()
            },
        )
        print(f"\nplotted to {arguments.plot}")


def _tell(label: str, runs: dict[int, Run]) -> None:
    print(f"\n| {label}: rows | wall s | of it its own check | CPU s | recall | slope so far |")
    print("|" + "---|" * 6)
    sizes = sorted(runs)
    for place, n in enumerate(sizes):
        run = runs[n]
        last = sizes[place - 1 : place + 1]
        grown = f"{slope(last, [wall_seconds(runs[m]) for m in last]):.2f}" if place else ""
        print(
            f"| {n:,} | {run.wall:.2f} | {run.check:.2f} | {run.cpu:.2f} | {run.recall:.4f} |"
            f" {grown} |"
        )
    if len(sizes) > 1:
        built = slope(sizes, [wall_seconds(runs[n]) for n in sizes])
        whole = slope(sizes, [runs[n].wall for n in sizes])
        cpu = slope(sizes, [runs[n].cpu for n in sizes])
        recalls = statistics.mean(runs[n].recall for n in sizes)
        print(
            f"\n{label}: wall ~ n^{built:.2f}, with its check n^{whole:.2f}, CPU n^{cpu:.2f};"
            f" mean recall {recalls:.4f}"
        )


if __name__ == "__main__":
    main()
