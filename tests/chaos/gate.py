"""A gate in a task: the process that reaches it waits there, so that a fault can find it.

    harness                              some process of the run
    set_gate(round, after, point)
                                         claim(key): am I task number `after` of the round?
                                         hold(point): held.json says who, then waits
    wait_held() <── held.json
    ... the fault ...
    open_gate() ──> go                   goes on, if it still lives

Files, because the processes have nothing else in common. Each gate holds once: the task that is
computed again passes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Gate", "Held", "claim", "hold", "open_gate", "set_gate", "wait_held"]

PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 0.004


@dataclass(frozen=True, slots=True)
class Gate:
    """Where to hold: task number `after` (from 0, in order of start) whose key begins with `round`.

    point: "started", "written" (its first object), "computed" (no record yet), "recorded" (the
    driver not told yet); of a commit "before" and "after" its manifest.
    """

    round: str
    after: int
    point: str


@dataclass(frozen=True, slots=True)
class Held:
    """The process that waits at the gate."""

    pid: int
    key: str


def set_gate(folder: Path, gate: Gate) -> None:
    _write(folder / "gate.json", asdict(gate))


def open_gate(folder: Path) -> None:
    (folder / "go").touch()


def wait_held(folder: Path, *, alive: Callable[[], bool]) -> Held:
    """Who is held; TimeoutError where nobody came, RuntimeError where the driver ended before."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = _read(folder / "held.json")
        if found is not None:
            return Held(**found)
        if not alive():
            raise RuntimeError("the driver ended before anything reached the gate")
        time.sleep(LOOK_SECONDS)
    raise TimeoutError(f"nothing reached the gate within {PATIENCE_SECONDS:g} s")


def claim(folder: Path, key: str) -> None:
    """Take the gate if this task is the one it was set for."""
    gate = _gate(folder)
    if gate is None or not (key == gate.round or key.startswith(f"{gate.round}-")):
        return
    for number in range(gate.after + 1):
        try:
            os.close(os.open(folder / f"entered-{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        if number == gate.after:
            _write(folder / "claimed.json", {"key": key})
        return


def hold(folder: Path, point: str, key: str) -> None:
    """Wait here, once, where the gate was set for this point and this task has claimed it."""
    gate = _gate(folder)
    if gate is None or gate.point != point or _read(folder / "claimed.json") != {"key": key}:
        return
    if (folder / "held.json").exists():
        return
    _write(folder / "held.json", {"pid": os.getpid(), "key": key})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder / "go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the gate at {key} was not opened within {PATIENCE_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)


def _gate(folder: Path) -> Gate | None:
    found = _read(folder / "gate.json")
    return None if found is None else Gate(**found)


def _write(path: Path, value: dict[str, object]) -> None:
    """Seen whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
