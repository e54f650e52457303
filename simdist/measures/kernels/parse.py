"""From what a config or a caller writes to a kernel.

"rbf"                                              a shipped kernel by name, with its defaults
{"name": "rbf", "lengthscale": 1.0, "ard": true}   with its parameters
"2.0 * RBF(ard=True) + White(0.1)"                 a formula, as kernels print
RBF()                                              a Kernel, as it is
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from simdist.errors import ConfigError
from simdist.measures.kernels.base import Kernel
from simdist.types import Json

__all__ = ["resolve"]


def resolve(spec: str | Mapping[str, Json] | Kernel) -> Kernel:
    """The kernel that `spec` says; see the module docstring for its forms.

    A mapping is what `Kernel.spec` gives, and 'package.module:Class' names a kernel of your own, as
    in `simdist.measures.resolve`. ConfigError where it is none, a measure that is no kernel, or a
    formula that is more than kernels, numbers, + and *.
    """
    from simdist.measures import resolve as resolve_measure  # noqa: PLC0415  it imports this

    if isinstance(spec, str) and ":" not in spec and not spec.strip().isidentifier():
        return parse(spec)
    if isinstance(spec, str) and spec in _shipped():
        return parse(f"{spec}()")
    found = resolve_measure(spec)
    if not isinstance(found, Kernel):
        hint = _INSTEAD.get(found.name, "")
        raise ConfigError(
            f"{found.name} is a measure, not a kernel with hyper-parameters and gradients.{hint} "
            f"Kernels: {', '.join(_by_name())}; a formula such as '2.0 * RBF() + White(0.1)'."
        )
    return found


def parse(formula: str) -> Kernel:
    """The kernel that a formula says, as Python would read it, but nothing else is evaluated."""
    try:
        tree = ast.parse(formula.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"the kernel {formula!r} is no formula: {error.msg}.") from error
    found = _read(tree, formula)
    if not isinstance(found, Kernel):
        raise ConfigError(f"the kernel {formula!r} is {found!r}, not a kernel.")
    return found


_INSTEAD = {
    "cosine": " Linear() on rows of length 1 has its values; waves are cosine_wave.",
    "dot": " Linear() has its values.",
    "squash": " RBF() and Laplacian() are those of squared Euclidean and Manhattan distance.",
}
_JOINTS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
}


def _shipped() -> Mapping[str, type[Kernel]]:
    """Classes by the name that formulas use."""
    return {cls.__name__: cls for cls in _by_name().values()}


def _by_name() -> Mapping[str, type[Kernel]]:
    from simdist.measures.kernels import SHIPPED  # noqa: PLC0415  it imports this

    return SHIPPED


def _read(node: ast.expr, formula: str) -> Any:
    if isinstance(node, ast.BinOp) and type(node.op) in _JOINTS:
        left, right = _read(node.left, formula), _read(node.right, formula)
        return _JOINTS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given = [_read(each, formula) for each in node.args]
        named = {each.arg: _read(each.value, formula) for each in node.keywords if each.arg}
        return _built(node.func.id, given, named, formula)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ConfigError(
            f"{ast.unparse(node)!r} in the kernel {formula!r}: a formula is made of "
            f"{', '.join(_shipped())}, numbers, + and *."
        ) from None


def _built(name: str, given: list[Any], named: dict[str, Any], formula: str) -> Kernel:
    cls = _shipped().get(name)
    if cls is None:
        raise ConfigError(
            f"{name!r} in the kernel {formula!r} is no kernel. Known: {', '.join(_shipped())}."
        )
    try:
        return cls(*given, **named)
    except TypeError as error:
        raise ConfigError(f"the kernel {formula!r}: {error}.") from error
