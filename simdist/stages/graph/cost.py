"""What a k-NN graph costs, round by round: its config as `simdist.stages.costs` takes it, and the
rounds of the exact one."""

from __future__ import annotations

from simdist.measures import resolve
from simdist.partitions import has_codes
from simdist.runner.plan import RoundForecast
from simdist.stages.costs import TASK_REQUESTS, Typical, Work, graph_nbytes, moves
from simdist.stages.graph.config import KnnGraphConfig

__all__ = ["exact_rounds", "work_of"]

STATE_NBYTES = 12  # of a candidate: its row and its key


def work_of(config: KnnGraphConfig, rows: int, dim: int, typical: Typical | None = None) -> Work:
    """The graph of n rows of d dimensions. typical: what the data decides, where that is known."""
    params = config.resolved
    return Work(
        rows=rows,
        dim=dim,
        k=config.k,
        fanout=params.fanout,
        leaf_rows=params.leaf_rows,
        leaf_neighbors=params.leaf_neighbors,
        keep=params.keep,
        links=params.links,
        joins=params.joins,
        sample=params.sample,
        coded=has_codes(resolve(config.measure)),
        typical=Typical() if typical is None else typical,
    )


def exact_rounds(work: Work, *, width: int) -> tuple[RoundForecast, ...]:
    """Every pair of n rows. width: candidates that a pair of panels keeps for each row."""
    n, d, panels = work.rows, work.dim, work.blocks
    pairs = panels * (panels - 1) // 2
    vectors = n * work.float_nbytes
    state = n * width * STATE_NBYTES
    listed = n * work.k * STATE_NBYTES
    return (
        RoundForecast(
            "pairs-diagonal",
            panels,
            flops=float(n) * n * d / panels,
            read=vectors,
            written=state,
            requests=panels * TASK_REQUESTS + moves(panels, vectors) + moves(2 * panels, state),
            rows=n,
        ),
        RoundForecast(
            "pairs",
            pairs,
            flops=float(n) * n * d * (panels - 1) / panels,
            read=(panels - 1) * (vectors + state),
            written=(panels - 1) * state,
            moved=(panels - 1) * (vectors + state),
            requests=pairs * TASK_REQUESTS
            + moves(2 * pairs, (panels - 1) * vectors)
            + 2 * moves(4 * pairs, (panels - 1) * state),
            rows=n * (panels - 1),
        ),
        RoundForecast(
            "settle",
            panels,
            pairs=float(n * width),
            ops=2.0 * n * width * d,
            read=panels * state + vectors,
            written=listed,
            moved=(panels - 1) * state,
            requests=panels * (TASK_REQUESTS + 4 * panels + 6),
            rows=n,
        ),
        RoundForecast(
            "finish",
            panels,
            read=listed,
            written=graph_nbytes(n, work.k),
            requests=panels * (TASK_REQUESTS + 8),
            rows=n,
        ),
    )
