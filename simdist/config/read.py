"""YAML and overrides into a validated flow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from simdist.config.flow import FlowConfig
from simdist.config.problems import Problem, validated, wiring
from simdist.errors import ConfigError

__all__ = ["Override", "load", "mapping_of", "parse", "read_text", "told"]


@dataclass(frozen=True, slots=True)
class Override:
    """A value for one key of a config, and what errors call it ("--set steps.graph.k")."""

    path: tuple[str, ...]
    value: Any
    said: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """From `a.b.c=value`, the value as YAML."""
        dotted, equals, value = text.partition("=")
        path = tuple(dotted.strip().split("."))
        if not equals or not all(path):
            raise ConfigError(f"--set {text}: expected a.b.c=value, for example steps.graph.k=30")
        try:
            return cls(path, _yaml(value), f"--set {dotted.strip()}")
        except yaml.YAMLError as error:
            reason = getattr(error, "problem", None) or error
            raise ConfigError(f"--set {text}: the value is not YAML: {reason}") from error


def load(path: str | Path, *, overrides: Sequence[str | Override] = ()) -> FlowConfig:
    """Read a YAML file and apply `a.b.c=value` overrides; ConfigError tells all that is wrong."""
    return parse(read_text(path, "the config"), source=str(path), overrides=overrides)


def parse(
    text: str, *, source: str = "config", overrides: Sequence[str | Override] = ()
) -> FlowConfig:
    """As `load`, from text; `source` is what errors call it."""
    node, tree = mapping_of(text, source, "name, store, inputs and steps")
    tree = _expanded(tree)
    changes = [Override.parse(item) if isinstance(item, str) else item for item in overrides]
    for change in changes:
        _override(tree, change)
        tree = _expanded(tree)
    flow, problems = validated(tree)
    problems += wiring(flow) if flow else ()
    if flow is None or problems:
        raise ConfigError("\n".join(_told(p, source, node, changes) for p in problems))
    return flow


def told(problem: Problem, source: str, node: yaml.Node | None) -> str:
    """A problem at its line."""
    return _told(problem, source, node, ())


def read_text(path: str | Path, what: str) -> str:
    """A text file; ConfigError, which says `what` it was to be, where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {what} {str(path)!r}: {reason}") from error


def mapping_of(text: str, source: str, keys: str) -> tuple[yaml.Node | None, dict[str, Any]]:
    """The nodes, which know their lines, and the values of a YAML mapping; ConfigError where it is
    none. source: what errors call the text; keys: what the mapping should have."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        tree = _yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: expected a mapping with {keys}")
    return node, tree


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, and reads 1e-3 as the number it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # YAML 1.1 wants 1.0e-3; nobody writes that
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _expanded(tree: dict[str, Any]) -> dict[str, Any]:
    """Short forms in full: `store: URI`, `engine: dask`, `engine: tcp://scheduler:8786`."""
    full = dict(tree)
    if isinstance(full.get("store"), str):
        full["store"] = {"uri": full["store"]}
    if isinstance(full.get("engine"), str):
        written = full["engine"]
        full["engine"] = {"address" if "://" in written else "kind": written}
    return full


def _override(tree: dict[str, Any], change: Override) -> None:
    """Apply one override in place."""
    here = tree
    for depth, key in enumerate(change.path[:-1], 1):
        here = here.setdefault(key, {})
        if not isinstance(here, dict):
            parent = ".".join(change.path[:depth])
            raise ConfigError(f"{change.said}: {parent} is {here!r}, which has no keys")
    here[change.path[-1]] = change.value


def _told(
    problem: Problem, source: str, node: yaml.Node | None, changes: Sequence[Override]
) -> str:
    dotted = ".".join(map(str, problem.path))
    for change in changes:
        if change.path[: len(problem.path)] == problem.path:
            return f"{change.said}: {problem.message}"
        if problem.path[: len(change.path)] == change.path:  # within a mapping that was set
            return f"{change.said}: {dotted}: {problem.message}"
    where = f"{source}:{_line(node, problem.path)}"
    return f"{where}: {dotted}: {problem.message}" if dotted else f"{where}: {problem.message}"


def _line(node: yaml.Node | None, path: Sequence[str | int]) -> int:
    """The line (from 1) of the deepest key of `path` that the text holds."""
    line = node.start_mark.line if node else 0
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line
        else:
            break
    return int(line) + 1
