"""What a driver does while it waits: it looks at the cluster, and no wait is for ever.

    a task to end ──── every LOOK_SECONDS ──> Watch.check ──> look(): tasks it runs at once
         │                                        │  none, or no answer, for too long: EngineError
         └── past `timeout`: EngineError          └  more or fewer than before: the window follows

Schedulers keep tasks for workers that may come back, and their clients wait with them: for ever,
where nobody looks.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from simdist.errors import EngineError

__all__ = ["LOOK_SECONDS", "PATIENCE", "Deadline", "Patience", "Watch", "bounded"]

LOOK_SECONDS = 3.0
ANSWER_SECONDS = 15.0  # a scheduler that is merely busy answers within
GONE_SECONDS = 20.0  # how long nobody may listen; a head that is restarted listens again

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a driver waits, in seconds.

    timeout: for any task to end.
    workers: for a cluster without workers to have one, when connecting and while tasks wait.
    """

    timeout: float = 3600.0  # a cluster this silent is not coming back
    workers: float = 60.0


PATIENCE = Patience()


class Deadline:
    """The end of a wait, cut into pieces between which there is time to look."""

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout

    @property
    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left == 0.0

    def piece(self, longest: float = LOOK_SECONDS) -> float:
        return min(longest, self.left)


class Watch:
    """Sees whether a cluster is still there. `check` costs nothing between two looks.

    look: how many tasks run at once; OSError or TimeoutError where the cluster does not answer.
    """

    def __init__(self, look: Callable[[], int], *, patience: Patience, where: str) -> None:
        self._look = look
        self._patience = patience
        self._where = where
        self._next = 0.0
        self._bad_since = math.inf

    def check(self) -> None:
        """EngineError where there has been no worker, or no answer, for too long."""
        now = time.monotonic()
        if now < self._next:
            return
        limit, problem = self._problem()
        self._next = time.monotonic() + LOOK_SECONDS
        if not problem:
            self._bad_since = math.inf
            return
        self._bad_since = min(self._bad_since, now)
        if time.monotonic() - self._bad_since >= limit:
            raise EngineError(
                f"{self._where} {problem} for {limit:g} s. What has been recorded is kept: look at "
                "the cluster's logs, bring it back, and run again"
            )

    def _problem(self) -> tuple[float, str]:
        """(seconds that it may last, what is wrong); "" where nothing is."""
        try:
            if bounded(self._look, seconds=ANSWER_SECONDS):
                return 0.0, ""
        except ConnectionRefusedError:
            limit = min(GONE_SECONDS, self._patience.workers)
            return limit, "is gone: nobody has listened there"
        except (OSError, TimeoutError) as error:
            return self._patience.workers, f"has not answered ({error or type(error).__name__})"
        return self._patience.workers, "has had no workers that take tasks"


def bounded(call: Callable[[], T], *, seconds: float) -> T:
    """`call()` of a library that has no timeout of its own; TimeoutError past `seconds`.

    It runs on a thread, which is left to itself when it does not come back.
    """
    outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:  # handed to who asked
            outcome.put((None, error))

    threading.Thread(target=run, name="simdist-bounded", daemon=True).start()
    try:
        value, error = outcome.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]
