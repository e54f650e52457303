"""What is wrong with a flow, each finding at its path of keys, in the words of the config."""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, Tag
from pydantic import ValidationError as Invalid

from simdist.config.flow import FlowConfig, needs
from simdist.config.inputs import GraphInputConfig, InputConfig
from simdist.config.stages import STEPS
from simdist.config.steps import Step

__all__ = ["Problem", "findings", "validated", "wiring"]

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong, at a path of keys."""

    path: Path
    message: str


def validated(tree: Mapping[str, Any]) -> tuple[FlowConfig | None, list[Problem]]:
    """The flow, or everything that is wrong with it. Each step is checked by its stage's class."""
    problems: list[Problem] = []
    steps = tree.get("steps", {})
    if isinstance(steps, dict):
        steps = {name: _step(step, ("steps", str(name)), problems) for name, step in steps.items()}
    if problems:
        steps = {}  # told already; look at the rest of the flow all the same
    tree = {**tree, "steps": steps}
    try:
        flow = FlowConfig.model_validate(tree)
    except Invalid as error:
        return None, [*findings(error, FlowConfig, tree, ()), *problems]
    return (None if problems else flow), problems


def wiring(flow: FlowConfig) -> Iterator[Problem]:
    """What a step is `of` (or `against`) is there, of the right kind, without going in circles."""
    there: dict[str, InputConfig | GraphInputConfig | Step] = {**flow.inputs, **flow.steps}
    for name in flow.inputs.keys() & flow.steps.keys():
        yield Problem(("steps", name), f"{name!r} is the name of an input already; rename one")
        return  # what `of` means is unclear now
    for name, step in flow.steps.items():
        for key, named in step.sources().items():
            source = there.get(named)
            if source is None:
                message = f"there is no input or step {named!r}{_nearest(named, there)}"
                yield Problem(("steps", name, key), message)
            elif source.gives != (wanted := step.kinds()[key]):
                message = f"{named!r} is a {source.gives}; {step.stage} works on {wanted}"
                yield Problem(("steps", name, key), message)
    try:
        graphlib.TopologicalSorter(needs(flow)).prepare()
    except graphlib.CycleError as error:
        circle = [str(name) for name in reversed(error.args[1])]
        yield Problem(("steps", circle[0], "of"), f"goes in a circle: {' of '.join(circle)}")


def _step(value: Any, path: Path, problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        problems.append(Problem(path, f"expected a mapping with stage and of, got {value!r}"))
        return value
    stage = value.get("stage")
    kind = STEPS.get(str(stage))
    if kind is None and stage is None:
        problems.append(Problem(path, f"needs a stage: {_listed(STEPS)}"))
    elif kind is None:
        message = f"there is no stage {stage!r}{_nearest(stage, STEPS)}"
        problems.append(Problem((*path, "stage"), message))
    else:
        try:
            return kind.model_validate(value)
        except Invalid as error:
            problems += findings(error, kind, value, path)
    return value


def findings(error: Invalid, model: type[BaseModel], value: Any, prefix: Path) -> Iterator[Problem]:
    """Pydantic's findings, one problem a path; the branches of a union are told together."""
    told: dict[Path, list[str]] = {}
    for found in error.errors(include_url=False):
        path = _keys(found["loc"], value)
        told.setdefault(path, []).append(_message(dict(found), model))
    for path, messages in told.items():
        yield Problem((*prefix, *path), "; or ".join(dict.fromkeys(messages)))


def _message(found: Mapping[str, Any], model: type[BaseModel]) -> str:
    match found["type"]:
        case "extra_forbidden":
            *parents, key = found["loc"]
            return f"unknown key{_nearest(key, _model_at(model, parents).model_fields)}"
        case "missing":
            return "is missing"
        case "too_short":
            return "is empty"
        case "value_error":
            return str(found["ctx"]["error"])
    return f"expected {_expected(found)}, got {found['input']!r}"


def _expected(found: Mapping[str, Any]) -> str:
    match found["type"]:
        case "string_pattern_mismatch":
            return "a name (a letter, then letters, digits, _ or -, 40 in all)"
        case "dict_type" | "model_type":
            return "a mapping"
        case _:
            return str(found["msg"]).removeprefix("Input should be ")


def _keys(loc: Path, value: Any) -> Path:
    """A location without the branches of unions that pydantic puts between the keys."""
    keys: list[str | int] = []
    for place, part in enumerate(loc):
        if (isinstance(value, dict) and part in value) or isinstance(part, int):
            value = value[part]
        elif not (isinstance(value, dict) and place == len(loc) - 1):  # a missing key, at the end
            continue
        keys.append(part)
    return tuple(keys)


def _model_at(model: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    """The model that holds the key at `loc`: through fields, mappings of models, and branches of
    unions, which pydantic names by their tags."""
    branches: dict[str, type[BaseModel]] = {}
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is not None:  # else a key of a mapping, or a tag
            branches = dict(_tagged(field.annotation)) or branches
            model = next(_models(field.annotation), model)
        else:
            model = branches.get(str(part), model)
    return model


def _tagged(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """(tag, model) of each branch of a tagged union."""
    first, *marks = get_args(annotation) or (None,)
    for mark in marks:
        if isinstance(mark, Tag):
            yield mark.tag, first
    for argument in get_args(annotation):
        yield from _tagged(argument)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _nearest(word: object, allowed: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(str(word), allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Allowed: {_listed(allowed)}"


def _listed(words: Mapping[str, object]) -> str:
    return ", ".join(words)
