"""Is the recall that was asked for there, on data made to break it? A line for each set.

    python -m tests.bench.adversarial [--data duplicates,giant,plane,heavy,hubs,packages,...]
        [--targets 0.9,0.95,0.99] [--rows N] [--out FILE [--resume]]

asked for, what simdist says it reached (estimate and interval, from rows it drew itself), what
faiss finds on 2,000 other rows, by id and counting ties, and how hard it had to work: joins, looks
at its recall, and whether it went through all pairs in the end. Among exact duplicates a row has
many right answers: there the column with ties counts.

The promise is kept where the measured recall is no less than what was asked for, give or take the
noise of 2,000 rows (0.003), and told honestly where it lies in the interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench.alone import Run
from tests.bench.contenders import Contender
from tests.bench.datasets import ADVERSARIAL, FOLDER, opened
from tests.bench.frontier import in_turn
from tests.bench.ledger import Ledger

NOISE = 0.003


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=",".join(ADVERSARIAL))
    parser.add_argument("--targets", default="0.95")
    parser.add_argument("--rows", type=int)
    parser.add_argument("-k", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/adversarial.jsonl"))
    parser.add_argument("--resume", action="store_true")
    arguments, _ = parser.parse_known_args()
    ledger = Ledger(arguments.out, resume=arguments.resume)
    settings = [
        Contender("simdist", {"recall": float(target)}) for target in arguments.targets.split(",")
    ]
    print(
        "| rows | asked for | says, with interval | faiss finds | with ties | kept | told |"
        " wall s | CPU s | joins | looks | all pairs | peak MiB |\n|" + "---|" * 13
    )
    for name in arguments.data.split(","):
        data = opened(name, k=arguments.k, rows=arguments.rows, folder=arguments.folder)
        in_turn(data, settings, ledger, rounds=1, threads=arguments.threads, slow=0.0)
        runs = ledger.of(data, threads=arguments.threads)
        for one in settings:
            asked = one.options["recall"]
            shape = f"{name}, {data.n:,} x {data.d}, {data.measure}"
            print(f"| {shape} | {asked} | {_line(runs[one.label][-1], asked)} |", flush=True)


def _line(run: Run, asked: float) -> str:
    says = run.reported or {}
    estimate, low, high = (says.get(name, float("nan")) for name in ("estimate", "low", "high"))
    found = max(run.recall, run.ties) if says.get("tie_aware", 0) > estimate else run.recall
    kept = found >= asked - NOISE
    told = low - NOISE <= run.recall <= high + NOISE
    joins = sum(step.startswith("join") for step in run.rounds)
    looks = sum(step.startswith("check") for step in run.rounds)
    every = any(step.startswith("pairs") for step in run.rounds)
    return (
        f"{estimate:.4f} [{low:.4f}, {high:.4f}] | {run.recall:.4f} | {run.ties:.4f} |"
        f" {'yes' if kept else '**no**'} | {'yes' if told else '**no**'} | {run.wall:.1f} |"
        f" {run.cpu:.1f} | {joins} | {looks} | {'yes' if every else 'no'} | {run.peak >> 20} |"
    ).removesuffix(" |")


if __name__ == "__main__":
    main()
