"""rescue.sql: jobs whose worker host is gone."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from millhand.core.job import MAX_ATTEMPTS_LOST
from millhand.core.worker import HostPing
from millhand.store import cancel, completion, logs, queue, workers
from millhand.store.rescue import rescue

from .conftest import Host, new_host, new_job, report

BEAT = HostPing(workers=(), memory_usage=0, host_memory_usage=0, draining=False, held=())


@pytest.fixture
async def now(database):
    return await database.fetchval("select now()")


async def lose(database, now, **changes):
    """Have a new host claim a job and let its lease run out; returns the job."""
    host = await Host(database, new_host(lease_s=1)).register(now=now)
    (job,) = await host.claim(now=now)
    return host, job, await rescue(database, now=now + timedelta(seconds=2), **changes)


async def test_a_lost_job_is_requeued_with_the_cause_in_its_log(database, host, now):
    """The job of a host that stopped pinging goes to another one; the first one's report is refused."""
    await queue.push(database, [new_job()])
    lost_host, lost, rescued = await lose(database, now)
    (again,) = await host.claim()

    assert (rescued.requeued, rescued.ended, rescued.tags) == ((lost.id,), (), ("t",))
    assert (again.id, again.attempt) == (lost.id, 2)
    assert (await completion.complete(database, [report(lost)], lost_host.info.incarnation)).held == set()
    assert (await logs.read(database, lost.id))[0] == (
        f"worker {lost.worker} was lost: its host has stopped pinging; the job goes back to the queue (rescue 1 of 3)\n"
    )


async def test_a_live_host_keeps_its_jobs(database, host):
    """Nothing is taken from a host that pings."""
    await queue.push(database, [new_job()])
    await host.claim()

    assert (await rescue(database)).n_jobs == 0
    assert len(await workers.listed(database)) == 100


async def test_a_poison_pill_ends(database, now):
    """A job that loses its worker more than MAX_ATTEMPTS_LOST times fails, and says why."""
    await queue.push(database, [new_job(awaited=True)])
    for _ in range(MAX_ATTEMPTS_LOST):
        _, job, rescued = await lose(database, now)
        assert rescued.requeued == (job.id,)
    _, job, rescued = await lose(database, now)

    assert (rescued.ended, rescued.awaited) == ((job.id,), (job.id,))
    row = await database.fetchrow("select status::text as status, result from job_completed")
    assert row["status"] == "failure"
    assert msgspec.json.decode(row["result"])["error"]["name"] == "WorkerLost"
    assert "given up" in (await logs.read(database, job.id))[0]


async def test_without_restart_lost_jobs_fail(database, now):
    """Where lost jobs are not restarted, they fail at once."""
    await queue.push(database, [new_job()])
    _, job, rescued = await lose(database, now, restart=False)

    assert rescued.ended == (job.id,)


async def test_perpetual_jobs_always_go_on(database, now):
    """A job that restarts unless canceled is requeued however often its worker is lost."""
    await queue.push(database, [new_job(restart_unless_cancelled=True)])
    for _ in range(MAX_ATTEMPTS_LOST + 2):
        _, job, rescued = await lose(database, now)
        assert rescued.requeued == (job.id,)


async def test_a_canceled_lost_job_ends_as_canceled(database, now):
    """A job that was canceled before its worker was lost does not run again."""
    await queue.push(database, [new_job()])
    host = await Host(database, new_host(lease_s=1)).register(now=now)
    (job,) = await host.claim(now=now)
    await cancel.cancel(database, [job.id], workspace_id="main", by="bob")
    rescued = await rescue(database, now=now + timedelta(seconds=2))

    assert rescued.ended == (job.id,)
    assert await database.fetchval("select status::text from job_completed") == "canceled"


async def test_a_host_whose_row_is_gone_has_lost_its_jobs(database, host):
    """Jobs of an incarnation that nobody knows of are rescued: no row to join with, no orphan."""
    await queue.push(database, [new_job()])
    await host.claim()
    await workers.deregister(database, host.info.incarnation)

    assert (await rescue(database)).n_jobs == 1


async def test_a_restart_under_the_same_name_hides_nothing(database, now):
    """A host that starts again on the same machine has a new incarnation; the jobs of the earlier one are rescued."""
    await queue.push(database, [new_job()])
    first = await Host(database, new_host(lease_s=1, hostname="pod-0")).register(now=now)
    (job,) = await first.claim(now=now)
    await Host(database, new_host(hostname="pod-0")).register(now=now + timedelta(seconds=2))

    assert (await rescue(database, now=now + timedelta(seconds=2))).requeued == (job.id,)


async def test_a_heartbeat_comes_before_or_after(database, now):
    """A heartbeat that meets a rescue keeps all its jobs or learns that it lost all: never half."""
    await queue.push(database, [new_job() for _ in range(20)])
    late = now + timedelta(seconds=2)
    hosts = [await Host(database, new_host(lease_s=1)).register(now=now) for _ in range(10)]
    jobs = {host.info.incarnation: await host.claim(2, now=now) for host in hosts}
    beats = [workers.ping(database, host.info, BEAT, now=late) for host in hosts]
    *orders, rescued = await asyncio.gather(*beats, rescue(database, now=late))

    kept = {
        job.id
        for host, order in zip(hosts, orders, strict=True)
        for job in jobs[host.info.incarnation]
        if not order.lease_lost
    }
    assert kept.isdisjoint(rescued.requeued)
    assert len(kept) + len(rescued.requeued) == 20


async def test_rescue_is_bounded(database, host):
    """One pass takes no more than its limit; the next one goes on, though the host's row is gone by then."""
    await queue.push(database, [new_job() for _ in range(5)])
    await host.claim(5)
    await workers.deregister(database, host.info.incarnation)

    assert [(await rescue(database, limit=2)).n_jobs for _ in range(4)] == [2, 2, 1, 0]


async def test_a_clock_set_back_hides_no_dead_host(database, now):
    """After the database's clock went back an hour, a host that died before is found out one lease later, not in an hour."""
    await queue.push(database, [new_job(), new_job()])
    dead = await Host(database, new_host(lease_s=10)).register(now=now + timedelta(hours=1))
    alive = await Host(database, new_host(lease_s=10)).register(now=now + timedelta(hours=1))
    (lost,) = await dead.claim(now=now + timedelta(hours=1))
    (kept,) = await alive.claim(now=now + timedelta(hours=1))

    assert (await rescue(database, now=now)).n_jobs == 0
    assert await database.fetchval("select max(started_at) from job_queue") == now
    assert (await rescue(database, now=now + timedelta(seconds=9))).n_jobs == 0
    assert not (await workers.ping(database, alive.info, BEAT, now=now + timedelta(seconds=9))).lease_lost
    assert (await rescue(database, now=now + timedelta(seconds=11))).requeued == (lost.id,)
    assert await queue.release(database, [(kept.id, kept.attempt)], alive.info.incarnation)
