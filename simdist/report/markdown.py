"""A summary as markdown, for Prefect's artifacts and pull requests."""

from __future__ import annotations

from collections.abc import Iterator

from simdist.report.groups import Cluster, DuplicateGroup
from simdist.report.sentences import recall_sentence
from simdist.report.summary import Summary
from simdist.report.terminal import headline, unfinished
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
    for word, sentence in summary.sentences:
        lines += ["", f"**{word.capitalize()}** {sentence}."]
    if summary.unconverged:
        lines += ["", f"**Unfinished** {unfinished(summary.unconverged)}"]
    if summary.neighbors:
        lines += ["", "| | nearest |", "| --- | --- |"]
    for near in summary.neighbors:
        others = ", ".join(f"{_code(name)} {value(number)}" for name, number in near.neighbors)
        lines.append(f"| {_code(near.id)} | {others} |")
    lines += _clusters(summary.clusters)
    lines += _duplicates(summary.duplicates)
    lines += [f"\n{note}" for note in summary.notes]
    return "\n".join(lines) + "\n"


def _clusters(clusters: tuple[Cluster, ...]) -> Iterator[str]:
    if clusters:
        yield from ("", "| cluster | rows | cut | most central |", "| ---: | ---: | ---: | --- |")
    for cluster in clusters:
        names = ", ".join(map(_code, cluster.central))
        cut = "" if cluster.cut is None else f"{cluster.cut:.0%}"
        yield f"| {cluster.number} | {count(cluster.size)} | {cut} | {names} |"


def _duplicates(groups: tuple[DuplicateGroup, ...]) -> Iterator[str]:
    if groups:
        yield from ("", "| rows | kept | gone |", "| ---: | --- | --- |")
    for group in groups:
        names = [
            _code(name) if number is None else f"{_code(name)} {value(number)}"
            for name, number in group.removed
        ]
        if more := group.size - 1 - len(group.removed):
            names.append(f"and {count(more)} more")
        yield f"| {count(group.size)} | {_code(group.kept)} | {', '.join(names)} |"


def _code(name: object) -> str:
    """An id within a cell of a table, whatever it holds."""
    return f"`{plain(name).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
