"""Where a store lies: its uri, taken apart and checked, and the options that go with it.

    "./runs/debian" | "file:///abs/path" | "s3://bucket/prefix" | "memory://name"

A place is a small value that travels to workers. It carries the endpoint and region that the driver
found in its environment, so that a worker opens the same store; credentials it carries only where
they were given as options, hidden in `Secret`. Otherwise each process finds its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from simdist.errors import ConfigError
from simdist.store.credentials import profile_settings

__all__ = ["CREDENTIALS", "Options", "Place", "Secret", "check_key", "hidden", "redact"]

UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, line ends, halves
CREDENTIALS = ("access_key_id", "secret_access_key", "session_token")


class Secret:
    """A credential that shows itself to `reveal` only: never in repr, str or an error."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The credential; for the object-store client, and nobody else."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class Options:
    """How to reach an s3:// store; every one may be left to the environment or the AWS files.

    endpoint: url of an S3-compatible server; its buckets are then addressed path-style.
    profile: section of the AWS files. anonymous: unsigned requests, for public buckets.
    checksums: whether the sha256 of what is written goes along, for the store to check.
    patience: seconds for which an operation is tried again before its failure is an error.
    """

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    access_key_id: Secret | None = None
    secret_access_key: Secret | None = None
    session_token: Secret | None = None
    anonymous: bool = False
    checksums: bool = True
    patience: float = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """A checked store address. root: a directory, a bucket or a name; prefix: a folder in it."""

    scheme: Literal["file", "s3", "memory"]
    root: str
    prefix: str = ""
    options: Options = Options()

    @property
    def uri(self) -> str:
        if self.scheme == "file":
            return Path(self.root).as_uri()
        return f"{self.scheme}://{self.root}" + (f"/{self.prefix}" if self.prefix else "")

    @classmethod
    def parse(cls, uri: str | os.PathLike[str], options: Mapping[str, Any]) -> Place:
        """The place that `uri` names; ConfigError where it, or an option, cannot be understood."""
        text = os.fspath(uri)
        scheme, separator, rest = text.partition("://")
        if not separator:
            _refuse_options(options, "a local path")
            return cls("file", _directory(text))
        if scheme == "file":
            _refuse_options(options, "file://")
            if not rest.startswith("/"):
                raise ConfigError(
                    f"store {text!r} has a host before its path; write file:///absolute/path, or"
                    " the plain path"
                )
            return cls("file", _directory(unquote(rest)))
        if scheme == "memory":
            _refuse_options(options, "memory://")
            check_key(rest)
            return cls("memory", rest)
        if scheme == "s3":
            return _s3(rest, options)
        raise ConfigError(
            f"store scheme {scheme!r} is not known; expected a path, file://, s3:// or memory://"
        )


def hidden(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their credentials as `Secret`s."""
    return {
        name: Secret(value) if name in CREDENTIALS and isinstance(value, str) else value
        for name, value in options.items()
    }


def check_key(key: str) -> None:
    """ConfigError unless `key` names an object inside its store, the same one on every backend."""
    reason = None
    if not key:
        reason = "is empty"
    elif key.startswith("/") or key.endswith("/"):
        reason = "begins or ends with a slash"
    elif any(part in ("", ".", "..") for part in key.split("/")):
        reason = "has an empty, '.' or '..' part"
    elif UNSEEN.search(key):
        reason = "has a control character"
    elif "\\" in key:
        reason = "has a backslash, which separates folders on some systems"
    elif re.search(r"#\d+(/|$)", key):
        reason = "ends a part with '#' and a number, which local stores use for unfinished files"
    elif len(key.encode()) > 1024:
        reason = "is longer than 1024 bytes"
    if reason is not None:
        raise ConfigError(
            f"object key {key!r} {reason}; expected parts joined by single slashes, all inside the"
            " store"
        )


def redact(text: str, options: Options) -> str:
    """`text` fit for an error message: no query strings, no user info, no known credential."""
    text = re.sub(r"(https?://[^\s?\"'<>]*)\?[^\s\"'<>)]*", r"\1", text)
    text = re.sub(r"(\w+://)[^/\s@\"']*@", r"\1", text)
    known = [os.environ.get(f"AWS_{name.upper()}", "") for name in CREDENTIALS]
    known += [value.reveal() for name in CREDENTIALS if (value := getattr(options, name))]
    for value in sorted(filter(None, known), key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _directory(path: str) -> str:
    if not path or "\0" in path:
        raise ConfigError(f"store path {path!r} is empty or has a null byte; expected a directory")
    return str(Path(path).expanduser().resolve())


def _s3(rest: str, given: Mapping[str, Any]) -> Place:
    if "@" in rest.partition("/")[0] or ":" in rest.partition("/")[0]:
        raise ConfigError(
            "an s3:// uri must not carry credentials (they would be written into logs); give them"
            " as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in ~/.aws/credentials"
        )
    if "?" in rest or "#" in rest:
        raise ConfigError("an s3:// uri has no query or fragment; expected s3://bucket/prefix")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", bucket):
        raise ConfigError(f"s3 bucket {bucket!r} is no bucket name; expected s3://bucket/prefix")
    if prefix:
        check_key(prefix)
    return Place("s3", bucket, prefix, _options(given))


def _options(given: Mapping[str, Any]) -> Options:
    known = {field.name for field in fields(Options)}
    if unknown := sorted(set(given) - known):
        raise ConfigError(f"unknown store option {unknown[0]!r}; expected one of {sorted(known)}")
    values = {name: value for name, value in hidden(given).items() if value is not None}
    if ("access_key_id" in values) != ("secret_access_key" in values):
        raise ConfigError("give access_key_id and secret_access_key together, or neither")
    profile = values.get("profile") or os.environ.get("AWS_PROFILE")
    settings = profile_settings(profile)
    values["profile"] = profile
    values["endpoint"] = _endpoint(
        values.get("endpoint")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or settings.get("endpoint_url")
    )
    values["region"] = (
        values.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or settings.get("region")
    )
    if not values.get("patience", 0.0) >= 0:
        raise ConfigError(f"store option patience is {values['patience']}; expected seconds, >= 0")
    if "checksums" not in values:
        calculation = os.environ.get("AWS_REQUEST_CHECKSUM_CALCULATION") or settings.get(
            "request_checksum_calculation", ""
        )
        values["checksums"] = calculation.lower() != "when_required"
    return Options(**values)


def _endpoint(url: str | None) -> str | None:
    if not url:
        return None
    if any(sign in url for sign in "@?#"):  # not repeated in the error: it may be a credential
        raise ConfigError("the S3 endpoint must be plain: no user, password, query or fragment")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("the S3 endpoint is no http:// or https:// url, for example https://host")
    return url.rstrip("/")


def _refuse_options(options: Mapping[str, Any], what: str) -> None:
    if given := sorted(name for name, value in options.items() if value is not None):
        raise ConfigError(f"{what} takes no options, got {given}; they belong to s3:// stores")
