"""A bare HTTP client: one keep-alive connection, no more work per request than there must be, so that the server is measured."""

from __future__ import annotations

import asyncio
from typing import Self

import msgspec

from bench.stack import Api


class RequestFailedError(Exception):
    """The server answered with an error; the message has status and body."""


class Connection:
    """One connection to the API, with its token; use as an async context manager."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._api.host, self._api.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def get(self, path: str) -> bytes:
        """Return the body of a GET."""
        return await self._request("GET", path, b"")

    async def post(self, path: str, body: object) -> bytes:
        """Return the body that answers a POST of JSON."""
        return await self._request("POST", path, msgspec.json.encode(body))

    async def _request(self, method: str, path: str, body: bytes) -> bytes:
        head = (
            f"{method} /api/{path} HTTP/1.1\r\nHost: {self._api.host}\r\nAuthorization: Bearer {self._api.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        status = int(lines[0].split(b" ", 2)[1])
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:] if line)
        answer = await self._body(headers)
        if status >= 400:
            raise RequestFailedError(f"{method} {path}: {status} {answer.decode(errors='replace')}")
        return answer

    async def _body(self, headers: dict[bytes, bytes]) -> bytes:
        if headers.get(b"transfer-encoding") != b"chunked":
            return await self._reader.readexactly(int(headers.get(b"content-length", b"0")))
        pieces = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            pieces.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readuntil(b"\r\n")
        return b"".join(pieces)
