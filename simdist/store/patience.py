"""How long an operation goes on trying, and what it says when it gives up.

    client     a request: again after 0.1 s, 0.2 s, ... up to RETRIES times; a cut download goes on
               where it was cut
    Attempts   an operation (a put, a listing, an upload in parts): again until `patience` is over

The client does not repeat what it cannot know to be harmless when done twice: a delete, a
conditional put, the end of an upload. Here it is known, so these are tried again as well.
"""

from __future__ import annotations

import random
import re
import time

from simdist.store import client
from simdist.store.client import doubtful, hopeless

__all__ = ["Attempts"]

LONGEST_WAIT = 5.0  # seconds between two attempts
DOUBTS = 4  # attempts at what the store calls a wrong request, which a damaged one may look like


class Attempts:
    """Counts the attempts of one operation and decides whether there is another.

    seconds: no attempt begins later than this after the first. most: attempts at most; None leaves
    it to the time.
    """

    def __init__(self, *, seconds: float, most: int | None = None) -> None:
        self._began = time.monotonic()
        self._seconds = seconds
        self._most = most
        self._made = 0
        self._requests = 0
        self._final = False

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return self._most is None and time.monotonic() - self._began > self._seconds

    def another(self, error: Exception) -> bool:
        """Whether to try again after `error`; waits first."""
        self._made += 1
        again = re.search(r"after (\d+) retries", str(error))
        self._requests += 1 + (int(again[1]) if again else 0)
        self._final = hopeless(error)
        if self._final or (doubtful(error) and self._made >= DOUBTS):
            return False
        if self._most is not None and self._made >= self._most:
            return False
        # Processes that a store turned away together must not come back together.
        wait = min(client.FIRST_WAIT * 2**self._made, LONGEST_WAIT) * random.uniform(0.5, 1.0)
        if self._most is None and time.monotonic() + wait - self._began > self._seconds:
            return False
        time.sleep(wait)
        return True

    def __str__(self) -> str:
        """Such as " after 9 attempts in 43 s"; nothing where a second attempt made no sense."""
        if self._requests == 0 or (self._made == 1 and (self._final or self._most == 1)):
            return ""
        seconds = time.monotonic() - self._began
        attempts = "1 attempt" if self._requests == 1 else f"{self._requests} attempts"
        return f" after {attempts} in {seconds:.{0 if seconds >= 10 else 1}f} s"
