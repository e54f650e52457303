"""Files with certificates and tokens: a config names them, and nothing here ever shows their text.

Whatever is refused is refused by its key, not by its value: people paste a key where its path was
meant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simdist.errors import ConfigError

__all__ = ["TLS_KEYS", "dask_tls", "named_file", "plain_address", "ray_token", "use_token"]

TLS_KEYS = ("ca", "cert", "key")


def dask_tls(given: Any, *, kind: str, address: str | None) -> dict[str, str] | None:
    """Paths of `engine.tls: {ca:, cert:, key:}`, each a file that can be read."""
    if given is None:
        return None
    files = _mapping(given, "engine.tls", TLS_KEYS)
    if kind != "dask" or not (address or "").startswith("tls://"):
        raise ConfigError(
            "engine.tls is for a Dask scheduler at tls://...: give its address, or drop tls"
        )
    return {key: str(_readable(files[key], f"engine.tls.{key}")) for key in TLS_KEYS}


def ray_token(given: Any, *, kind: str, address: str | None) -> Path | None:
    """Path of `engine.token: {path:}`, a file that can be read and is not empty."""
    if given is None:
        return None
    files = _mapping(given, "engine.token", ("path",))
    if kind != "ray" or address is None:
        raise ConfigError(
            "engine.token is for a Ray cluster at an address: give it, or drop token (an own "
            "cluster makes its own)"
        )
    path = _readable(files["path"], "engine.token.path")
    if not path.read_bytes().strip():
        raise ConfigError(f"engine.token.path: {path} is empty: expected the cluster's token")
    return path


def use_token(path: Path) -> None:
    """Have Ray take the token of this file. Ray looks when it is imported, once for a process."""
    wanted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    if "ray" not in sys.modules:
        os.environ.pop("RAY_AUTH_TOKEN", None)  # Ray would prefer it
        os.environ.update(wanted)
    elif {name: os.environ.get(name) for name in [*wanted, "RAY_AUTH_TOKEN"]} != {
        **wanted,
        "RAY_AUTH_TOKEN": None,
    }:
        raise ConfigError(
            "engine.token: Ray is imported in this process already, and keeps the token it found "
            "then. Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH in the environment instead, "
            "before the process starts"
        )


def named_file(value: Any, name: str) -> str:
    """A path as it is written; ConfigError, without the value, where it cannot be one."""
    if not isinstance(value, str) or not value or "\n" in value or "-----BEGIN" in value:
        raise ConfigError(f"{name}: expected the path of a file, never what is in it")
    return value


def plain_address(value: str, name: str) -> str:
    """An address without a user or a password; ConfigError, without the value, where it has one."""
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            f"{name} must not carry a user or a password (they would be written into logs): give"
            " engine.tls for a Dask scheduler, engine.token for a Ray cluster"
        )
    return value


def _mapping(given: Any, name: str, keys: tuple[str, ...]) -> dict[str, str]:
    if not isinstance(given, Mapping) or set(given) != set(keys):
        expected = ", ".join(f"{key}: FILE" for key in keys)
        raise ConfigError(f"{name}: expected {{{expected}}}, files and never what is in them")
    return {key: named_file(given[key], f"{name}.{key}") for key in keys}


def _readable(value: str, name: str) -> Path:
    path = Path(value).expanduser()
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {str(path)!r}: {error.strerror}") from error
    return path
