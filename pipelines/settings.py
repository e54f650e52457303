"""How patient a flow run is with its stages: a parameter of the flow, no part of any config."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from simdist.engine.task import transient
from simdist.errors import Cancelled, EngineError, TaskFailed

__all__ = ["StageOptions", "retry_condition", "worth_retrying"]


class StageOptions(BaseModel):
    """How often and how long each stage is tried.

    A stage that is tried again keeps the records of its tasks, and gets an engine started afresh.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    retries: int = Field(
        default=2,
        ge=0,
        description="Further attempts of a stage after the store or the engine failed. Wrong"
        " settings and wrong data are never tried again.",
    )
    retry_delay_seconds: float = Field(
        default=30.0,
        ge=0,
        description="Before the first further attempt; doubles for each one after it.",
    )
    timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        description="The longest one attempt of a stage may take; none by default.",
    )

    @property
    def task_options(self) -> dict[str, Any]:
        """As a Prefect task takes them."""
        delays = [self.retry_delay_seconds * 2**number for number in range(self.retries)]
        return {
            "retries": self.retries,
            "retry_delay_seconds": delays or None,
            "timeout_seconds": self.timeout_seconds,
            "retry_condition_fn": retry_condition,
        }


def retry_condition(task: Any, run: Any, state: Any) -> bool:
    """What Prefect asks after a failed attempt; its state carries the error itself."""
    return isinstance(state.data, Exception) and worth_retrying(state.data)


def worth_retrying(error: BaseException) -> bool:
    """Whether another attempt can help: the store, the network or the cluster failed.

    Never for what the config or the data say, for a task's own error, or for a stage's timeout.
    """
    if isinstance(error, TaskFailed):
        return error.cause is not None and worth_retrying(error.cause)
    if isinstance(error, EngineError):
        return not isinstance(error, Cancelled)
    return transient(error) and type(error).__name__ != "TaskRunTimeoutError"
