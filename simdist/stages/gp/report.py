"""What a fit says of itself: the metrics of its manifest, and `report_` of an estimator."""

from __future__ import annotations

import numpy as np

from simdist.grams import GramStatistics
from simdist.stages.gp.bound import collapsed_bound
from simdist.stages.gp.config import SparseGPConfig
from simdist.stages.gp.fit import Progress
from simdist.stages.gp.model import Fitted, Scores
from simdist.types import Json

__all__ = ["report"]


def report(
    config: SparseGPConfig,
    progress: Progress,
    model: Fitted,
    statistics: GramStatistics,
    scores: Scores | None,
    *,
    dim: int,
) -> dict[str, Json]:
    """bound: of log p(y), in nats, of the targets in their own units. trace_gap: sum k - tr P over
    rows; trace_gap_share: of sum k. noise: variances of the model, in the targets' units squared;
    noise_share: of the targets' variance. calibration: what variances are multiplied by in
    predictions. parameters: of the kernel, for standardised targets."""
    n, t, m = statistics.n, config.outputs, len(model.Z)
    value = collapsed_bound(statistics, model.noise).value
    bound = value - n * float(np.log(model.scale).sum())
    passes = 2 + 2 * progress.spent + (scores is not None)
    floored = bool(np.any(model.noise < 1.01 * config.noise_floor))
    found: dict[str, Json] = {
        "state": progress.minimiser.status if config.optimize else "given",
        "bound": bound,
        "bound_per_row": bound / n,
        "trace_gap": statistics.trace_gap,
        "trace_gap_share": statistics.trace_gap / statistics.kk if statistics.kk else 0.0,
        "noise": [float(value) for value in model.noise * model.scale**2],
        "calibration": [float(value) for value in model.calibration],
        "noise_share": [float(value) for value in model.noise],
        "noise_at_floor": floored,
        "kernel": str(model.kernel),
        "parameters": {
            name: float(value)
            for name, value in zip(model.kernel.names, np.exp(model.kernel.theta), strict=True)
        },
        "target_mean": [float(value) for value in model.mean],
        "target_scale": [float(value) for value in model.scale],
        "jitter": model.jitter,
        "inducing": m,
        "inducing_asked": config.inducing,
        "targets": list(config.targets),
        "rows": n,
        "outputs": t,
        "inputs_dim": dim,
        "evaluations": progress.spent,
        "evaluations_on_sample": progress.mini,
        "sample_rows": progress.mini_rows,
        "reselections": progress.segment,
        "passes": passes,
        "bytes_read": passes * (n + (0 if scores is None else scores.n)) * 4 * dim,
        "state_bytes_per_pass": 8 * m * (m + t + 1),
    }
    if scores is not None:
        found["held_out"] = {"rows": scores.n, **scores.report()}
    return found
