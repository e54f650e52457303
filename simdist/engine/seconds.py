"""Time spans as people write them: "30s", "10m", "1h"."""

from __future__ import annotations

import math
import re

from simdist.errors import ConfigError

__all__ = ["parse_seconds"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_seconds(value: str | float, *, what: str) -> float:
    """Seconds of "90s", "10m", "1h", "2d" or a plain number of seconds; ConfigError otherwise.

    what: the setting's name, for the error.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", str(value))
        if match is None:
            raise ConfigError(
                f"{what} is {value!r}: expected seconds, or a number with a unit, such as '90s', "
                "'10m' or '1h'"
            )
        seconds = float(match.group(1)) * _UNITS[match.group(2)]
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigError(f"{what} is {value!r}: expected more than zero seconds")
    return seconds
