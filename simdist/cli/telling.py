"""How the command line speaks: results on stdout, progress and errors on stderr, or all as JSON."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import typer
from rich.console import Console

from simdist.errors import Cancelled, SimdistError, TaskFailed
from simdist.report.progress import JsonProgress, progress
from simdist.runner.events import Listener
from simdist.types import Json

__all__ = ["INTERRUPTED", "Teller", "stop_like_ctrl_c"]

INTERRUPTED = 130  # what shells expect after Ctrl-C
BUG = 70  # EX_SOFTWARE: an error nobody foresaw


@dataclass(frozen=True, slots=True)
class Teller:
    """Where a verb's words go. as_json: JSON only; debug: errors with their traceback."""

    as_json: bool = False
    debug: bool = False
    out: Console = field(default_factory=lambda: Console(highlight=False))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    def json(self, value: Json, *, indent: int | None = 2) -> None:
        """A result as JSON."""
        print(json.dumps(value, indent=indent, ensure_ascii=False), flush=True)

    @contextmanager
    def progress(self) -> Iterator[Listener]:
        """The listener for a run: JSON lines on stdout, or a bar or lines on stderr."""
        if self.as_json:
            yield JsonProgress(sys.stdout)
        else:
            with progress(self.err) as listener:
                yield listener

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Says, on a terminal, what is being waited for, while that lasts."""
        if self.as_json or not self.err.is_terminal:
            yield
        else:
            with self.err.status(text):
                yield

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Ends the process with the error's exit code, having said what a person can use."""
        try:
            yield
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            self._end("interrupted", "Interrupted. What is computed is kept: the same command"
                      " goes on from there.", INTERRUPTED)  # fmt: skip
        except SimdistError as error:
            self._end(type(error).__name__, _story(error), error.exit_code, error)
        except BrokenPipeError:
            raise typer.Exit(0) from None  # the reader (head, less) has seen enough
        except Exception as error:
            self._end(type(error).__name__, f"{type(error).__name__}: {error}\nThis is a bug in"
                      " simdist: `--debug` shows where.", BUG, error)  # fmt: skip

    def _end(self, kind: str, message: str, code: int, error: Exception | None = None) -> None:
        if self.debug and error is not None:
            raise error
        if self.as_json:
            told: Mapping[str, Json] = {"kind": kind, "message": message, "exit_code": code}
            self.json({"error": told}, indent=None)
        else:
            self.err.print(message, markup=False, style="red", soft_wrap=True)
        raise typer.Exit(code)


def stop_like_ctrl_c() -> None:
    """Make SIGTERM, which schedulers send, as safe as Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _story(error: SimdistError) -> str:
    lines = [str(error), *getattr(error, "__notes__", ())]
    if isinstance(error, TaskFailed):
        lines.append("Tasks that are done are kept: the same command goes on from there.")
    if isinstance(error, Cancelled):
        lines.append("What is computed is kept: the same command goes on from there.")
    return "\n".join(lines)
