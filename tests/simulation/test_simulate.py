"""Laws of the simulation, and one run that can be followed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from simdist.runner import RoundForecast
from simdist.simulation import Driver, KindRates, Machine, ObjectStore, Rates, Simulation, simulate

FREE = Driver(submit=0.0, collect=0.0, record=0.0, round=0.0)
EVEN = KindRates(task=1.0, row=0.0, byte=0.0, work=0.0, spread=0.0)  # a task takes one second
UNEVEN = replace(EVEN, spread=0.5)
ROUND = RoundForecast("join-0-1", 40, read=4_000, written=2_000, requests=120, rows=40)


def machine(kind: KindRates = EVEN, **options: object) -> Machine:
    given = {"cpus": 2, "memory": 1000.0, "driver": FREE, **options}
    return Machine("a worker", rates=Rates(1e9, 1e9, 0.0, {}, kind), **given)


def seconds(run: Simulation) -> float:
    return run.rounds[0].seconds


def test_one_slot_takes_the_sum_of_its_tasks() -> None:
    run = simulate([ROUND], machine(UNEVEN, cpus=1), workers=1)
    assert seconds(run) == pytest.approx(run.rounds[0].busy)
    assert run.rounds[0].idle == pytest.approx(0.0, abs=1e-6)


def test_even_tasks_on_many_slots_take_as_many_turns_as_needed() -> None:
    for workers in (1, 2, 3, 7, 50):
        turns = math.ceil(40 / (2 * workers))
        assert seconds(simulate([ROUND], machine(), workers=workers)) == pytest.approx(turns)


def test_a_run_that_can_be_followed_by_hand() -> None:
    # Two slots of one worker, four tasks. Each fetches 100 bytes at half of the worker's 100 bytes
    # a second (2 s), waits half a second for an answer, works for one and leaves 50 bytes (1 s):
    # 4.5 s, twice.
    cost = RoundForecast("join", 4, read=400, written=200, requests=4)
    worker = machine(network=100.0, store=ObjectStore(latency=0.5))
    run = simulate([cost], worker, workers=1)
    assert seconds(run) == pytest.approx(9.0)
    step = run.rounds[0]
    assert (step.busy, step.waiting, step.moving) == pytest.approx((4.0, 2.0, 12.0))
    assert step.held_up_by == "transfers"


def test_the_driver_does_one_thing_at_a_time() -> None:
    slow = Driver(submit=0.5, collect=0.25, record=0.1, round=2.0)
    run = simulate([ROUND], machine(driver=slow), workers=100)
    # 40 given out and 40 collected, the last one second after it was given out at the latest
    busy = 40 * 0.75 + 40 * 0.1 + 2.0
    assert run.rounds[0].driver == pytest.approx(busy)
    assert busy <= seconds(run) <= busy + 1.0
    assert run.rounds[0].held_up_by == "driver"


def test_the_store_is_shared_by_all_workers() -> None:
    alone = simulate([ROUND], machine(network=100.0), workers=20)
    shared = simulate([ROUND], machine(network=100.0, store=ObjectStore(500.0)), workers=20)
    # 40 tasks side by side, 6,000 bytes together: 12 s at 500 bytes a second, and 1 s of work
    assert seconds(alone) == pytest.approx(1 + 150 / 50)
    assert seconds(shared) == pytest.approx(1 + 6000 / 500)


def test_no_transfer_takes_time_where_the_network_is_infinite() -> None:
    assert simulate([ROUND], machine(), workers=3).rounds[0].moving == 0.0


@pytest.mark.parametrize("kind", [EVEN, UNEVEN])
def test_more_workers_are_never_slower(kind: KindRates) -> None:
    times = [seconds(simulate([ROUND], machine(kind), workers=n)) for n in (1, 2, 3, 5, 8, 13, 30)]
    assert times == sorted(times, reverse=True)


def test_every_byte_is_moved_once_and_every_task_done_once() -> None:
    cost = replace(ROUND, common=1000, common_requests=10)
    step = simulate([cost], machine(network=1e4), workers=4).rounds[0]
    assert step.fetched == pytest.approx(cost.fetched(4)) == pytest.approx(4000 + 4 * 1000)
    assert step.requests == pytest.approx(cost.asked(4)) == pytest.approx(120 + 4 * 10)
    assert step.left == pytest.approx(2000)
    assert step.busy == pytest.approx(40.0)


def test_what_no_cache_holds_is_fetched_by_every_task() -> None:
    cost = replace(ROUND, common=1000, common_requests=10, reach=0.5)
    step = simulate([cost], machine(cache=999.0), workers=4).rounds[0]
    assert step.fetched == pytest.approx(cost.fetched(4, 999.0)) == pytest.approx(4000 + 40 * 500)
    assert step.requests == pytest.approx(120 + 40 * 5)


def test_memory_decides_how_many_tasks_run_side_by_side() -> None:
    roomy = replace(ROUND, nbytes=500)
    tight = replace(ROUND, nbytes=501)
    assert seconds(simulate([roomy], machine(), workers=1)) == pytest.approx(20)
    assert seconds(simulate([tight], machine(), workers=1)) == pytest.approx(40)


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    risky = machine(UNEVEN, lost=0.01, replaced=3.0, network=1e3)
    rounds = [ROUND, replace(ROUND, name="finish")]
    assert simulate(rounds, risky, workers=3) == simulate(rounds, risky, workers=3)
    assert simulate(rounds, risky, workers=3) != simulate(rounds, risky, workers=3, seed=1)


def test_a_lost_worker_costs_what_it_was_doing_and_nothing_more() -> None:
    long = replace(ROUND, tasks=400)
    whole = simulate([long], machine(), workers=4)
    risky = machine(lost=0.02, replaced=5.0)
    lossy = simulate([long] * 3, risky, workers=4)
    assert sum(step.again for step in lossy.rounds) > 0
    assert all(step.busy == pytest.approx(400.0) for step in lossy.rounds)
    assert lossy.seconds > 3 * seconds(whole)


def test_a_round_without_workers_waits_for_the_next_ones() -> None:
    risky = machine(lost=0.0005, replaced=10.0)  # every 1.8 s on average
    run = simulate([ROUND], risky, workers=1)
    assert run.rounds[0].busy == pytest.approx(40.0)
    assert run.rounds[0].again > 0
    assert run.seconds > 20 + 10


def test_uneven_tasks_keep_their_mean() -> None:
    many = replace(ROUND, tasks=4000)
    step = simulate([many], machine(UNEVEN), workers=1).rounds[0]
    assert step.busy == pytest.approx(4000, rel=0.05)


def test_what_it_costs_is_hours_and_requests() -> None:
    priced = machine(price=3600.0, store=ObjectStore(price=1.0))
    run = simulate([ROUND], priced, workers=2)
    assert run.machine_dollars == pytest.approx(2 * 10)
    assert run.request_dollars == pytest.approx(0.12)
