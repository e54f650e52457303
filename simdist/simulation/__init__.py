"""How long a plan would take on workers that nobody has rented yet.

    RoundForecasts ──┐                      ┌─ rounds with barriers, a window of tasks in flight
    Machine, rates ──┴─> simulate(workers) ─┼─ one driver, a store that all share, slow tasks
                              │             └─ workers that are lost and replaced
                              v
    Simulation: seconds, where they go, bytes, requests, what it costs

    machine    what a worker is: cpus, memory, network, price; what its rates are; the store
    rates      forecasts into seconds, and seconds that were measured into rates
    simulate   the events of one run after the other, by seed

Knows forecasts, no stage, no engine and no store: nothing here runs a task. Pure Python.
May import: the runner's plan, errors, types.
"""

from simdist.simulation.machine import Driver, Machine, ObjectStore
from simdist.simulation.rates import KindRates, Measured, Rates, fitted
from simdist.simulation.simulate import RoundTime, Simulation, simulate

__all__ = [
    "Driver",
    "KindRates",
    "Machine",
    "Measured",
    "ObjectStore",
    "Rates",
    "RoundTime",
    "Simulation",
    "fitted",
    "simulate",
]
