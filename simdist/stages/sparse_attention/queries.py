"""Panels of keys, blocks of queries, and what rounding takes off a certificate.

rows ──> codes, lengths ──┬──> Aim              where bounds of the logits are
                          └──> sums, rounding   the type keys are scored in, and what it costs
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from simdist.stages.sparse_attention.bounds import Aim, KeyFacts, aim_at
from simdist.stages.sparse_attention.config import SparseConfig
from simdist.types import Array, Float64, Ids

if TYPE_CHECKING:
    from simdist.compiled.twice_coded import Coded

__all__ = ["Panel", "Queries", "fits_single"]

SMALLEST, LARGEST = 1e-20, 1e30  # lengths of values that float32 can sum with small weights
CLOSE = 8.0  # logits that bounds may be above the truth on average, for weights in float32
LITTLE = 0.05  # of the tolerance


class Panel(NamedTuple):
    """Some keys. coded: their codes; keys: [m, d], values: [m, dv] float32 or float64. first: the
    number of the first key."""

    coded: Coded
    keys: Array
    values: Array
    first: int = 0

    @classmethod
    def of(cls, coded: Coded, keys: Array, values: Array, first: int = 0) -> Panel:
        """All of it read-only, whether mapped or in memory: kernels are compiled once."""
        coded = type(coded)(*map(_read_only, coded))
        return cls(coded, _read_only(keys), _read_only(values), first)

    def take(self, which: Array) -> Panel:
        """A copy of some keys."""
        coarse, fine, facts = self.coded
        coded = type(self.coded)(coarse[which], fine[which], np.ascontiguousarray(facts[:, which]))
        return Panel.of(coded, self.keys[which], self.values[which])


@dataclass(frozen=True)
class Queries:
    """A block of queries, where their logits are aimed at, and what rounding takes off.

    rows: [n, d] float32 or float64; scale: at least 0. lengths: [n] |q|. sums: the type in which
    keys are scored one by one, as far as it may be float32; rounding: [n] of tau, that this costs.
    single: whether outputs are float32. own: [n] the number of the key that is left out, a query's
    own row; None where none is.
    """

    rows: Array
    coded: Coded
    aim: Aim
    scale: float
    lengths: Float64
    sums: type
    rounding: Float64
    facts: KeyFacts
    single: bool
    own: Ids | None

    @classmethod
    def of(
        cls,
        rows: Array,
        centre: Float64,
        facts: KeyFacts,
        config: SparseConfig,
        *,
        single: bool,
        parts: int | None = None,
        own: Ids | None = None,
    ) -> Queries:
        """single: the output is rounded to float32. parts: see `aim_at`. A negative scale turns the
        queries around."""
        from simdist.compiled.twice_coded import encode  # noqa: PLC0415 - numba only on workers

        scale = abs(config.scale)
        rows = -rows if config.scale < 0 else rows
        coded = encode(rows, centre)
        aim = aim_at(coded, facts, scale, parts=parts)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64)) * (1 + 1e-9)
        logits = scale * lengths * facts.longest
        # No weight that counts is too small for float32, and it rounds little of the tolerance.
        short = _rounding(rows.shape[1], logits, facts, np.float32, single=single)
        close = float(aim.slack.max(initial=0.0)) < CLOSE
        little = float(short.max(initial=0.0)) < LITTLE * config.tolerance
        narrow = rows.dtype == np.float32 and close and little and fits_single(facts)
        sums = np.float32 if narrow else np.float64
        rounding = _rounding(rows.shape[1], logits, facts, sums, single=single)
        return cls(rows, coded, aim, scale, lengths, sums, rounding, facts, single, own)

    def take(self, which: Array) -> Queries:
        from simdist.compiled.twice_coded import Coded  # noqa: PLC0415 - numba only on workers

        coarse, fine, facts = self.coded
        coded = Coded(coarse[which], fine[which], np.ascontiguousarray(facts[:, which]))
        return Queries(
            self.rows[which],
            coded,
            self.aim.take(which),
            self.scale,
            self.lengths[which],
            self.sums,
            self.rounding[which],
            self.facts,
            self.single,
            None if self.own is None else self.own[which],
        )

    def __len__(self) -> int:
        return len(self.rows)

    def tolerance(self, asked: float) -> float:
        """What may be left out so that it is no more than asked for with all rounding."""
        return max(asked - float(self.rounding.max(initial=0.0)), 0.0)


def fits_single(facts: KeyFacts) -> bool:
    """Whether sums of values are neither too large nor too small for float32."""
    return facts.widest == 0.0 or SMALLEST < facts.widest < LARGEST


def _rounding(dim: int, logits: Float64, facts: KeyFacts, sums: type, *, single: bool) -> Float64:
    """[n] of tau, of keys scored one by one. logits: [n] no logit is larger.

    A weight is off by a factor of e^off at most: RUN products summed in one type, these sums, the
    scale, the shift and exp in float64. That moves shares by (e^2off - 1) / 2 in total variation,
    and what is left out by (e^off - 1) / 4. NEAR weighted values are summed in the one type, these
    sums in float64, and the output may be rounded to float32.
    """
    from simdist.compiled.logits import NEAR, RUN  # noqa: PLC0415 - numba only on workers

    unit, double = (2.0**-24 if sums == np.float32 else 2.0**-53), 2.0**-53
    off = logits * ((min(dim, RUN) + 2) * unit + (dim + 16) * double) + 16.0 * double
    rounded = 0.5 * np.expm1(2.0 * off) + 0.25 * np.expm1(off)
    rounded += (NEAR + 8) * unit + 2.0 * facts.rows * double + single * 2.0**-24
    return np.asarray(rounded)


def _read_only(array: Array) -> Array:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
