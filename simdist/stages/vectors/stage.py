"""The rounds of an import, and the identity of what it commits.

    survey  a task per few files    rows, parts, d, types: metadata      ─┐
    read    a task per few shards   shards [R, d] and rows(row, id, ...)  ├─> commit, named by the
    ids     a task per bucket       the first id that appears twice      ─┘   sha256s of its shards
    remember  where each file's rows lie, so that the next import takes them from there (known.py)

The job itself is named by its listing (uri, size, etag), under which its records lie; a memo leads
from there to the content's fingerprint. So an unchanged listing is not read again, and the same
content under other names, elsewhere or later, is the same dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from simdist.errors import InputError
from simdist.runner.plan import Commit, Forecast, Job, Record, Round, RoundForecast, Rounds, Task
from simdist.stages.vectors.checking import Place, first_zero_row, rows_of, vectors_of
from simdist.stages.vectors.duplicates import bucket_count, bucket_nbytes, first_duplicate, gather
from simdist.stages.vectors.formats import BUFFER_NBYTES, Span, batches
from simdist.stages.vectors.known import Known, look_up, pieces, pieces_of, remember
from simdist.stages.vectors.request import ImportConfig
from simdist.stages.vectors.shards import RUN_ROWS, ShardWriter, shard_rows
from simdist.stages.vectors.sources import Source
from simdist.stages.vectors.survey import (
    FileFacts,
    Plan,
    decode_schema,
    encode_schema,
    plan_of,
    survey,
)
from simdist.store.datasets import Shard
from simdist.store.objects import Objects
from simdist.types import Array, Json, ObjectRef

if TYPE_CHECKING:
    from simdist.runner.context import Context

__all__ = ["ImportVectors", "commit_of", "forecast"]

FILES_PER_TASK = 16  # of the survey: a footer each, mostly waiting
FIRST_PART_NBYTES = 128 << 20
BATCHES_PER_SHARD = 8
BASE_NBYTES = 24 << 20  # of a task, whatever it reads: decoding, compression, the client's buffers


def forecast(config: ImportConfig, n: int, d: int) -> Forecast:
    """Tasks, peak and bytes written of importing n rows of d float32 elements."""
    size = shard_rows(d)
    shards = -(-n // size)
    reads = -(-shards // min(max(1, shards // 16), 8))
    surveys = -(-len(config.sources) // FILES_PER_TASK)
    buckets = 0 if config.id is None else bucket_count(n)
    peak = _read_nbytes(d, row_nbytes=64, columns=len(config.keep) + 2, rows=n, part_nbytes=0)
    vectors = 4 * n * d
    rounds = [
        RoundForecast("survey", surveys, rows=0, requests=4 * len(config.sources)),
        RoundForecast(
            "read",
            reads,
            nbytes=peak,
            read=vectors,
            written=vectors + 8 * n,
            requests=2 * reads + (vectors >> 23) + 4 * shards + (vectors >> 23),
            rows=n,
        ),
    ]
    if buckets:
        hashed = RoundForecast(
            "ids",
            buckets,
            nbytes=bucket_nbytes(n),
            read=16 * n,
            moved=16 * n,
            requests=buckets * (2 + 2 * reads),
            rows=n,
        )
        rounds.append(hashed)
    rounds.append(RoundForecast("remember", surveys, requests=3 * len(config.sources)))
    return Forecast(
        tasks=surveys + reads + buckets,
        nbytes=max(peak, bucket_nbytes(n)),
        flops=0.0,
        written=n * (4 * d + 40),
        rounds=tuple(rounds),
    )


class ImportVectors:
    """See the module docstring. A *vectors* dataset: shards {"vectors": [R, d] .npy float16 or
    float32, "rows": Parquet(row, id, kept columns)}, all of R rows but the last, with
    R = `shard_rows(d)`; metrics dim, dtype, id, shard_rows, first_zero_row."""

    name: ClassVar[str] = "import_vectors"
    VERSION: ClassVar[int] = 1

    def next(self, job: Job, rounds: Rounds, context: Context) -> Round | Commit:
        config: ImportConfig = job.config
        if "survey" not in rounds:
            return Round("survey", tuple(_survey_tasks(config)))
        plan = _plan(config, rounds["survey"])
        if "read" not in rounds:
            return Round("read", tuple(_read_tasks(config, plan)))
        if config.id is not None:
            if "ids" not in rounds:
                return Round("ids", tuple(_id_tasks(plan)))
            _refuse_duplicates(config.id, plan, rounds["ids"])
        if "remember" not in rounds:
            return Round("remember", tuple(_remember_tasks(plan)))
        return _commit(config, plan, rounds["read"])

    def forecast(self, config: ImportConfig, rows: int, dim: int) -> Forecast:
        """What importing that many rows costs."""
        return forecast(config, rows, dim)

    def compute(self, context: Context, task: Task) -> Record:
        kinds = {"survey": _survey, "read": _read, "ids": _ids, "remember": _remember}
        return kinds[task.kind](context, task)


def _survey_tasks(config: ImportConfig) -> Iterable[Task]:
    for number, first in enumerate(range(0, len(config.sources), FILES_PER_TASK)):
        files = config.sources[first : first + FILES_PER_TASK]
        held = max(_first_part_nbytes(source, config.objects) for source in files)
        nbytes = BASE_NBYTES + 2 * BUFFER_NBYTES + held
        yield Task(f"survey-{number:05d}", "survey", {"first": first}, nbytes)


def _first_part_nbytes(source: Source, objects: Objects | None) -> int:
    """What looking at the first row holds: nothing much, except in formats read part by part, whose
    parts are as large as their writer pleased (ORC: 64 MiB by default)."""
    by_parts = source.format == "orc" or (source.format == "arrow" and objects is not None)
    return min(source.nbytes, FIRST_PART_NBYTES) if by_parts else 0


def _survey(context: Context, task: Task) -> Record:
    config: ImportConfig = context.config
    first = task.args["first"]
    types = config.partition_types
    files = []
    for source in config.sources[first : first + FILES_PER_TASK]:
        context.check()
        known = look_up(context, source, config.wanted, types)
        if known is None:
            facts = survey(source, config.objects, config.wanted, types)
        else:
            facts = known.facts
        files.append(facts.to_json())
    return Record(task.key, facts={"files": files})


def _plan(config: ImportConfig, surveys: Sequence[Record]) -> Plan:
    files = [FileFacts.from_json(facts) for record in surveys for facts in record.facts["files"]]
    return plan_of(config.sources, files)


def _read_tasks(config: ImportConfig, plan: Plan) -> Iterable[Task]:
    schema = encode_schema(plan.schema)
    for number, run in enumerate(plan.runs()):
        args = {
            "first": run.first,
            "spans": [[file, *astuple(span)] for file, span in run.spans],
            "dim": plan.dim,
            "dtype": plan.dtype,
            "schema": schema,
        }
        nbytes = _read_nbytes(
            plan.dim,
            row_nbytes=plan.row_nbytes,
            columns=len(config.wanted.names),
            rows=run.rows if config.id is not None else 0,
            part_nbytes=run.part_nbytes,
        )
        yield Task(f"read-{number:05d}", "read", args, nbytes)


def _read_nbytes(dim: int, *, row_nbytes: int, columns: int, rows: int, part_nbytes: int) -> int:
    """What a read task holds. rows: those whose ids are hashed; columns: read from the file."""
    size = shard_rows(dim)
    batch = -(-size // BATCHES_PER_SHARD)
    vectors = 4 * dim * (size + 3 * batch)  # the shard; a batch as decoded, narrowed, checked
    table = 3 * row_nbytes * (size + batch)  # the shard's rows, joined, and as Parquet
    hashes = 48 * min(rows, RUN_ROWS)  # with their order and sorted copies
    return BASE_NBYTES + vectors + table + hashes + columns * BUFFER_NBYTES + part_nbytes


def _read(context: Context, task: Task) -> Record:
    config: ImportConfig = context.config
    dim, dtype = task.args["dim"], task.args["dtype"]
    schema = decode_schema(task.args["schema"])
    number = first = task.args["first"]
    writer = ShardWriter(
        context, first_row=first, dim=dim, dtype=dtype, schema=schema, hashed=config.id is not None
    )
    zero: int | None = None
    for file, *values in task.args["spans"]:
        for vectors, rows in _rows_in(context, task, config.sources[file], Span(*values), number):
            context.check()
            if zero is None and (found := first_zero_row(vectors)) is not None:
                zero = number + found
            writer.add(vectors, rows)
            number += len(rows)
    writer.close()
    objects: dict[str, ObjectRef] = {}
    for role, refs in (("vectors", writer.vectors), ("rows", writer.rows), ("hashes", writer.runs)):
        objects |= {f"{role}-{place:04d}": ref for place, ref in enumerate(refs)}
    facts = {"rows": number - first, "shards": len(writer.vectors), "first_zero_row": zero}
    return Record(task.key, objects, facts)


def _rows_in(
    context: Context, task: Task, source: Source, span: Span, number: int
) -> Iterator[tuple[Array, pa.RecordBatch]]:
    """A span of a file as (vectors [m, d], rows table): from an earlier import where it is known,
    else read and checked."""
    config: ImportConfig = context.config
    dim, dtype = task.args["dim"], task.args["dtype"]
    schema = decode_schema(task.args["schema"])
    wanted = config.wanted
    known = look_up(context, source, wanted, config.partition_types)
    if known is not None:
        named = config.id is not None
        yield from pieces(
            context, known, span, dtype=dtype, schema=schema, number=number, named=named
        )
        return
    row = span.first
    for batch in batches(
        source,
        config.objects,
        columns=wanted.stored_in(source),
        span=span,
        batch_rows=-(-shard_rows(dim) // BATCHES_PER_SHARD),
    ):
        place = Place(source.uri, row, number)
        vectors = vectors_of(
            batch.column(wanted.vector), wanted.vector, place, dim=dim, dtype=dtype
        )
        yield vectors, rows_of(batch, source, wanted, schema, place)
        row += len(batch)
        number += len(batch)


def _id_tasks(plan: Plan) -> Iterable[Task]:
    buckets = bucket_count(plan.rows)
    size = shard_rows(plan.dim)
    for bucket in range(buckets):
        args = {"bucket": bucket, "buckets": buckets, "shard_rows": size}
        nbytes = BASE_NBYTES + bucket_nbytes(plan.rows) + 2 * size * plan.row_nbytes
        yield Task(f"ids-{bucket:05d}", "ids", args, nbytes)


def _ids(context: Context, task: Task) -> Record:
    records = context.records("read")
    runs = (context.load(ref) for record in records for ref in _role(record, "hashes"))
    hashes, rows = gather(runs, task.args["bucket"], task.args["buckets"])
    tables = [ref for record in records for ref in _role(record, "rows")]
    size = task.args["shard_rows"]

    @lru_cache(maxsize=2)
    def ids_of_shard(shard: int) -> pa.ChunkedArray:
        return context.table(tables[shard], ["id"]).column("id")

    found = first_duplicate(hashes, rows, lambda row: ids_of_shard(row // size)[row % size].as_py())
    return Record(task.key, facts={} if found is None else {"duplicate": asdict(found)})


def _refuse_duplicates(name: str, plan: Plan, records: Sequence[Record]) -> None:
    found = [record.facts["duplicate"] for record in records if record.facts]
    if not found:
        return
    first = min(found, key=lambda duplicate: int(duplicate["second"]))
    repeats = sum(duplicate["repeats"] for duplicate in found)
    raise InputError(
        f"id {first['id']!r} in column {name!r} appears twice: {plan.where(first['first'])} and"
        f" {plan.where(first['second'])}; ids must be unique. In all, {repeats} of {plan.rows} rows"
        " repeat an earlier id. Keep one row of each, or leave id out to number the rows."
    )


def _remember_tasks(plan: Plan) -> Iterable[Task]:
    """A task for the files of each task of the survey."""
    for number, first in enumerate(range(0, len(plan.files), FILES_PER_TASK)):
        starts = list(plan.starts[first : first + FILES_PER_TASK + 1])
        args = {"first": first, "survey": number, "starts": starts, "dim": plan.dim}
        yield Task(f"remember-{number:05d}", "remember", args, BASE_NBYTES)


def _remember(context: Context, task: Task) -> Record:
    """Where the rows of a few files lie now, for imports to come."""
    config: ImportConfig = context.config
    starts, size = task.args["starts"], shard_rows(task.args["dim"])
    files = context.records("survey")[task.args["survey"]].facts["files"]
    shards = _shards_of(context.records("read"), range(starts[0] // size, -(-starts[-1] // size)))
    for place, (facts, span) in enumerate(zip(files, pairwise(starts), strict=True)):
        known = Known(FileFacts.from_json(facts), pieces_of(span, size, shards))
        source = config.sources[task.args["first"] + place]
        remember(context, source, config.wanted, config.partition_types, known)
    return Record(task.key)


def _shards_of(
    records: Sequence[Record], wanted: range
) -> Mapping[int, tuple[ObjectRef, ObjectRef]]:
    """(vectors, rows) of some shards, by number."""
    found: dict[int, tuple[ObjectRef, ObjectRef]] = {}
    first = 0
    for record in records:
        count = int(record.facts["shards"])
        if first < wanted.stop and first + count > wanted.start:
            pairs = zip(_role(record, "vectors"), _role(record, "rows"), strict=True)
            found |= dict(enumerate(pairs, first))
        first += count
    return found


def _commit(config: ImportConfig, plan: Plan, records: Sequence[Record]) -> Commit:
    zeros = [record.facts["first_zero_row"] for record in records]
    return commit_of(
        config.content(),
        [ref for record in records for ref in _role(record, "vectors")],
        [ref for record in records for ref in _role(record, "rows")],
        rows=plan.rows,
        dim=plan.dim,
        dtype=plan.dtype,
        id_type="row" if config.id is None else str(plan.schema.field("id").type),
        zero=min((zero for zero in zeros if zero is not None), default=None),
    )


def commit_of(
    content: dict[str, Json],
    vectors: Sequence[ObjectRef],
    tables: Sequence[ObjectRef],
    *,
    rows: int,
    dim: int,
    dtype: str,
    id_type: str,
    zero: int | None,
) -> Commit:
    """A vectors dataset of these shards, named by their content. content: of the config that made
    them. tables: the rows of each shard. zero: the first row of zeros."""
    size = shard_rows(dim)
    shards = tuple(
        Shard(min(size, rows - number * size), {"vectors": pair[0], "rows": pair[1]})
        for number, pair in enumerate(zip(vectors, tables, strict=True))
    )
    metrics = {
        "dim": dim,
        "dtype": dtype,
        "id": id_type,
        "shard_rows": size,
        "first_zero_row": zero,
    }
    identity = {
        "stage": ImportVectors.name,
        "version": ImportVectors.VERSION,
        "config": content,
        "shards": [[ref.sha256 for ref in pair] for pair in zip(vectors, tables, strict=True)],
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    fingerprint = hashlib.sha256(canonical.encode()).hexdigest()[:32]
    return Commit(rows, shards, metrics, fingerprint=fingerprint, config=content)


def _role(record: Record, role: str) -> list[ObjectRef]:
    """Objects `role-0000`, `role-0001`, ... of a record, in order."""
    return [record.objects[key] for key in sorted(record.objects) if key.startswith(f"{role}-")]
