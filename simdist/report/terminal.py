"""A summary on a terminal; without colours and lines of its own where the output is no terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from simdist.report.neighbors import Neighborhood
from simdist.report.summary import StepSummary, Summary
from simdist.report.words import count, duration, plain, plural, value
from simdist.types import Json

__all__ = ["columns", "headline", "indented", "print_summary", "recall_sentence", "show"]

PLAIN_WIDTH = 110  # columns where the output is no terminal: a log, a file, a pipe


def show(console: Console, *paragraphs: RenderableType) -> None:
    """Print paragraphs; where the output is no terminal, without padding at the ends of lines.

    A text is never broken: addresses in it stay whole for copying.
    """
    page = console
    if not console.is_terminal:
        page = Console(file=StringIO(), width=PLAIN_WIDTH, highlight=False)
    with nullcontext() if page is console else page.capture() as capture:
        for paragraph in paragraphs:
            page.print(paragraph, soft_wrap=isinstance(paragraph, Text))
    if capture is not None:
        lines = (line.rstrip() for line in capture.get().splitlines())
        console.file.write("\n".join(lines) + "\n")
        console.file.flush()


def print_summary(summary: Summary, console: Console) -> None:
    """The whole summary, one paragraph a question: what, how long, how good, whose, where."""
    show(console, *_paragraphs(summary, console.width if console.is_terminal else PLAIN_WIDTH))


def _paragraphs(summary: Summary, width: int) -> Iterator[RenderableType]:
    yield Text()
    yield _title(summary)
    yield Text()
    yield indented(_steps(summary.steps))
    yield Text()
    yield indented(_answers(summary, width))
    yield from _places(summary)
    yield Text()


def _answers(summary: Summary, width: int) -> Table:
    """How good it is, and who stands next to whom."""
    table = columns()
    table.show_header = False
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("", overflow="fold")
    graph = summary.graph
    if graph is not None and (sentence := recall_sentence(graph.metrics)):
        table.add_row("recall", sentence)
        table.add_row()
    if summary.neighbors:
        table.add_row("nearest", _neighbors(summary.neighbors, width - 12))
        table.add_row()
    for note in summary.notes:
        table.add_row("note", Text(note, "yellow"))
        table.add_row()
    return table


def _places(summary: Summary) -> Iterator[Text]:
    """Where the last step's dataset lies, what it is called, how to look at it."""
    last = summary.steps[-1]
    yield Text.assemble(("  lies at  ", "bold"), last.uri)
    if last.named:
        name = last.named.partition("@")[0]
        yield Text.assemble(("  named    ", "bold"), last.named)
        yield Text.assemble(
            ("  look     ", "bold"), f"simdist show {name} --store {_short(summary.store)}"
        )


def _short(uri: str) -> str:
    """A store's address as a person would type it from here."""
    path = Path(unquote(uri.removeprefix("file://"))) if uri.startswith("file://") else None
    if path is not None and path.is_relative_to(Path.cwd()):
        return f"./{path.relative_to(Path.cwd())}"
    return uri


def headline(summary: Summary) -> str:
    """What came of it, in a line."""
    graph, steps = summary.graph, summary.steps
    made = plural(steps[0].rows, "row")
    if graph is not None and graph.edges is not None:
        made += f", {plural(graph.edges, 'edge')}"
    if summary.reused:
        return f"{made}: nothing to do, already committed"
    return f"{made} in {duration(summary.seconds)}"


def _title(summary: Summary) -> Text:
    mark = ("= ", "dim") if summary.reused else ("✓ ", "green")
    return Text.assemble(mark, (summary.flow, "bold"), "  ", headline(summary))


def columns() -> Table:
    """A table without frames: two spaces between columns."""
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")


def indented(it: RenderableType) -> Padding:
    """Two columns in."""
    return Padding(it, (0, 0, 0, 2))


def _steps(steps: tuple[StepSummary, ...]) -> Table:
    table = columns()
    for title, right in (("step", False), ("stage", False), ("rows", True), ("time", True)):
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    table.add_column("of which")
    for step in steps:
        table.add_row(
            Text(step.name, "bold"),
            step.stage,
            count(step.rows),
            Text("already", "dim") if step.reused else duration(step.seconds),
            Text(_rounds(step), "dim"),
        )
    return table


def _rounds(step: StepSummary) -> str:
    """Where a stage's time went, largest first: `leaves 0.8 s · join 0.3 s`."""
    spent: dict[str, float] = {}
    for name, seconds in step.rounds:
        kind = re.split(r"-\d", name)[0]  # "join-0-1" and "join-0-2" are two rounds of joins
        spent[kind] = spent.get(kind, 0.0) + seconds
    slowest = sorted(spent.items(), key=lambda item: -item[1])[:4]
    return " · ".join(f"{name} {duration(seconds)}" for name, seconds in slowest if seconds >= 0.05)


def recall_sentence(metrics: Mapping[str, Json]) -> str:
    """`0.982, between 0.974 and 0.988 (95 %), asked for 0.95; measured on 1,000 rows`."""
    recall = metrics.get("recall")
    if recall is None:
        return "exact: every pair was compared" if metrics.get("method") == "exact" else ""
    told = f"{recall['estimate']:.3f}, between {recall['low']:.3f} and {recall['high']:.3f} (95 %)"
    if recall.get("target") is not None:
        told += f", asked for {recall['target']:g}"
    if recall.get("rows") is not None:
        told += f"; measured on {plural(recall['rows'], 'row')}"
    return told


def _neighbors(neighborhoods: tuple[Neighborhood, ...], width: int) -> Table:
    """A column for each row asked about, nearest first, values beside the names."""
    table = columns()
    table.header_style = "cyan"
    room = max(6, width // len(neighborhoods) - 9)  # a value and two gaps beside each name
    for near in neighborhoods:
        table.add_column(Text(plain(near.id)), overflow="ellipsis", no_wrap=True, max_width=room)
        table.add_column("", style="dim", no_wrap=True, min_width=5)
    for rank in zip_longest(*(near.neighbors for near in neighborhoods), fillvalue=("", None)):
        cells = (
            (Text(plain(name)), "" if number is None else value(number)) for name, number in rank
        )
        table.add_row(*(text for cell in cells for text in cell))
    return table
