"""`python -m pipelines CONFIG`: the flow, its progress and summary, a Prefect API where none is."""

from __future__ import annotations

import atexit
import os
import time
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Annotated

import typer

from pipelines.server import private_api
from simdist.cli.telling import Teller, stop_like_ctrl_c
from simdist.config import load
from simdist.errors import ConfigError
from simdist.report.terminal import print_summary


def main(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A flow as YAML.")],
    *,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B.C=VALUE", help="Change one key of the config."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback.")] = False,
) -> None:
    """Run a flow on Prefect: on PREFECT_API_URL, or on a private API that ends with the run."""
    stop_like_ctrl_c()
    tell = Teller(debug=debug)
    with tell.errors():
        if find_spec("prefect") is None:
            raise ConfigError("flows need Prefect: pip install 'simdist[prefect]'")
        load(config, overrides=sets or ())  # what is wrong is told before anything starts
        # Logs go to the API; the terminal has progress, and Teller's words for errors.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        if "PREFECT_API_URL" not in os.environ:
            started = time.monotonic()
            # Prefect sends its last logs and events when the interpreter ends, and exit hooks run
            # after that: a server that stopped earlier would make it wait and complain.
            stack = ExitStack()
            atexit.register(stack.close)
            api = stack.enter_context(private_api())
            os.environ.update(api.environment)
            with tell.waiting("starting a private Prefect API"):
                import pipelines.flow  # noqa: F401, PLC0415 - seconds, while the server starts

                api.wait()
            tell.err.print(f"Prefect API up in {time.monotonic() - started:.0f} s", style="dim")
        from pipelines.flow import simdist_flow, watched_by  # noqa: PLC0415 - reads PREFECT_API_URL
        from pipelines.settings import StageOptions  # noqa: PLC0415

        once = StageOptions(retries=0)  # who sits at the terminal decides what is tried again
        with tell.progress() as listener, watched_by(listener):
            summary = simdist_flow(config, sets or [], stages=once)
        print_summary(summary, tell.out)


if __name__ == "__main__":
    typer.run(main)
