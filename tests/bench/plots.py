"""Plots of benchmark runs, as SVG or PNG by the name of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.alone import Run
from tests.bench.curves import frontier, misses, slope
from tests.bench.datasets import DataSet
from tests.bench.ledger import points

__all__ = ["plot_frontiers", "plot_growth"]

TICKS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
COLOURS = {
    "simdist": "#c1272d",
    "simdist-stored": "#e69f00",
    "simdist-pinned": "#f4a6a0",
    "pynndescent": "#0072b2",
    "faiss-ivf": "#009e73",
    "faiss-hnsw": "#56b4e9",
    "faiss-nndescent": "#cc79a7",
    "hnswlib": "#555555",
    "usearch": "#999933",
}


def plot_frontiers(path: Path, sets: Sequence[tuple[DataSet, dict[str, list[Run]]]]) -> None:
    """A panel per data set: wall seconds against recall, a line along each library's frontier."""
    pyplot = _pyplot()
    figure, panels = pyplot.subplots(
        1, len(sets), figsize=(5.6 * len(sets), 4.6), squeeze=False, layout="constrained"
    )
    for panel, (data, runs) in zip(panels[0], sets, strict=True):
        for family, own in points(runs).items():
            colour = COLOURS.get(family)
            kept = frontier(own)
            wide = 2.2 if family.startswith("simdist") else 1.2
            panel.plot(
                [misses(point.recall) for point in kept],
                [point.cost for point in kept],
                color=colour,
                marker="o",
                markersize=4,
                linewidth=wide,
                label=family,
            )
            panel.scatter(
                [misses(point.recall) for point in own],
                [point.cost for point in own],
                color=colour,
                s=8,
                alpha=0.5,
            )
        panel.set_yscale("log")
        panel.set_xticks([misses(tick) for tick in TICKS], [f"{tick:g}" for tick in TICKS])
        panel.set_xlim(misses(0.75), misses(0.9995))
        panel.set_xlabel(f"recall of {data.k} neighbours")
        panel.set_title(f"{data.name}: {data.n:,} x {data.d}, {data.measure}")
        panel.grid(alpha=0.3, which="both")
    panels[0][0].set_ylabel("wall seconds, own recall check left out")
    panels[0][0].legend(fontsize=8)
    _save(figure, path)


def plot_growth(
    path: Path,
    runs: Mapping[str, Mapping[int, float]],
    *,
    seconds: str = "wall seconds, own recall check left out",
) -> None:
    """Seconds against rows on logarithmic axes. runs: seconds by rows, by what was run. seconds:
    which they are."""
    pyplot = _pyplot()
    figure, panel = pyplot.subplots(figsize=(5.6, 4.6), layout="constrained")
    for label, own in runs.items():
        sizes, took = list(own), list(own.values())
        grows = f"{label}: n^{slope(sizes, took):.2f}" if len(own) > 1 else label
        panel.plot(sizes, took, marker="o", color=COLOURS.get(label.split()[0]), label=grows)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("rows")
    panel.set_ylabel(seconds)
    panel.grid(alpha=0.3, which="both")
    panel.legend(fontsize=8)
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "simdist"  # the same bytes for the same runs
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
