"""Contracts that ship: suites of tests that a new measure, reducer, store or engine inherits.

    class TestMine(MeasureLaws):        your test file: a few lines that say what is tested
        measure = Mine()
              │ inherits
              ▼
    MeasureLaws     every form of a measure agrees with its definition, `pair`
    KernelLaws      and of a kernel in float64, with its gradients and its algebra
    ReducerLaws     any cuts of a fold, merged in any grouping, equal the dense answer
    ObjectsContract bytes by key: conditional puts, ranges, listings, races
    StoreContract   the same and more: records written once, nothing half visible, damage named
    EngineContract  order, failure, cancel and limits alike on every engine

    fault_proxy     an S3 server's misbehaving twin: put it between your store and simdist

Needs `pip install simdist[test]`. For asserts that show their values, put
`pytest.register_assert_rewrite("simdist.testing")` into your conftest.py. May import anything of
simdist but `report` and `cli`; nothing of simdist imports it. Each suite is imported when it is
asked for, so that testing a measure needs no engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simdist.testing.engine_contract import EngineContract as EngineContract
    from simdist.testing.engine_contract import RemoteEngineContract as RemoteEngineContract
    from simdist.testing.kernel_laws import KernelLaws as KernelLaws
    from simdist.testing.measure_laws import MeasureLaws as MeasureLaws
    from simdist.testing.objects_contract import ObjectsContract as ObjectsContract
    from simdist.testing.reducer_laws import ReducerLaws as ReducerLaws
    from simdist.testing.store_contract import StoreContract as StoreContract

_SUITES = {
    "EngineContract": "simdist.testing.engine_contract",
    "KernelLaws": "simdist.testing.kernel_laws",
    "MeasureLaws": "simdist.testing.measure_laws",
    "ObjectsContract": "simdist.testing.objects_contract",
    "ReducerLaws": "simdist.testing.reducer_laws",
    "RemoteEngineContract": "simdist.testing.engine_contract",
    "StoreContract": "simdist.testing.store_contract",
}

__all__ = [
    "EngineContract",
    "KernelLaws",
    "MeasureLaws",
    "ObjectsContract",
    "ReducerLaws",
    "RemoteEngineContract",
    "StoreContract",
]


def __getattr__(name: str) -> Any:
    if name not in _SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_SUITES[name]), name)
