"""`millhand up`: everything on this machine. The parent of PostgreSQL, one server and one worker host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from millhand.cli import service_logs
from millhand.cli.admin import FirstAdmin, ensure_admin
from millhand.cli.data_dir import DataDir, Holder
from millhand.cli.embedded import EmbeddedPostgres
from millhand.cli.part import Part
from millhand.cli.sockets import open_socket
from millhand.core.tags import ALL_DEFAULT_TAGS
from millhand.store.migrate import migrate

_SERVER_PATIENCE_S = 10.0
_IDLE_LOOK_S = 0.2

log = structlog.get_logger()


class UpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `millhand up` was asked for."""

    host: str
    port: int  # 0: any free one
    data_dir: Path
    workers: int
    group: str
    database_url: str | None = None  # None: the embedded PostgreSQL
    until_unused: bool = False  # end when no `millhand run` uses it any more; log to files


class Up:
    """One run of the whole stack."""

    def __init__(self, settings: UpSettings) -> None:
        self._settings = settings
        self._dir = DataDir(settings.data_dir)
        self._end = asyncio.Event()  # asked to end: drain
        self._at_once = asyncio.Event()  # asked twice

    async def run(self) -> None:
        """Start all, say that it is ready, wait for a signal, drain, end; raises MillhandError where it can't start."""
        self._dir.hold()
        listening = open_socket(self._settings.host, self._settings.port, instead="--port")
        url = _url(self._settings.host, listening)
        holder = Holder(pid=os.getpid(), since=datetime.now(UTC), url=url)
        self._dir.announce(holder)
        self._hear_signals()
        try:
            async with self._database() as (database_url, datatable_url):
                await migrate(database_url)
                admin = await ensure_admin(database_url, self._dir.token_file)
                async with self._parts(url, listening, database_url, datatable_url):
                    self._dir.announce(msgspec.structs.replace(holder, ready=True))
                    _greet(url, admin, self._dir)
                    await self._until_asked(holder)
                    self._dir.announce(holder)
        finally:
            listening.close()
            self._dir.release()

    @contextlib.asynccontextmanager
    async def _database(self) -> AsyncIterator[tuple[str, str | None]]:
        """Give the URLs of the queue's database and of the one for SQL scripts, and keep the embedded server alive."""
        if self._settings.database_url is not None:
            yield self._settings.database_url, os.environ.get("MILLHAND_DATATABLE_URL")
            return
        postgres = EmbeddedPostgres(self._dir.path)
        try:
            await postgres.start()
            async with _watched(postgres.run()):
                yield postgres.url, postgres.datatable_url
        finally:
            await postgres.stop()

    @contextlib.asynccontextmanager
    async def _parts(
        self, url: str, listening: socket.socket, database_url: str, datatable_url: str | None
    ) -> AsyncIterator[None]:
        """Keep a server and a worker host running; at the end the worker host drains while the server still answers."""
        environment = self._environment(url, database_url, datatable_url)
        server = self._part(
            "server", {**environment, "MILLHAND_LISTEN_FD": str(listening.fileno())}, listening.fileno()
        )
        worker = self._part("worker", environment)
        try:
            await _all_or_none(server.start(), worker.start())
            async with _watched(server.run()), _watched(worker.run()):
                yield
                log.info("up.draining", again="a second signal ends at once")
                await worker.end(at_once=self._at_once, patience_s=None)
        finally:
            await worker.end(at_once=self._at_once, patience_s=_SERVER_PATIENCE_S)
            await server.end(at_once=self._at_once, patience_s=_SERVER_PATIENCE_S)

    def _part(self, name: str, environment: dict[str, str], *descriptors: int) -> Part:
        log_file = self._dir.path / "log" / f"{name}.log" if self._settings.until_unused else None
        return Part(name, environment=environment, log_file=log_file, descriptors=descriptors)

    def _environment(self, url: str, database_url: str, datatable_url: str | None) -> dict[str, str]:
        """Return what the parts find in their environment; what the user set there wins where it is theirs to choose."""
        settings = self._settings
        given = {
            "DATABASE_URL": database_url,
            "WORKER_GROUP": settings.group,
            "NUM_WORKERS": str(settings.workers),
            "BASE_INTERNAL_URL": url,
            "MILLHAND_DATA_DIR": str(self._dir.path),
        }
        chosen = {
            "WORKER_TAGS": ",".join(ALL_DEFAULT_TAGS),
            "BASE_URL": url,
            "MILLHAND_CACHE_DIR": str(self._dir.path / "cache"),
            **({} if datatable_url is None else {"MILLHAND_DATATABLE_URL": datatable_url}),
        }
        return {**{name: os.environ.get(name) or value for name, value in chosen.items()}, **given}

    def _hear_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for kind in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(kind, self._asked_to_end)

    def _asked_to_end(self) -> None:
        (self._at_once if self._end.is_set() else self._end).set()

    async def _until_asked(self, holder: Holder) -> None:
        if not self._settings.until_unused:
            await self._end.wait()
        while not self._end.is_set() and not self._dir.retire_unless_used(holder):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_LOOK_S):
                    await self._end.wait()


def run_up(settings: UpSettings) -> None:
    """Run the stack until it is told to end."""
    service_logs.configure(os.environ)
    asyncio.run(Up(settings).run())


def _url(host: str, listening: socket.socket) -> str:
    """Return the address for clients on this machine."""
    name = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104 - compared, not bound
    name = "[::1]" if name == "::" else f"[{name}]" if ":" in name else name
    return f"http://{name}:{listening.getsockname()[1]}"


@contextlib.asynccontextmanager
async def _watched(watch: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a watcher beside what follows."""
    task = asyncio.create_task(watch)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _all_or_none(*steps: Coroutine[None, None, None]) -> None:
    """Wait for all steps; at the first that fails cancel the others and raise its error."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _greet(url: str, admin: FirstAdmin, data_dir: DataDir) -> None:
    """Say that all is ready: the line on stdout is a contract, programs wait for it."""
    print(f"ready: {url}", flush=True)
    print(f"token: {data_dir.token_file}", flush=True)
    if admin.password is not None:
        print(f"login: {admin.email}, password {admin.password} (shown only now)", flush=True)
    else:
        print(f"login: {admin.email}, password as shown at the first start", flush=True)
    print("try:   millhand run FILE    stop: Ctrl-C (running jobs finish)", flush=True)
