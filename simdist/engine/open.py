"""`open_engine`: from what a person writes (a word, an address, a mapping) to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from simdist.engine.base import Engine, Scratch
from simdist.engine.credentials import dask_tls, plain_address, ray_token, use_token
from simdist.engine.local import LocalEngine
from simdist.engine.memory import parse_nbytes
from simdist.engine.seconds import parse_seconds
from simdist.engine.waiting import PATIENCE, Patience
from simdist.errors import ConfigError

__all__ = ["open_engine"]

_KEYS = (
    "kind",
    "workers",
    "address",
    "memory",
    "retries",
    "timeout",
    "wait_for_workers",
    "tls",
    "token",
)
_SCHEMES = {"tcp": "dask", "tls": "dask", "ray": "ray"}
_HELP = (
    "'local', 'dask', 'ray', an address such as 'tcp://scheduler:8786', 'tls://...' or "
    "'ray://head:10001', or a mapping {kind:, workers:, address:, memory:}"
)


def open_engine(
    spec: str | Mapping[str, Any] | Engine | None = None,
    *,
    workers: int | None = None,
    memory: str | int = "2GiB",
    scratch: Scratch | None = None,
    retries: int = 2,
    timeout: str | float = PATIENCE.timeout,
) -> Engine:
    """An engine, to be used with `with` (its end shuts down what was started here).

    spec: "local" (the default), "dask" or "ray" (an own cluster of processes on this machine),
        "tcp://...", "tls://..." (a Dask scheduler), "ray://..." (a Ray cluster; "ray://auto" is
        the one that this process is part of, such as that of a Ray job), or a mapping
        {kind:, workers:, address:, memory:, retries:, timeout:, wait_for_workers:, tls:, token:}
        whose entries override the options here. An Engine is returned as it is; it stays its
        owner's to close.
    workers: threads or processes; by default the cpus this process may use. A cluster at an
        address has the workers it has.
    memory: what a worker may hold above its baseline after imports, "300MiB" or bytes (local: all
        threads together).
    scratch: where `Engine.put` leaves arrays (`Store.scratch()`).
    retries: how often a task is tried again after a transient error or a worker's death.
    timeout: "30m" or seconds: a wait during which no task at all ends gives up after that long.
    wait_for_workers: "60s" by default: how long a cluster may have no worker, when connecting and
        while tasks wait.
    tls: {ca:, cert:, key:}, files in PEM, for a Dask scheduler at tls://.
    token: {path:}, the file with the token of a Ray cluster that has one.

    Dask and Ray start processes: scripts need `if __name__ == "__main__":`.
    Errors: ConfigError for a spec that makes no sense or an extra that is not installed,
    EngineError where the cluster cannot be started, reached or used.
    """
    if isinstance(spec, Engine):
        return spec
    options: dict[str, Any] = {
        "workers": workers,
        "memory": memory,
        "retries": retries,
        "timeout": timeout,
        "wait_for_workers": PATIENCE.workers,
    }
    if isinstance(spec, Mapping):
        unknown = sorted(set(spec) - set(_KEYS))
        if unknown:
            raise ConfigError(
                f"engine: unknown key {', '.join(unknown)}; known: {', '.join(_KEYS)}"
            )
        given = dict(spec)
        word, address = given.pop("kind", None), given.pop("address", None)
        options |= {key: value for key, value in given.items() if value is not None}
    else:
        word, address = spec, None
    kind, address = _kind(word, address)
    tls = dask_tls(options.get("tls"), kind=kind, address=address)
    token = ray_token(options.get("token"), kind=kind, address=address)
    workers = _count(options["workers"], "workers", least=1) if options["workers"] else None
    if options["workers"] == 0:
        raise ConfigError("engine.workers is 0: expected at least 1")
    keep: dict[str, Any] = {
        "memory": parse_nbytes(options["memory"], what="engine.memory"),
        "scratch": scratch,
        "retries": _count(options["retries"], "retries", least=0),
        "patience": Patience(
            timeout=parse_seconds(options["timeout"], what="engine.timeout"),
            workers=parse_seconds(options["wait_for_workers"], what="engine.wait_for_workers"),
        ),
    }
    if kind == "local":
        return LocalEngine(workers=workers, **keep)
    _need(kind)
    # Imported here: a scheduler costs seconds to import, and is an extra.
    if kind == "dask":
        from simdist.engine.dask import DaskEngine  # noqa: PLC0415

        return DaskEngine(workers=workers, address=address, tls=tls, **keep)
    if token is not None:
        use_token(token)
    from simdist.engine.ray import RayEngine  # noqa: PLC0415

    return RayEngine(workers=workers, address=address, **keep)


def _kind(word: Any, address: Any) -> tuple[str, str | None]:
    """(kind, address) of what was written; an address alone tells its kind."""
    for value in (word, address):
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"engine is {value!r}: expected {_HELP}")
        plain_address(value or "", "engine.address")
    if word is not None and "://" in word:
        if address is not None:
            raise ConfigError(f"engine has two addresses, {word!r} and {address!r}: give one")
        word, address = None, word
    if address is None:
        kind = word or "local"
    elif word is not None:
        kind = word
    else:
        kind = _SCHEMES.get(address.partition("://")[0], address)
    if address == "ray://auto":
        address = "auto"
    if kind not in ("local", "dask", "ray"):
        raise ConfigError(f"engine is {kind!r}: expected {_HELP}")
    if kind == "local" and address is not None:
        raise ConfigError(f"engine local runs in this process and takes no address: {address!r}")
    return kind, address


def _count(value: Any, name: str, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(
            f"engine.{name} is {value!r}: expected a whole number of at least {least}"
        )
    return value


def _need(kind: str) -> None:
    module = "distributed" if kind == "dask" else "ray"
    if find_spec(module) is None:
        raise ConfigError(
            f"engine {kind!r} needs a package that is not installed: pip install 'simdist[{kind}]'"
        )
