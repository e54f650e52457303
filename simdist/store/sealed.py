"""JSON that vouches for itself: records, manifests, names and memos.

    {"rows": 3, ...} ──> {"rows": 3, ..., "seal": sha256 of the rest} ──> put once
                     <── checked, and read again where it is damaged  <── get

Data is named by its sha256. What is created once under a name of its own is not, so it carries the
sum inside: a body cut short or changed on its way is told from what the store holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from simdist.errors import InputError, IntegrityError
from simdist.store.formats import json_bytes
from simdist.store.objects import Objects
from simdist.types import Json

__all__ = ["create", "fetch", "seal", "unseal"]

READS = 4  # of a damaged object: what was damaged on its way is whole the next time


def seal(value: Mapping[str, Json], *, what: str, indent: int | None = None) -> bytes:
    """Sorted JSON of `value` and its seal; InputError where it is no JSON. See `json_bytes`."""
    read_back = json.loads(json_bytes(dict(value), what=what))  # whose keys are strings, in order
    return json_bytes({**read_back, "seal": _sum(read_back)}, what=what, indent=indent)


def unseal(data: bytes, *, where: str) -> dict[str, Json]:
    """The value in sealed JSON; IntegrityError naming `where` if it is not what was written."""
    value = _whole(data)
    if value is None:
        raise IntegrityError(
            f"{where} is no JSON with a true seal ({len(data)} bytes): it was cut short, changed or"
            " overwritten. Delete it and run the job again."
        )
    return value


def create(objects: Objects, key: str, data: bytes) -> bytes:
    """`put_once` of sealed JSON; what stands is read again where it came damaged."""
    stands = objects.put_once(key, data)
    return data if stands == data else _read_again(objects, key, stands)


def fetch(objects: Objects, key: str) -> bytes:
    """`get` of sealed JSON, again where it came damaged; ObjectMissing."""
    return _read_again(objects, key, objects.get(key))


def _read_again(objects: Objects, key: str, data: bytes) -> bytes:
    for _ in range(READS - 1):
        if _whole(data) is not None:
            break
        data = objects.get(key)
    return data


def _whole(data: bytes) -> dict[str, Json] | None:
    """The value without its seal; None where the seal is broken or missing."""
    try:
        value = json.loads(data)
        if isinstance(value, dict) and value.pop("seal", None) == _sum(value):
            return value
    except (ValueError, InputError, RecursionError):  # no JSON, or none that we would write
        pass
    return None


def _sum(value: Json) -> str:
    return hashlib.sha256(json_bytes(value, what="a sealed value")).hexdigest()
