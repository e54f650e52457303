"""Attention as its definition says it, in float64 or step by step in float32: the oracles."""

from __future__ import annotations

import numpy as np

from simdist.types import Array, Float64


def dense(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float | None = None,
    bias: Array | None = None,
    mask: Array | None = None,
    causal: bool | str = False,
    own: Array | None = None,
    dtype: type = np.float64,
) -> tuple[Array, Float64]:
    """Output and logsumexp. q: [.., h, n, d], k: [.., g, m, d], v: [.., g, m, dv]; or matrices."""
    q, k, v = (np.asarray(x, dtype) for x in (q, k, v))
    if q.ndim > 2:
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
    n, m = q.shape[-2], k.shape[-2]
    logits = (q @ np.swapaxes(k, -1, -2)) * dtype(q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        logits = logits + np.asarray(bias, dtype)
    if mask is not None:
        logits = np.where(mask, logits, -np.inf)
    if causal:
        shift = m - n if causal == "lower_right" else 0
        seen = np.arange(m) <= np.arange(n)[:, None] + shift
        logits = np.where(seen, logits, -np.inf)
    if own is not None:
        logits = np.where(np.arange(m) == own[:, None], -np.inf, logits)
    peak = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    peak = np.where(np.isfinite(peak), peak, 0)
    weights = np.exp(logits - peak)
    total = weights.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        output = np.where(total > 0, (weights @ v) / total, 0)
        return output.astype(dtype), (peak + np.log(total))[..., 0]


def gap(a: Array, b: Array) -> float:
    """The largest difference; both may be -inf at one place."""
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(a == b, 0.0, np.abs(a - b)), initial=0.0))
