"""Names people give to datasets: "graph", "graph@latest", "graph@3".

A name is a row of numbered objects, `names/{name}/{number:08d}.json`, each created once and never
changed, without gaps. The latest is found by probing numbers, because listings may be late.
"""

from __future__ import annotations

import re

from simdist.errors import ConfigError, ObjectMissing
from simdist.store import sealed
from simdist.store.objects import Objects

__all__ = ["is_fingerprint", "latest", "point", "resolve"]


def is_fingerprint(text: str) -> bool:
    """Whether `text` is 32 hexadecimal digits, as every fingerprint is."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def point(objects: Objects, name: str, fingerprint: str) -> int:
    """Make `name`'s next number point at a fingerprint, unless its latest does already.

    Returns the number that points at it. Any number of processes may do so at once.
    """
    _check(name)
    number = latest(objects, name)
    if number and _read(objects, name, number) == fingerprint:
        return number
    while True:
        number += 1
        value = {"fingerprint": fingerprint, "name": name, "number": number}
        data = sealed.seal(value, what=name)
        if sealed.create(objects, _key(name, number), data) == data:
            return number


def latest(objects: Objects, name: str) -> int:
    """The highest number of `name`, 0 where it has none: doubling, then halving; 2 log2(n) asks."""
    _check(name)

    def stands(number: int) -> bool:
        return objects.head(_key(name, number)) is not None

    high = 1
    while stands(high):
        high *= 2
    low = high // 2  # stands, or is 0; high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if stands(middle) else (low, middle)
    return low


def resolve(objects: Objects, text: str) -> str:
    """The fingerprint that "name", "name@latest" or "name@3" points at; ObjectMissing."""
    name, at, which = text.partition("@")
    _check(name)
    if at and which != "latest" and not (which.isdecimal() and int(which) > 0):
        raise ConfigError(f"dataset {text!r}: expected a number from 1 or 'latest' after the @")
    newest = latest(objects, name)
    number = int(which) if which.isdecimal() else newest
    if newest == 0:
        raise ObjectMissing(f"no dataset is named {name!r} in {objects.uri}")
    if number > newest:
        raise ObjectMissing(
            f"{text!r} does not exist in {objects.uri}: the latest is {name}@{newest}"
        )
    return _read(objects, name, number)


def _read(objects: Objects, name: str, number: int) -> str:
    key = _key(name, number)
    value = sealed.unseal(sealed.fetch(objects, key), where=f"{objects.uri}/{key}")
    return str(value["fingerprint"])


def _key(name: str, number: int) -> str:
    return f"names/{name}/{number:08d}.json"


def _check(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{name!r} cannot name a dataset; expected up to 100 letters, digits, '.', '_' or '-',"
            " beginning with a letter or digit"
        )
    if is_fingerprint(name):
        raise ConfigError(f"{name!r} cannot name a dataset: it reads as a fingerprint")
