"""Where a flow run works: what its config says, or what its parameters name instead.

    store        "s3://bucket/prefix" | {uri:, endpoint:, ...}  | "variables/NAME" ──┐
    engine       "dask", "tcp://..."  | {kind:, address:, ...}  | "variables/NAME" ──┼─> Places
    credentials  "aws-credentials/NAME", a block: its keys go to the store's client ─┘

A Prefect variable holds what could have been written in its place. Parameters and variables are
shown to everybody who can see the run, so neither can hold a key; blocks can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from prefect.variables import Variable

from simdist.config import FlowConfig, Override, load
from simdist.errors import ConfigError
from simdist.store import Store, open_store

__all__ = ["Places", "find_places"]

VARIABLES = "variables/"
CREDENTIALS = "aws-credentials/"


@dataclass(frozen=True, slots=True)
class Places:
    """The config as this run uses it, and its store."""

    settings: FlowConfig
    store: Store


def find_places(
    config: str,
    overrides: Sequence[str],
    *,
    store: str | Mapping[str, Any] | None,
    credentials: str | None,
    engine: str | Mapping[str, Any] | None,
) -> Places:
    """Read the config, put the parameters in their places; ConfigError tells what is wrong.

    As on the command line, `overrides` are applied first and the parameters last.
    """
    changes: list[str | Override] = list(overrides)
    for name, given in (("store", store), ("engine", engine)):
        value, said = _looked_up(given, name)
        if value is not None:
            changes.append(Override((name,), value, said))
    settings = load(config, overrides=changes)
    written = settings.store.model_dump(exclude={"uri"}, exclude_none=True)
    keys = {} if credentials is None else _keys(credentials)
    return Places(settings, open_store(settings.store.uri, **{**keys, **written}))


def _looked_up(given: str | Mapping[str, Any] | None, what: str) -> tuple[Any, str]:
    """(value, what errors call it), from the variable where one is named."""
    if not isinstance(given, str) or not given.startswith(VARIABLES):
        return given, f"parameter {what}"
    name = given.removeprefix(VARIABLES)
    value: Any = Variable.get(name)
    if value is None:
        raise ConfigError(
            f"parameter {what}: there is no Prefect variable {name!r}. Make it, for example:"
            f" prefect variable set {name} {_EXAMPLES[what]}"
        )
    return value, f"variable {name}"


_EXAMPLES = {
    "store": "s3://bucket/prefix",
    "engine": """'{"kind": "dask", "address": "tcp://scheduler:8786"}'""",
}


def _keys(credentials: str) -> dict[str, Any]:
    """A credentials block as options of `open_store`."""
    name = credentials.removeprefix(CREDENTIALS)
    if name == credentials or not name:
        raise ConfigError(
            f"parameter credentials is {credentials!r}: expected {CREDENTIALS}NAME, an AWS"
            " Credentials block"
        )
    if find_spec("prefect_aws") is None:
        raise ConfigError(
            f"{credentials} is a block of prefect-aws, which is not installed here: pip install"
            " 'simdist[prefect-aws]', where flows run"
        )
    from prefect_aws import AwsCredentials  # noqa: PLC0415 - boto3: an extra, and slow

    try:
        block: Any = AwsCredentials.load(name)
    except ValueError:
        raise ConfigError(
            f"parameter credentials: there is no block {credentials}. Make it in the UI (Blocks,"
            " AWS Credentials), or with AwsCredentials(...).save(...)"
        ) from None
    _refuse_unknown_ways(block, credentials)
    secret = block.aws_secret_access_key
    return {
        "endpoint": block.aws_client_parameters.endpoint_url,
        "region": block.region_name,
        "profile": block.profile_name,
        "access_key_id": block.aws_access_key_id,
        "secret_access_key": None if secret is None else secret.get_secret_value(),
        "session_token": block.aws_session_token,
    }


def _refuse_unknown_ways(block: Any, credentials: str) -> None:
    """ConfigError where the block asks for what simdist's client does not do."""
    client = block.aws_client_parameters
    if block.assume_role_arn is not None:
        raise ConfigError(
            f"{credentials} assumes a role, whose keys end after an hour: give the role to the"
            " machines that run the tasks, and leave `credentials` out"
        )
    if client.verify not in (None, True) or client.verify_cert_path is not None:
        raise ConfigError(
            f"{credentials} changes how TLS certificates are verified: add the authority to the"
            " system's certificates instead, and leave verify and verify_cert_path out"
        )
