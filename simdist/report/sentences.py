"""What a manifest says of its result, in one sentence: `20 of 12,000 rows by k-means`.

A step's line in a summary. Numbers are those of the metrics; nothing is computed from data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from simdist.report.words import count, plural
from simdist.types import Json

__all__ = ["recall_sentence", "sentence", "subject"]

Metrics: TypeAlias = Mapping[str, Json]

SIZES = 4  # of components, told one by one


def subject(stage: str) -> str:
    """What a stage's sentence is about, in a word; empty where it has none."""
    return SENTENCES[stage][0] if stage in SENTENCES else ""


def sentence(stage: str, metrics: Metrics) -> str:
    """How good or large a stage's result is; empty where nothing is to be said."""
    return SENTENCES[stage][1](metrics) if stage in SENTENCES else ""


def recall_sentence(metrics: Metrics) -> str:
    """`0.982, between 0.974 and 0.988 (95 %), asked for 0.95; measured on 1,000 rows`."""
    recall = metrics.get("recall")
    if recall is None or recall.get("rows") == 0:
        return "exact: every pair was compared" if metrics.get("method") == "exact" else ""
    told = f"{recall['estimate']:.3f}, between {recall['low']:.3f} and {recall['high']:.3f} (95 %)"
    if recall.get("target") is not None:
        told += f", asked for {recall['target']:g}"
    if recall.get("rows") is not None:
        told += f"; measured on {plural(recall['rows'], 'row')}"
    return told


def _links(metrics: Metrics) -> str:
    """`133,577 edges between 12,000 nodes, 22.3 at each; no node without any`."""
    nodes, entries = int(metrics["nodes"]), int(metrics["entries"])
    told = f"{plural(entries // 2, 'edge')} between {plural(nodes, 'node')}"
    told += f", {entries / max(nodes, 1):.1f} at each"
    alone = int(metrics["isolated"])
    told += f"; {plural(alone, 'node')} without any" if alone else "; no node without any"
    if dropped := int(metrics.get("dropped", 0)):
        told += f"; {plural(dropped, 'value')} not above 0 left out"
    return told


def _components(metrics: Metrics) -> str:
    """`249: 11,513, 38, 32, 31 rows, ...; 219 rows stand alone`."""
    found, alone = int(metrics["components"]), int(metrics["singletons"])
    if found == 1:
        return "1: every row can be reached from every other"
    sizes = [int(size) for _, size in metrics["largest"] if size > 1]
    told = [f"{found:,}"]
    if sizes:
        more = ", ..." if found - alone > SIZES else ""
        told.append(f": {', '.join(map(count, sizes[:SIZES]))}{more} rows")
    if alone:
        told.append(f"; {plural(alone, 'row')} alone")
    return "".join(told)


def _embedding(metrics: Metrics) -> str:
    """`20 eigenvalues from 0.00445 to 0.0891, 0.0018 to the next; largest residual 0.00064 ...`."""
    values, residuals = metrics["eigenvalues"], metrics["residuals"]
    told = ""
    if values:
        told += f"{plural(len(values), 'eigenvalue')} from {values[0]:.3g} to {values[-1]:.3g}"
    if metrics.get("eigengap") is not None:
        told += f", {metrics['eigengap']:.2g} to the next"
    if residuals:
        told += f"; largest residual {max(residuals):.2g}, asked for {metrics['tolerance']:g}"
    passes = int(metrics["passes"])
    return f"{_state(metrics)}{told}; {passes:,} pass{'es' * (passes != 1)}, {metrics['solver']}"


def _clusters(metrics: Metrics) -> str:
    """`20 of 12,000 rows by kmeans, 22 iterations; 3 components too small to be cut`."""
    told = f"{count(int(metrics['clusters']))} of {plural(int(metrics['rows']), 'row')}"
    told += f" by {metrics['method']}"
    if "iterations" in metrics:
        told += f", {plural(int(metrics['iterations']), 'iteration')}"
    if choice := metrics.get("choice"):
        told += f"; {choice['why']}" if "why" in choice else ""
    if uncut := int(metrics.get("uncut", 0)):
        told += f"; {plural(uncut, 'component')} too small to be cut, a cluster each"
    return _state(metrics) + told


def _exemplars(metrics: Metrics) -> str:
    """`412, after 57 turns; 3 rows have none`."""
    told = f"{count(int(metrics['exemplars']))}, after {plural(int(metrics['turns']), 'turn')}"
    if without := int(metrics["unlabelled"]):
        told += f"; {plural(without, 'row')} without one"
    return _state(metrics) + told


def _cut(metrics: Metrics) -> str:
    """`4.94 over 20 clusters: of a cluster's weight 25 % leaves it, on average`."""
    found, value = int(metrics["clusters"]), float(metrics["normalized_cut"])
    told = f"{value:,.2f} over {plural(found, 'cluster')}"
    return f"{told}: of a cluster's weight {value / max(found, 1):.0%} leaves it, on average"


def _hits(metrics: Metrics) -> str:
    """`120,000 hits among 3,100 of 63,666 rows, 81 cells of 2,018 probed; recall 0.957, ...`."""
    told = f"{count(int(metrics['hits']))} hits among "
    passing, corpus = int(metrics["passing"]), int(metrics["corpus"])
    told += f"{count(passing)} of {plural(corpus, 'row')}"
    if metrics.get("method") == "exact":
        return f"{told}; exact: every row was compared"
    told += f", {plural(int(metrics['probes']), 'cell')} of {count(int(metrics['cells']))} probed"
    how = recall_sentence(metrics)
    return f"{told}; recall {how}" if how else f"{told}; recall was not measured"


def _pairs(metrics: Metrics) -> str:
    """`668 at cosine 0.95; exact: every pair was compared`."""
    told = f"{count(int(metrics['pairs']))} at {metrics['measure']} {metrics['threshold']:g}"
    how = recall_sentence(metrics)
    exact = metrics.get("method") == "exact"
    return f"{told}; {how}" if exact or not how else f"{told}; recall {how}"


def _mixed(metrics: Metrics) -> str:
    """`of all 12,000 keys, 4 heads, in float32; 3 queries see none`."""
    heads = int(metrics["heads"])
    told = f"of all {count(int(metrics['keys']))} keys"
    told += (f", {plural(heads, 'head')}" if heads > 1 else "") + f", in {metrics['computed']}"
    unseeing = int(metrics["unseeing"])
    return f"{told}; {count(unseeing)} of the queries see none" if unseeing else told


def _attended(metrics: Metrics) -> str:
    """`36.0 of 12,000 keys a query, 1.08 x the fewest on 32 sampled; 12,000 certified ...`."""
    told = f"{metrics['keys_per_query']:,.1f} of {count(int(metrics['corpus']))} keys a query"
    if metrics.get("ratio") is not None:
        told += f", {metrics['ratio']:.2f} x the fewest on {len(metrics['least'])} sampled"
    told += f"; {count(int(metrics['certified']))} certified at {metrics['tolerance']:g}"
    if missed := int(metrics["missed"]):
        told += f", {count(missed)} NOT"
    return f"{told}, {count(int(metrics['fell_back']))} took all keys"


def _density(metrics: Metrics) -> str:
    """`under 12,000 rows, each left out of its own; bandwidth 0.0456 by scott`."""
    own = ", each left out of its own" if metrics.get("leave_one_out") else ""
    return f"under {plural(int(metrics['data_rows']), 'row')}{own}; {_bandwidth(metrics)}"


def _bandwidth(metrics: Metrics) -> str:
    """`bandwidth 0.0456 by scott`, `one bandwidth for each feature, given`."""
    value, rule = metrics["bandwidth"], metrics["rule"]
    told = "one bandwidth for each feature" if value is None else f"bandwidth {value:.3g}"
    return f"{told}, given" if rule == "given" else f"{told} by {rule}"


def _modes(metrics: Metrics) -> str:
    """`2,083: 4,374, 7, 6, 12 rows, ...; bandwidth 0.9, given; 6,734 rows climbed`."""
    found, sizes = int(metrics["clusters"]), [int(size) for size in metrics["sizes"][:SIZES]]
    more = ", ..." if found > len(sizes) else ""
    told = f"{count(found)}: {', '.join(map(count, sizes))} rows{more}; {_bandwidth(metrics)}"
    if without := int(metrics["unlabelled"]):
        told += f"; {plural(without, 'row')} without one"
    return f"{told}; {count(sum(metrics['seeds']))} seeds climbed"


def _kept(metrics: Metrics) -> str:
    """`11,564 of 12,000 rows stay, 436 go; 296 groups at 0.95 by leader`."""
    nodes, kept, removed = (int(metrics[name]) for name in ("nodes", "kept", "removed"))
    told = f"{count(kept)} of {plural(nodes, 'row')} stay, {count(removed)} go"
    told += f"; {plural(int(metrics['groups']), 'group')} at {metrics['threshold']:g}"
    told += f" by {metrics['semantics']}"
    reasons = list(_reasons(metrics))
    return f"{told} ({', '.join(reasons)})" if reasons else told


def _reasons(metrics: Metrics) -> Iterator[str]:
    if copies := int(metrics.get("copies", 0)):
        yield f"{count(copies)} exact cop{'y' if copies == 1 else 'ies'}"
    if near := int(metrics.get("contaminated", 0)):
        yield f"{count(near)} near the other data set"
    if split := int(metrics.get("split", 0)):
        yield f"{plural(split, 'wide group')} taken apart"


def _state(metrics: Metrics) -> str:
    return "not converged: " if metrics.get("state") == "unconverged" else ""


SENTENCES: Mapping[str, tuple[str, Callable[[Metrics], str]]] = {
    "knn_graph": ("recall", recall_sentence),
    "similarity_graph": ("links", _links),
    "import_graph": ("links", _links),
    "connected_components": ("components", _components),
    "spectral_embedding": ("embedding", _embedding),
    "spectral_clusters": ("clusters", _clusters),
    "affinity_propagation": ("exemplars", _exemplars),
    "normalized_cut": ("cut", _cut),
    "similarity_join": ("pairs", _pairs),
    "retrieve": ("hits", _hits),
    "attention": ("averages", _mixed),
    "sparse_attention": ("keys", _attended),
    "deduplicate": ("rows", _kept),
    "kernel_density": ("density", _density),
    "kernel_regression": ("regression", _density),
    "outlier_scores": ("outliers", _bandwidth),
    "mean_shift": ("modes", _modes),
}
