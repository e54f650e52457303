"""A summary on a terminal; without colours and lines of its own where the output is no terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from simdist.report.groups import Cluster, DuplicateGroup
from simdist.report.neighbors import Neighborhood
from simdist.report.summary import StepSummary, Summary
from simdist.report.words import count, duration, plain, plural, value

__all__ = [
    "PLAIN_WIDTH",
    "clusters_table",
    "columns",
    "duplicates_table",
    "headline",
    "indented",
    "print_summary",
    "show",
    "unfinished",
]

REMOVED = 3  # of a group of duplicates, told one by one
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
    """How good it is, who stands next to whom, and who belongs together."""
    table = columns()
    table.show_header = False
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("", overflow="fold")
    for word, sentence in summary.sentences:
        table.add_row(word, sentence)
    if summary.sentences:
        table.add_row()
    room = width - 5 - max(10, *(len(word) for word, _ in summary.sentences), 0)
    if summary.neighbors:
        table.add_row("nearest", _neighbors(summary.neighbors, room))
        table.add_row()
    if summary.clusters:
        table.add_row("central", clusters_table(summary.clusters, room))
        table.add_row()
    if summary.duplicates:
        table.add_row("duplicates", duplicates_table(summary.duplicates))
        table.add_row()
    if summary.unconverged:
        table.add_row("unfinished", Text(unfinished(summary.unconverged), "yellow"))
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
    made += "".join(_made(step) for step in steps)
    late = "; not converged: " + ", ".join(summary.unconverged) if summary.unconverged else ""
    if summary.reused:
        return f"{made}: nothing to do, already committed{late}"
    return f"{made} in {duration(summary.seconds)}{late}"


def _made(step: StepSummary) -> str:
    """What a step that ends in groups adds to the headline."""
    match step.stage:
        case "spectral_clusters":
            return f", {plural(int(step.metrics['clusters']), 'cluster')}"
        case "affinity_propagation":
            return f", {plural(int(step.metrics['exemplars']), 'exemplar')}"
        case "deduplicate":
            return f", {count(int(step.metrics['kept']))} stay"
    return ""


def unfinished(steps: Sequence[str]) -> str:
    """What it means that steps have not converged, and what to do."""
    return (
        f"{', '.join(steps)}: the solver stopped before its result was as good as it was asked to"
        " be. It is committed as it stands, and so is what was made of it; allow more passes or"
        " iterations, or a larger tolerance."
    )


def _title(summary: Summary) -> Text:
    mark = ("= ", "dim") if summary.reused else ("✓ ", "green")
    if summary.unconverged:
        mark = ("! ", "yellow")
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


def clusters_table(clusters: Sequence[Cluster], width: int) -> Table:
    """A line a cluster: number, size, the share of its weight that is cut where that is known, and
    its most central rows as far as they fit."""
    table = columns()
    table.header_style = "cyan"
    cuts = any(cluster.cut is not None for cluster in clusters)
    for heading in ("cluster", "rows", "cut") if cuts else ("cluster", "rows"):
        table.add_column(heading, justify="right", no_wrap=True)
    room = max(20, width - 18 - 7 * cuts)
    table.add_column("most central", no_wrap=True, overflow="ellipsis", max_width=room)
    for cluster in clusters:
        cut = [f"{cluster.cut or 0.0:.0%}"] if cuts else []
        names = Text(", ".join(plain(name) for name in cluster.central))
        table.add_row(str(cluster.number), count(cluster.size), *cut, names)
    return table


def duplicates_table(groups: Sequence[DuplicateGroup]) -> Table:
    """A group, its size, who is kept, and below that the first who went, with their values."""
    table = columns()
    table.header_style = "cyan"
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("kept", overflow="ellipsis", no_wrap=True)
    table.add_column("gone", overflow="ellipsis", no_wrap=True)
    table.add_column("", style="dim", no_wrap=True, min_width=5)
    for group in groups:
        for place, (name, number) in enumerate(group.removed[:REMOVED]):
            size, kept = (count(group.size), plain(group.kept)) if place == 0 else ("", "")
            told = "" if number is None else value(number)
            table.add_row(size, Text(kept), Text(plain(name)), told)
        if more := group.size - 1 - min(len(group.removed), REMOVED):
            table.add_row("", "", Text(f"and {more:,} more", "dim"), "")
    return table
