"""A summary on a terminal; without colours and lines of its own where the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from simdist.report.neighbors import Neighborhood
from simdist.report.summary import StepSummary, Summary
from simdist.report.words import count, duration, plural, value
from simdist.types import Json

__all__ = ["columns", "headline", "print_summary", "recall_sentence"]


def print_summary(summary: Summary, console: Console) -> None:
    """The whole summary, one paragraph a question: what, how long, how good, whose, where."""
    console.print(Group(*_paragraphs(summary)), soft_wrap=not console.is_terminal)


def _paragraphs(summary: Summary) -> Iterator[RenderableType]:
    yield Text()
    yield _title(summary)
    yield Text()
    yield Padding(_steps(summary.steps), (0, 0, 0, 2))
    graph = summary.graph
    if graph is not None and (sentence := recall_sentence(graph.metrics)):
        yield Text()
        yield Text.assemble(("  recall  ", "bold"), sentence)
    if summary.neighbors:
        yield Text()
        yield Text("  nearest", "bold")
        yield Padding(_neighbors(summary.neighbors), (0, 0, 0, 2))
    for note in summary.notes:
        yield Text(f"  {note}", "yellow")
    last = summary.steps[-1]
    yield Text()
    yield Text.assemble(("  lies at ", "bold"), last.uri)
    yield Text.assemble(("  look    ", "bold"), f"simdist show {last.uri}")
    yield Text()


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


def _steps(steps: tuple[StepSummary, ...]) -> Table:
    table = columns()
    for title, right in (("step", False), ("stage", False), ("rows", True), ("time", True)):
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    table.add_column("")
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
    """Where a stage's time went, longest first; nothing where there is little to tell."""
    slowest = sorted(step.rounds, key=lambda item: -item[1])[:4]
    return " · ".join(f"{name} {duration(seconds)}" for name, seconds in slowest if seconds >= 0.05)


def recall_sentence(metrics: Mapping[str, Json]) -> str:
    """`0.982, between 0.974 and 0.988 (95 %); asked for 0.95; 1,000 rows checked exactly`."""
    recall = metrics.get("recall")
    if recall is None:
        return "exact: every pair was compared" if metrics.get("method") == "exact" else ""
    parts = [
        f"{recall['estimate']:.3f}, between {recall['low']:.3f} and {recall['high']:.3f} (95 %)"
    ]
    if recall.get("target") is not None:
        parts.append(f"asked for {recall['target']:g}")
    if recall.get("rows") is not None:
        parts.append(f"{plural(recall['rows'], 'row')} checked against every other")
    return "; ".join(parts)


def _neighbors(neighborhoods: tuple[Neighborhood, ...]) -> Table:
    table = columns()
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for near in neighborhoods:
        others = Text("  ").join(
            Text.assemble(str(name), " ", (value(number), "dim")) for name, number in near.neighbors
        )
        table.add_row(Text(str(near.id), "cyan"), others)
    table.show_header = False
    return table
