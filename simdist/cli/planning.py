"""What `plan` and `calibrate` do with their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simdist.cli.telling import Teller
from simdist.errors import ConfigError
from simdist.report.plan import PlannedFlow, plan_flow, print_plan

if TYPE_CHECKING:
    from simdist.config import FlowConfig

__all__ = ["tell_plan", "tell_rates"]

MOST_ROWS = 1e15


def tell_plan(
    flow: FlowConfig, rows: str | None, dim: int | None, machine: str | None, tell: Teller
) -> None:
    """The plan of a flow, or how it would go on `engine.workers` machines of a file."""
    planned = plan_flow(flow, rows=None if rows is None else _number(rows), dim=dim)
    if machine is not None:
        _tell_estimate(planned, machine, flow.engine.workers or 1, tell)
    elif tell.as_json:
        tell.json(planned.to_json())
    else:
        print_plan(planned, tell.out)


def tell_rates(file: str, workers: int | None, tell: Teller) -> None:
    """Measure this machine and write the file."""
    from simdist.config.machine import save_machine  # noqa: PLC0415 - plan needs none of it
    from simdist.models.calibration import calibrate  # noqa: PLC0415

    def said(what: str) -> None:
        if not tell.as_json:
            tell.err.print(f"measuring {what}", markup=False)

    machine = calibrate(workers=workers, tell=said)
    save_machine(machine, file, comment="By `simdist calibrate`; `rates: {like: FILE}` uses it.")
    rates = machine.rates
    if tell.as_json:
        tell.json({"file": file, "flops": rates.flops, "ops": rates.ops, "pair": rates.pair})
        return
    tell.out.print(
        f"✓ {file}: {machine.cpus} cpus, each {rates.flops / 1e9:.0f} GFLOP/s in float32,"
        f" {rates.ops / 1e9:.0f} GOP/s in int8, {rates.pair * 1e9:.0f} ns a pair",
        markup=False,
        soft_wrap=True,
    )


def _tell_estimate(planned: PlannedFlow, machine: str, workers: int, tell: Teller) -> None:
    from simdist.config.machine import load_machine  # noqa: PLC0415 - a plain plan needs none of it
    from simdist.report.estimate import estimate, print_estimate  # noqa: PLC0415

    worker = load_machine(machine)
    with tell.waiting("simulating"):
        told = estimate(planned, worker, workers=workers)
    if tell.as_json:
        tell.json(told.to_json())
    else:
        print_estimate(told, tell.out)


def _number(text: str) -> int:
    """`1e9`, `1_000_000` or `1000000`."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number <= MOST_ROWS:
        raise ConfigError(f"--rows {text}: expected a number of at least 1, such as 1e9")
    return int(number)
