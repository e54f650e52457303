"""The flow `simdist-flow`: a config's links in order, each as one Prefect task."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.exceptions import TerminationSignal
from prefect.runtime import deployment, flow_run
from prefect.states import Failed

from pipelines import pages
from pipelines.pages import Stop
from pipelines.places import find_places
from pipelines.settings import StageOptions
from pipelines.walk import Engines, Walk, artifact_key
from simdist.errors import SimdistError, TaskFailed
from simdist.report import Summary
from simdist.report.markdown import caption, markdown
from simdist.runner import Listener

__all__ = ["simdist_flow", "watched_by"]

# How somebody asks a run to stop: Ctrl-C, or what a worker sends to a run that is cancelled.
STOPS = (KeyboardInterrupt, SystemExit, TerminationSignal)

# Prefect keeps a flow's parameters as JSON, so listeners cannot be among them.
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("simdist_listeners", default=())


@contextmanager
def watched_by(*listeners: Listener) -> Iterator[None]:
    """Flows run from here also tell these listeners."""
    token = _listeners.set(listeners)
    try:
        yield
    finally:
        _listeners.reset(token)


def _run_name() -> str:
    return Path(flow_run.parameters["config"]).stem


# Prefect shows what stands under `Args:` beside the fields of its form for a new run.
@flow(name="simdist-flow", flow_run_name=_run_name)
def simdist_flow(
    config: str,
    overrides: Sequence[str] = (),
    *,
    store: str | dict[str, Any] | None = None,
    credentials: str | None = None,
    engine: str | dict[str, Any] | None = None,
    stages: StageOptions | None = None,
) -> Summary:
    """Run the flow that a YAML file describes, or the rest of it.

    Args:
        config: The YAML file, seen from where flows run.
        overrides: Changes of single keys, as --set takes them, such as steps.graph.k=30.
        store: Where results go instead, such as s3://bucket/prefix or variables/NAME.
        credentials: The store's keys, a block of prefect-aws: aws-credentials/NAME.
        engine: Where tasks run instead: dask, ray, tcp://scheduler:8786, {kind, address, workers,
            memory}, or variables/NAME.
        stages: How often and how long each stage is tried.
    """
    options = stages or StageOptions()
    walk: Walk | None = None
    with Engines() as engines:
        try:
            places = find_places(
                config, overrides, store=store, credentials=credentials, engine=engine
            )
            walk = Walk(places, options, engines=engines, listeners=_listeners.get())
            summary = walk.carry_out()
        except (Exception, *STOPS) as error:  # told before the engine closes, which takes seconds
            stop = _stop(error, walk, options)
            _leave(stop)
            if stop.asked_for:
                raise
            # Prefect raises `error` again where the flow was called.
            return cast(Summary, Failed(message=pages.in_short(stop), data=error))
    name = walk.settings.name
    create_table_artifact(
        _metrics(summary), key=artifact_key(name, "metrics"), description="What was measured"
    )
    create_markdown_artifact(
        markdown(summary), key=artifact_key(name, "summary"), description=caption(summary)
    )
    return summary


def _stop(error: BaseException, walk: Walk | None, options: StageOptions) -> Stop:
    known: dict[str, Any] = {
        "asked_for": isinstance(error, STOPS),
        "deployed": deployment.id is not None,
    }
    if walk is None:
        return Stop(Path(flow_run.parameters["config"]).stem, error, _again(), **known)
    return Stop(
        walk.settings.name,
        error,
        _again(),
        store=walk.store,
        done=walk.done,
        left=walk.left,
        recorded=walk.recorded,
        attempts=walk.attempts,
        timeout=options.timeout_seconds,
        **known,
    )


def _again() -> str:
    """The command that runs this flow again with the same parameters."""
    given = {name: value for name, value in flow_run.parameters.items() if value}
    if deployment.name is not None:
        params = json.dumps(given, default=_plain, ensure_ascii=False, indent=2)
        name = shlex.quote(f"{flow_run.flow_name}/{deployment.name}")
        return f"prefect deployment run {name} \\\n  --params {shlex.quote(params)}"
    sets = [word for change in given.get("overrides", ()) for word in ("--set", change)]
    return shlex.join(["python", "-m", "pipelines", given["config"], *sets])


def _plain(value: StageOptions) -> dict[str, Any]:
    return value.model_dump(exclude_defaults=True)


def _leave(stop: Stop) -> None:
    """The page and the traceback, for who comes to look."""
    try:
        key = artifact_key(stop.flow, "what-next")
        create_markdown_artifact(pages.page(stop), key=key, description=pages.caption(stop))
    except Exception as error:  # the run ends with its own error, not with that of its page
        get_run_logger().warning("no page could be left: %s: %s", type(error).__name__, error)
    if not stop.asked_for:
        known = isinstance(stop.error, SimdistError) and not isinstance(stop.error, TaskFailed)
        get_run_logger().error(pages.in_short(stop), exc_info=None if known else stop.error)


def _metrics(summary: Summary) -> list[dict[str, Any]]:
    """One row a measurement, as Prefect shows tables."""
    return [
        {"step": step.name, "metric": name, "value": json.dumps(value, ensure_ascii=False)}
        for step in summary.steps
        for name, value in {"seconds": round(step.seconds, 2), **step.metrics}.items()
    ]
