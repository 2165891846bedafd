"""A worker host over the real queue; only the code that runs is made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import msgspec
import pytest

from millhand.core.ids import new_id
from millhand.core.job import JobKind, NewJob
from millhand.core.script import Language
from millhand.runtimes.contract import Success
from millhand.store import cancel, queue, rescue
from millhand.store.notify import Notifier
from millhand.store.pool import Database
from millhand.store.source import PgJobSource
from millhand.worker.host import WorkerHost
from millhand.worker.settings import WorkerSettings
from tests.support.postgres import PostgresServer
from tests.worker.fakes import FakeRuntime, FakeRuntimes, hang

FAST = WorkerSettings(num_workers=3, tags=("python3", "noop"), heartbeat_s=0.1, poll_s=0.1)


def new_job(**fields: object) -> NewJob:
    defaults: dict[str, object] = {
        "id": new_id(), "workspace_id": "main", "kind": JobKind.PREVIEW, "tag": "python3", "created_by": "admin",
        "permissioned_as": "u/admin", "email": "admin@millhand.local", "raw_code": "def main(): ...", "raw_lock": "",
        "language": Language.PYTHON3,
    }  # fmt: skip
    return NewJob(**(defaults | fields))  # type: ignore[arg-type]


async def until(condition: Callable[[], Awaitable[Any]]) -> Any:
    """Return the first true answer."""
    async with asyncio.timeout(30):
        while not (answer := await condition()):
            await asyncio.sleep(0.01)
        return answer


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, application_name="test", max_size=2) as opened:
        yield opened


@asynccontextmanager
async def hosting(url: str, runtime: FakeRuntime, settings: WorkerSettings = FAST) -> AsyncIterator[WorkerHost]:
    host = WorkerHost(settings=settings, source=PgJobSource(url), runtimes=FakeRuntimes(runtime))
    await host.start()
    try:
        yield host
    finally:
        await host.terminate()


async def ended(database: Database, job_id: UUID) -> Any:
    return await until(lambda: database.fetchrow("select * from job_completed where id = $1", job_id))


async def row(database: Database, job_id: UUID) -> Any:
    return await database.fetchrow("select * from job_queue where id = $1", job_id)


async def running(database: Database, job_id: UUID) -> Any:
    async def look() -> Any:
        found = await row(database, job_id)
        return found if found and found["state"] == "running" else None

    return await until(look)


async def log_of(database: Database, job_id: UUID) -> str:
    rows = await database.fetch("select text from job_log where job_id = $1 order by seq", job_id)
    return "".join(text for (text,) in rows)


async def test_jobs_run_to_their_record(database: Database, database_url: str):
    """Results, logs and who ran them stand in the database; nothing is left in the queue, nobody on the list."""

    async def talk(execution, listener):
        listener.log("hello\n")
        return Success(result=execution.args)

    jobs = [new_job(args=b'{"n":%d}' % n) for n in range(30)] + [new_job(kind=JobKind.NOOP, raw_code=None, tag="noop")]
    async with hosting(database_url, FakeRuntime(talk)):
        await queue.push(database, jobs)
        rows = [await ended(database, job.id) for job in jobs]
    assert [row["result"] for row in rows[:-1]] == [job.args for job in jobs[:-1]]
    assert {row["status"] for row in rows} == {"success"}
    assert (await log_of(database, jobs[0].id)).endswith("hello\n")
    assert await database.fetchval("select count(*) from job_queue") == 0
    assert await database.fetchval("select count(*) from worker_host") == 0


async def test_a_scheduled_job_starts_on_time(database: Database, database_url: str):
    """Though nobody announces it and the next poll is far off."""
    settings = msgspec.structs.replace(FAST, poll_s=60.0)
    now = await database.fetchval("select now()")
    due = now.replace(microsecond=0).__class__.fromtimestamp(now.timestamp() + 0.3, tz=now.tzinfo)
    job = new_job(scheduled_for=due)
    await queue.push(database, [job])
    async with hosting(database_url, FakeRuntime(), settings):
        found = await ended(database, job.id)
    assert found["started_at"] >= due


async def test_a_running_job_is_cancelled(database: Database, database_url: str):
    """Told through the nudge channel, long before the next ping; who and why are recorded."""
    settings = msgspec.structs.replace(FAST, heartbeat_s=60.0)
    job = new_job()
    async with hosting(database_url, FakeRuntime(hang), settings), Notifier(database) as notifier:
        await queue.push(database, [job])
        await running(database, job.id)
        done = await cancel.cancel(database, [job.id], workspace_id="main", by="bob", reason="typo")
        notifier.canceled(done.told)
        found = await ended(database, job.id)
    assert (found["status"], found["canceled_by"], found["canceled_reason"]) == ("canceled", "bob", "typo")
    assert msgspec.json.decode(found["result"])["error"]["message"] == "Job canceled: typo by bob"


async def test_a_forced_cancel_ends_the_run_too(database: Database, database_url: str):
    """The record stands at once; the worker hears that the job is not its own any more, and takes the next."""
    settings = msgspec.structs.replace(FAST, num_workers=1)
    runtime, job, other = FakeRuntime(hang), new_job(), new_job()
    async with hosting(database_url, runtime, settings):
        await queue.push(database, [job])
        await running(database, job.id)
        await cancel.cancel(database, [job.id], workspace_id="main", by="bob", force=True)
        runtime.behaviour = FakeRuntime().behaviour
        await queue.push(database, [other])
        await ended(database, other.id)
    assert (await ended(database, job.id))["status"] == "canceled"


async def test_a_run_over_its_time_is_recorded_as_such(database: Database, database_url: str):
    """canceled by timeout."""
    job = new_job(timeout_s=1)
    async with hosting(database_url, FakeRuntime(hang)):
        await queue.push(database, [job])
        found = await ended(database, job.id)
    assert (found["status"], found["canceled_by"], found["canceled_reason"]) == ("canceled", "timeout", "duration > 1")


async def test_a_host_that_shuts_down_gives_its_jobs_back(database: Database, database_url: str):
    """Queued again, no rescue counted, and another host runs them to the end."""
    runtime, job = FakeRuntime(hang), new_job()
    async with hosting(database_url, runtime) as host:
        await queue.push(database, [job])
        await running(database, job.id)
        await host.drain(0.01)
    back = await row(database, job.id)
    assert (back["state"], back["n_lost"], back["incarnation"]) == ("queued", 0, None)
    async with hosting(database_url, FakeRuntime()):
        assert (await ended(database, job.id))["status"] == "success"
    assert "goes back to the queue" in await log_of(database, job.id)


async def test_a_host_that_lost_its_lease_reports_nothing(database: Database, database_url: str):
    """Its job was rescued and is run again; the first run's late result is refused; the host works on as another."""
    runtime = FakeRuntime(hang)
    job = new_job()
    async with hosting(database_url, runtime) as host:
        await queue.push(database, [job])
        first = await running(database, job.id)
        runtime.behaviour = FakeRuntime().behaviour
        await database.execute("update worker_host set lease_expires_at = now() - interval '1 s'")
        await until(lambda: _rescued(database))
        found = await ended(database, job.id)
        assert host.state == "running"
        assert await database.fetchval("select count(*) from worker_host") == 1
    assert found["status"] == "success"
    assert found["attempt"] > first["attempt"]
    assert found["worker"] != first["worker"]


async def _rescued(database: Database) -> bool:
    await database.execute("update worker_host set lease_expires_at = now() - interval '1 s'")
    return bool((await rescue.rescue(database)).requeued)


async def test_a_host_outlives_its_connections(database: Database, database_url: str):
    """Every connection is ended again and again under load: each job still ends, once."""
    runs: list[UUID] = []

    async def note(execution, listener):
        runs.append(execution.job_id)
        return Success(result=b"1")

    jobs = [new_job() for _ in range(300)]
    async with hosting(database_url, FakeRuntime(note)):
        for i in range(0, 300, 50):
            await queue.push(database, jobs[i : i + 50])
            await database.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and application_name like 'millhand worker%'"
            )
        for job in jobs:
            assert (await ended(database, job.id))["status"] == "success"
    assert await database.fetchval("select count(*) from job_queue") == 0


async def test_a_result_survives_the_restart_of_the_database(tmp_path):
    """The run goes on while PostgreSQL is down, and its result and log are recorded when it is back."""
    from millhand.store.migrate import migrate

    go = asyncio.Event()

    async def wait(execution, listener):
        listener.log("before\n")
        await go.wait()
        listener.log("after\n")
        return Success(result=b'"kept"')

    server = PostgresServer()
    try:
        await asyncio.to_thread(server.start)
        await migrate(server.url())
        job = new_job()
        async with hosting(server.url(), FakeRuntime(wait)):
            async with Database(server.url(), application_name="test") as database:
                await queue.push(database, [job])
                await running(database, job.id)
            await asyncio.to_thread(server.stop)
            go.set()
            await asyncio.to_thread(server.start)
            async with Database(server.url(), application_name="test") as database:
                found = await ended(database, job.id)
                log = await log_of(database, job.id)
        assert (found["status"], found["result"], found["attempt"]) == ("success", b'"kept"', 1)
        assert "before\n" in log
        assert log.endswith("after\n")
    finally:
        server.remove()
