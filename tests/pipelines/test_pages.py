"""The page that a failed run leaves, for each sort of error, and what is worth a second try."""

from __future__ import annotations

import pytest

from pipelines.pages import Stop, caption, in_short, page
from pipelines.settings import StageOptions, worth_retrying
from simdist.errors import (
    Cancelled,
    ConfigError,
    ConflictError,
    EngineError,
    InputError,
    IntegrityError,
    ObjectMissing,
    PlanTooLarge,
    StoreError,
    TaskFailed,
)
from simdist.store import open_store

AGAIN = "python -m pipelines fruit.yaml"

ERRORS = [
    (ConfigError("k is 0"), "exit code 2", "Correct the setting"),
    (PlanTooLarge("6.1 GiB"), "exit code 2", "Correct the setting"),
    (InputError("NaN in row 3"), "exit code 2", "Correct the data"),
    (ConflictError("differs in rows"), "exit code 4", "two versions"),
    (IntegrityError("sha256"), "exit code 5", "simdist verify"),
    (ObjectMissing("gone"), "exit code 3", "who deletes"),
    (StoreError("503, 9 times"), "exit code 3", "simdist doctor memory://page"),
    (EngineError("no scheduler"), "exit code 3", "Look at the cluster"),
    (TaskFailed("leaf-3", ValueError("x"), "ValueError: x"), "exit code 3", "Read the traceback"),
    (TaskFailed("leaf-3", EngineError("died"), "died"), "exit code 3", "Look at the cluster"),
    (ZeroDivisionError("nobody foresaw"), "exit code 70", "Report it"),
    (KeyboardInterrupt(), "exit code 130", "Run it again"),
]


def stop(error: BaseException) -> Stop:
    return Stop(
        "fruit",
        error,
        AGAIN,
        asked_for=isinstance(error, KeyboardInterrupt),
        store=open_store("memory://page"),
        left=["graph"],
        recorded=7,
    )


@pytest.mark.parametrize(("error", "code", "advice"), ERRORS, ids=lambda value: str(value)[:20])
def test_every_sort_of_error_has_its_meaning_and_its_advice(
    error: BaseException, code: str, advice: str
) -> None:
    story = page(stop(error))
    assert code in story
    assert advice in story
    assert "7 tasks of `graph` recorded" in story
    assert "python -m pipelines fruit.yaml" in story
    assert code in in_short(stop(error))
    assert code in caption(stop(error))
    if str(error):
        assert f"> {type(error).__name__}: {error}" in story


def test_credentials_that_reach_an_error_do_not_reach_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-in-the-environment")
    leaky = StoreError("GET https://host/x?X-Amz-Signature=canary canary-in-the-environment")
    for text in (page(stop(leaky)), in_short(stop(leaky))):
        assert "canary" not in text


def test_a_run_that_was_stopped_did_not_fail() -> None:
    story = page(stop(KeyboardInterrupt()))
    assert story.startswith("# fruit was stopped at `graph`")
    assert "failed" not in story


def test_only_what_another_attempt_can_help_is_tried_again() -> None:
    worth = [
        StoreError("503"),
        EngineError("no scheduler"),
        ConnectionError("reset"),
        TaskFailed("leaf", ConnectionError("reset"), ""),
        TaskFailed("leaf", EngineError("its worker died"), ""),
    ]
    worthless = [
        ConfigError("k"),
        InputError("NaN"),
        PlanTooLarge("6 GiB"),
        ConflictError("differs"),
        IntegrityError("sha256"),
        ObjectMissing("gone"),
        Cancelled("by its driver"),
        ValueError("a bug"),
        TaskFailed("leaf", ValueError("a bug"), ""),
        TaskFailed("leaf", None, "cannot be pickled"),
    ]
    assert all(map(worth_retrying, worth))
    assert not any(map(worth_retrying, worthless))


def test_each_further_attempt_waits_twice_as_long() -> None:
    options = StageOptions(retries=3, retry_delay_seconds=10).task_options
    assert options["retry_delay_seconds"] == [10, 20, 40]
