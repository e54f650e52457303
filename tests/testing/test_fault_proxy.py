"""Each fault does what it says, by count or by chance, and the log tells it."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from simdist.errors import ConfigError
from simdist.testing.fault_proxy import (
    Corrupt,
    Fault,
    FaultProxy,
    Hold,
    IgnoreChecksums,
    IgnoreConditions,
    LostAnswer,
    ResetInBody,
    Rule,
    Seen,
    Slow,
    Status,
    Truncated,
)

SECONDS = 60.0
BODY = bytes(range(256)) * 40
LARGE = bytes(3 << 20)
BROKEN = (ConnectionError, http.client.HTTPException)


class Upstream(ThreadingHTTPServer):
    """Keeps what is put; answers in chunks where the path ends with /chunked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kept: dict[str, bytes] = {}
        self.heads: list[Mapping[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: connections are cut on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_PUT(self) -> None:
        self.server.heads.append(dict(self.headers))
        if self.headers.get("transfer-encoding") == "chunked":
            data = b""
            while nbytes := int(self.rfile.readline(), 16):
                data += self.rfile.read(nbytes)
                self.rfile.readline()
            self.rfile.readline()
        else:
            promised = int(self.headers["content-length"])
            data = self.rfile.read(promised)
            if len(data) < promised:
                self.close_connection = True
                return
        if self.headers.get("if-none-match") == "*" and self.path in self.server.kept:
            self.answer(412, b"")
            return
        self.server.kept[self.path] = data
        self.answer(200, b"")

    def do_GET(self) -> None:
        self.server.heads.append(dict(self.headers))
        data = self.server.kept.get(self.path.removesuffix("/chunked"))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if data is None:
            self.answer(404, b"no such key")
        elif wanted:
            self.answer(206, data[int(wanted[1]) : int(wanted[2]) + 1])
        else:
            self.answer(200, data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, code: int, data: bytes) -> None:
        self.send_response(code)
        if self.path.endswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            half = -(-len(data) // 2)
            for piece in filter(None, (data[:half], data[half:])):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(SECONDS)


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultProxy]:
    with FaultProxy(upstream=upstream.url) as proxy:
        yield proxy


@contextmanager
def connected(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=SECONDS)
    try:
        yield connection
    finally:
        connection.close()


def ask(
    proxy: FaultProxy,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status and body of an answer to a request on a connection of its own."""
    with connected(proxy) as connection:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()


# -- without faults --


def test_everything_passes_on_one_connection_and_is_logged(proxy: FaultProxy) -> None:
    with connected(proxy) as connection:
        for method, path, body in (
            ("PUT", "/b/a%20b?x=1", BODY),
            ("GET", "/b/a%20b?x=1", None),
            ("HEAD", "/b/a%20b?x=1", None),
            ("PUT", "/b/large", LARGE),
            ("GET", "/b/large", None),
            ("GET", "/b/none", None),
        ):
            connection.request(method, path, body)
            answer = connection.getresponse()
            got = answer.read()
            if method == "GET" and answer.status == 200:
                assert got == (LARGE if "large" in path else BODY)
    assert [(seen.method, seen.status, seen.fault) for seen in proxy.log] == [
        ("PUT", 200, None),
        ("GET", 200, None),
        ("HEAD", 200, None),
        ("PUT", 200, None),
        ("GET", 200, None),
        ("GET", 404, None),
    ]
    assert proxy.log[0].path == "/b/a%20b?x=1"
    assert [seen.number for seen in proxy.log] == [1, 2, 3, 4, 5, 6]


def test_the_host_is_forwarded_as_the_client_sent_it(proxy: FaultProxy, upstream: Upstream) -> None:
    ask(proxy, "PUT", "/b/k", b"1", {"X-Amz-Meta-U": "ä"})
    assert upstream.heads[0]["Host"] == proxy.endpoint.removeprefix("http://")
    assert upstream.heads[0]["X-Amz-Meta-U"] == "ä"


def test_chunks_pass_both_ways(proxy: FaultProxy, upstream: Upstream) -> None:
    with connected(proxy) as connection:
        connection.request("PUT", "/k", iter([BODY, b"tail"]), encode_chunked=True)
        connection.getresponse().read()
        connection.request("GET", "/k/chunked")
        assert connection.getresponse().read() == BODY + b"tail"
    assert upstream.kept["/k"] == BODY + b"tail"


def test_a_client_that_waits_for_100_continue_is_told_to(
    proxy: FaultProxy, upstream: Upstream
) -> None:
    port = int(proxy.endpoint.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as raw:
        raw.sendall(
            b"PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 100 ")
        raw.sendall(b"body")
        assert raw.recv(100).startswith(b"HTTP/1.1 200 ")
    assert upstream.kept["/k"] == b"body"
    assert "Expect" not in upstream.heads[0]


def test_a_range_passes(proxy: FaultProxy) -> None:
    ask(proxy, "PUT", "/k", BODY)
    assert ask(proxy, "GET", "/k", headers={"Range": "bytes=5-9"}) == (206, BODY[5:10])


def test_a_server_that_is_gone_looks_gone(proxy: FaultProxy, upstream: Upstream) -> None:
    upstream.shutdown()
    upstream.server_close()
    with pytest.raises(BROKEN):
        ask(proxy, "GET", "/k")
    assert proxy.log[0].status is None


# -- the faults --


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_status_is_answered_in_s3_s_words_and_nothing_is_forwarded(
    proxy: FaultProxy, upstream: Upstream, code: int
) -> None:
    proxy.rules = [Rule(Status(code), times=2)]
    with connected(proxy) as connection:  # which goes on
        connection.request("PUT", "/k", LARGE)
        answer = connection.getresponse()
        assert answer.status == code
        assert re.search(rb"<Error><Code>\w+</Code><Message>.+</Message></Error>", answer.read())
        connection.request("HEAD", "/k")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (code, b"")
        assert upstream.heads == []
        connection.request("GET", "/k")
        assert connection.getresponse().status == 404
    assert proxy.log[2].fault is None
    assert proxy.log[0] == Seen(1, "PUT", "/k", (Status(code),), code, None)


@pytest.mark.parametrize("fault", [ResetInBody(), Truncated()])
def test_an_upload_that_is_cut_is_not_kept(
    proxy: FaultProxy, upstream: Upstream, fault: Fault
) -> None:
    for body in (BODY, LARGE):
        proxy.rules = [Rule(fault, times=1)]
        with pytest.raises(BROKEN):
            ask(proxy, "PUT", "/k", body)
    assert upstream.kept == {}
    assert ask(proxy, "PUT", "/k", BODY) == (200, b"")
    assert proxy.log[0] == Seen(1, "PUT", "/k", (fault,), None, None)


@pytest.mark.parametrize("path", ["/k", "/k/chunked"])
@pytest.mark.parametrize("kind", [ResetInBody, Truncated])
def test_a_download_that_is_cut_ends_early(
    proxy: FaultProxy, path: str, kind: type[ResetInBody] | type[Truncated]
) -> None:
    ask(proxy, "PUT", "/k", LARGE)
    for fault in (kind(), kind(side="answer")):
        proxy.rules = [Rule(fault, times=1)]
        with connected(proxy) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)) as error:
                answer.read()
        if kind is Truncated:
            assert isinstance(error.value, http.client.IncompleteRead)
            assert len(error.value.partial) < len(LARGE)
        else:
            assert isinstance(error.value, ConnectionResetError)
    assert ask(proxy, "GET", path) == (200, LARGE)
    assert (proxy.log[1].status, proxy.log[1].upstream) == (200, 200)


@pytest.mark.parametrize("fault", [ResetInBody(), Truncated(), ResetInBody(side="request")])
def test_an_answer_without_a_body_is_cut_in_its_head(proxy: FaultProxy, fault: Fault) -> None:
    proxy.rules = [Rule(fault, times=1)]
    with pytest.raises(BROKEN):
        ask(proxy, "HEAD", "/k")
    assert ask(proxy, "HEAD", "/k")[0] == 404


def test_a_lost_answer_means_that_it_was_done(proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.rules = [Rule(LostAnswer(), methods=("PUT",), times=1)]
    with pytest.raises(BROKEN):
        ask(proxy, "PUT", "/k", BODY)
    assert upstream.kept == {"/k": BODY}
    assert proxy.log[0] == Seen(1, "PUT", "/k", (LostAnswer(),), None, 200)


@pytest.mark.parametrize("size", [1, len(BODY), len(LARGE)])
def test_a_corrupt_body_differs_in_one_bit(
    proxy: FaultProxy, upstream: Upstream, size: int
) -> None:
    data = LARGE[:size]
    proxy.rules = [Rule(Corrupt(), methods=("PUT",), times=1)]
    assert ask(proxy, "PUT", "/up", data)[0] == 200
    assert differing(upstream.kept["/up"], data) == 1
    upstream.kept["/down"] = data
    proxy.rules = [Rule(Corrupt(), times=2)]
    for path in ("/down", "/down/chunked"):
        assert differing(ask(proxy, "GET", path)[1], data) == 1
    assert ask(proxy, "GET", "/down")[1] == data


def differing(one: bytes, other: bytes) -> int:
    """How many bits differ."""
    assert len(one) == len(other)
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def test_a_slow_request_is_answered_in_the_end(proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Slow(0.05))]
    assert ask(proxy, "PUT", "/k", BODY) == (200, b"")
    assert proxy.log[0].fault == Slow(0.05)


@pytest.mark.parametrize("side", ["request", "answer"])
def test_a_held_request_waits_for_its_release(
    proxy: FaultProxy, upstream: Upstream, side: str
) -> None:
    hold = Hold(threading.Event(), side=side)  # type: ignore[arg-type]
    proxy.rules = [Rule(hold, methods=("PUT",), times=1)]
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, proxy, "PUT", "/k", BODY)
        assert hold.reached.wait(SECONDS)
        assert upstream.kept == ({} if side == "request" else {"/k": BODY})
        assert ask(proxy, "GET", "/other")[0] == 404  # others pass meanwhile
        assert not held.done()
        hold.release.set()
        assert held.result(SECONDS) == (200, b"")
    assert upstream.kept == {"/k": BODY}


def test_conditions_are_taken_away(proxy: FaultProxy, upstream: Upstream) -> None:
    once = {"If-None-Match": "*"}
    assert ask(proxy, "PUT", "/k", b"first", once)[0] == 200
    assert ask(proxy, "PUT", "/k", b"second", once)[0] == 412
    proxy.rules = [Rule(IgnoreConditions())]
    assert ask(proxy, "PUT", "/k", b"third", once)[0] == 200
    assert upstream.kept["/k"] == b"third"
    ask(proxy, "PUT", "/k", b"no condition")
    assert proxy.log[3].fault is None
    assert proxy.log[2].fault == IgnoreConditions()


def test_checksums_are_taken_away_also_from_a_corrupt_body(
    proxy: FaultProxy, upstream: Upstream
) -> None:
    proxy.rules = [Rule(IgnoreChecksums()), Rule(Corrupt(), methods=("PUT",))]
    sums = {"Content-MD5": "x", "x-amz-checksum-sha256": "y", "x-amz-meta-kept": "z"}
    assert ask(proxy, "PUT", "/k", BODY, sums)[0] == 200
    assert differing(upstream.kept["/k"], BODY) == 1
    assert {name.lower() for name in upstream.heads[0]} & sums.keys() == {"x-amz-meta-kept"}
    seen = proxy.log[0]
    assert (seen.fault, seen.faults) == (Corrupt(), (Corrupt(), IgnoreChecksums()))


def test_a_signed_header_is_taken_away_only_by_one_who_can_sign(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    proxy.rules = [Rule(IgnoreConditions())]
    signed = {
        "If-None-Match": "*",
        "Authorization": "AWS4-HMAC-SHA256 Credential=K/20260101/us-east-1/s3/aws4_request,"
        " SignedHeaders=host;if-none-match, Signature=0",
    }
    status, text = ask(proxy, "PUT", "/k", b"", signed)
    assert status == 400
    assert b"give FaultProxy credentials" in text


# -- who is hit --


def statuses(proxy: FaultProxy, paths: list[str]) -> list[int]:
    return [ask(proxy, "GET", path)[0] for path in paths]


def test_a_rule_spares_the_first_and_stops_after_the_last(proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Status(503), path="^/b/", after=2, times=2)]
    assert statuses(proxy, ["/b/1", "/a", "/b/2", "/a", "/b/3", "/b/4", "/a", "/b/5"]) == [
        404, 404, 404, 404, 503, 503, 404, 404,
    ]  # fmt: skip
    proxy.rules = proxy.rules  # counts begin again
    assert statuses(proxy, ["/b/1", "/b/1", "/b/1"]) == [404, 404, 503]


def test_the_first_rule_that_hits_decides_and_later_ones_do_not_count_it(
    proxy: FaultProxy,
) -> None:
    proxy.rules = [Rule(Status(503), times=1), Rule(Status(500), times=1)]
    assert statuses(proxy, ["/k"] * 3) == [503, 500, 404]


def test_methods_and_queries_select(proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Status(503), methods=("PUT",)), Rule(Status(500), path=r"\?list-type=2")]
    assert statuses(proxy, ["/k", "/b?list-type=2"]) == [404, 500]
    assert ask(proxy, "PUT", "/k", b"")[0] == 503


def test_chance_follows_from_the_seed_and_the_request_not_from_the_order(
    upstream: Upstream,
) -> None:
    paths = [f"/object-{i}" for i in range(120)]

    def hit(seed: int, order: list[str]) -> set[str]:
        rules = [Rule(Status(503), probability=0.1)]
        with FaultProxy(upstream=upstream.url, rules=rules, seed=seed) as proxy:
            return {
                path
                for path, status in zip(order, statuses(proxy, order), strict=True)
                if status == 503
            }

    first = hit(1, paths)
    assert 1 <= len(first) <= 26  # 12 expected; four standard deviations
    assert hit(1, paths[::-1]) == first
    assert hit(2, paths) != first


def test_a_request_that_comes_again_is_drawn_again(proxy: FaultProxy) -> None:
    proxy.rules = [Rule(Status(503), probability=0.5)]
    seen = statuses(proxy, ["/k"] * 40)
    assert {404, 503} == set(seen)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"probability": 1.5}, "probability 1.5"),
        ({"after": -1}, "counts from 0"),
        ({"path": "("}, "no regular expression"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(wrong: dict[str, float], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Rule(Status(503), **wrong)  # type: ignore[arg-type]


def test_an_upstream_must_be_a_url() -> None:
    with pytest.raises(ConfigError, match="expected http://host:port"):
        FaultProxy(upstream="127.0.0.1:80")
