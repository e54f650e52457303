"""The proxy: a thread with an event loop, client connections, and one exchange at a time on each.

    request ──> decide ──> Status: answered here
                      └──> Slow, Hold ──> server ──> answer ──> client
                               headers taken away ┘      └ lost, cut, reset, flipped

Each request gets a connection of its own to the server: one that is reused may just be ending, and
the proxy must not add faults that nobody asked for.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from urllib.parse import urlsplit

from simdist.errors import ConfigError
from simdist.testing.fault_proxy.faults import (
    Corrupt,
    Fault,
    Hold,
    IgnoreChecksums,
    LostAnswer,
    ResetInBody,
    Rule,
    Schedule,
    Seen,
    Slow,
    Status,
    Truncated,
)
from simdist.testing.fault_proxy.signing import Credentials, signed_again, signed_headers
from simdist.testing.fault_proxy.wire import (
    HEAD_LIMIT,
    TO_THE_END,
    Body,
    Head,
    Stream,
    answer_body,
    request_body,
)

__all__ = ["FaultProxy"]

START_SECONDS = 60.0
POLL_SECONDS = 0.005  # of a Hold, whose event belongs to other threads

S3_CODES = {500: "InternalError", 503: "SlowDown", 429: "TooManyRequests", 403: "AccessDenied"}


class FaultProxy:
    """An HTTP server on 127.0.0.1 that forwards to `upstream` and spoils what its rules say.

    upstream: "http://host:port" of an S3 server, or https://.
    rules: tried in order; the first that hits decides, `IgnoreConditions` and `IgnoreChecksums`
    come on top. May be set anew while the proxy runs, which starts their counts again.
    seed: of all draws. credentials: (access key, secret) or (access key, secret, session token);
    where given, every signed request is addressed to the upstream's own host and signed again.
    Raises ConfigError for an upstream that is no url.
    """

    def __init__(
        self,
        *,
        upstream: str,
        rules: Iterable[Rule] = (),
        seed: int = 0,
        credentials: tuple[str, str] | tuple[str, str, str] | None = None,
    ) -> None:
        parts = urlsplit(upstream)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ConfigError(f"upstream {upstream!r} of FaultProxy; expected http://host:port")
        self.seed = seed
        self._server = _Server(parts.scheme == "https", parts.hostname, parts.port, parts.netloc,
                               Credentials(*credentials) if credentials else None)  # fmt: skip
        self._schedule = Schedule(tuple(rules), seed)
        self._log: list[Seen] = []
        self._arrived = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._port = 0

    @property
    def endpoint(self) -> str:
        """The url to give to a client in place of the server's."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in force."""
        return self._schedule.rules

    @rules.setter
    def rules(self, rules: Iterable[Rule]) -> None:
        with self._lock:
            self._schedule = Schedule(tuple(rules), self.seed)

    @property
    def log(self) -> list[Seen]:
        """What was asked and done so far; a request appears before its client has the answer."""
        with self._lock:
            return list(self._log)

    def start(self) -> FaultProxy:
        """Serve from now on; returns itself."""
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise RuntimeError(f"the fault proxy did not start within {START_SECONDS:.0f} s")
        return self

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        with suppress(RuntimeError):  # the loop has ended already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    def __enter__(self) -> FaultProxy:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- inside the thread --

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        connections: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._converse(Stream(reader, writer)))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", self._port, limit=HEAD_LIMIT)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _converse(self, client: Stream) -> None:
        """Exchange after exchange until the client, a fault or the server ends it."""
        try:
            while (head := await client.read_head()) is not None:
                if not await self._exchange(client, head):
                    break
            await client.close()
        except _Reset:
            await client.reset()
        except (OSError, EOFError, asyncio.LimitOverrunError):
            # Broken by the client or by the server: the client may learn no more than that.
            await client.reset()
        except asyncio.CancelledError:
            client.writer.transport.abort()

    async def _exchange(self, client: Stream, head: Head) -> bool:
        """One request and its answer; whether another may follow on this connection."""
        method, path, _ = head.first.split(" ")
        with self._lock:
            self._arrived += 1
            number = self._arrived
            faults = self._schedule.decide(method, path, head.names)

        def tell(status: int | None, upstream: int | None) -> None:
            with self._lock:
                self._log.append(Seen(number, method, path, faults, status, upstream))

        return await _Exchange(client, head, faults, self._server, tell).run()


class _Reset(Exception):
    """The client's connection is to be reset."""


class _Server:
    """Where requests go, and in whose name."""

    def __init__(
        self, tls: bool, host: str, port: int | None, name: str, credentials: Credentials | None
    ) -> None:
        self._tls = ssl.create_default_context() if tls else None
        self._host, self._port, self._name = host, port or (443 if tls else 80), name
        self._credentials = credentials

    async def connect(self) -> Stream:
        return Stream(
            *await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=HEAD_LIMIT)
        )

    def request(self, head: Head, faults: tuple[Fault, ...]) -> Head:
        """The request as the server gets it."""
        covered = signed_headers(head)
        changed = head.without(lambda name: any(fault.concerns(name) for fault in faults))
        if covered and any(isinstance(fault, IgnoreChecksums) for fault in faults):
            changed = changed.with_header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        # The proxy says "100 Continue" itself, and AWS clients leave this header unsigned.
        changed = changed.without(lambda name: name == "expect")
        if not covered:
            return changed
        if self._credentials is not None:
            return signed_again(changed.with_header("host", self._name), self._credentials)
        if any(head.get(name) != changed.get(name) for name in covered):
            return signed_again(changed, _credentials_of_environment())
        return changed


def _credentials_of_environment() -> Credentials:
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        raise ConfigError(
            "this fault takes signed headers away, so the proxy must sign again: give FaultProxy"
            " credentials=(access key, secret) or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN"))


class _Exchange:
    """One request: what the client sends, what the server makes of it, what the client gets."""

    def __init__(
        self,
        client: Stream,
        head: Head,
        faults: tuple[Fault, ...],
        server: _Server,
        tell: Callable[[int | None, int | None], None],
    ) -> None:
        self.client, self.head, self.server, self.faults = client, head, server, faults
        self.tell, self.told = tell, False
        self.method = head.first.split(" ")[0]
        self.body = request_body(head)
        self.fault = faults[0] if faults else None
        self.upstream: int | None = None

    async def run(self) -> bool:
        """Whether the connection may carry another request. Raises _Reset where it must not."""
        try:
            return await self._run()
        finally:
            self._tell(None)

    def _tell(self, status: int | None) -> None:
        """Log what the client is about to get, the first time this is said."""
        if not self.told:
            self.told = True
            self.tell(status, self.upstream)

    async def _run(self) -> bool:
        if (self.head.get("expect") or "").lower() == "100-continue":
            await self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if isinstance(self.fault, Status):
            return await self._refuse(self.fault.code)
        if isinstance(self.fault, Slow):
            await asyncio.sleep(self.fault.seconds)
        await self._hold("request")
        try:
            head = self.server.request(self.head, self.faults)
        except ConfigError as error:
            return await self._refuse(400, str(error))
        server = await self.server.connect()
        try:
            return await self._forward(server, head)
        finally:
            await (server.reset() if self._spoils(ResetInBody, "request") else server.close())

    async def _forward(self, server: Stream, head: Head) -> bool:
        if self._spoils((Truncated, ResetInBody), "request"):
            await server.send(head.to_bytes())
            await self._send_half(self.body, self.client, server)
            return self._end()
        sending = asyncio.create_task(self._send_request(server, head))
        try:
            # A server may answer before it has read all, to refuse what it need not read.
            answer = await server.read_head()
            while answer is not None and answer.first.split(" ")[1].startswith("1"):
                answer = await server.read_head()
            if answer is None:
                raise _Reset
            self.upstream = int(answer.first.split(" ")[1])
            again = await self._answer(server, answer)
            await sending
            return again
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_request(self, server: Stream, head: Head) -> bool:
        """Whether the server took it all; what it refuses is read from the client all the same,
        since a connection closed on unread bytes is reset, and the answer with it.
        """
        listens = await _sent(server, head.to_bytes())
        try:
            async for piece in self._pieces(self.body, self.client, "request"):
                listens = listens and await _sent(server, self.body.framed(piece))
        except (OSError, EOFError):
            server.writer.transport.abort()  # the client is gone: nobody may wait for the rest
            raise
        return await _sent(server, self.body.end) and listens

    async def _answer(self, server: Stream, answer: Head) -> bool:
        body = answer_body(answer, self.method)
        await self._hold("answer")
        if isinstance(self.fault, LostAnswer):
            async for _ in body.pieces(server):
                pass
            raise _Reset
        if self._spoils((Truncated, ResetInBody), "answer"):
            if body.nbytes == 0:
                self._tell(None)
                await self.client.send(b"HTTP/1.1 ")  # lenient clients take half a head for whole
            else:
                self._tell(self.upstream)
                await self.client.send(answer.to_bytes())
                await self._send_half(body, server, self.client)
            return self._end()
        self._tell(self.upstream)
        await self.client.send(answer.to_bytes())
        async for piece in self._pieces(body, server, "answer"):
            await self.client.send(body.framed(piece))
        await self.client.send(body.end)
        return not (self.head.closes or answer.closes or body.nbytes == TO_THE_END)

    async def _refuse(self, code: int, message: str | None = None) -> bool:
        async for _ in self.body.pieces(self.client):
            pass
        phrase = HTTPStatus(code).phrase
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{S3_CODES.get(code, phrase.replace(' ', ''))}</Code>"
            f"<Message>{message or f'{phrase}, from the fault proxy'}</Message></Error>"
        ).encode()
        head = (
            f"HTTP/1.1 {code} {phrase}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(text)}\r\n\r\n"
        ).encode()
        self._tell(code)
        await self.client.send(head + (b"" if self.method == "HEAD" else text))
        return not self.head.closes

    # -- bodies --

    async def _pieces(self, body: Body, source: Stream, side: str) -> AsyncIterator[bytes]:
        """A body as it is, or with the bit in its middle flipped."""
        at = max(body.nbytes, 0) // 2
        flips, seen = self._spoils(Corrupt, side), 0
        async for piece in body.pieces(source):
            here = at - seen if body.nbytes >= 0 else len(piece) // 2
            seen += len(piece)
            if flips and 0 <= here < len(piece):
                flips = False
                yield piece[:here] + bytes([piece[here] ^ 1]) + piece[here + 1 :]
            else:
                yield piece

    async def _send_half(self, body: Body, source: Stream, target: Stream) -> None:
        """Half of a body; of one without a length, half of its first piece."""
        left = max(body.nbytes, 0) // 2
        async for piece in body.pieces(source):
            half = piece[:left] if body.nbytes >= 0 else piece[: len(piece) // 2]
            framed = body.framed(piece)
            await target.send(half if body.nbytes >= -1 else framed[: len(framed) // 2])
            left -= len(half)
            if left <= 0 or body.nbytes < 0:
                return

    def _spoils(self, kinds: type[Fault] | tuple[type[Fault], ...], side: str) -> bool:
        fault = self.fault
        if not isinstance(fault, ResetInBody | Truncated | Corrupt) or not isinstance(fault, kinds):
            return False
        return (fault.side or ("request" if self.body.nbytes else "answer")) == side

    def _end(self) -> bool:
        if isinstance(self.fault, ResetInBody):
            raise _Reset
        return False

    async def _hold(self, side: str) -> None:
        if isinstance(self.fault, Hold) and self.fault.side == side:
            self.fault.reached.set()
            while not self.fault.release.is_set():
                await asyncio.sleep(POLL_SECONDS)


async def _sent(stream: Stream, data: bytes) -> bool:
    """Whether the other side still takes bytes."""
    try:
        await stream.send(data)
    except OSError:
        return False
    return True
