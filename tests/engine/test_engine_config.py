"""The `engine:` section of a flow: what it takes, and that it shows no secret it was given."""

import pytest

from simdist.config import parse
from simdist.errors import ConfigError

FLOW = """
name: flow
store: ./runs
engine: {engine}
inputs:
  x: {{path: x.npy}}
"""


def engine(text):
    return parse(FLOW.format(engine=text)).engine


def test_waits_are_written_as_time_spans():
    found = engine("{kind: dask, timeout: 30m, wait_for_workers: 90s}")
    assert (found.timeout, found.wait_for_workers) == (1800.0, 90.0)


def test_certificates_and_tokens_are_paths():
    tls = engine("{address: 'tls://h:1', tls: {ca: ca.pem, cert: c.pem, key: k.pem}}").tls
    assert (tls.ca, tls.cert, tls.key) == ("ca.pem", "c.pem", "k.pem")
    assert engine("{address: 'ray://h:1', token: {path: token}}").token.path == "token"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: dask, timeout: soon}", "engine.timeout: 'soon': expected seconds, or a number"),
        ("{kind: dask, wait_for_workers: 0}", "engine.wait_for_workers: 0: expected more than"),
        ("{kind: dask, time_out: 3s}", "engine.time_out: unknown key; did you mean 'timeout'?"),
        ("{kind: dask, tls: canary}", "engine.tls: expected a mapping to files, never what is in"),
        ("{kind: dask, tls: {ca: a, cert: b}}", "engine.tls.key: is missing"),
        (
            '{kind: dask, tls: {ca: a, cert: b, key: "-----BEGIN KEY-----canary"}}',
            "engine.tls.key: expected the path of a file, never what is in it",
        ),
        ("{kind: ray, token: canary}", "engine.token: expected a mapping to files, never what"),
        ("{kind: ray, token: {value: canary}}", "engine.token.value: unknown key"),
        ("{kind: ray, token: {path: [canary]}}", "engine.token.path: expected the path of a"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_path_and_not_repeated(text, message):
    with pytest.raises(ConfigError) as caught:
        engine(text)
    assert message in str(caught.value)
    assert "canary" not in str(caught.value)
