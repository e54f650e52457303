"""HTTP/1.1 on the wire: heads as values, bodies as pieces, a connection that can be reset."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

__all__ = ["CHUNKED", "TO_THE_END", "Body", "Head", "Stream", "answer_body", "request_body"]

PIECE = 1 << 16  # bytes read at a time
HEAD_LIMIT = 1 << 18
TO_THE_END, CHUNKED = -1, -2  # of a body without a length: until the connection ends, or in chunks


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a request or an answer, in order and as they were sent."""

    first: str
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """The value of a header, whatever the case of its name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def names(self) -> list[str]:
        """Names of the headers in small letters."""
        return [name.lower() for name, _ in self.headers]

    def without(self, unwanted: Callable[[str], bool]) -> Head:
        """The same without the headers whose name, in small letters, is unwanted."""
        kept = tuple(item for item in self.headers if not unwanted(item[0].lower()))
        return replace(self, headers=kept)

    def with_header(self, name: str, value: str) -> Head:
        """The same with one header set."""
        rest = self.without(lambda other: other == name.lower())
        return replace(rest, headers=(*rest.headers, (name, value)))

    def to_bytes(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    @property
    def closes(self) -> bool:
        """Whether the sender wants the connection to end after this exchange."""
        return (self.get("connection") or "").lower() == "close" or "HTTP/1.0" in self.first


@dataclass(frozen=True, slots=True)
class Body:
    """What follows a head: `nbytes`, or TO_THE_END, or CHUNKED."""

    nbytes: int

    async def pieces(self, stream: Stream) -> AsyncIterator[bytes]:
        """The content in pieces; IncompleteReadError where the connection ends before it does."""
        if self.nbytes == CHUNKED:
            async for piece in _chunks(stream.reader):
                yield piece
            return
        left = self.nbytes
        while left:
            piece = await stream.reader.read(PIECE if left < 0 else min(PIECE, left))
            if not piece:
                if left < 0:
                    return
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece) if left > 0 else 0
            yield piece

    def framed(self, piece: bytes) -> bytes:
        """A piece as it goes over the wire."""
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self.nbytes == CHUNKED else piece

    @property
    def end(self) -> bytes:
        """What follows the last piece."""
        return b"0\r\n\r\n" if self.nbytes == CHUNKED else b""


def request_body(head: Head) -> Body:
    """How a request's body is delimited."""
    if (head.get("transfer-encoding") or "").lower() == "chunked":
        return Body(CHUNKED)
    return Body(int(head.get("content-length") or 0))


def answer_body(head: Head, method: str) -> Body:
    """How an answer's body is delimited, which depends on what was asked."""
    code = int(head.first.split()[1])
    if method == "HEAD" or code in (204, 304):
        return Body(0)
    if (head.get("transfer-encoding") or "").lower() == "chunked":
        return Body(CHUNKED)
    length = head.get("content-length")
    return Body(TO_THE_END if length is None else int(length))


@dataclass(frozen=True, slots=True)
class Stream:
    """One connection, to a client or to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_head(self) -> Head | None:
        """The next head; None where the connection ended before it began."""
        try:
            text = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial.strip():
                raise
            return None
        first, *lines = text.decode("latin-1").strip("\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return Head(first, tuple((name, value.strip()) for name, _, value in pairs))

    async def send(self, data: bytes) -> None:
        """Write, and wait while the other side is behind."""
        self.writer.write(data)
        await self.writer.drain()

    async def close(self) -> None:
        """End in good order: what was sent arrives."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def reset(self) -> None:
        """End at once: the other side's next read or write fails with "connection reset"."""
        raw = self.writer.get_extra_info("socket")
        if raw is not None:  # a linger time of zero makes the close a reset
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while nbytes := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        left = nbytes
        while left:
            piece = await reader.read(min(PIECE, left))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece
        await reader.readexactly(2)
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass  # a trailer
