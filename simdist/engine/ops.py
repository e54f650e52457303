"""Patterns over any engine, written once: a bounded window of tasks, and a reduction tree."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from simdist.engine.base import Engine, Ref
from simdist.errors import ConfigError

__all__ = ["Call", "map_window", "tree_reduce"]


@dataclass(frozen=True, slots=True)
class Call:
    """`fn(*args)` waiting to be submitted; the fields are those of `Engine.submit`."""

    key: str
    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    nbytes: int = 0
    cpus: int = 1


def map_window(
    engine: Engine,
    calls: Iterable[Call],
    *,
    window: int | None = None,
    timeout: float | None = None,
) -> Generator[tuple[str, Any], None, None]:
    """(key, result) of each call as it ends; at most `window` are submitted and unfinished.

    calls: drawn lazily, so that a plan of a million tasks costs a window of memory.
    window: by default twice the slots of the next call: one running, one on its way to the worker.
    timeout: seconds without any call ending before EngineError; by default the engine's.

    The first failure cancels what is in flight and is raised (TaskFailed, Cancelled); leaving the
    iteration early cancels as well.
    """
    if window is not None and window < 1:
        raise ConfigError(f"window is {window}: expected at least 1")
    waiting = iter(calls)
    flying: dict[int, Ref] = {}
    held = next(waiting, None)
    try:
        while held is not None or flying:
            while held is not None and len(flying) < (window or 2 * _slots(engine, held)):
                ref = engine.submit(
                    held.fn, *held.args, key=held.key, nbytes=held.nbytes, cpus=held.cpus
                )
                flying[id(ref)] = ref
                held = next(waiting, None)
            ref = _first(engine.as_completed(flying.values(), timeout=timeout))
            del flying[id(ref)]
            yield ref.key, engine.get(ref, timeout=timeout)
    finally:
        engine.cancel(list(flying.values()))


def tree_reduce(
    engine: Engine,
    refs: Sequence[Ref],
    merge: Callable[[Any, Any], Any],
    *,
    key: str,
    nbytes: int = 0,
    cpus: int = 1,
) -> Ref:
    """One Ref: neighbours merged in pairs, level by level, always `merge(left, right)`.

        a   b   c   d   e
        └ab─┘   └cd─┘   e      the order is that of `refs`, never of arrival: the same
          └─ abcd ─┘    e      rounding on every engine and every day
               └─ abcde ┘

    key: the merges are named `{key}-{level}-{position}`. One ref is returned as it is.
    """
    if not refs:
        raise ConfigError(f"nothing to reduce for {key}: expected at least one Ref")
    level = 0
    while len(refs) > 1:
        merged = [
            engine.submit(
                merge, left, right, key=f"{key}-{level}-{position}", nbytes=nbytes, cpus=cpus
            )
            for position, (left, right) in enumerate(zip(refs[::2], refs[1::2], strict=False))
        ]
        refs = merged + list(refs[len(merged) * 2 :])
        level += 1
    return refs[0]


def _slots(engine: Engine, call: Call) -> int:
    return engine.slots(nbytes=call.nbytes, cpus=call.cpus)


def _first(refs: Iterator[Ref]) -> Ref:
    """The next to end; the iterator is closed, so that nothing keeps watching the others."""
    try:
        return next(refs)
    finally:
        close = getattr(refs, "close", None)
        if close is not None:
            close()
