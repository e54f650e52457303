"""What can go wrong, for which requests, and how often: plain values, and the one who draws."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from simdist.errors import ConfigError

__all__ = [
    "Corrupt",
    "Fault",
    "Hold",
    "IgnoreChecksums",
    "IgnoreConditions",
    "LostAnswer",
    "ResetInBody",
    "Rule",
    "Schedule",
    "Seen",
    "Slow",
    "Status",
    "Truncated",
]

Side = Literal["request", "answer"]


class Fault:
    """Something that goes wrong with one request."""

    __slots__ = ()

    def concerns(self, header: str) -> bool:
        """Whether the fault takes this header (in small letters) away from the request."""
        return False

    @property
    def lies(self) -> bool:
        """Whether it only takes headers away; such faults come on top of any other."""
        return False


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """The proxy answers this status, with S3's error body, and forwards nothing."""

    code: int


@dataclass(frozen=True, slots=True)
class Slow(Fault):
    """The request waits so many seconds before it is forwarded."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ResetInBody(Fault):
    """Half of the body passes, then both connections are reset.

    side: whose body; by default the request's where it has one, else the answer's. A message
    without a body is reset in its head.
    """

    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Truncated(Fault):
    """Half of the promised body passes, then both connections are closed in good order.

    side: as in `ResetInBody`.
    """

    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """One bit in the middle of the body is flipped; nothing else is out of order.

    side: as in `ResetInBody`. A message without a body passes as it is.
    """

    side: Side | None = None


@dataclass(frozen=True, slots=True)
class LostAnswer(Fault):
    """The server does what was asked and answers; the client's connection is reset instead."""


@dataclass(frozen=True, slots=True)
class Hold(Fault):
    """The request waits until `release` is set: time to kill a client or a server.

    side: "request" waits before anything is forwarded, "answer" when the server has done what was
    asked. reached: set by the proxy as soon as a request waits. A request whose client has died
    meanwhile is still forwarded after its release, as a late packet would be.
    """

    release: threading.Event
    side: Side = "request"
    reached: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class IgnoreConditions(Fault):
    """If-Match and If-None-Match are taken away: a store that ignores conditional requests."""

    def concerns(self, header: str) -> bool:
        return header in ("if-match", "if-none-match")

    @property
    def lies(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class IgnoreChecksums(Fault):
    """Content-MD5 and x-amz-checksum-* are taken away, and the body's sha256 from its signature.

    Checksums that follow the body (`x-amz-trailer`) are part of the body and stay.
    """

    def concerns(self, header: str) -> bool:
        taken = ("content-md5", "x-amz-sdk-checksum-algorithm", "x-amz-content-sha256")
        return header in taken or header.startswith("x-amz-checksum-")

    @property
    def lies(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests meet a fault.

    methods: such as ("PUT",); None means all. path: a regular expression that is searched in path
    and query as the client sent them. after: so many matching requests pass first; times: at most
    so many are hit, None for no end; probability: of each of the others to be hit.
    Raises ConfigError for values that make no sense.
    """

    fault: Fault
    methods: tuple[str, ...] | None = None
    path: str = ""
    times: int | None = None
    after: int = 0
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ConfigError(f"probability {self.probability} of a Rule; expected 0 to 1")
        if self.after < 0 or (self.times is not None and self.times < 0):
            raise ConfigError(f"a Rule counts from 0, got after={self.after}, times={self.times}")
        try:
            re.compile(self.path)
        except re.error as error:
            raise ConfigError(f"path {self.path!r} of a Rule is no regular expression: {error}"
                              ) from error  # fmt: skip

    def matches(self, method: str, path: str, headers: Sequence[str]) -> bool:
        """Whether the request is one of those meant; `headers` are names in small letters."""
        if self.methods is not None and method not in self.methods:
            return False
        if self.fault.lies and not any(map(self.fault.concerns, headers)):
            return False
        return re.search(self.path, path) is not None


@dataclass(frozen=True, slots=True)
class Seen:
    """A request and what became of it, known before the client has the first byte of its answer.

    number: of the request, from 1, in order of arrival. faults: what it met, see `fault`.
    status: of the answer the client got, None where it got none. upstream: of the server's answer,
    None where it was not asked or did not answer: 200 here and None there is a lost answer.
    """

    number: int
    method: str
    path: str
    faults: tuple[Fault, ...]
    status: int | None
    upstream: int | None

    @property
    def fault(self) -> Fault | None:
        """The fault it met; where several came together, the one that is more than a lie."""
        return self.faults[0] if self.faults else None


class Schedule:
    """Decides which faults a request meets; counts each rule's matches and hits."""

    def __init__(self, rules: Sequence[Rule], seed: int) -> None:
        self.rules = tuple(rules)
        self._seed = seed
        self._matched = [0] * len(self.rules)
        self._hit = [0] * len(self.rules)
        self._visits: Counter[tuple[str, str]] = Counter()

    def decide(self, method: str, path: str, headers: Sequence[str]) -> tuple[Fault, ...]:
        """The first fault that hits, if any, and every lie that does."""
        # An upload's id is drawn by the server: without it, the same parts draw the same faults.
        request = (method, re.sub(r"uploadId=[^&]*", "uploadId", path))
        self._visits[request] += 1
        chosen: list[Fault] = []
        lies: list[Fault] = []
        for i, rule in enumerate(self.rules):
            if not rule.matches(method, path, headers) or (chosen and not rule.fault.lies):
                continue
            if self._hits(i, rule, request):
                (lies if rule.fault.lies else chosen).append(rule.fault)
        return (*chosen, *lies)

    def _hits(self, i: int, rule: Rule, request: tuple[str, str]) -> bool:
        self._matched[i] += 1
        if self._matched[i] <= rule.after or self._hit[i] == rule.times:
            return False
        if rule.probability < 1:
            key = f"{self._seed} {i} {request[0]} {request[1]} {self._visits[request]}"
            if random.Random(key).random() >= rule.probability:
                return False
        self._hit[i] += 1
        return True
