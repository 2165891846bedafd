"""A small client of our own HTTP API, over the standard library: httpx takes 0.35 s to import, this 0.02 s."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

from millhand.core.errors import MillhandError

_TIMEOUT_S = 120.0


class ApiError(MillhandError):
    """The server answered that it can't do what was asked."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text or f"the server answered {status}")
        self.status = status


class UnreachableError(MillhandError):
    """No answer came."""


class Api:
    """One server, one token, one workspace. A connection is kept between calls; not for use by several threads."""

    def __init__(self, *, url: str, token: str, workspace: str) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.workspace = workspace
        self._connection: http.client.HTTPConnection | None = None

    def twin(self) -> Api:
        """Return a client for another thread."""
        return Api(url=self.url, token=self.token, workspace=self.workspace)

    def get(self, path: str, **query: Any) -> Any:
        """Get something of the workspace, or of the instance where the path starts with a slash."""
        return self._call("GET", path, None, query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """Send JSON; returns what came back, decoded where it is JSON."""
        return self._call("POST", path, body, query)

    def events(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the events of a stream until the server ends it."""
        response = self._send("GET", path, None, query)
        if response.status != http.client.OK:
            raise ApiError(response.status, _text(response.read()))
        try:
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[len(b"data:") :])
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from None
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, method: str, path: str, body: Any, query: dict[str, Any]) -> Any:
        response = self._send(method, path, body, query)
        try:
            content = response.read()
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from None
        if response.status >= http.client.BAD_REQUEST:
            raise ApiError(response.status, _text(content))
        if "json" in response.headers.get("content-type", ""):
            return json.loads(content)
        return content.decode()

    def _send(self, method: str, path: str, body: Any, query: dict[str, Any]) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        target = self._target(path, query)
        for attempt in (1, 2):
            connection = self._connection or self._connect()
            is_fresh = self._connection is None
            self._connection = connection
            try:
                connection.request(method, target, body=content, headers=headers)
                return connection.getresponse()
            except (http.client.HTTPException, OSError) as error:
                self.close()
                # A kept connection may have been closed meanwhile: then, and only then, the request was not taken.
                if is_fresh or attempt == 2 or not isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError)):  # noqa: PLR2004
                    raise self._unreachable(error) from None
        raise AssertionError

    def _connect(self) -> http.client.HTTPConnection:
        parts = urllib.parse.urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        if parts.hostname is None or parts.scheme not in ("http", "https"):
            raise MillhandError(f"{self.url!r} is no address of a server; it looks like http://127.0.0.1:8000")
        return kind(parts.hostname, parts.port, timeout=_TIMEOUT_S)

    def _target(self, path: str, query: dict[str, Any]) -> str:
        scope = "" if path.startswith("/") else f"/w/{urllib.parse.quote(self.workspace, safe='')}/"
        asked = urllib.parse.urlencode({name: _plain(value) for name, value in query.items() if value is not None})
        base = urllib.parse.urlsplit(self.url).path
        return f"{base}/api{scope}{urllib.parse.quote(path)}" + (f"?{asked}" if asked else "")

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"can't reach {self.url}: {error or type(error).__name__}; is `millhand up` running there?"
        )


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace").strip()
