"""How numbers read: seconds, counts, values."""

from __future__ import annotations

__all__ = ["amount", "count", "duration", "plain", "plural", "value", "work"]


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(number: int) -> str:
    """`12,000`."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """`1 task`, `12,000 tasks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def amount(number: float) -> str:
    """A count that may be large, three digits of it: `0`, `950`, `12.4 k`, `3.05 M`, `61.1 G`."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            scaled = number / (1e3 if letter == "k" else size)
            digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{scaled:.{digits}f} {letter}"
    return f"{number:,.0f}"


def work(flops: float, name: str = "FLOP") -> str:
    """`2.1 GFLOP`; nothing for what only moves bytes."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if flops >= size:
            return f"{flops / size:.1f} {letter}{name}"
    return ""


def plain(text: object) -> str:
    """An id as it may be shown: data can hold anything, a terminal's escape codes for one."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)
    )


def value(number: float) -> str:
    """A similarity or distance to three places, large ones to three digits: `0.982`, `41.3`."""
    return f"{number:.3f}" if abs(number) < 10 else f"{number:.3g}"
