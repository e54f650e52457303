"""Kill the main job in every way, many times, and see that it ends with the same bytes.

    python -m tests.chaos                                         50 of each sort: about an hour
    python -m tests.chaos --sorts driver,disk --engines local --trials 8
    python -m tests.chaos --only worker-ray-07                    one trial again
    python -m tests.chaos --flow spectral --sorts driver,worker --trials 8   another flow

Each trial is told before it happens and judged after. Results can go to JSON lines (`--jsonl`), so
that the same command goes on where it was interrupted, and to a markdown table (`--markdown`).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.flow import FLOWS
from tests.chaos.schedule import ENGINES, SORTS, schedule
from tests.chaos.table import table, told
from tests.chaos.trial import Outcome, carry_out
from tests.chaos.world import World

INSIDE = "SIMDIST_CHAOS_PRIVATE_MOUNTS"


def main() -> int:
    given = _arguments()
    if "disk" in given.sorts:
        _private_mounts()
    folder = Path(tempfile.mkdtemp(prefix="sdc-", dir="/tmp"))  # short: Ray puts sockets there
    _environment(folder)
    done = _known(given.jsonl)
    failed = []
    world = World(folder, given.flow)
    try:
        trials = list(
            schedule(
                given.sorts,
                given.engines,
                trials=given.trials,
                seed=given.seed,
                rounds=world.reference.rounds,
                flow=given.flow,
            )
        )
        if given.only:
            trials = [trial for trial in trials if trial.id in given.only]
        print(f"{len(trials)} trials, seed {given.seed}:", flush=True)
        for trial in trials:
            print(f"  {trial}{', known already' if trial.id in done else ''}", flush=True)
        for place, trial in enumerate(trials, 1):
            if trial.id in done:
                continue
            outcome = done[trial.id] = carry_out(trial, world)
            print(f"[{place}/{len(trials)}] {told(outcome)}", flush=True)
            if outcome.problems:
                failed.append(trial.id)
                print(
                    f"    again: python -m tests.chaos --flow {given.flow} --seed {given.seed}"
                    f" --only {trial.id}"
                )
                print(f"    kept: {folder / 'trials' / trial.id}", flush=True)
            if given.jsonl:
                with given.jsonl.open("a") as lines:
                    print(json.dumps(outcome.to_json()), file=lines)
    finally:
        world.close()
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)
    text = table(list(done.values()))
    print(text)
    if given.markdown:
        given.markdown.write_text(text + "\n")
    return 1 if any(outcome.problems for outcome in done.values()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sorts", type=_words(SORTS), default=list(SORTS))
    parser.add_argument("--engines", type=_words(ENGINES), default=list(ENGINES))
    parser.add_argument("--flow", choices=sorted(FLOWS), default="main")
    parser.add_argument("--trials", type=int, default=50, help="of each sort")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="ID", help="may be repeated")
    parser.add_argument("--jsonl", type=Path, help="read what is known, add what is found")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    return parser.parse_args()


def _words(known: tuple[str, ...]):
    def parse(text: str) -> list[str]:
        words = text.split(",")
        if wrong := sorted(set(words) - set(known)):
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(known)}")
        return words

    return parse


def _private_mounts() -> None:
    """Start again where mounts are seen by this process and those it starts only: the disk that is
    filled is a small tmpfs. An ordinary user gets that right from a user namespace."""
    if os.environ.get(INSIDE):
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--mount", "--propagation", "private"]
    os.environ[INSIDE] = "1"
    os.execvp(command[0], [*command, sys.executable, "-m", "tests.chaos", *sys.argv[1:]])


def _environment(folder: Path) -> None:
    """What all processes started from here inherit: an own Ray token, loopback only, own caches."""
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        RAY_TMPDIR=str(folder),
        SIMDIST_CACHE_DIR=str(folder / "cache"),
        PYTHONPATH=os.pathsep.join(path for path in (os.getcwd(), *sys.path) if path),
    )
    os.environ.pop("RAY_AUTH_TOKEN_PATH", None)


def _known(path: Path | None) -> dict[str, Outcome]:
    if path is None or not path.exists():
        return {}
    outcomes = [Outcome(**json.loads(line)) for line in path.read_text().splitlines()]
    return {outcome.id: outcome for outcome in outcomes if not outcome.problems}


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(code)
