"""What a person sees of a run: its progress while it goes on, and a summary when it is done.

    runner events ──> progress   a bar with the time left on a terminal, lines elsewhere, JSON lines
         │
         └─────────> Timings ──> summary ──> terminal | markdown | JSON
                     datasets ──┘    ├ sentences: how good or large each result is, in a line
                                     ├ neighbors: who stands next to whom, by name
                                     └ groups: clusters and duplicates, by name

Reads events and committed datasets; computes nothing that a manifest should hold.
"""

from simdist.report.neighbors import Neighborhood, neighborhoods
from simdist.report.progress import JsonProgress, LineProgress, LiveProgress, progress
from simdist.report.summary import StepSummary, Summary, Timings, summarize

__all__ = [
    "JsonProgress",
    "LineProgress",
    "LiveProgress",
    "Neighborhood",
    "StepSummary",
    "Summary",
    "Timings",
    "neighborhoods",
    "progress",
    "summarize",
]
