"""From what queries and keys are coded as to bounds of their logits.

keys ── encode ──> codes, KeyFacts ─┐
queries ── encode ──> codes ────────┼──> Aim: ceiling, width, parts of every query
                                    └──> levels, panel by panel      simdist.compiled.logits
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from simdist.types import Array, Bools, Float64, Json

if TYPE_CHECKING:
    from simdist.compiled.twice_coded import Coded

__all__ = ["WIDTH", "Aim", "KeyFacts", "aim_at", "levels_of"]

WIDTH = 1.0 / 32.0  # of a level, in logits: a bound is at most e^(1/32) above itself
SLACK = 0.25  # of a logit that bounds may be above it on average, or more parts are multiplied
LARGEST = 1e30  # products beyond which float32 cannot be trusted to hold a bound
ROWS = 256  # queries whose levels against a panel are held at once


@dataclass(frozen=True)
class KeyFacts:
    """What is known of all keys and values together.

    most, sums: [FACTS] largest magnitudes and sums of the codes' facts. longest: no key is longer.
    widest: no value is. lows, highs: [dv] of the values, by column.
    """

    rows: int
    most: Float64
    sums: Float64
    longest: float
    widest: float
    lows: Float64
    highs: Float64

    @classmethod
    def of(cls, coded: Coded, keys: Array, values: Array) -> KeyFacts:
        facts = np.abs(coded.facts.astype(np.float64))
        return cls(
            len(keys),
            facts.max(axis=1),
            facts.sum(axis=1),
            _longest(keys),
            _longest(values),
            values.min(axis=0).astype(np.float64),
            values.max(axis=0).astype(np.float64),
        )

    def merge(self, other: KeyFacts) -> KeyFacts:
        return KeyFacts(
            self.rows + other.rows,
            np.maximum(self.most, other.most),
            self.sums + other.sums,
            max(self.longest, other.longest),
            max(self.widest, other.widest),
            np.minimum(self.lows, other.lows),
            np.maximum(self.highs, other.highs),
        )

    @property
    def means(self) -> Float64:
        return self.sums / max(self.rows, 1)

    def to_json(self) -> Json:
        return {
            "rows": self.rows,
            "most": self.most.tolist(),
            "sums": self.sums.tolist(),
            "longest": self.longest,
            "widest": self.widest,
            "lows": self.lows.tolist(),
            "highs": self.highs.tolist(),
        }

    @classmethod
    def from_json(cls, told: Json) -> KeyFacts:
        arrays = {name: np.array(told[name]) for name in ("most", "sums", "lows", "highs")}
        return cls(told["rows"], longest=told["longest"], widest=told["widest"], **arrays)


@dataclass(frozen=True)
class Aim:
    """How the logits of some queries are bounded: see simdist.compiled.logits.

    ceiling, width: [n] float64, in logits. slack: [n] by which bounds are above logits on average;
    least_slack: [n] those of three parts. base, per_level: [n]. usable: [n] whether float32 holds
    the bounds. parts: of the products.
    """

    parts: int
    ceiling: Float64
    width: Float64
    slack: Float64
    least_slack: Float64
    base: Float64
    per_level: Float64
    usable: Bools

    def refined(self, which: Bools) -> Aim:
        """Where the levels that matter were found anew from three parts."""
        return replace(self, slack=np.where(which, self.least_slack, self.slack))

    def take(self, rows: Array) -> Aim:
        arrays = ("ceiling", "width", "slack", "least_slack", "base", "per_level", "usable")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})


def aim_at(queries: Coded, keys: KeyFacts, scale: float, *, parts: int | None = None) -> Aim:
    """scale: at least 0. parts: by default as many as keep bounds within SLACK of the logits."""
    from simdist.compiled import twice_coded as of  # noqa: PLC0415 - numba only on workers
    from simdist.compiled.logits import LOWEST  # noqa: PLC0415 - numba only on workers

    facts, most = queries.facts.astype(np.float64), keys.most
    sides = facts[of.WHOLE] + facts[of.LAST] + facts[of.SECOND] + facts[of.REST]
    with np.errstate(over="ignore", invalid="ignore"):
        base = 1.001 * sides * (most[of.NORM] + most[of.REST] + most[of.SECOND]) + most[of.HEAD]
        usable = np.isfinite(base * scale) & (base + np.abs(facts[of.HEAD]) < LARGEST)
    base = np.where(usable, base, 0.0)
    width = np.maximum(WIDTH, 2.0 * scale * base / LOWEST)
    slacks = _slacks(facts, keys.means, scale)
    if parts is None:
        near = [float(np.mean(slack)) <= SLACK for slack in slacks]
        parts = near.index(True) + 1 if any(near) else len(slacks)
    return Aim(
        parts=parts,
        ceiling=np.where(usable, scale * (facts[of.HEAD] + base), 0.0),
        width=width,
        slack=slacks[parts - 1],
        least_slack=slacks[-1],
        base=base,
        per_level=np.where(usable, scale / width, 0.0),
        usable=usable,
    )


def _slacks(queries: Float64, keys: Float64, scale: float) -> list[Float64]:
    """[n] of 1, 2 and 3 parts, in logits. queries: [FACTS, n]; keys: [FACTS] on average."""
    from simdist.compiled import twice_coded as of  # noqa: PLC0415 - numba only on workers

    once = queries[of.REST] * keys[of.NORM] + queries[of.REACH] * keys[of.REST]
    half = queries[of.LAST] * keys[of.NORM] + queries[of.WHOLE] * keys[of.REST]
    twice = queries[of.LAST] * keys[of.NORM] + queries[of.WHOLE] * keys[of.LAST]
    twice += queries[of.SECOND] * keys[of.SECOND]
    return [scale * slack for slack in (once, half, twice)]


def levels_of(aim: Aim, queries: Coded, keys: Coded, most: Float64) -> Array:
    """[n, m] int16 levels of these queries against these keys."""
    from simdist.compiled.logits import Leveller  # noqa: PLC0415 - numba only on workers

    levels = np.empty((len(queries), len(keys)), np.int16)
    leveller = Leveller(queries, parts=aim.parts, per_level=aim.per_level, base=aim.base, most=most)
    leveller.levels(keys, levels)
    return levels


def _longest(rows: Array) -> float:
    """No row is longer, what the sum rounds included."""
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    longest = float(np.sqrt(squares.max(initial=0.0)))
    return longest * (1.0 + (int(rows.shape[1]) + 4) * 2.0**-52)
