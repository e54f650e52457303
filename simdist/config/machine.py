"""A machine file: what a worker is, what it costs, and how fast it is, as YAML.

    cpus, memory, network, price_per_hour, store, driver     written by a person
    rates: {like: this-machine.yaml, speed: 0.8}             or all of them, by `simdist calibrate`

Speeds are bytes a second, written "390MB/s"; times are "120s" or seconds.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic import ValidationError as Invalid

from simdist.config.problems import findings
from simdist.config.read import mapping_of, read_text, told
from simdist.engine.memory import parse_nbytes
from simdist.engine.seconds import parse_seconds
from simdist.errors import ConfigError
from simdist.simulation import Driver, KindRates, Machine, ObjectStore, Rates

__all__ = ["load_machine", "save_machine"]

INFINITE = float("inf")
HOUR = 3600.0


def _bytes(value: object) -> int:
    try:
        return parse_nbytes(value, what="it")  # type: ignore[arg-type]
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("it is ")) from error


def _speed(value: object) -> int:
    """`390MB/s` as a number."""
    return _bytes(value.removesuffix("/s") if isinstance(value, str) else value)


def _seconds(value: object) -> float:
    try:
        return parse_seconds(value, what="it")  # type: ignore[arg-type]
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("it is ")) from error


Bytes: TypeAlias = Annotated[int, BeforeValidator(_bytes)]
Speed: TypeAlias = Annotated[int, BeforeValidator(_speed)]
Seconds: TypeAlias = Annotated[float, BeforeValidator(_seconds)]
Amount: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    """Frozen; a key that is not a field is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Kind(_Entry):
    """Rates of a kind of round; see simdist.simulation.rates."""

    task: Amount
    row: Amount
    byte: Amount
    work: Amount
    pair: Amount
    spread: Amount
    growth: Amount = 0.0


class _Rates(_Entry):
    """Rates as measured, or those of another file: `like` it, `speed` times as fast."""

    like: str | None = None
    speed: Positive = 1.0
    flops: Positive | None = None
    ops: Positive | None = None
    pair: Amount | None = None
    kinds: dict[str, _Kind] = {}
    other: _Kind | None = None

    def rates(self, beside: Path) -> Rates:
        """beside: the file these are written in; `like` is relative to it."""
        if self.like is not None:
            return load_machine(beside.parent / self.like).rates.times(self.speed)
        if self.flops is None or self.ops is None or self.pair is None:
            raise ConfigError(
                f"{beside}: rates: expected flops, ops and pair, as `simdist calibrate`"
                " writes them, or like: the file that has them"
            )
        found = Rates(
            flops=self.flops,
            ops=self.ops,
            pair=self.pair,
            kinds={name: KindRates(**kind.model_dump()) for name, kind in self.kinds.items()},
            other=KindRates() if self.other is None else KindRates(**self.other.model_dump()),
        )
        return found.times(self.speed)


class _Store(_Entry):
    bandwidth: Speed | None = None
    latency: Amount = 0.0
    price_per_1000: Amount = 0.0


class _Driver(_Entry):
    submit: Amount = Driver().submit
    collect: Amount = Driver().collect
    record: Amount = Driver().record
    round: Amount = Driver().round


class _Machine(_Entry):
    name: str
    cpus: Annotated[int, Field(strict=True, ge=1)]
    memory: Bytes
    network: Speed | None = None
    cache: Bytes | None = None
    price_per_hour: Amount = 0.0
    lost_after: Seconds | None = None
    replaced_after: Seconds = 120.0
    store: _Store = _Store()
    driver: _Driver = _Driver()
    rates: _Rates


def load_machine(path: str | Path) -> Machine:
    """Read a machine file; ConfigError tells all that is wrong, each at its line."""
    node, tree = mapping_of(
        read_text(path, "the machine file"), str(path), "name, cpus, memory and rates"
    )
    try:
        it = _Machine.model_validate(tree)
    except Invalid as error:
        problems = findings(error, _Machine, tree, ())
        raise ConfigError("\n".join(told(p, str(path), node) for p in problems)) from None
    return Machine(
        name=it.name,
        cpus=it.cpus,
        memory=it.memory,
        rates=it.rates.rates(Path(path)),
        network=it.network or INFINITE,
        cache=it.cache or INFINITE,
        price=it.price_per_hour,
        lost=INFINITE if it.lost_after is None else it.lost_after / HOUR,
        replaced=it.replaced_after,
        store=ObjectStore(
            it.store.bandwidth or INFINITE, it.store.latency, it.store.price_per_1000
        ),
        driver=Driver(**it.driver.model_dump()),
    )


def save_machine(machine: Machine, path: str | Path, *, comment: str = "") -> None:
    """Write a machine file that `load_machine` reads. comment: lines for its top."""
    tree: dict[str, Any] = {
        "name": machine.name,
        "cpus": machine.cpus,
        "memory": int(machine.memory),
        "driver": _short(asdict(machine.driver)),
        "rates": _short(asdict(machine.rates)),
    }
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    try:
        Path(path).write_text(head + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {str(path)!r}: {error.strerror}") from error


def _short(value: Any) -> Any:
    """Numbers with four digits that count: more would pretend to be known."""
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
