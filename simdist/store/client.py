"""How obstore is set up for each kind of place, and what its failures say to a person."""

from __future__ import annotations

import os
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from simdist.errors import StoreError
from simdist.store.credentials import ProfileCredentials, has_keys
from simdist.store.place import CREDENTIALS, Options, Place, Secret, redact

if TYPE_CHECKING:
    from obstore.store import MemoryStore, S3Store

__all__ = [
    "FIRST_WAIT",
    "RETRIES",
    "cause",
    "connect",
    "doubtful",
    "drop_memory",
    "failures",
    "hopeless",
]

FIRST_WAIT = 0.1  # seconds before a second attempt; twice as long before each further one
RETRIES = 4  # of one request, within 3 s; `simdist.store.patience` goes on where they fail

_memories: dict[str, MemoryStore] = {}  # memory:// stores of this process, by name
_memories_lock = threading.Lock()


def connect(place: Place, *, create: bool, retries: int = RETRIES) -> Any:
    """The client for a place. FileNotFoundError for an absent directory, unless `create`.

    retries: how often s3:// is asked again where it answers 5xx, or not at all.
    """
    from obstore.store import LocalStore, MemoryStore  # noqa: PLC0415

    if place.scheme == "s3":
        return _connect_s3(place, retries)
    if place.scheme == "memory":
        with _memories_lock:
            return _memories.setdefault(place.root, MemoryStore())
    if not create and not Path(place.root).is_dir():
        raise FileNotFoundError(place.root)  # reading a mistyped path must not create it
    try:
        return LocalStore(place.root, mkdir=create)
    except OSError as error:
        raise StoreError(f"cannot open store {place.uri}: {error.strerror or error}") from error


def drop_memory(name: str) -> None:
    """Forget the memory:// store of that name."""
    with _memories_lock:
        _memories.pop(name, None)


def _connect_s3(place: Place, retries: int) -> S3Store:
    from obstore.store import S3Store  # noqa: PLC0415

    options = place.options
    config: dict[str, Any] = {
        "region": options.region or "us-east-1",
        "virtual_hosted_style_request": options.endpoint is None,
        "conditional_put": "etag",
        "skip_signature": options.anonymous,
    }
    if options.checksums:
        config["checksum_algorithm"] = (
            "SHA256"  # the signature needs the same sum: it costs nothing
        )
    if options.endpoint is not None:
        config["endpoint"] = config["aws_endpoint_url_s3"] = options.endpoint
    provider = None
    if options.access_key_id is not None and options.secret_access_key is not None:
        config |= {name: getattr(options, name) for name in CREDENTIALS}
    elif not options.anonymous and not os.environ.get("AWS_ACCESS_KEY_ID"):
        provider = ProfileCredentials(options.profile) if has_keys(options.profile) else None
    return S3Store(
        place.root,
        prefix=place.prefix or None,
        # Revealed here and not before: crash reporters show the variables of a frame.
        config=cast(
            Any, {name: _plain(value) for name, value in config.items() if value is not None}
        ),
        client_options={
            "allow_http": (options.endpoint or "").startswith("http://"),
            "connect_timeout": "5s",
            "timeout": "120s",  # of one request, which carries one part at most
        },
        retry_config={
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=60),
            "backoff": {
                "init_backoff": timedelta(seconds=FIRST_WAIT),
                "base": 2,
                "max_backoff": timedelta(seconds=1),
            },
        },
        credential_provider=provider,
    )


def _plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else value


def failures() -> tuple[type[Exception], ...]:
    """What the client raises when the backend fails."""
    from obstore.exceptions import BaseError  # noqa: PLC0415

    return (BaseError, OSError, ValueError)


def hopeless(error: Exception) -> bool:
    """Whether asking again cannot help: refused, not supported, no such bucket."""
    from obstore import exceptions as e  # noqa: PLC0415

    refused = (e.PermissionDeniedError, e.UnauthenticatedError, e.NotSupportedError)
    if isinstance(error, (*refused, ValueError)):
        return True
    if isinstance(error, FileNotFoundError):
        return "NoSuchUpload" not in str(error)  # ended by a request whose answer was lost
    return _status(error) in (401, 403, 404, 405, 411, 501)


def doubtful(error: Exception) -> bool:
    """Whether the store called the request wrong: it is, or it was damaged on its way."""
    return _status(error) in (400, 416)


def _status(error: Exception) -> int | None:
    found = re.search(r"status code: (\d{3}) ", str(error))
    return int(found[1]) if found else None


def cause(error: Exception | None, options: Options) -> str:
    """What went wrong and what to do, in a line without credentials."""
    from obstore import exceptions as e  # noqa: PLC0415

    text = _SERVER_ANSWER.sub(_summary, str(error).partition("\n\nDebug source")[0])
    line = " ".join(redact(_RETRIED.sub("", text), options).split())[:400].rstrip(".:")
    refused = isinstance(error, e.PermissionDeniedError | e.UnauthenticatedError)
    if refused or "403 Forbidden" in line or "401 Unauthorized" in line:
        hint = "Check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, ~/.aws) and their rights."
    elif isinstance(error, FileNotFoundError):
        hint = "Check that the bucket or directory exists."
    elif options.checksums and re.search(r"checksum|BadDigest", line, re.IGNORECASE):
        hint = (
            "If the store does not know x-amz-checksum-sha256, say so with the store's option"
            " checksums=False or AWS_REQUEST_CHECKSUM_CALCULATION=when_required."
        )
    elif "error sending request" in line:
        hint = "Check the endpoint and that the store runs; what was written stays: run again."
    else:
        hint = "What was written stays: run again to go on."
    return f"{type(error).__name__}: {line}. {hint}"


_RETRIED = re.compile(r" in [\d.]+m?µ?s(, after \d+ retries, max_retries: \d+,[^-]*?)?(?= -)")
_SERVER_ANSWER = re.compile(r"<\?xml.*", re.DOTALL)


def _summary(answer: re.Match[str]) -> str:
    """Code and message of a server's answer: the rest quotes the request, signature included."""
    return " ".join(re.findall(r"<(?:Code|Message)>(.*?)</", answer[0], re.DOTALL))
