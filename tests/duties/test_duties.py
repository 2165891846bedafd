"""Duties: one leader among servers, which survives what its database does to it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from millhand.core.ids import new_id
from millhand.duties import retention
from millhand.duties.expiry import delete_expired
from millhand.duties.run import Duties, DutySettings
from millhand.store import completion, partitions, queue, workers
from millhand.store.pool import Database
from tests.store.conftest import Host, new_host, new_job, report

OFTEN = DutySettings(rescue_every_s=0.02, promote_every_s=0.02, lead_every_s=0.02)


@pytest.fixture
async def database(database_url):
    async with Database(database_url, application_name="test", max_size=4) as database:
        yield database


async def until(question):
    """Wait until a coroutine function answers with something true."""
    async with asyncio.timeout(20):
        while not await question():
            await asyncio.sleep(0.01)


async def test_the_leader_rescues_and_promotes(database):
    """Lost jobs are rescued and due jobs promoted though no worker is there to do it."""
    lost, due = new_job(), new_job(tag="u", scheduled_for=datetime.now(UTC) + timedelta(days=1))
    await queue.push(database, [lost, due])
    host = await Host(database, new_host()).register()
    await host.claim()
    await workers.deregister(database, host.info.incarnation)
    await database.execute("update job_queue set scheduled_for = now() where tag = 'u'")

    async with Duties(database, OFTEN):
        await until(lambda: database.fetchval("select bool_and(state = 'queued') from job_queue"))


async def test_one_leads_and_another_takes_over(database_url):
    """Of two servers one leads; when it ends the other one does."""
    async with (
        Database(database_url, application_name="one") as one,
        Database(database_url, application_name="two") as two,
    ):
        first, second = Duties(one, OFTEN), Duties(two, OFTEN)
        async with second:
            async with first:
                await until(lambda: _any(first, second))
                assert first.leading.is_set() != second.leading.is_set()
            async with asyncio.timeout(20):
                await second.leading.wait()


async def _any(*duties):
    return any(each.leading.is_set() for each in duties)


async def test_a_lost_leadership_is_taken_again(database):
    """When the leader's connection is cut, the duties stop, and begin again with a new lock."""
    with capture_logs() as logs:
        async with Duties(database, OFTEN) as duties:
            await until(lambda: _any(duties))
            await database.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'test leader'"
            )
            await until(lambda: _leads_again(logs))


async def _leads_again(logs):
    told = [entry["event"] for entry in logs if entry["event"] in ("duties.leading", "duties.lost_lead")]
    return told == ["duties.leading", "duties.lost_lead", "duties.leading"]


async def test_retention_drops_days_and_deletes_the_rest(database):
    """Old days go with their partitions, old jobs in days that stay go singly, young ones stay."""
    old = datetime(2020, 1, 1, tzinfo=UTC)
    async with database.acquire() as connection:
        await partitions.ensure(connection, now=old)
    host = await Host(database, new_host()).register()
    jobs = [new_job(id=new_id(int(at.timestamp() * 1000))) for at in (old, old - timedelta(days=30), datetime.now(UTC))]
    for job, at in zip(jobs, (old, old, None), strict=True):
        await queue.push(database, [job])
        await completion.complete(database, [report(*(await host.claim()))], host.info.incarnation, now=at)

    assert await retention.drop_old_jobs(database, retention_s=86_400) == 1
    assert await database.fetch("select id from job") == [(jobs[2].id,)]
    assert await database.fetchval("select to_regclass('job_p20200101')") is None


async def test_one_clock_ahead_deletes_nothing(database):
    """Retention goes by the database's clock or this machine's, whichever is behind: a clock set wrong erases no record."""
    host = await Host(database, new_host()).register()
    await queue.push(database, [new_job()])
    await completion.complete(database, [report(*(await host.claim()))], host.info.incarnation)
    ahead = datetime.now(UTC) + timedelta(days=400)

    assert await retention.drop_old_jobs(database, retention_s=86_400, own=ahead) == 0
    assert await retention.drop_old_jobs(database, retention_s=86_400, now=ahead) == 0
    assert await database.fetchval("select count(*) from job_completed") == 1
    assert await retention.drop_old_jobs(database, retention_s=86_400, own=ahead, now=ahead) == 0
    assert await database.fetchval("select count(*) from job_completed") == 0


async def test_coming_days_have_partitions(database):
    """The duty makes what is missing of the coming days."""
    today = f"{datetime.now(UTC):%Y%m%d}"
    await database.execute(f"drop table job_log_p{today}")

    assert await retention.make_partitions(database) == [f"job_log_p{today}"]


async def test_the_expired_goes(database):
    """Cached results past their time are deleted."""
    await database.execute(completion.SQL.cache_results, ["old", "new"], [b"1", b"2"], [-1, 60], None)
    await delete_expired(database)

    assert await database.fetch("select key from result_cache") == [("new",)]
