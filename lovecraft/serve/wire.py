"""Limits on what a client may send before it has asked for anything."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 15  # for a request's first line and headers to arrive, from the connection or the first byte on
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class LimitedProtocol(HttpToolsProtocol):
    """HTTP, but who sends headers that are too long, or sends them too slowly, is cut off."""

    _head = 0
    _late: asyncio.TimerHandle | None = None
    """Set while a head is awaited."""

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrives, unless it is too much of a head."""
        self._head += len(data)
        super().data_received(data)
        if self._late and self._head > HEAD_BYTES:
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """Count from here: a request begins."""
        super().on_message_begin()
        self._head = 0
        self._late = self._late or self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def on_headers_complete(self) -> None:
        """Let go: the body has its own limits."""
        self._arrived()
        super().on_headers_complete()

    def _arrived(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None
