"""The events of a run that does not take place: tasks, transfers, a driver, lost workers.

    driver ── submit ──> waiting ──> slot of a worker: fetch ─> compute ─> leave ──> driver: collect
       ^ window of 2 x slots                 │            └ shared store ┘              │
       └─────────────────────────────────────┴── lost with its worker: waits again <────┘
    all collected ──> the round's index ──> next round

As the runner does it (simdist.runner.loop): rounds end before the next begins; at most twice as
many tasks are in flight as run side by side; the driver does one thing at a time; what ended has
left its record and is not done again when its worker is lost.

The store is a processor that all transfers share: each gets the same part of its bandwidth, and no
more than its slot's part of its worker's network. Tasks of a round differ by a factor drawn from a
lognormal distribution of mean 1. Nothing knows the wall clock: the same seed, the same run.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from simdist.runner.plan import RoundForecast
from simdist.simulation.machine import Machine

__all__ = ["RoundTime", "Simulation", "simulate"]

WINDOW = 2  # tasks in flight for each slot
COMPUTED, LOST, BACK, DROVE = range(4)
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class RoundTime:
    """A round as it would go. seconds: from its first task to the next round's.

    slots: tasks that run side by side. busy: seconds of all slots spent computing; moving: in
    transfers; waiting: for the store's first byte. idle: in which slots had nothing to do.
    driver: seconds of the driver. fetched, left: bytes from and to the store. requests: of it.
    again: tasks that were begun again because their worker was lost.
    """

    name: str
    seconds: float
    tasks: int
    slots: int
    busy: float
    moving: float
    waiting: float
    driver: float
    fetched: float
    left: float
    requests: float
    again: int

    @property
    def idle(self) -> float:
        return max(self.seconds * self.slots - self.busy - self.moving - self.waiting, 0.0)

    @property
    def spent(self) -> dict[str, float]:
        """What the slots' seconds go to; `idle` is waiting for the driver or the round's last."""
        return {
            "compute": self.busy,
            "transfers": self.moving,
            "requests": self.waiting,
            "idle": self.idle,
        }

    @property
    def held_up_by(self) -> str:
        """The driver, where it is at work nearly all the time, else what most seconds go to."""
        if self.driver > 0.8 * self.seconds:
            return "driver"
        return max(self.spent, key=lambda name: self.spent[name])


@dataclass(frozen=True, slots=True)
class Simulation:
    """A run as it would go on so many workers, and what it would cost in dollars."""

    workers: int
    rounds: tuple[RoundTime, ...]
    machine_dollars: float
    request_dollars: float

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.rounds)

    @property
    def dollars(self) -> float:
        return self.machine_dollars + self.request_dollars

    @property
    def fetched(self) -> float:
        """Bytes from the store."""
        return sum(step.fetched for step in self.rounds)

    @property
    def left(self) -> float:
        """Bytes to the store."""
        return sum(step.left for step in self.rounds)

    @property
    def requests(self) -> float:
        return sum(step.requests for step in self.rounds)


def simulate(
    rounds: Sequence[RoundForecast], machine: Machine, *, workers: int, seed: int = 0
) -> Simulation:
    """The rounds in order on `workers` machines. Cost: some microseconds a task."""
    cluster = _Cluster(machine, workers, seed)
    times = tuple(cluster.run(cost) for cost in rounds)
    seconds = sum(step.seconds for step in times)
    requests = sum(step.requests for step in times)
    return Simulation(
        workers=workers,
        rounds=times,
        machine_dollars=workers * machine.price * seconds / HOUR,
        request_dollars=requests / 1000 * machine.store.price,
    )


class _Sharing:
    """Transfers in flight: each moves at min(own, together / how many) bytes a second.

    Since all move at one rate, a transfer ends when `given`, what one of them would have been given
    since the beginning, has grown by its own bytes: a heap tells which is next.
    """

    def __init__(self, own: float, together: float, now: float) -> None:
        self.own, self.together, self.now = own, together, now
        self.takes_time = not math.isinf(min(own, together))
        self.given = 0.0
        self.heap: list[tuple[float, int]] = []
        self.flying: set[int] = set()

    def begin(self, now: float, nbytes: float, ticket: int) -> None:
        self._forward(now)
        heapq.heappush(self.heap, (self.given + nbytes, ticket))
        self.flying.add(ticket)

    def drop(self, now: float, ticket: int) -> None:
        """Forget a transfer, where there is one: its worker is lost."""
        self._forward(now)
        self.flying.discard(ticket)

    def next_end(self) -> float:
        """When the next transfer ends."""
        while self.heap and self.heap[0][1] not in self.flying:
            heapq.heappop(self.heap)
        if not self.heap:
            return math.inf
        return self.now + max(self.heap[0][0] - self.given, 0.0) / self._rate()

    def end(self, now: float) -> int:
        """The transfer that ends now."""
        self._forward(now)
        at, ticket = heapq.heappop(self.heap)
        self.given = max(self.given, at)  # what rounding left over
        self.flying.remove(ticket)
        return ticket

    def _rate(self) -> float:
        return min(self.own, self.together / len(self.flying))

    def _forward(self, now: float) -> None:
        if self.flying:
            self.given += (now - self.now) * self._rate()
        self.now = now


class _Cluster:
    """Workers and their losses, through all rounds; seconds go on from round to round."""

    def __init__(self, machine: Machine, workers: int, seed: int) -> None:
        self.machine = machine
        self.workers = workers
        self.seed = seed
        self.now = 0.0
        self.drawn = Random(f"{seed}/losses")
        self.lost_at = [self._next_loss() for _ in range(workers)]
        self.back_at = [0.0] * workers

    def run(self, cost: RoundForecast) -> RoundTime:
        step = _Step(self, cost)
        step.run()
        self.now = step.now
        return step.time()

    def lose(self, worker: int, now: float) -> float:
        """The worker is lost; when another stands in its place."""
        self.back_at[worker] = now + self.machine.replaced
        self.lost_at[worker] = self.back_at[worker] + self._next_loss()
        return self.back_at[worker]

    def _next_loss(self) -> float:
        hours = self.machine.lost
        return math.inf if math.isinf(hours) else self.drawn.expovariate(1 / (hours * HOUR))


class _Step:
    """One round. A task's stay on a slot has a ticket: events of one that was lost mean nothing."""

    def __init__(self, cluster: _Cluster, cost: RoundForecast) -> None:
        machine = cluster.machine
        self.cluster, self.cost, self.machine = cluster, cost, machine
        self.began = self.now = cluster.now
        self.side_by_side = min(
            machine.slots(cost.nbytes), max(-(-cost.tasks // cluster.workers), 1)
        )
        self.slots = self.side_by_side * cluster.workers
        tasks = max(cost.tasks, 1)
        self.seconds = self._drawn(machine.rates.seconds(cost) / tasks)
        # What every task looks into whole comes with a worker's first tasks, a part with each slot;
        # what each looks into in part comes with all of them alike.
        whole = cost.reach == 1.0 and cost.common <= machine.cache
        each = 0.0 if whole else cost.times(cluster.workers, machine.cache) / tasks
        self.first = 1.0 / self.side_by_side if whole else 0.0
        self.reads = cost.read / tasks + each * cost.common
        self.asks = cost.requests / tasks + each * cost.common_requests
        self.writes = cost.written / tasks
        self.sharing = _Sharing(
            machine.network / self.side_by_side, machine.store.bandwidth, self.now
        )
        self.events: list[tuple[float, int, int]] = []
        self.stays: dict[int, tuple[int, int, float, bool]] = {}  # task, worker, since, leaving
        self.free = [0] * cluster.workers
        self.cold = [0] * cluster.workers
        self.open: list[int] = []  # workers that may have a slot free, lowest first
        self.waits: dict[int, float] = {}  # seconds a task takes once it has what it reads
        self.waiting: deque[int] = deque()
        self.ended = self.submitted = self.collected = self.again = self.tickets = 0
        self.driver_free = True
        self.busy = self.moving = self.latency = self.driver = 0.0
        self.fetched = self.left = self.requests = 0.0

    def run(self) -> None:
        for worker in range(self.cluster.workers):
            if self.cluster.back_at[worker] <= self.now:
                self._stand(worker)
            else:
                self._at(self.cluster.back_at[worker], BACK, worker)
        self._drive()
        act = (self._computed, self._lost, self._stand, self._drove)
        while self.collected < self.cost.tasks:
            transfer = self.sharing.next_end()
            if self.events and self.events[0][0] <= transfer:
                self.now, what, which = heapq.heappop(self.events)
                act[what](which)
            else:
                self.now = transfer
                self._moved(self.sharing.end(transfer))
        index = self.machine.driver.round + self.machine.driver.record * self.cost.tasks
        self.driver += index
        self.now += index

    def time(self) -> RoundTime:
        return RoundTime(
            name=self.cost.name,
            seconds=self.now - self.began,
            tasks=self.cost.tasks,
            slots=self.slots,
            busy=self.busy,
            moving=self.moving,
            waiting=self.latency,
            driver=self.driver,
            fetched=self.fetched,
            left=self.left,
            requests=self.requests,
            again=self.again,
        )

    def _drawn(self, mean: float) -> list[float]:
        """Seconds of every task: its own whichever worker gets it."""
        spread = self.machine.rates.of(self.cost.kind).spread
        gauss = Random(f"{self.cluster.seed}/{self.cost.name}").gauss
        return [
            mean * math.exp(spread * gauss(0.0, 1.0) - spread**2 / 2)
            for _ in range(self.cost.tasks)
        ]

    def _at(self, when: float, what: int, which: int) -> None:
        heapq.heappush(self.events, (when, what, which))

    # -- the driver: collects what ended before it gives out more --

    def _drive(self) -> None:
        if not self.driver_free:
            return
        if self.ended:
            self.ended -= 1
            seconds, number = self.machine.driver.collect, 0
        elif (
            self.submitted < self.cost.tasks
            and self.submitted - self.collected < WINDOW * self.slots
        ):
            self.submitted += 1
            seconds, number = self.machine.driver.submit, self.submitted
        else:
            return
        self.driver += seconds
        self.driver_free = False
        self._at(self.now + seconds, DROVE, number)

    def _drove(self, number: int) -> None:
        """number: of the task given out, from 1; 0 where one was collected."""
        self.driver_free = True
        if number:
            self.waiting.append(number - 1)
            self._fill()
        else:
            self.collected += 1
        self._drive()

    # -- workers --

    def _stand(self, worker: int) -> None:
        """A worker is there, with nothing in its cache."""
        self.free[worker] = self.cold[worker] = self.side_by_side
        heapq.heappush(self.open, worker)
        if not math.isinf(self.cluster.lost_at[worker]):
            self._at(max(self.cluster.lost_at[worker], self.now), LOST, worker)
        self._fill()

    def _lost(self, worker: int) -> None:
        lost = [ticket for ticket, stay in self.stays.items() if stay[1] == worker]
        for ticket in reversed(lost):
            task, _, _, _ = self.stays.pop(ticket)
            self.waits.pop(ticket, None)
            self.sharing.drop(self.now, ticket)
            self.waiting.appendleft(task)
        self.again += len(lost)
        self.free[worker] = 0
        self._at(self.cluster.lose(worker, self.now), BACK, worker)
        self._fill()

    def _fill(self) -> None:
        """Waiting tasks onto free slots."""
        while self.waiting and self.open:
            worker = self.open[0]
            if self.free[worker]:
                self.free[worker] -= 1
                self._begin(self.waiting.popleft(), worker)
            else:
                heapq.heappop(self.open)

    # -- a task's stay: fetch, compute, leave --

    def _begin(self, task: int, worker: int) -> None:
        reads, asks = self.reads, self.asks
        if self.cold[worker]:
            self.cold[worker] -= 1
            reads += self.first * self.cost.common
            asks += self.first * self.cost.common_requests
        self.tickets += 1
        self.fetched += reads
        self.requests += asks
        self.latency += asks * self.machine.store.latency
        self.stays[self.tickets] = (task, worker, self.now, False)
        waits = asks * self.machine.store.latency + self.seconds[task]
        if reads and self.sharing.takes_time:
            self.waits[self.tickets] = waits
            self.sharing.begin(self.now, reads, self.tickets)
        else:
            self._at(self.now + waits, COMPUTED, self.tickets)

    def _moved(self, ticket: int) -> None:
        """A transfer has ended: the task computes, or has left what it made."""
        _, _, since, leaving = self.stays[ticket]
        self.moving += self.now - since
        if leaving:
            self._end(ticket)
        else:
            self._at(self.now + self.waits.pop(ticket), COMPUTED, ticket)

    def _computed(self, ticket: int) -> None:
        stay = self.stays.get(ticket)
        if stay is None:  # its worker was lost
            return
        task, worker, _, _ = stay
        self.busy += self.seconds[task]
        self.left += self.writes
        if self.writes and self.sharing.takes_time:
            self.stays[ticket] = (task, worker, self.now, True)
            self.sharing.begin(self.now, self.writes, ticket)
        else:
            self._end(ticket)

    def _end(self, ticket: int) -> None:
        _, worker, _, _ = self.stays.pop(ticket)
        self.free[worker] += 1
        if self.free[worker] == 1:
            heapq.heappush(self.open, worker)
        self.ended += 1
        self._fill()
        self._drive()
