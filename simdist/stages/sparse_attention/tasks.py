"""The tasks of sparse attention, one function each; `story` says in which order they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from simdist.lists import ids_of_rows
from simdist.runner.plan import Record, Task
from simdist.stages.sparse_attention.block import attend_block, every_key, joined
from simdist.stages.sparse_attention.bounds import KeyFacts
from simdist.stages.sparse_attention.choice import (
    Choice,
    Histogram,
    choose,
    extend,
    merge_histograms,
)
from simdist.stages.sparse_attention.columns import Column, classes_of, kinds_of
from simdist.stages.sparse_attention.fold import (
    Certified,
    Scored,
    certify,
    dtype_of_exact,
    exact,
    exact_rounding,
    least_keys,
    logits_of,
    scan,
    score,
)
from simdist.stages.sparse_attention.queries import Queries
from simdist.stages.sparse_attention.sources import MANY, QUERY_ROWS, Sources, sub_rows
from simdist.tiles.softmax import SoftmaxState, merged
from simdist.types import Ids, Json, ObjectRef

if TYPE_CHECKING:
    import pyarrow as pa

    from simdist.runner.context import Context

__all__ = ["COMPUTE", "certificate_columns", "sampled"]


def _pilot(context: Context, task: Task) -> Record:
    """Where codes are centred, and a few keys that stand for all where there are many."""
    sources = Sources.of(context)
    rows = sources.pilot_rows
    keys = np.concatenate(
        [
            sources.read_keys(first, last)[rows[(rows >= first) & (rows < last)] - first]
            for first, last in map(sources.panel, range(sources.panels))
        ]
    )
    objects = {"centre": context.write_array("centre", keys.mean(axis=0, dtype=np.float64))}
    if sources.keys.rows >= MANY * len(rows):
        objects["keys"] = context.write_array("pilot", keys)
    return Record(task.key, objects, {"kinds": kinds_of(sources.keys, sources.config.columns)})


def _classes(context: Context, task: Task) -> Record:
    """What columns of text hold in a shard of the keys."""
    sources = Sources.of(context)
    kinds = context.records("pilot")[0].facts["kinds"]
    columns = [Column(name, kind) for name, kind in kinds]
    found = classes_of(sources.keys, columns, task.args["shard"])
    return Record(task.key, {}, {"classes": found})


def _codes(context: Context, task: Task) -> Record:
    """A panel of keys in codes, and what is known of keys and values."""
    from simdist.compiled.twice_coded import encode  # noqa: PLC0415 - numba only on workers

    sources = Sources.of(context)
    first, last = sources.panel(task.args["panel"])
    keys, values = sources.read_keys(first, last), sources.read_values(context, first, last)
    coded = encode(keys, sources.centre(context))
    parts = zip(("coarse", "fine", "facts"), coded, strict=True)
    objects = {role: context.write_array(f"logits-{role}", part) for role, part in parts}
    if sources.values is None:
        objects["values"] = context.write_array("attention-values", values)
    return Record(task.key, objects, KeyFacts.of(coded, keys, values).to_json())


def _attend(context: Context, task: Task) -> Record:
    """A block of queries from beginning to end: all keys are one span."""
    sources, block = Sources.of(context), task.args["block"]
    facts, pilot = sources.facts(context), sources.pilot(context)
    queries = sources.read_queries(context, block, facts, parts=1)
    panels = list(sources.coded_panels(context, sources.spans[0]))
    parts = []
    for some in _cut(len(queries), sub_rows(sources.keys.rows)):
        few = queries.take(some)
        found = attend_block(few, panels, pilot, context.config, check=context.check)
        parts.append((some, found))
    return _finished(context, task, sources, joined(len(queries), parts))


def _cut(rows: int, size: int) -> Iterator[Ids]:
    for first in range(0, rows, size):
        yield np.arange(first, min(first + size, rows))


def _scan(context: Context, task: Task) -> Record:
    """Keys of a span by level, for a block of queries."""
    sources = Sources.of(context)
    queries = sources.read_queries(context, task.args["block"], sources.facts(context))
    span = sources.spans[task.args["span"]]
    counted = scan(queries, sources.coded_panels(context, span), check=context.check)
    return Record(
        task.key,
        {
            "tops": context.write_array("level-tops", counted.tops),
            "counts": context.write_array("level-counts", counted.counts.astype(np.int32)),
        },
    )


def _choose(context: Context, task: Task) -> Record:
    """Floors of a block of queries, from the levels of all spans."""
    sources, block = Sources.of(context), task.args["block"]
    queries = sources.read_queries(context, block, sources.facts(context))
    spans = _histograms(context, block)
    tolerance = queries.tolerance(context.config.tolerance)
    choice = choose(merge_histograms(spans), queries.aim, context.config, tolerance)
    return Record(task.key, _write_choice(context, choice, spans))


def _again(context: Context, task: Task) -> Record:
    """Floors that suffice for certain, where those of `choose` turned out not to."""
    sources, block = Sources.of(context), task.args["block"]
    queries = sources.read_queries(context, block, sources.facts(context))
    spans = _histograms(context, block)
    before = _read_choice(context, "choose", block)
    scored = _merged_scores(context, "score", block)
    after = extend(
        before,
        merge_histograms(spans),
        queries.aim,
        context.config,
        queries.tolerance(context.config.tolerance),
        scored.state.total,
    )
    return Record(task.key, _write_choice(context, after, spans))


def _histograms(context: Context, block: int) -> list[Histogram]:
    return [
        Histogram(
            context.load(record.objects["tops"]),
            context.load(record.objects["counts"]).astype(np.int64),
        )
        for record in _of_block(context, "scan", block)
    ]


def _write_choice(
    context: Context, choice: Choice, spans: Sequence[Histogram]
) -> dict[str, ObjectRef]:
    """left goes by span: what is allowed at a floor is taken from the first spans first."""
    objects = {
        field.name: context.write_array(f"choice-{field.name}", getattr(choice, field.name))
        for field in fields(Choice)
        if field.name != "left"
    }
    allowed = choice.left.copy()
    lefts = []
    for span in spans:
        places = np.clip(span.tops - choice.floors, -1, span.counts.shape[1] - 1)
        here = np.where(places < 0, 0, span.counts[np.arange(len(places)), places])
        lefts.append(np.minimum(allowed, here))
        allowed = allowed - lefts[-1]
    objects["left"] = context.write_array("choice-left", np.stack(lefts))
    return objects


def _read_choice(context: Context, name: str, block: int, span: int | None = None) -> Choice:
    """left: of a span, or of all together."""
    objects = context.records(name)[block].objects
    arrays = {role: context.load(ref) for role, ref in objects.items()}
    arrays["left"] = arrays["left"].sum(axis=0) if span is None else arrays["left"][span]
    return Choice(**arrays)


def _score(context: Context, task: Task) -> Record:
    """The chosen keys of a span in full precision. In the second round also all keys, for the
    queries that take all."""
    sources, block = Sources.of(context), task.args["block"]
    number = task.args["span"]
    span, again = sources.spans[number], task.kind == "rescore"
    queries = sources.read_queries(context, block, sources.facts(context))
    choice = _read_choice(context, "again" if again else "choose", block, number)
    scored = score(queries, sources.coded_panels(context, span), choice, check=context.check)
    objects = {
        "total": context.write_array("attention-total", scored.state.total),
        "weighted": context.write_array("attention-weighted", scored.state.weighted),
        "scored": context.write_array("attention-scored", scored.keys),
    }
    if again and choice.exact.any():
        panels = sources.coded_panels(context, span)
        far = queries.take(np.flatnonzero(choice.exact))
        whole, _ = exact(far, panels, context.config.tolerance, check=context.check)
        assert whole is not None  # a span has a panel
        for role, part in zip(("peak", "all", "sums"), whole, strict=True):
            objects[f"exact-{role}"] = context.write_array(f"exact-{role}", part)
    return Record(task.key, objects)


def _merged_scores(context: Context, name: str, block: int) -> Scored:
    """Of a block over all spans, in plan order."""
    shift = _read_choice(context, "choose", block).shift
    found: Scored | None = None
    for record in _of_block(context, name, block):
        total, weighted, keys = (
            context.load(record.objects[role]) for role in ("total", "weighted", "scored")
        )
        here = Scored(SoftmaxState(shift, total, weighted), keys)
        found = here if found is None else found.plus(here)
    assert found is not None  # there is at least one span
    return found


def _settle(context: Context, task: Task) -> Record:
    """What is certain of a block, as Parquet."""
    sources, block = Sources.of(context), task.args["block"]
    queries = sources.read_queries(context, block, sources.facts(context))
    choice = _read_choice(context, "again", block)
    scored = _merged_scores(context, "score", block).plus(_merged_scores(context, "rescore", block))
    sparse = certify(queries, choice, scored, queries.rounding, context.config)
    parts = [(np.arange(len(queries)), sparse)]
    which = np.flatnonzero(choice.exact)
    if len(which):
        parts.append((which, _exact_rows(context, queries.take(which), sources, block)))
    return _finished(context, task, sources, joined(len(queries), parts))


def _exact_rows(context: Context, far: Queries, sources: Sources, block: int) -> Certified:
    whole: SoftmaxState | None = None
    for record in _of_block(context, "rescore", block):
        roles = ("exact-peak", "exact-all", "exact-sums")
        here = SoftmaxState(*(np.asarray(context.load(record.objects[role])) for role in roles))
        whole = here if whole is None else merged(whole, here)
    assert whole is not None  # there is at least one span
    every, scored = every_key(whole)
    rounding = exact_rounding(far, dtype_of_exact(far, context.config.tolerance))
    return certify(far, every, scored, rounding, context.config)


def _finished(context: Context, task: Task, sources: Sources, found: Certified) -> Record:
    """The block as a table, and its sums for the manifest."""
    first, last = sources.block(task.args["block"])
    rows = np.arange(first, last)
    table = _table(context, rows, found, sources)
    facts: dict[str, Json] = {
        "certified": int(found.certified.sum()),
        "fell_back": int(found.fell_back.sum()),
        "keys": int(found.keys.sum()),
        "most_keys": int(found.keys.max()),
        "tau": float(found.tau.max()),
    }
    return Record(task.key, {"attention": context.write_table("attention", table)}, facts)


def certificate_columns() -> tuple[str, ...]:
    """Names that the certificate takes in the output."""
    told = ("tau", "error", "keys", "certified", "fell_back")
    return ("row", "id", "output", "logsumexp_low", "logsumexp_high", *told)


def _table(context: Context, rows: Ids, found: Certified, sources: Sources) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - 0.3 s that planning does not need

    columns = {"row": pa.array(rows), "id": ids_of_rows(sources.queries, rows)}
    if sources.values is None:
        names = [name for column in sources.columns(context) for name in column.outputs]
        for place, name in enumerate(names):
            columns[name] = pa.array(np.ascontiguousarray(found.output[:, place]))
    else:
        flat = pa.array(found.output.ravel())
        columns["output"] = pa.FixedSizeListArray.from_arrays(flat, sources.width(context))
    columns["logsumexp_low"] = pa.array(np.ascontiguousarray(found.logsumexp[:, 0]))
    columns["logsumexp_high"] = pa.array(np.ascontiguousarray(found.logsumexp[:, 1]))
    for name in ("tau", "error", "keys", "certified", "fell_back"):
        columns[name] = pa.array(getattr(found, name))
    return pa.table(columns)


def sampled(context: Context, sources: Sources) -> Ids:
    """Ascending rows of the queries whose least number of keys is counted."""
    size = min(context.config.sample, sources.queries.rows)
    chosen = context.rng("least").choice(sources.queries.rows, size, replace=False)
    return np.asarray(np.sort(chosen), np.int64)


def _least(context: Context, task: Task) -> Record:
    """The fewest keys of a few sampled queries, from all their logits."""
    sources = Sources.of(context)
    rows = np.array(task.args["rows"])
    blocks, logits = rows // QUERY_ROWS, []
    parts = [
        sources.read_queries(context, int(block), sources.facts(context), parts=1).take(
            rows[blocks == block] - sources.block(int(block))[0]
        )
        for block in np.unique(blocks)
    ]
    for panel in range(sources.panels):
        context.check()
        first, last = sources.panel(panel)
        keys = sources.read_keys(first, last)
        logits.append(np.concatenate([logits_of(part, keys, first) for part in parts]))
    found = least_keys(np.concatenate(logits, axis=1), context.config.tolerance)
    done = context.records("attend" if len(sources.spans) == 1 else "settle")
    taken = [
        context.table(done[block].objects["attention"], ["keys"])["keys"].to_numpy()
        for block in np.unique(blocks)
    ]
    places = np.searchsorted(np.unique(blocks), blocks)
    used = [int(taken[at][row % QUERY_ROWS]) for at, row in zip(places, rows, strict=True)]
    return Record(task.key, {}, {"least": found.tolist(), "keys": used})


def _of_block(context: Context, name: str, block: int) -> list[Record]:
    """Records of a round of (block, span) tasks, those of one block in the order of spans."""
    prefix = f"{name}-{block:06d}-"
    return [record for record in context.records(name) if record.task.startswith(prefix)]


COMPUTE: Mapping[str, Callable[[Context, Task], Record]] = {
    "pilot": _pilot,
    "classes": _classes,
    "codes": _codes,
    "attend": _attend,
    "scan": _scan,
    "choose": _choose,
    "score": _score,
    "again": _again,
    "rescore": _score,
    "settle": _settle,
    "least": _least,
}
