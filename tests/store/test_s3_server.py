"""The tests' own server: what a person reads when it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import s3_server


def test_a_missing_server_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="`make test` installs it"):
        s3_server.find_weed()
