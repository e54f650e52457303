"""Two drivers and gc on one store at once: nobody is harmed, and the bytes are the same."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from simdist.store import Store, maintenance, open_store
from tests.chaos.driver import Driver
from tests.chaos.gate import Gate, open_gate, set_gate, wait_held
from tests.chaos.world import World, computed, keys_of, same_manifests, staged, sweep


def collect_while_they_run(store: Store, drivers: list[Driver]) -> int:
    """gc of everything unreferenced, again and again; how much went."""
    gone = 0
    while any(driver.alive() for driver in drivers):
        gone += len(maintenance.gc(store, delete=True, older_than=timedelta(0)).keys)
    return gone


def test_two_drivers_and_gc_at_once_do_no_harm(world: World, tmp_path: Path) -> None:
    set_gate(tmp_path, Gate("leaves-0", 2, "computed"))
    drivers = [world.start(tmp_path, run="first")]
    store = open_store(tmp_path / "store")
    wait_held(tmp_path, alive=drivers[0].alive)  # its data is written, and nothing refers to it
    drivers.append(world.start(tmp_path, run="second"))
    kept = maintenance.gc(store, delete=True, older_than=timedelta(0)).why
    assert any("a driver is at work on knn_graph" in line for line in kept)
    open_gate(tmp_path)
    collect_while_they_run(store, drivers)
    assert [driver.wait() for driver in drivers] == [0, 0], [driver.said for driver in drivers]
    assert same_manifests(store, world.reference)
    assert set(computed(tmp_path)) == world.reference.tasks
    sweep(store)
    assert keys_of(store) == world.reference.swept
    assert staged(store) == []


def test_two_drivers_of_different_graphs_share_what_they_have_in_common(
    world: World, tmp_path: Path
) -> None:
    drivers = [world.start(tmp_path, run="first"), world.start(tmp_path, run="second", k=12)]
    store = open_store(tmp_path / "store")
    collect_while_they_run(store, drivers)
    assert [driver.wait() for driver in drivers] == [0, 0], [driver.said for driver in drivers]
    made = {key for key in keys_of(store) if key.startswith("manifests/")}
    assert set(world.reference.manifests) < made
    assert len(made) == len(world.reference.manifests) + 1  # import and partition are one
    for key in made:
        dataset = store.dataset(key.removeprefix("manifests/").removesuffix(".json"))
        assert maintenance.verify(store, dataset).ok
    assert all(store.objects.get(key) == data for key, data in world.reference.manifests.items())
