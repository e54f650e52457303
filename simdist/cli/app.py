"""One function a verb. Each reads its arguments, calls the library, and hands the result over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from simdist.cli.telling import Teller, stop_like_ctrl_c
from simdist.errors import ConfigError, IntegrityError
from simdist.store.datasets import Dataset
from simdist.store.store import open_store

if TYPE_CHECKING:
    from simdist.config import FlowConfig
    from simdist.report.summary import Summary

__all__ = ["app", "main"]

app = typer.Typer(
    name="simdist",
    help="Similarity matrices too large to exist, folded tile by tile into k-NN graphs and models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # errors are told by Teller
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigPath: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="CONFIG", help="A flow as YAML, such as configs/debian-packages.yaml."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="JSON on stdout, nothing else.")]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show an error's traceback.")]
EngineOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--engine", metavar="local|dask|ray|ADDRESS", help="Where tasks run."),
]
StoreOption: TypeAlias = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="A path, file://, s3:// or memory://.")
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option("--workers", min=1, help="Threads (local) or processes.")
]
Memory: TypeAlias = Annotated[
    str | None, typer.Option("--memory", metavar="4GiB", help="What a worker may hold.")
]
Sets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B.C=VALUE", help="Change one key of the config; may be repeated."
    ),
]
Rows: TypeAlias = Annotated[
    str | None,
    typer.Option("--rows", metavar="1e9", help="Plan for so many rows, whatever the input has."),
]
Dim: TypeAlias = Annotated[
    int | None, typer.Option("--dim", min=1, help="Plan for rows of so many dimensions.")
]
MachineOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--machine", metavar="FILE", help="A worker, as in configs/machines/*.yaml."),
]
What: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="URI|NAME", help="STORE/manifests/FINGERPRINT.json, or a name with --store."
    ),
]


@app.command()
def plan(
    config: ConfigPath,
    *,
    engine: EngineOption = None,
    store: StoreOption = None,
    workers: Workers = None,
    memory: Memory = None,
    sets: Sets = None,
    rows: Rows = None,
    dim: Dim = None,
    machine: MachineOption = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """What a run would do and need, and what is done already. Runs nothing.

    With --machine: how long it would take on --workers of them, and what it would cost.
    """
    from simdist.cli.planning import tell_plan  # noqa: PLC0415 - other verbs need less

    tell = Teller(json, debug)
    with tell.errors():
        flow = _flow(config, sets, engine=engine, store=store, workers=workers, memory=memory)
        tell_plan(flow, rows, dim, machine, tell)


@app.command()
def calibrate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The machine file to write.")],
    *,
    workers: Workers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure this machine for `plan --machine`: short loops and small graphs, half a minute."""
    from simdist.cli.planning import tell_rates  # noqa: PLC0415 - other verbs need less

    tell = Teller(json, debug)
    with tell.errors():
        tell_rates(file, workers, tell)


@app.command()
def run(
    config: ConfigPath,
    *,
    engine: EngineOption = None,
    store: StoreOption = None,
    workers: Workers = None,
    memory: Memory = None,
    sets: Sets = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Run a flow, or the rest of it. Ctrl-C is safe: the same command again goes on."""
    from simdist.report.terminal import print_summary  # noqa: PLC0415 - other verbs need less

    tell = Teller(json, debug)
    with tell.errors():
        flow = _flow(config, sets, engine=engine, store=store, workers=workers, memory=memory)
        summary = _carry_out(flow, tell)
        if json:
            tell.json({"event": "summary", **summary.to_json()}, indent=None)
        else:
            print_summary(summary, tell.out)


@app.command()
def show(
    what: What,
    *,
    store: StoreOption = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """A dataset: what it holds, what made it, what was measured. Or a store: what is in it."""
    from simdist.report.show import describe, inventory, print_dataset, print_store  # noqa: PLC0415

    tell = Teller(json, debug)
    with tell.errors():
        if _is_store(what, store):
            listed = inventory(open_store(what))
            if json:
                tell.json([entry.to_json() for entry in listed])
            else:
                print_store(what, listed, tell.out)
            return
        description = describe(_dataset(what, store))
        if json:
            tell.json(description.to_json())
        else:
            print_dataset(description, tell.out)


@app.command()
def verify(
    what: What,
    *,
    store: StoreOption = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Read every object of a dataset and compare it with its checksum. Exit code 5 on damage."""
    from simdist.engine.memory import format_nbytes  # noqa: PLC0415 - other verbs need less
    from simdist.report.words import plural  # noqa: PLC0415
    from simdist.store import maintenance  # noqa: PLC0415

    tell = Teller(json, debug)
    with tell.errors():
        dataset = _dataset(what, store)
        report = maintenance.verify(dataset.store, dataset)
        if json:
            tell.json({"uri": dataset.uri, "ok": report.ok, **report.to_json()})
        else:
            for item in report.damaged:
                tell.out.print(f"✗ {item.key}: {item.problem}", markup=False, soft_wrap=True)
            if report.ok:
                size = format_nbytes(report.nbytes)
                tell.out.print(f"✓ {plural(report.objects, 'object')}, {size}: all as committed")
        if not report.ok and not json:
            raise IntegrityError(
                f"{len(report.damaged)} of {plural(report.objects, 'object')} of {dataset.uri} are"
                " not what was committed."
            )
        raise typer.Exit(0 if report.ok else IntegrityError.exit_code)


@app.command()
def export(
    what: What,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A folder or s3:// prefix; empty, or new.")
    ],
    *,
    ids: Annotated[bool, typer.Option("--ids", help="Call neighbours by their ids, too.")] = False,
    store: StoreOption = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a k-NN graph as Parquet files: row, id, neighbors, values; with --ids, neighbor_ids."""
    from simdist.engine.memory import format_nbytes  # noqa: PLC0415 - other verbs need less
    from simdist.models.export import export_graph  # noqa: PLC0415
    from simdist.report.words import plural  # noqa: PLC0415

    tell = Teller(json, debug)
    with tell.errors():
        done = export_graph(_dataset(what, store), target, ids=ids)
        if json:
            tell.json(done.to_json())
        else:
            told = f"{plural(done.rows, 'row')}, {plural(done.files, 'file')}"
            tell.out.print(f"{told}, {format_nbytes(done.nbytes)}: {done.uri}", soft_wrap=True)


@app.command()
def gc(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A path, file:// or s3://.")],
    *,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; else only say.")] = False,
    older_than: Annotated[
        str,
        typer.Option("--older-than", metavar="24h", help="Leave younger objects: 30m, 24h, 7d."),
    ] = "24h",
    abandon: Annotated[
        list[str] | None,
        typer.Option("--abandon", metavar="FINGERPRINT", help="Give up an unfinished job first."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove what no dataset and no unfinished job needs. Without --delete, only says what."""
    from simdist.engine.memory import format_nbytes  # noqa: PLC0415 - other verbs need less
    from simdist.report.words import plural  # noqa: PLC0415
    from simdist.store import maintenance  # noqa: PLC0415

    tell = Teller(json, debug)
    with tell.errors():
        place = open_store(store)
        for fingerprint in abandon or ():
            maintenance.abandon(place, fingerprint)
        report = maintenance.gc(place, delete=delete, older_than=_age(older_than))
        if json:
            tell.json(report.to_json())
            return
        for key in report.keys:
            tell.out.print(f"  {key}", markup=False, soft_wrap=True)
        verb = "removed" if report.deleted else "would go"
        tell.out.print(
            f"{plural(len(report.keys), 'object')}, {format_nbytes(report.nbytes)} {verb}"
        )
        tell.out.print(
            f"{plural(report.kept, 'object')}, {format_nbytes(report.kept_nbytes)} in use;"
            f" {report.young:,} younger than {older_than}"
        )
        for line in report.why:
            tell.out.print(f"  kept: {line}", markup=False, soft_wrap=True)
        if report.keys and not report.deleted:
            tell.out.print("Nothing was removed: add --delete.")


@app.command()
def doctor(
    uri: Annotated[str, typer.Argument(metavar="STORE", help="A path, file://, s3://, memory://.")],
    *,
    engine: EngineOption = None,
    workers: Workers = None,
    memory: Memory = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Is this object store fit for runs? And, with --engine, this engine? Exit code 5 if not."""
    from simdist.engine import open_engine  # noqa: PLC0415 - other verbs need less
    from simdist.report.doctor import (  # noqa: PLC0415
        Checkup,
        checkup,
        print_finding,
        print_verdict,
    )

    tell = Teller(json, debug)
    with tell.errors():
        store = open_store(uri)
        opening = None
        if engine is not None:
            opening = partial(
                open_engine,
                engine,
                workers=workers,
                memory=memory or "2GiB",
                scratch=store.scratch(),
            )
        findings = []
        for finding in checkup(store, opening):
            findings.append(finding)
            if not json:
                print_finding(finding, tell.out)
        done = Checkup(store.uri, engine, tuple(findings))
        if json:
            tell.json(done.to_json())
        else:
            print_verdict(done, tell.out)
        raise typer.Exit(0 if done.fit else IntegrityError.exit_code)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `simdist` command."""
    stop_like_ctrl_c()
    app(arguments if arguments is None else list(arguments), prog_name="simdist")


def _flow(
    config: str,
    sets: Sequence[str] | None,
    *,
    engine: str | None,
    store: str | None,
    workers: int | None,
    memory: str | None,
) -> FlowConfig:
    """The config with --set first and the plain options last, because they are shorter to type."""
    from simdist.config import Override, load  # noqa: PLC0415 - pydantic; `show` needs none of it

    changes: list[str | Override] = list(sets or ())
    if engine is not None:
        key, other = ("address", "kind") if "://" in engine else ("kind", "address")
        changes.append(Override(("engine", key), engine, "--engine"))
        changes.append(Override(("engine", other), None, "--engine"))
    if store is not None:
        changes.append(Override(("store",), {"uri": store}, "--store"))
    if workers is not None:
        changes.append(Override(("engine", "workers"), workers, "--workers"))
    if memory is not None:
        changes.append(Override(("engine", "memory"), memory, "--memory"))
    return load(config, overrides=changes)


def _carry_out(flow: FlowConfig, tell: Teller) -> Summary:
    """Walk the links, naming each dataset as it stands."""
    from simdist.config import links  # noqa: PLC0415 - pydantic; `show` needs none of it
    from simdist.models.chain import run_link  # noqa: PLC0415 - so that `--help` is quick
    from simdist.report.summary import Timings, summarize  # noqa: PLC0415

    store = flow.store.open()
    chain = links(flow, store=store)
    timings = Timings()
    datasets: dict[str, Dataset] = {}
    names: dict[str, str] = {}
    with tell.waiting("starting the engine"):
        opened = flow.engine.open(store)
    with opened as engine, tell.progress() as listener:
        for place, link in enumerate(chain, 1):
            dataset = run_link(
                link,
                datasets,
                store=store,
                engine=engine,
                then=chain[place:],
                listeners=(timings, listener),
            )
            datasets[link.name] = dataset
            name = f"{flow.name}.{link.name}"
            names[link.name] = f"{name}@{store.name(name, dataset.fingerprint)}"
    return summarize(flow.name, datasets, timings, names=names, examples=flow.examples)


def _is_store(what: str, store: str | None) -> bool:
    """Whether `show` was given a store: an address, or a folder, that is no manifest."""
    return store is None and not what.endswith(".json") and ("/" in what or what in (".", ".."))


def _dataset(what: str, store: str | None) -> Dataset:
    """A dataset by its address, or by name or fingerprint in `--store`."""
    if store is not None:
        return open_store(store).dataset(what)
    found = re.fullmatch(r"(.+)/manifests/([0-9a-f]{32})\.json", what)
    if found is None:
        raise ConfigError(
            f"{what!r} is no dataset: expected STORE/manifests/FINGERPRINT.json, as a run prints"
            " it, or a name such as debian-packages.graph with --store URI"
        )
    return open_store(found[1]).dataset(found[2])


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+)\s*([smhd])", text.strip())
    if found is None:
        raise ConfigError(f"--older-than {text!r}: expected a number and s, m, h or d, such as 24h")
    return (
        int(found[1])
        * {
            "s": timedelta(seconds=1),
            "m": timedelta(minutes=1),
            "h": timedelta(hours=1),
            "d": timedelta(days=1),
        }[found[2]]
    )
