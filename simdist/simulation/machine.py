"""What a worker is, and the store and the driver it works with: bytes, seconds, US dollars."""

from __future__ import annotations

from dataclasses import dataclass, field

from simdist.simulation.rates import Rates

__all__ = ["Driver", "Machine", "ObjectStore"]

INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """The store that all workers share.

    bandwidth: bytes per second of all workers together. latency: seconds until a request's answer
    begins. price: dollars per 1,000 requests.
    """

    bandwidth: float = INFINITE
    latency: float = 0.0
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Driver:
    """What the one process costs that hands out tasks. submit, collect: seconds of its time for a
    task given out, and for one that ended. record: for a task in a round's index. round: for a
    round, beside its tasks."""

    submit: float = 0.0002
    collect: float = 0.0002
    record: float = 0.00002
    round: float = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """A worker of a cluster.

    cpus: tasks that run side by side, where its memory holds them. memory: bytes for tasks.
    network: bytes per second to and from the store. cache: bytes of objects it keeps on its disk.
    price: dollars an hour. lost: mean hours until it is lost (a spot instance); replaced: seconds
    until another stands in its place.
    """

    name: str
    cpus: int
    memory: float
    rates: Rates
    network: float = INFINITE
    cache: float = INFINITE
    price: float = 0.0
    lost: float = INFINITE
    replaced: float = 120.0
    store: ObjectStore = field(default_factory=ObjectStore)
    driver: Driver = field(default_factory=Driver)

    def slots(self, nbytes: float) -> int:
        """Tasks of so many bytes that run side by side; at least one, which may not fit."""
        by_memory = int(self.memory // nbytes) if nbytes else self.cpus
        return max(1, min(self.cpus, by_memory))
