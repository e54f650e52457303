"""A summary as markdown, for Prefect's artifacts and pull requests."""

from __future__ import annotations

from simdist.report.summary import Summary
from simdist.report.terminal import headline, recall_sentence
from simdist.report.words import count, duration, plain, value

__all__ = ["caption", "markdown"]


def caption(summary: Summary) -> str:
    """What came of it and how good it is, in two short sentences."""
    graph = summary.graph
    recall = recall_sentence(graph.metrics) if graph is not None else ""
    return headline(summary) + (f". Recall {recall}." if recall else ".")


def markdown(summary: Summary) -> str:
    """The same paragraphs as on the terminal."""
    lines = [f"# {summary.flow}", "", headline(summary), ""]
    lines += ["| step | stage | rows | time | dataset |", "| --- | --- | ---: | ---: | --- |"]
    for step in summary.steps:
        spent = "already" if step.reused else duration(step.seconds)
        lines.append(
            f"| {step.name} | {step.stage} | {count(step.rows)} | {spent} | `{step.uri}` |"
        )
    graph = summary.graph
    if graph is not None and (sentence := recall_sentence(graph.metrics)):
        lines += ["", f"**Recall** {sentence}."]
    if summary.neighbors:
        lines += ["", "| | nearest |", "| --- | --- |"]
    for near in summary.neighbors:
        others = ", ".join(f"{_code(name)} {value(number)}" for name, number in near.neighbors)
        lines.append(f"| {_code(near.id)} | {others} |")
    lines += [f"\n{note}" for note in summary.notes]
    return "\n".join(lines) + "\n"


def _code(name: object) -> str:
    """An id within a cell of a table, whatever it holds."""
    return f"`{plain(name).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
