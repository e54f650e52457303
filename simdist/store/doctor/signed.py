"""s3:// only: does the store look at signatures and checksums, or wave everything through?

The client always signs and sums correctly, so wrong requests are made here: presigned urls, used
with the standard library. Every refusal is believed only after a right request was accepted.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from simdist.store.client import connect, failures
from simdist.store.doctor.room import Room
from simdist.store.place import Place, Secret
from simdist.types import Finding

__all__ = ["checksums", "signatures"]

ANSWER_SECONDS = 30.0
VALID = timedelta(minutes=5)  # of a presigned url, which is shown to nobody
BODY = b"simdist doctor"


def signatures(room: Room) -> Iterator[Finding]:
    """A write with a wrong secret and a read without any are refused."""
    place = room.objects.place
    if place.scheme != "s3" or place.options.anonymous:
        return
    key = room.key("forged")
    forged = replace(
        place.options,
        profile=None,
        access_key_id=Secret("AKIA" + uuid.uuid4().hex[:16].upper()),
        secret_access_key=Secret(uuid.uuid4().hex),
        session_token=None,
    )
    written = _answer("PUT", _signed("PUT", replace(place, options=forged), key), BODY)
    unsigned = _signed("GET", place, room.key("reach"))
    read = _answer("GET", None if unsigned is None else unsigned.partition("?")[0])
    if written is None or read is None:
        yield _not_asked("signatures")
    elif written == HTTPStatus.OK:
        found = "a write with keys that were made up was accepted: signatures are not checked"
        advice = "Whoever reaches the store can change it. Keep it on a private network."
        yield Finding("signatures", "warning", found, advice)
    elif read == HTTPStatus.OK:
        found = "an object could be read without any signature"
        advice = "Whoever reaches the store can read it. If that is not meant, make it private."
        yield Finding("signatures", "warning", found, advice)
    else:
        found = f"made-up keys and unsigned reads were refused ({written:d}, {read:d})"
        yield Finding("signatures", "ok", found)


def checksums(room: Room) -> Iterator[Finding]:
    """A body that is not the one its checksum describes is refused."""
    place = room.objects.place
    if place.scheme != "s3":
        return
    url = _signed("PUT", place, room.key("summed"))
    right = _answer("PUT", url, BODY, {"Content-MD5": _md5(BODY)})
    if right != HTTPStatus.OK:
        yield _not_asked("checksums", right)
        return
    wrong = _answer("PUT", url, BODY, {"Content-MD5": _md5(BODY + b"?")})
    if wrong == HTTPStatus.OK:
        found = "a body that does not match its Content-MD5 was accepted"
        advice = (
            "What is damaged on its way in is stored. simdist finds it when it reads (sha256);"
            " run `simdist verify` on what you keep."
        )
        yield Finding("checksums", "warning", found, advice)
    elif wrong == HTTPStatus.BAD_REQUEST:
        yield Finding("checksums", "ok", "a body that does not match its Content-MD5 was refused")
    else:
        yield _not_asked("checksums", wrong)


def _signed(method: Any, place: Place, key: str) -> str | None:
    """A presigned url, or None where the client has no keys of its own to sign with."""
    import obstore  # noqa: PLC0415 - kept out of `import simdist`

    try:
        client = connect(place, create=False, retries=0)
        return obstore.sign(client, method, key, expires_in=VALID)
    except failures():
        return None


def _answer(
    method: str, url: str | None, body: bytes | None = None, headers: dict[str, str] | None = None
) -> int | None:
    """The status of the store's answer; None where there was none."""
    if url is None:
        return None
    request = Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return int(answer.status)
    except HTTPError as error:
        error.close()
        return error.code
    except (URLError, OSError):
        return None


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _not_asked(check: str, status: int | None = None) -> Finding:
    found = "no answer" if status is None else f"status {status}"
    return Finding(
        check,
        "warning",
        f"could not be checked: a presigned request got {found}",
        "Runs do not use presigned requests; the store may refuse them by policy.",
    )
