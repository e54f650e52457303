"""What may be asked of message passing, and the walk that each method is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from simdist.errors import ConfigError
from simdist.types import Json

__all__ = ["CorrectConfig", "Kind", "LabelConfig", "LabelKind", "PropagateConfig", "Walk"]

Kind: TypeAlias = Literal["sgc", "appnp", "ppr", "lightgcn"]
LabelKind: TypeAlias = Literal["clamped", "spreading"]


@dataclass(frozen=True, slots=True)
class Walk:
    """X' = keep W X + restart X0 with W = D^(power - 1) (A + loops I) D^-power, step after step.

    power: 1/2 is D^-1/2 A D^-1/2; 0 averages the neighbours (rows of W sum to 1); 1 hands on shares
        (columns sum to 1). loops: weight of a self-loop; D are the degrees with it.
    idle: whether a node without any edge keeps what it has, else it gets nothing.
    hold: rows that X0 knows are set back to it after each step.
    low, high: values are cut off there after each step.
    """

    keep: float = 1.0
    restart: float = 0.0
    loops: float = 0.0
    power: float = 0.5
    idle: bool = False
    hold: bool = False
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Method:
    """A published method: its steps, alpha and self-loops where nothing else is asked."""

    steps: int
    alpha: float | None
    loops: float
    tolerance: float | None = None


METHODS: Mapping[str, _Method] = {
    "sgc": _Method(2, None, 1.0),
    "appnp": _Method(10, 0.1, 1.0),
    "ppr": _Method(100, 0.15, 0.0, 1e-6),
    "lightgcn": _Method(3, None, 0.0),
}


@dataclass(frozen=True, slots=True)
class PropagateConfig:
    """kind: the method. steps, alpha, self_loops: None takes the published ones (METHODS).

    tolerance: stop before all steps are done, once no value moves by more; of appnp and ppr, which
    converge. None: for ppr 1e-6, for the others every step is done.
    """

    kind: Kind = "sgc"
    steps: int | None = None
    alpha: float | None = None
    self_loops: float | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in METHODS:
            raise ConfigError(f"kind={self.kind!r}: expected one of {', '.join(METHODS)}")
        _at_least_one("steps", self.steps)
        if METHODS[self.kind].alpha is None:
            for name in ("alpha", "tolerance"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"{name}={getattr(self, name)}: {self.kind} has none, every step is done;"
                        " appnp and ppr restart with alpha and converge"
                    )
        _between("alpha", self.alpha)
        _positive("tolerance", self.tolerance)
        if self.self_loops is not None and not 0.0 <= self.self_loops < float("inf"):
            raise ConfigError(f"self_loops={self.self_loops}: expected a weight of at least 0")

    @property
    def step_count(self) -> int:
        return METHODS[self.kind].steps if self.steps is None else self.steps

    @property
    def stops_at(self) -> float | None:
        """The tolerance, the method's own where none is asked."""
        return METHODS[self.kind].tolerance if self.tolerance is None else self.tolerance

    @property
    def factor(self) -> float:
        """What X is multiplied with in the end: LightGCN's layers are averaged."""
        return 1.0 / (self.step_count + 1) if self.kind == "lightgcn" else 1.0

    @property
    def walk(self) -> Walk:
        """The method as a recurrence. LightGCN's sum of layers is Horner's: X' = W X + X0."""
        method = METHODS[self.kind]
        loops = method.loops if self.self_loops is None else self.self_loops
        if method.alpha is not None:
            alpha = method.alpha if self.alpha is None else self.alpha
            ppr = self.kind == "ppr"
            return Walk(1.0 - alpha, alpha, loops, 1.0 if ppr else 0.5, idle=ppr)
        return Walk(1.0, 1.0 if self.kind == "lightgcn" else 0.0, loops)

    def to_json(self) -> Json:
        return {
            "kind": self.kind,
            "steps": self.step_count,
            "walk": self.walk.to_json(),
            "tolerance": self.stops_at,
        }


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """kind, alpha: see `label_propagation`. steps: at most.

    tolerance: stop once no score moves by more in a step, in units of what a labelled row is given
    (1 when clamped, 1 - alpha of it a step when spreading).
    """

    kind: LabelKind = "clamped"
    alpha: float | None = None
    steps: int = 1000
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.kind not in ("clamped", "spreading"):
            raise ConfigError(f"kind={self.kind!r}: expected 'clamped' or 'spreading'")
        if self.kind == "clamped" and self.alpha is not None:
            raise ConfigError(
                f"alpha={self.alpha}: clamped label propagation has none, known labels stand;"
                " kind='spreading' lets them give way"
            )
        _between("alpha", self.alpha)
        _at_least_one("steps", self.steps)
        _positive("tolerance", self.tolerance)

    @property
    def walk(self) -> Walk:
        if self.kind == "clamped":
            return Walk(power=0.0, hold=True)
        alpha = 0.9 if self.alpha is None else self.alpha
        return Walk(alpha, 1.0 - alpha)

    @property
    def stops_at(self) -> float:
        """The tolerance in the units of the scores."""
        return self.tolerance * (self.walk.restart or 1.0)

    def to_json(self) -> Json:
        return {
            "kind": self.kind,
            "walk": self.walk.to_json(),
            "steps": self.steps,
            "tolerance": self.tolerance,
        }


@dataclass(frozen=True, slots=True)
class CorrectConfig:
    """correct, smooth: alpha of either walk; steps: of each. scale: of the errors that are added;
    None fits it row by row (the paper's autoscale)."""

    correct: float = 0.8
    smooth: float = 0.8
    steps: int = 50
    scale: float | None = None

    def __post_init__(self) -> None:
        _between("correct", self.correct)
        _between("smooth", self.smooth)
        _at_least_one("steps", self.steps)
        _positive("scale", self.scale)

    @property
    def correcting(self) -> Walk:
        return Walk(self.correct, 1.0 - self.correct, low=-1.0, high=1.0)

    @property
    def smoothing(self) -> Walk:
        return Walk(self.smooth, 1.0 - self.smooth, low=0.0, high=1.0)

    def to_json(self) -> Json:
        return asdict(self)


def _at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ConfigError(f"{name}={value}: expected at least 1")


def _between(name: str, value: float | None) -> None:
    if value is not None and not 0.0 < value < 1.0:
        raise ConfigError(f"{name}={value}: expected a number between 0 and 1, neither of them")


def _positive(name: str, value: float | None) -> None:
    if value is not None and not 0.0 < value < float("inf"):
        raise ConfigError(f"{name}={value}: expected a positive number, or none")
