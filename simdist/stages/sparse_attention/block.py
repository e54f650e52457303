"""A block of queries from beginning to end, where all keys can be looked at by one task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np

from simdist.stages.sparse_attention.choice import Choice, choose, extend, worth_refining
from simdist.stages.sparse_attention.config import SparseConfig
from simdist.stages.sparse_attention.fold import (
    Certified,
    Scored,
    certify,
    exact,
    hopeless,
    refine,
    scan,
    score,
)
from simdist.stages.sparse_attention.queries import Panel, Queries
from simdist.tiles.softmax import SoftmaxState
from simdist.types import Array, Ids

__all__ = ["attend_block", "every_key", "joined"]


def attend_block(
    queries: Queries,
    panels: Sequence[Panel],
    pilot: Panel | None,
    config: SparseConfig,
    *,
    check: Callable[[], None] | None = None,
) -> Certified:
    """Scan, score and certify; all keys for the queries that need too many. See `fold`.

    pilot: a few evenly spaced keys, where there are many.
    """
    far = np.zeros(len(queries), bool) if pilot is None else hopeless(queries, pilot, config)
    parts: list[tuple[Ids, Certified]] = []
    if not far.all():
        near = np.flatnonzero(~far)
        found = _sparse(queries.take(near), panels, config, check)
        far[near[found.fell_back]] = True
        parts.append((near, found))
    if far.any():
        which = np.flatnonzero(far)
        some = queries.take(which)
        state, rounding = exact(some, panels, config.tolerance, check=check)
        assert state is not None  # there is at least one panel
        choice, scored = every_key(state)
        parts.append((which, certify(some, choice, scored, rounding, config)))
    return joined(len(queries), parts)


def _sparse(
    queries: Queries,
    panels: Sequence[Panel],
    config: SparseConfig,
    check: Callable[[], None] | None,
) -> Certified:
    """Levels are kept between scan and score. Rows that need all keys are marked, not computed."""
    kept: list[Array] = []
    tolerance = queries.tolerance(config.tolerance)
    counted = scan(queries, panels, keep=kept, check=check)
    floors = worth_refining(counted, queries.aim, tolerance)
    aim = queries.aim
    if (floors <= counted.tops).any():
        refine(queries, panels, counted, floors, kept)
        aim = aim.refined(floors <= counted.tops)
    choice = choose(counted, aim, config, tolerance)
    scored = score(queries, panels, choice, kept=kept, check=check)
    choice = extend(choice, counted, aim, config, tolerance, scored.state.total)
    if choice.active.any():
        scored = scored.plus(score(queries, panels, choice, kept=kept, check=check))
    return certify(queries, choice, scored, queries.rounding, config)


def every_key(state: SoftmaxState) -> tuple[Choice, Scored]:
    """The choice of all keys, and what they add up to."""
    n = len(state.total)
    none, all_of_them = np.zeros(n, bool), np.ones(n, bool)
    floors = np.zeros(n, np.int32)
    choice = Choice(
        floors, floors, np.zeros(n, np.int64), np.zeros(n), state.peak, all_of_them, none
    )
    return choice, Scored(state, np.zeros(n, np.int64))


def joined(rows: int, parts: Sequence[tuple[Ids, Certified]]) -> Certified:
    """Certificates of some rows each, later ones in place of earlier ones."""
    whole = {}
    for field in fields(Certified):
        first = getattr(parts[0][1], field.name)
        whole[field.name] = np.empty((rows, *first.shape[1:]), first.dtype)
        for which, part in parts:
            whole[field.name][which] = getattr(part, field.name)
    return Certified(**whole)
