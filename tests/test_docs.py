"""What the docs show: names and options that there are, steps that a config takes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest
import yaml

import simdist as sd
from simdist.config import parse

DOCS = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
SOURCES = {"of", "keys", "corpus", "new", "model"}  # keys of a step that name what it reads
INPUT = {"path": "datasets://debian-packages", "id": "package", "vector": "embedding"}
KEPT = ["section", "price", "kind"]


def blocks(language: str) -> list[object]:
    """The fenced blocks of a language in all docs, each called by its page and line."""
    found = []
    for page in DOCS:
        text = page.read_text()
        for block in re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text[: block.start()].count("\n") + 2
            found.append(pytest.param(block[1], id=f"{page.name}:{line}"))
    return found


def calls(source: str) -> Iterator[tuple[str, list[str]]]:
    """What of `sd` is called, by its dotted name, and with which keywords."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and re.fullmatch(r"sd(\.\w+)+", ast.unparse(node.func)):
            keywords = [word.arg for word in node.keywords if word.arg is not None]
            yield ast.unparse(node.func).removeprefix("sd."), keywords


@pytest.mark.parametrize("shown", [b for b in blocks("python") if ">>>" not in b.values[0]])
def test_the_names_and_options_shown_are_there(shown: str) -> None:
    for name in re.findall(r"\bsd\.(\w+)", shown):
        assert hasattr(sd, name)
    for path, keywords in calls(shown):
        called = attrgetter(path)(sd)
        inspect.signature(called).bind_partial(**dict.fromkeys(keywords))


@pytest.mark.parametrize("shown", blocks("yaml"))
def test_the_steps_shown_are_valid(shown: str) -> None:
    flow = yaml.safe_load(shown)
    steps = flow["steps"]
    read = {step[key] for step in steps.values() for key in SOURCES & set(step)}
    inputs = {name: {**INPUT, "keep": KEPT} for name in sorted(read - set(steps))}
    whole = {"name": "shown", "store": "./runs", "inputs": {**inputs, **flow.get("inputs", {})}}
    assert set(parse(yaml.safe_dump({**whole, "steps": steps})).steps) == set(steps)
