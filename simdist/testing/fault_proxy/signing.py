"""AWS signature version 4, for a request whose headers were changed on the way.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, unquote

from simdist.testing.fault_proxy.wire import Head

__all__ = ["Credentials", "signed_again", "signed_headers"]

SAFE = "-_.~"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whose name the proxy signs in."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def signed_headers(head: Head) -> list[str]:
    """Names of the headers that the request's signature covers; none where it is not signed."""
    found = re.search(r"SignedHeaders=([^,\s]+)", head.get("authorization") or "")
    found = found or re.search(r"X-Amz-SignedHeaders=([^&\s]+)", head.first)
    return unquote(found[1]).split(";") if found else []


def signed_again(head: Head, credentials: Credentials) -> Head:
    """The request with a signature of its own, over those of its signed headers that are left.

    A signature in the query (a presigned url) becomes one in the headers.
    """
    names = sorted({"host", "x-amz-date", "x-amz-content-sha256"} | set(signed_headers(head)))
    method, target, version = head.first.split(" ")
    path, _, query = target.partition("?")
    items = parse_qsl(query, keep_blank_values=True)
    scope, date = _scope_and_date(head, dict(items))
    items = [(name, value) for name, value in items if not name.startswith("X-Amz-")]
    plain_query = _query(items)
    head = replace(head, first=f"{method} {path}{'?' if items else ''}{plain_query} {version}")
    head = head.with_header("x-amz-date", date)
    if head.get("x-amz-content-sha256") is None:
        head = head.with_header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if credentials.session_token is not None:
        head = head.with_header("x-amz-security-token", credentials.session_token)
        names = sorted({*names, "x-amz-security-token"})
    kept = [(name, value) for name in names if (value := head.get(name)) is not None]
    covered = ";".join(name for name, _ in kept)
    canonical = "\n".join(
        [
            method,
            quote(unquote(path), safe=SAFE + "/"),
            plain_query,
            *(f"{name}:{' '.join(value.split())}" for name, value in kept),
            "",
            covered,
            head.get("x-amz-content-sha256") or "",
        ]
    )
    digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, digest])
    key = b"AWS4" + credentials.secret_access_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return head.with_header(
        "authorization",
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key_id}/{scope},"
        f" SignedHeaders={covered}, Signature={signature}",
    )


def _scope_and_date(head: Head, query: dict[str, str]) -> tuple[str, str]:
    """What the first signature was made for: "20261122/us-east-1/s3/aws4_request", and when."""
    found = re.search(r"Credential=([^,\s]+)", head.get("authorization") or "")
    credential = found[1] if found else query.get("X-Amz-Credential", "")
    date = head.get("x-amz-date") or query.get("X-Amz-Date", "")
    return unquote(credential).partition("/")[2], date


def _query(items: list[tuple[str, str]]) -> str:
    pairs = sorted((quote(name, safe=SAFE), quote(value, safe=SAFE)) for name, value in items)
    return "&".join(f"{name}={value}" for name, value in pairs)
