"""What `simdist doctor` found, as it is found: a line a check, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from simdist.engine import Engine
from simdist.engine import doctor as engine_doctor
from simdist.errors import EngineError
from simdist.report.terminal import columns, indented, show
from simdist.report.words import plural
from simdist.runner import doctor as pair_doctor
from simdist.store import doctor as store_doctor
from simdist.store.store import Store
from simdist.types import Finding, Json, Verdict

__all__ = ["Checkup", "checkup", "print_finding", "print_verdict"]

WIDEST = 21  # of the checks' names: lines appear one by one and stand below one another
MARKS: dict[Verdict, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "unfit": ("✗", "red"),
}


@dataclass(frozen=True, slots=True)
class Checkup:
    """All findings. engine: what was asked for, None where only the store was examined."""

    uri: str
    engine: str | None
    findings: tuple[Finding, ...]

    @property
    def fit(self) -> bool:
        """Whether runs can be trusted to it; warnings do not forbid them."""
        return not self._of("unfit")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self._of("warning")

    @property
    def unfit(self) -> tuple[Finding, ...]:
        return self._of("unfit")

    def _of(self, verdict: Verdict) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict == verdict)

    def to_json(self) -> dict[str, Json]:
        return {
            "uri": self.uri,
            "engine": self.engine,
            "fit": self.fit,
            "findings": [finding.to_json() for finding in self.findings],
        }


def checkup(store: Store, opening: Callable[[], Engine] | None) -> Iterator[Finding]:
    """Findings about the store, then the engine, then both together.

    opening: opens the engine, which is closed at the end; None examines the store only. Raises
    ConfigError where the settings of either make no sense.
    """
    reached = True
    for finding in store_doctor.examine(store):
        yield finding
        reached &= (finding.check, finding.verdict) != ("reach", "unfit")
    if opening is None:
        return
    try:
        with opening() as engine:
            took = f"{engine.kind} engine at {engine.where} in {engine.started_seconds:.1f} s"
            yield Finding("engine", "ok", took if engine.remote else "this process")
            yield from engine_doctor.examine(engine)
            if reached:
                yield from pair_doctor.examine(store, engine)
    except EngineError as error:
        advice = "Nothing else about it was checked. Correct this and ask again."
        yield Finding("engine", "unfit", str(error), advice)


def print_finding(finding: Finding, console: Console) -> None:
    """A mark, the check, what was found, and below it what to do."""
    mark, colour = MARKS[finding.verdict]
    table = columns()
    table.show_header = False
    table.add_column("", no_wrap=True)
    table.add_column("", min_width=WIDEST, no_wrap=True)
    table.add_column("", overflow="fold")
    plain = finding.verdict == "ok"
    table.add_row(Text(mark, colour), Text(finding.check), Text(finding.found, "dim" * plain))
    if finding.advice:
        table.add_row("", "", Text(f"→ {finding.advice}", colour))
    show(console, indented(table))


def print_verdict(checkup: Checkup, console: Console) -> None:
    """Fit or not, in a line."""
    what = checkup.uri if checkup.engine is None else f"{checkup.uri} with {checkup.engine}"
    warned = f", {plural(len(checkup.warnings), 'warning')}" if checkup.warnings else ""
    if checkup.fit:
        line = Text.assemble(("✓ ", "green"), ("fit", "bold"), f"{warned}: {what}")
    else:
        checks = ", ".join(finding.check for finding in checkup.unfit)
        line = Text.assemble(("✗ ", "red"), ("unfit", "bold"), f" ({checks}){warned}: {what}")
    show(console, Text(), line)
