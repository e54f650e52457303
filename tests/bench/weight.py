"""Memory above imports and input: simdist beside pynndescent, a fresh process for every run.

    python -m tests.bench.weight [--data packages] [--rows N] [--out FILE [--resume]]

Each process holds the rows, imports its library, runs the setting on 3,000 rows, and then once on
all; the kernel's high-water mark above that is the peak. The array that is returned is counted.
simdist's ratio is to the lightest setting of pynndescent that reaches the recall asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.alone import Alone, Run
from tests.bench.contenders import Contender, chosen
from tests.bench.datasets import FOLDER, opened
from tests.bench.ledger import Key, Ledger

ASKED = (0.95, 0.99)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="packages")
    parser.add_argument("--rows", type=int)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/weight.jsonl"))
    parser.add_argument("--resume", action="store_true")
    arguments, _ = parser.parse_known_args()
    ledger = Ledger(arguments.out, resume=arguments.resume)
    for name in arguments.data.split(","):
        data = opened(name, k=arguments.k, rows=arguments.rows, folder=arguments.folder)
        settings = [Contender("simdist", {"recall": recall}) for recall in ASKED]
        settings += [one for one in chosen(name, full=False) if one.family == "pynndescent"]
        for contender in settings:
            key = Key.of(data, contender, threads=arguments.threads, round=0, fresh=True)
            if key not in ledger.runs:
                with Alone(data, [contender], threads=arguments.threads) as process:
                    ledger.add(key, process.run(contender))
        runs = ledger.of(data, threads=arguments.threads, fresh=True)
        print(f"\n### {name}: {data.n:,} x {data.d}, input {data.nbytes >> 20} MiB\n")
        print("| | recall | peak MiB | of it anonymous |\n|---|---|---|---|")
        for one in settings:
            run = runs[one.label][-1]
            print(f"| {one.label} | {run.recall:.4f} | {run.peak >> 20} | {run.anonymous >> 20} |")
        for recall in ASKED:
            print(_ratio({label: own[-1] for label, own in runs.items()}, recall))


def _ratio(runs: dict[str, Run], recall: float) -> str:
    own = runs[f"simdist recall={recall}"]
    peers = [
        run
        for label, run in runs.items()
        if label.startswith("pynndescent") and run.recall >= recall
    ]
    if not peers:
        return f"\nno setting of pynndescent here reaches {recall}"
    lightest = min(peers, key=lambda run: run.peak)
    return (
        f"\nat recall {recall}: simdist / pynndescent {own.peak / lightest.peak:.2f} of peak,"
        f" {own.anonymous / max(lightest.anonymous, 1):.2f} of anonymous memory"
    )


if __name__ == "__main__":
    main()
