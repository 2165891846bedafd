"""Connections to PostgreSQL: the pool, and a listener that survives the loss of its connection."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import asyncpg
import structlog

log = structlog.get_logger(__name__)

# What a lost, refused or ailing database raises: try again later. `InterfaceError` is a pool or connection that was
# closed meanwhile, an internal error of the client one that was lost mid-protocol, a read-only transaction a primary that became a standby, a rollback a deadlock that chose us.
CONNECTION_ERRORS = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresSystemError,
    asyncpg.ReadOnlySQLTransactionError,
)
CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 60.0
PROBE_EVERY_S = 15.0
MAX_BACKOFF_S = 5.0

# For connections that claim and complete. The queue's tables are empty in one moment and full in the next, so what the
# planner knows of them is wrong most of the time, and a plan made for an empty table is a disaster in a full one. With
# these there is one plan for each statement: nested loops over indexes, in their order, planned once.
QUEUE_PLANS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
}

# No join of ours gains from compiled plans; compiling one costs more than running it.
_SESSION = {"jit": "off", "TimeZone": "UTC"}


class Database:
    """A pool of connections to one database, opened and closed as a context. `json` values go in and come out as bytes."""

    def __init__(
        self,
        url: str,
        *,
        application_name: str,
        min_size: int = 1,
        max_size: int = 8,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.url = url
        self._application_name = application_name
        self._settings = settings or {}
        self._min_size, self._max_size = min_size, max_size
        self._pool: Any = None

    async def open(self) -> None:
        """Connect; raises one of CONNECTION_ERRORS where the database can't be reached."""
        self._pool = await asyncpg.create_pool(
            self.url,
            min_size=self._min_size,
            max_size=self._max_size,
            init=_prepare,
            reset=_leave_as_it_is,
            max_inactive_connection_lifetime=0,
            command_timeout=COMMAND_TIMEOUT_S,
            timeout=CONNECT_TIMEOUT_S,
            max_cached_statement_lifetime=0,
            server_settings=self._server_settings(),
        )

    async def close(self) -> None:
        """Close every connection, waiting a moment for those in use."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(5):
                await pool.close()
        except (TimeoutError, *CONNECTION_ERRORS):
            pool.terminate()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """Lend a connection of the pool."""
        async with self._opened().acquire(timeout=CONNECT_TIMEOUT_S) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """Lend a connection inside a transaction (read committed), committed at the end."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """Run one statement on any connection and return its rows."""
        return await self._opened().fetch(sql, *args)  # type: ignore[no-any-return]

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        """Run one statement on any connection and return its first row, or None."""
        return await self._opened().fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """Run one statement on any connection and return the first value of its first row, or None."""
        return await self._opened().fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        """Run one statement on any connection and return its command tag."""
        return await self._opened().execute(sql, *args)  # type: ignore[no-any-return]

    async def connect(self, *, purpose: str) -> Any:
        """Open a connection of its own, outside the pool: for listeners, leadership, heartbeats. The caller closes it."""
        connection = await asyncpg.connect(
            self.url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            server_settings=self._server_settings(purpose),
        )
        await _prepare(connection)
        return connection

    def _opened(self) -> Any:
        if self._pool is None:
            raise asyncpg.InterfaceError("the database is not open")
        return self._pool

    def _server_settings(self, purpose: str = "") -> dict[str, str]:
        name = f"{self._application_name} {purpose}".strip()[:63]
        return {**_SESSION, **self._settings, "application_name": name}


async def _prepare(connection: Any) -> None:
    """Exchange json as bytes, to the byte, and have the kernel notice a peer that vanished."""
    await connection.set_type_codec("json", schema="pg_catalog", encoder=bytes, decoder=bytes, format="binary")
    raw = connection._transport.get_extra_info("socket")  # noqa: SLF001 - asyncpg offers no other way to its socket
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


async def _leave_as_it_is(_: Any) -> None:
    """Spare a round trip per use: the driver ends a transaction left open, and nothing of ours changes a session."""


def backoff_s(failures: int) -> float:
    """Return how long to wait before the next try: doubling from 0.1 s to MAX_BACKOFF_S, jittered by half."""
    return min(0.1 * 2.0 ** min(failures, 10), MAX_BACKOFF_S) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


class Listener:
    """Hears one NOTIFY channel on a connection of its own.

    Duties: connect again, with jitter, after any error; listen again; then call `on_reconnect` once, because what was
    said meanwhile was missed; probe the connection now and then, because a half-open one is silent for ever.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        on_message: Callable[[str], None],
        *,
        on_reconnect: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._channel = channel
        self._on_message = on_message
        self._on_reconnect = on_reconnect
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._run(), name=f"listen {self._channel}")

    async def stop(self) -> None:
        """Stop listening and disconnect."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def listening(self) -> None:
        """Wait until the channel is heard."""
        await self._listening.wait()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self._database.connect(purpose=f"listen {self._channel}")
                failures = 0
                await self._listen(connection)
            except CONNECTION_ERRORS as error:
                failures += 1
                log.warning("listener.disconnected", channel=self._channel, error=str(error), failures=failures)
            finally:
                self._listening.clear()
            await asyncio.sleep(backoff_s(failures))

    async def _listen(self, connection: Any) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(self._channel, lambda *message: self._on_message(message[3]))
            self._listening.set()
            self._on_reconnect()
            while not lost.is_set():
                with contextlib.suppress(
                    TimeoutError
                ):  # not by `wait_for`: until Python 3.12 that may swallow a cancel
                    async with asyncio.timeout(PROBE_EVERY_S):
                        await lost.wait()
                    break
                await connection.execute("select 1", timeout=CONNECT_TIMEOUT_S)
        finally:
            with contextlib.suppress(Exception):
                connection.terminate()
