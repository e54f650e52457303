"""Bytes as people write them: "300MiB", "4GiB", "2GB"."""

from __future__ import annotations

import re

from simdist.errors import ConfigError

__all__ = ["format_nbytes", "parse_nbytes"]

_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = _BINARY | _DECIMAL


def parse_nbytes(value: str | int, *, what: str = "memory") -> int:
    """Bytes of "300MiB" (2^20), "2GB" (10^9) or a plain number of bytes; ConfigError otherwise.

    what: the setting's name, for the error.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        nbytes = value
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", str(value))
        unit = _UNITS.get(match.group(2).upper()) if match else None
        if match is None or unit is None:
            raise ConfigError(
                f"{what} is {value!r}: expected a number with a unit, such as '300MiB' or '4GiB' "
                f"(units: {', '.join(_DECIMAL)}, KiB, MiB, GiB, TiB)"
            )
        nbytes = int(float(match.group(1)) * unit)
    if nbytes <= 0:
        raise ConfigError(f"{what} is {value!r}: expected more than zero bytes")
    return nbytes


def format_nbytes(nbytes: float) -> str:
    """ "1.5 GiB": binary units, one decimal below a hundred."""
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB" if size < 10240 else f"{size / 1024:.1f} PiB"
