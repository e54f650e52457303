"""The approximate builder's own story, told to sampled rows of graphs whose every row is known.

No graph is built: joins change what `growth` says, checks look at the rows of one draw, and the
story decides by its own rule whether to stop, to sample more or to go on. So a thousand runs take
seconds, and the share of them whose interval misses the truth can be counted.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
from stages.graph.growth import Growth

from simdist.recall import Look, Recall, enough, summary
from simdist.runner.plan import Record, Round, Task
from simdist.stages.graph import story
from simdist.stages.graph.config import KnnGraphConfig
from simdist.types import Array, Json

__all__ = ["told"]

K = 15


def told(growth: Growth, target: float, seed: int) -> tuple[Recall, float]:
    """What the builder would report, and the true recall of the graph it would stop at."""
    config = KnnGraphConfig(k=K, measure="cosine", recall=target)
    rows = growth.hits.shape[1]
    drawn = np.random.default_rng(seed).choice(rows, min(rows, 8000), replace=False)
    done: dict[str, list[Record]] = {}
    partition = SimpleNamespace(
        rows=rows,
        blocks=0,  # so the finish has no tasks
        measure=None,
        coded=True,
        in_place=False,
        dataset=SimpleNamespace(manifest=SimpleNamespace(metrics={"fanout": 8})),
    )
    with patch.multiple(story, **_SILENT), patch.object(story, "exact_rounds", _no_rounds):
        telling = story._Story(config, cast(Any, None), cast(Any, partition), done).rounds()
        graph = -1
        try:
            step = next(telling)
            while True:
                done[step.name] = []
                if step.name.startswith(("merge-join", "walk")):
                    graph, fresh = growth.after(graph)
                    done[step.name] = [Record(step.name, {}, {"fresh": fresh})]
                if step.name.startswith("check"):
                    facts = _looked(step.tasks[0], growth.hits[graph][drawn], config, rows)
                    done[step.name] = [Record(step.name, {}, facts)]
                step = next(telling)
        except StopIteration as end:
            recall, _ = end.value
        except _AllPairs:
            return Recall(1.0, 1.0, 1.0, tie_aware=1.0, p5=1.0, rows=rows, target=target), 1.0
    return recall, float(growth.hits[graph].mean() / K)


def _looked(task: Task, hits: Array, config: KnnGraphConfig, rows: int) -> dict[str, Json]:
    """What `compute_check` finds."""
    shares = hits[: max(last for _, last in task.args["truths"].values())] / K
    look, target = Look(*task.args["look"]), cast(float, config.recall)
    sizes = config.resolved.sample_sizes(rows)
    found = summary(shares, shares, K, population=rows, target=target, look=look)
    more = enough(shares, K, population=rows, target=target, look=look, sizes=sizes)
    return {"recall": found.to_json(), "enough": more}


class _AllPairs(Exception):
    """The story has come to its last resort."""


def _no_rounds(*_: Any) -> Any:
    raise _AllPairs


def _round(name: str, *_: Any, **__: Any) -> Round:
    return Round(name, ())


_SILENT = {
    "leaf_rounds": lambda name, *_: [_round(name)],
    "block_round": _round,
    "truth_round": _round,
    "merge_nbytes": lambda *_: 0,
    "links_nbytes": lambda *_: 0,
    "join_nbytes": lambda *_: 0,
    "rescore_nbytes": lambda *_: 0,
    "walk_nbytes": lambda *_: 0,
    "finish_nbytes": lambda *_: 0,
    "check_round": lambda name, _partition, _config, lists, truths, look: Round(
        name,
        (Task(name, "check", {"truths": truths, "look": [look.graph, look.size]}, 0),),
    ),
    "RowPanels": lambda *_: None,
}
