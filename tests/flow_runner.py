"""Flows run one after the other by one process, which has imported Prefect once.

A script of its own, since Prefect reads its settings when it is imported. Takes a JSON line per run
on stdin, {"arguments": [...], "environment": {...}}, and answers each with one on stdout: the exit
code of `python -m pipelines` with these arguments, and what it said.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

import typer

from pipelines.__main__ import main


def carry_out(arguments: Sequence[str]) -> dict[str, object]:
    """One run; what it would have ended with, and what it would have printed."""
    sys.argv = ["pipelines", *arguments]
    code: object = 0
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            typer.run(main)
        except SystemExit as end:
            code = end.code or 0
    return {"returncode": code, "stdout": out.getvalue(), "stderr": err.getvalue()}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        os.environ.update(asked["environment"])
        print(json.dumps(carry_out(asked["arguments"])), flush=True)
