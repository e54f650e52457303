"""AWS settings as the AWS tools find them, for the client that reads the environment only.

Order: options, environment, the profile's section of the shared files, then what obstore asks
itself (web identity, container and instance roles). Profiles that name a program or a login
(`credential_process`, `sso_*`, `role_arn`) need the AWS tools: the error says how to export them.
"""

from __future__ import annotations

import configparser
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from simdist.errors import ConfigError

__all__ = ["ProfileCredentials", "has_keys", "profile_settings"]

REREAD = timedelta(minutes=10)  # tools that rotate keys rewrite the file while a run is under way


def profile_settings(profile: str | None) -> dict[str, str]:
    """What the AWS files say of a profile ("default" for None), credentials file last and winning.

    Raises ConfigError where a profile was asked for by name and neither file has it.
    """
    name = profile or "default"
    found: dict[str, str] = {}
    config = _file("AWS_CONFIG_FILE", "config")
    credentials = _file("AWS_SHARED_CREDENTIALS_FILE", "credentials")
    for path, section in (
        (config, name if name == "default" else f"profile {name}"),
        (credentials, name),
    ):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except configparser.Error:
            # The parser quotes the line it stumbled on, and that line may be a key.
            raise ConfigError(f"{path} is no AWS settings file: expected [section]s of key = value"
                              ) from None  # fmt: skip
        if parser.has_section(section):
            found.update(parser.items(section))
    if profile and not found:
        raise ConfigError(
            f"AWS profile {profile!r} is neither in {credentials} nor in {config}; correct the"
            " profile option or AWS_PROFILE"
        )
    return found


def has_keys(profile: str | None) -> bool:
    """Whether the AWS files give keys for the profile; ConfigError where it needs the AWS tools."""
    settings = profile_settings(profile)
    if "aws_access_key_id" in settings and "aws_secret_access_key" in settings:
        return True
    needs = [
        key
        for key in settings
        if key.startswith("sso_") or key in ("credential_process", "role_arn")
    ]
    if needs:
        raise ConfigError(
            f"AWS profile {profile or 'default'!r} gets its keys through {needs[0]}, which simdist"
            " does not run; put them into the environment first:"
            f' eval "$(aws configure export-credentials --profile {profile or "default"}'
            ' --format env)"'
        )
    return False


@dataclass(frozen=True, slots=True)
class ProfileCredentials:
    """Reads a profile's keys when the client asks, and again as they may have been rotated."""

    profile: str | None

    def __call__(self) -> Any:
        settings = profile_settings(self.profile)
        return {
            "access_key_id": settings["aws_access_key_id"],
            "secret_access_key": settings["aws_secret_access_key"],
            "token": settings.get("aws_session_token"),
            "expires_at": datetime.now(UTC) + REREAD,
        }


def _file(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / ".aws" / name).expanduser()
