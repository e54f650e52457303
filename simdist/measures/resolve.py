"""From what a config or a caller writes to a measure.

    "cosine"                                                        a shipped measure by name
    {"name": "scaled", "measure": "manhattan", "lengthscales": [1, 10]}   with its fields
    {"name": "rbf", "lengthscale": 1.0, "ard": true}                a kernel; of kernels:
    {"name": "sum", "kernels": ["rbf", {"name": "white", "variance": 0.1}]}
    "package.module:Class"                                          your own, importable by workers
    Cosine()                                                        an instance, as it is

`resolve` is the inverse of `Measure.spec`.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from simdist.errors import ConfigError
from simdist.measures.base import Measure
from simdist.measures.bits import Hamming, Jaccard, Packed
from simdist.measures.kernels import SHIPPED as KERNELS
from simdist.measures.modifiers import Scaled, Squash
from simdist.measures.surrogates import Direction
from simdist.measures.vectors import Cosine, Dot, Euclidean, Manhattan, SqEuclidean
from simdist.types import Json

__all__ = ["KERNELS", "SHIPPED", "resolve"]

SHIPPED: Mapping[str, type[Measure]] = {
    cls.name: cls
    for cls in (
        Cosine,
        Direction,
        Dot,
        Euclidean,
        Hamming,
        Jaccard,
        Manhattan,
        Packed,
        Scaled,
        SqEuclidean,
        Squash,
    )
}

# What other libraries call them: one name each here, but the error knows.
_ELSEWHERE = {
    "angular": "cosine",
    "cityblock": "manhattan",
    "inner_product": "dot",
    "ip": "dot",
    "l1": "manhattan",
    "l2": "euclidean",
    "l2sq": "sqeuclidean",
    "mips": "dot",
    "gaussian": "rbf",
    "squared_exponential": "rbf",
    "matern": "matern52",
    "poly": "polynomial",
    "noise": "white",
    "tanimoto": "jaccard",
}


def resolve(spec: str | Mapping[str, Json] | Measure) -> Measure:
    """The measure that `spec` says; see the module docstring for its forms.

    ConfigError where the name is unknown (with the nearest known one), a class cannot be imported
    or is not a measure, or fields are unknown, missing or of another version.
    """
    if isinstance(spec, Measure):
        return spec
    if isinstance(spec, str):
        return _build(_find(spec), spec, {})
    if isinstance(spec, Mapping):
        if not isinstance(spec.get("name"), str):
            raise ConfigError(
                f"a measure written as a mapping needs a name, such as {{'name': 'cosine'}}; "
                f"got keys {sorted(map(str, spec))}."
            )
        return _build(
            _find(spec["name"]), spec["name"], {k: v for k, v in spec.items() if k != "name"}
        )
    raise _unusable(spec)


def _unusable(spec: object) -> ConfigError:
    if isinstance(spec, type) and issubclass(spec, Measure):
        name = spec.__qualname__
        return ConfigError(f"{name} is a class; pass an instance of it, {name}(...).")
    return ConfigError(
        f"a measure is a name, a mapping with a name, 'package.module:Class' or a Measure; "
        f"got {type(spec).__qualname__}. Known names: {', '.join(SHIPPED)}."
    )


def _find(name: str) -> type[Measure]:
    if ":" in name:
        return _import(name)
    known = {**SHIPPED, **KERNELS}
    if name in known:
        return known[name]
    meant = _ELSEWHERE.get(name.lower()) or _nearest(name.lower(), known)
    raise ConfigError(
        f"unknown measure {name!r}.{f' Did you mean {meant!r}?' if meant else ''} Known: "
        f"{', '.join(SHIPPED)}; kernels: {', '.join(KERNELS)}; a measure of your own is "
        f"'package.module:Class'."
    )


def _import(path: str) -> type[Measure]:
    module_name, _, class_name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in class_name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        local = " A class made inside a function cannot be found again: move it to a module." * (
            "<locals>" in class_name
        )
        raise ConfigError(
            f"measure {path!r} cannot be imported: {error}. Expected 'package.module:Class', "
            f"importable here and on every worker.{local}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Measure)):
        raise ConfigError(f"{path!r} is not a Measure: subclass simdist.measures.Measure.")
    return found


def _build(cls: type[Measure], name: str, given: Mapping[str, Json]) -> Measure:
    given = dict(given)
    version = given.pop("version", 1)
    if version != cls.version:
        raise ConfigError(
            f"measure {name!r} is written with version {version}, but the installed one has "
            f"version {cls.version}: its values have changed meaning since."
        )
    known: dict[str, Field[Any]] = {}
    if hasattr(cls, "__dataclass_fields__"):
        # A dataclass by the check above, which a type checker cannot follow.
        known = {field.name: field for field in fields(cls) if field.init}  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            meant = _nearest(key, known)
            raise ConfigError(
                f"measure {name!r} has no field {key!r}."
                f"{f' Did you mean {meant!r}?' if meant else ''} "
                f"Its fields: {', '.join(known) or 'none'}."
            )
    required = (f for f in known.values() if f.default is MISSING and f.default_factory is MISSING)
    missing = [field.name for field in required if field.name not in given]
    if missing:
        raise ConfigError(
            f"measure {name!r} needs {', '.join(missing)}. Write {{'name': {name!r}, "
            + ", ".join(f"{key!r}: ..." for key in missing)
            + "}."
        )
    return cls(**{key: _value(key, value) for key, value in given.items()})


def _value(key: str, value: Json) -> Any:
    """A field from JSON: measures resolved, lists as tuples (a frozen measure is hashable)."""
    named = isinstance(value, Mapping) and isinstance(value.get("name"), str)
    if named or key in ("measure", "kernel"):
        return resolve(value)
    if isinstance(value, list | tuple):
        each = "kernel" if key == "kernels" else ""
        return tuple(_value(each, item) for item in value)
    return value


def _nearest(name: str, known: Mapping[str, Any]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.6)), None)
