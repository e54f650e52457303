"""Outcomes as a line each, and as the table of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.chaos.schedule import ENGINES, SORTS
from tests.chaos.trial import Outcome

__all__ = ["table", "told"]

FAULTS = {
    "driver": "driver, SIGKILL",
    "worker": "worker, SIGKILL",
    "node": "Ray node removed",
    "server": "S3 server, SIGKILL, restarted",
    "disk": "disk full, then space made",
}


def told(outcome: Outcome) -> str:
    """One line: what was done, and what came of it."""
    how = "recovered by itself" if outcome.recovered else "run again"
    end = "; ".join(outcome.problems) or (
        f"same bytes, {how}, {outcome.before} tasks before, {outcome.after} after,"
        f" {outcome.redone} redone"
    )
    return f"{'FAILED' if outcome.problems else 'ok'} {outcome.moment}: {end} ({outcome.seconds} s)"


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a line for each fault, engine and stage that was tried, and each fault's sum."""
    lines = [
        "| fault | engine | in the middle of | tried | same bytes | recovered by itself | errors"
        " | tasks recorded before | tasks begun twice | extra visible |",
        "| --- | --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    stages = list(dict.fromkeys(outcome.stage for outcome in outcomes))
    for sort in SORTS:
        mine = [outcome for outcome in outcomes if outcome.sort == sort]
        for engine in ENGINES:
            for stage in stages:
                some = [o for o in mine if (o.engine, o.stage) == (engine, stage)]
                if some:
                    lines.append(_line([FAULTS[sort], engine, stage], some))
        if mine:
            lines.append(_line([f"**{FAULTS[sort]}**", "all", "all"], mine))
    return "\n".join(lines)


def _line(names: Iterable[str], some: Sequence[Outcome]) -> str:
    numbers = (
        len(some),
        sum(outcome.same for outcome in some),
        sum(outcome.recovered for outcome in some),
        sum(bool(outcome.problems) for outcome in some),
        sum(outcome.before for outcome in some),
        sum(outcome.redone for outcome in some),
        sum(outcome.extra for outcome in some),
    )
    return f"| {' | '.join([*names, *map(str, numbers)])} |"
