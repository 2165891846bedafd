"""What server tests need: the application on a real socket, people, and a stand-in for a worker host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import argon2
import httpx
import msgspec
import pytest
import uvicorn

from millhand.core import credentials
from millhand.core.job import ClaimedJob, JobStatus, LogChunk, Report
from millhand.core.objects import Objects
from millhand.core.people import Member
from millhand.core.worker import HostInfo
from millhand.server.app import create_app
from millhand.server.settings import ServerSettings
from millhand.store import people
from millhand.store.pool import Database
from millhand.store.source import PgJobSource

Outcome = tuple[JobStatus, Any]
W = "/api/w/main"


class Client(httpx.AsyncClient):
    """A client of the API with a token."""

    def __init__(self, base_url: str, token: str | None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        super().__init__(base_url=base_url, headers=headers, timeout=30)
        self.token = token

    async def run(self, path: str, args: Any = None, **query: Any) -> str:
        """Run the script at a path and return the id of its job."""
        answer = await self.post(f"{W}/jobs/run/p/{path}", json=args or {}, params=query)
        assert answer.status_code == 201, answer.text
        return answer.text

    async def preview(self, content: str = "def main(): pass", language: str = "python3", **fields: Any) -> str:
        """Run code and return the id of its job."""
        query = fields.pop("query", {})
        body = {"content": content, "language": language, "args": {}, **fields}
        answer = await self.post(f"{W}/jobs/run/preview", json=body, params=query)
        assert answer.status_code == 201, answer.text
        return answer.text

    async def deploy(self, path: str, content: str = "def main(x=1): return x", **fields: Any) -> str:
        """Deploy a script without dependencies and return its hash."""
        body = {"path": path, "content": content, "language": "python3", "lock": "", "summary": "", **fields}
        answer = await self.post(f"{W}/scripts/create", json=body)
        assert answer.status_code == 201, answer.text
        return answer.text


class Api:
    """A running server, its database, and clients for its people."""

    def __init__(self, url: str, database: Database, token: str) -> None:
        self.url = url
        self.database = database
        self._token = token
        self._stack = contextlib.AsyncExitStack()

    def client(self, token: str | None) -> Client:
        """Return a client with a token, or none."""
        return Client(self.url, token)

    async def admin(self) -> Client:
        """Return a client of the superadmin."""
        return await self._stack.enter_async_context(self.client(self._token))

    async def person(self, username: str, *workspaces: str, **member: Any) -> Client:
        """Add somebody who is a member of these workspaces, and return a client of theirs."""
        email = f"{username}@example.com"
        await people.create_account(self.database, email=email, username=username, password_hash=None)
        for workspace in workspaces:
            await people.add_member(
                self.database, workspace_id=workspace, email=email, member=Member(username=username, **member)
            )
        token = await people.create_token(self.database, email=email)
        return await self._stack.enter_async_context(self.client(token))

    async def close(self) -> None:
        """Close the clients."""
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def serving(database_url: str, settings: ServerSettings, objects: Objects | None = None) -> AsyncIterator[str]:
    """Serve the application on a socket of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app = create_app(Database(database_url, application_name="server", max_size=6), settings, objects=objects)
        config = uvicorn.Config(
            app, lifespan="on", log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None
        task = asyncio.create_task(server._serve([listening]))
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords fast and badly: what takes long there is not what these tests are about."""
    monkeypatch.setattr(credentials, "_hasher", argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Return an open database, with people in it."""
    async with Database(database_url, application_name="test", max_size=4) as opened:
        yield opened


@pytest.fixture
def settings() -> ServerSettings:
    """Return the settings of the server; tests override it."""
    return ServerSettings(token_cache_s=0.5)


@pytest.fixture
def objects() -> Objects | None:
    """Return the object storage of the server; tests override it."""
    return None


@pytest.fixture
async def api(
    database_url: str, database: Database, settings: ServerSettings, objects: Objects | None
) -> AsyncIterator[Api]:
    """Return a running server."""
    first = await people.bootstrap(database, password="correct horse")
    assert first is not None
    async with serving(database_url, settings, objects) as url:
        running = Api(url, database, first.token)
        yield running
        await running.close()


@pytest.fixture
async def admin(api: Api) -> Client:
    """Return a client of the superadmin."""
    return await api.admin()


class StandIn:
    """A worker host in a few lines: claims, has a function decide, reports."""

    def __init__(self, source: PgJobSource, tags: tuple[str, ...], do: Callable[..., Awaitable[Outcome]]) -> None:
        self.source = source
        self._tags = tags
        self._do = do
        self._nudged = asyncio.Event()
        self._free = {f"w{i}" for i in range(8)}
        self.canceled: dict[UUID, asyncio.Event] = {}
        source.on_nudge(self._nudged.set)
        source.on_cancel(lambda job_id: self.canceled.setdefault(job_id, asyncio.Event()).set())

    async def work(self) -> None:
        """Run jobs until canceled."""
        async with asyncio.TaskGroup() as running:
            while True:
                self._nudged.clear()
                jobs = await self.source.claim(sorted(self._free), self._tags) if self._free else []
                for job in jobs:
                    self._free.discard(job.worker)
                    running.create_task(self._run(job))
                if not jobs:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await self._nudged.wait()

    async def _run(self, job: ClaimedJob) -> None:
        self.canceled.setdefault(job.id, asyncio.Event())
        status, result = await self._do(job, self)
        report = Report(
            job_id=job.id, attempt=job.attempt, worker=job.worker, status=status, duration_ms=3,
            result=result if isinstance(result, bytes) else msgspec.json.encode(result),
        )  # fmt: skip
        await self.source.complete([report])
        self._free.add(job.worker)
        self._nudged.set()

    async def log(self, job: ClaimedJob, text: str) -> None:
        """Write to a job's log."""
        await self.source.append_logs([LogChunk(job_id=job.id, text=text)])


async def echo(job: ClaimedJob, _: StandIn) -> Outcome:
    """Give back the arguments."""
    return JobStatus.SUCCESS, job.args


@pytest.fixture
async def worker(database_url: str) -> AsyncIterator[Callable[..., Awaitable[StandIn]]]:
    """Return a function that starts a worker which does what it is told with each job."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            do: Callable[..., Awaitable[Outcome]] = echo, tags: tuple[str, ...] = ("python3", "flow", "dependency")
        ) -> StandIn:
            source = PgJobSource(database_url)
            info = HostInfo(
                incarnation=uuid4(), group="default", hostname="box", ip="127.0.0.1", version="0",
                started_at=datetime.now(UTC), tags=tags, isolation="none", vcpus=100_000, memory=1 << 30,
            )  # fmt: skip
            await source.open(info, [f"w{i}" for i in range(8)])
            stack.push_async_callback(source.close)
            standin = StandIn(source, tags, do)
            task = asyncio.create_task(standin.work())

            async def end() -> None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            stack.push_async_callback(end)
            return standin

        yield start


async def eventually(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Return the first true answer of a condition, within ten seconds."""
    async with asyncio.timeout(10):
        while not (answer := await condition()):
            await asyncio.sleep(0.01)
        return answer
