"""A data set several times the memory it is given, beside the same run with room, in turn.

    python -m tests.bench.spill [--rows 1000000] [--dim 384] [--times 5] [--rounds 2]

Each run is a process of its own on the local engine: import and graph of a file of synthetic rows
(intrinsic dimension 16, euclidean). `memory` is what the rows take over `times`, shared by both
threads; then 8GiB. Peaks are those of the process above what it held after imports and a small
job, looked at every 50 ms: anonymous memory, and pages of mapped files, which the kernel takes
back when it needs room. Both commit the same bytes, or it says so. Too few rows are refused: the
block of a task does not shrink with the data.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.bench.memory import Seen, watched, written

ROOM = "8GiB"


def main() -> None:
    """Run in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--folder", default=None, help="where data and stores lie meanwhile")
    arguments, _ = parser.parse_known_args()
    arguments.method, arguments.store = "approximate", None
    nbytes = 4 * arguments.rows * arguments.dim
    tight = f"{round(nbytes / arguments.times / 2**20)}MiB"
    runs: dict[str, list[Seen]] = {tight: [], ROOM: []}
    with tempfile.TemporaryDirectory(prefix="simdist-bench-", dir=arguments.folder) as folder:
        path = written(arguments, Path(folder))
        for _ in range(arguments.rounds):
            for memory, own in runs.items():
                arguments.memory = memory
                with tempfile.TemporaryDirectory(dir=folder) as store:
                    own.append(watched(arguments, "local", path, store))
    print(f"\n{arguments.rows:,} x {arguments.dim}: {nbytes >> 20} MiB of rows\n")
    print("| memory | peak MiB | of it anonymous | mapped | wall s | CPU s | recall | sha256 |")
    print("|" + "---|" * 8)
    for memory, own in runs.items():
        total, anonymous, mapped = (
            max(getattr(seen.worker, name) for seen in own) >> 20
            for name in ("total", "anonymous", "mapped")
        )
        shas = ", ".join(sorted({seen.told["sha"] for seen in own}))
        print(
            f"| {memory} | {total} | {anonymous} | {mapped} | {_median(own, 'wall'):.1f} |"
            f" {_median(own, 'cpu'):.1f} | {_median(own, 'recall'):.4f} | {shas} |"
        )
    slower = _median(runs[tight], "wall") / _median(runs[ROOM], "wall")
    work = _median(runs[tight], "cpu") / _median(runs[ROOM], "cpu")
    same = len({seen.told["sha"] for own in runs.values() for seen in own}) == 1
    print(
        f"\n{arguments.times:g} x the memory: {slower:.2f} x the wall, {work:.2f} x the CPU"
        f" seconds, {'the same bytes' if same else '**other bytes**'}"
    )


def _median(runs: list[Seen], name: str) -> float:
    return statistics.median(seen.told[name] for seen in runs)


if __name__ == "__main__":
    main()
