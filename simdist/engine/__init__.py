"""Where a task runs. Nothing here knows what an array means, or that a store exists.

                       open_engine("local" | "dask" | "ray" | address | {...})      open.py
                                              │
        ┌──────────────────────┬──────────────┴───────┐
     LocalEngine            DaskEngine             RayEngine       one protocol: base.py
     threads of this        own processes,         own cluster,    one law: simdist.testing
     process (local.py)     or tcp:// (dask.py)    or ray:// (ray.py)       .EngineContract
        └──────────────────────┴──────────────┬───────┘
                                              │  every task passes through
                       ┌──────────────────────┴────────────────────┐
                       │ task.py: load what was put, limit threads │
                       │ (threads.py), run, retry what is          │
                       │ transient, carry failures with their trace │
                       └───────────────────────────────────────────┘
        map_window(engine, calls)       tree_reduce(engine, refs, merge)            ops.py
        a driver that waits looks at the cluster, and gives up in time          waiting.py

Failures travel as values (`task.Failure`), so a task, the tasks that needed it, and the caller tell
the same story on every engine: which key failed first, the original error, its traceback.

May import `errors` and `types`; `dask`, `distributed` and `ray` only in the module of that name.
"""

from simdist.engine.base import ArrayHandle, Engine, Ref, Scratch
from simdist.engine.open import open_engine
from simdist.engine.ops import Call, map_window, tree_reduce

__all__ = [
    "ArrayHandle",
    "Call",
    "Engine",
    "Ref",
    "Scratch",
    "map_window",
    "open_engine",
    "tree_reduce",
]
