"""A similarity graph and its components are jobs like any other: resumed where they broke off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stages.grow.growing import Disturbed, built, computed

from simdist.engine import Engine, open_engine
from simdist.errors import TaskFailed
from simdist.models.chain import Link, run_link
from simdist.models.components import components_links
from simdist.models.similarity import similarity_links
from simdist.stages.components import ConnectedComponents
from simdist.stages.links import SimilarityGraphStage
from simdist.store import Dataset, open_store


class DisturbedLinks(Disturbed, SimilarityGraphStage):
    """A similarity graph that fails once."""


class DisturbedComponents(Disturbed, ConnectedComponents):
    """Components that fail once."""


def _links() -> tuple[Link, Link]:
    made = similarity_links("links", "graph", weights="self_tuning", symmetrize="mutual")
    return made[0], components_links("components", "links")[0]


def test_what_a_failed_task_left_undone_is_all_that_is_done_again(
    tmp_path: Path, local_engine: Engine, many_shards
):
    rows = np.random.default_rng(2).standard_normal((200, 4)).astype(np.float32)
    store, other = open_store(tmp_path / "store"), open_store(tmp_path / "other")
    graph = built(rows, local_engine, store=store, measure="euclidean")
    expected: dict[str, Dataset] = {"graph": graph}
    known: dict[str, Dataset] = {"graph": graph}
    for link in _links():
        expected[link.name] = run_link(link, expected, store=other, engine=local_engine)
    cases = ((DisturbedLinks, "settle-000001"), (DisturbedComponents, "cross-000002"))
    with open_engine("local", workers=1) as engine:  # one after the other: others are not lost
        for link, (stage, fails_at) in zip(_links(), cases, strict=True):
            disturbed = replace(link, stage=stage(fails_at, str(tmp_path)))
            with pytest.raises(TaskFailed, match=f"InjectedError: {fails_at}$"):
                run_link(disturbed, known, store=store, engine=engine)
            known[link.name] = run_link(disturbed, known, store=store, engine=engine)
            assert known[link.name].manifest == expected[link.name].manifest
    often = computed(tmp_path)
    assert {"bucket-000000-0000", "scales-000000", "settle-000001", "cross-000002"} <= set(often)
    assert set(often.values()) == {1}
