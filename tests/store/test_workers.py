"""workers.sql: leases, pings, lists."""

from datetime import timedelta

import pytest

from millhand.core.ids import new_id
from millhand.core.worker import HostPing, WorkerPing
from millhand.store import cancel, queue, workers

from .conftest import Host, new_host, new_job


def beat(*, held=(), draining=False, pings=()):
    return HostPing(workers=pings, memory_usage=10, host_memory_usage=5, draining=draining, held=tuple(held))


def worker_ping(name, **changes):
    fields = {
        "worker": name,
        "jobs_executed": 3,
        "occupancy": 0.5,
        "occupancy_15s": 0.25,
        "occupancy_5m": None,
        "occupancy_30m": None,
        "current_job": None,
        "last_job": new_id(),
        "last_job_workspace": "main",
    }
    return WorkerPing(**{**fields, **changes})


async def test_a_ping_shows_in_the_list(database, host):
    """What host and workers say of themselves is what the list shows."""
    mine = worker_ping(host.workers[0])
    orders = await workers.ping(database, host.info, beat(pings=(mine,)))
    (row,) = [row for row in await workers.listed(database) if row.name == host.workers[0]]

    assert (orders.cancel, orders.lost, orders.lease_lost) == ((), (), False)
    assert (row.jobs_executed, row.occupancy_15s, row.last_job) == (3, 0.25, mine.last_job)
    assert (row.memory_usage, row.host_memory_usage, row.tags, row.alive) == (10, 5, ["t"], True)
    assert 0 <= row.last_ping_s < 60


async def test_orders_name_what_is_canceled_and_what_is_lost(database, host, other_host):
    """A host learns of cancels, and of jobs it believes in but holds no longer; the rest it keeps."""
    await queue.push(database, [new_job() for _ in range(3)])
    kept, canceled, released = await host.claim(3)
    await cancel.cancel(database, [canceled.id], workspace_id="main", by="bob", reason="why")
    await queue.release(database, [(released.id, 1)], host.info.incarnation)
    await other_host.claim()
    orders = await workers.ping(database, host.info, beat(held=[kept.id, canceled.id, released.id]))

    assert [(order.job_id, order.by, order.reason) for order in orders.cancel] == [(canceled.id, "bob", "why")]
    assert orders.lost == (released.id,)


async def test_a_job_that_its_host_never_heard_of_is_queued_again(database, host, other_host):
    """Only what was claimed long ago and is not held, of this host, with no rescue counted."""
    now = await database.fetchval("select now()")
    await queue.push(database, [new_job() for _ in range(3)])
    held, forgotten = await host.claim(2)
    (foreign,) = await other_host.claim()
    incarnation, late = host.info.incarnation, now + timedelta(seconds=workers.FORGOTTEN_S + 30)

    assert await workers.release_forgotten(database, incarnation, [held.id]) == {}
    assert await workers.release_forgotten(database, incarnation, [held.id], now=late) == {forgotten.id: "t"}
    rows = await database.fetch("select id, state::text, n_lost, attempt from job_queue order by id")
    assert {row["id"]: tuple(row)[1:] for row in rows} == {
        held.id: ("running", 0, 1),
        forgotten.id: ("queued", 0, 1),
        foreign.id: ("running", 0, 1),
    }


async def test_a_struck_off_host_is_told(database, host):
    """A host that was taken for dead learns that its lease, and all its jobs, are lost."""
    job_id = new_id()
    await workers.deregister(database, host.info.incarnation)
    orders = await workers.ping(database, host.info, beat(held=[job_id]))

    assert (orders.lease_lost, orders.lost) == (True, (job_id,))


async def test_old_workers_are_not_listed(database, host):
    """The list has those that pinged lately, and says which leases have run out."""
    now = await database.fetchval("select now()")

    assert await workers.listed(database, ping_since_s=300, now=now + timedelta(seconds=301)) == []
    assert {row.alive for row in await workers.listed(database, now=now + timedelta(seconds=100))} == {False}


async def test_served_tags(database, host):
    """Only live hosts that take new work serve tags."""
    draining = await Host(database, new_host(tags=("d",))).register()
    await Host(database, new_host(tags=("dead",), lease_s=0)).register()
    await workers.ping(database, draining.info, beat(draining=True))

    assert await workers.served_tags(database) == ["t"]


@pytest.mark.parametrize(("tag", "n_workers", "n_busy"), [("t", 3, 2), ("nobody", 0, 0)])
async def test_who_serves_a_tag(database, tag, n_workers, n_busy):
    """The workers of a tag are counted, and those of them that work."""
    host = await Host(database, new_host(), n_workers=3).register()
    await queue.push(database, [new_job(), new_job()])
    await host.claim(3)
    served = await workers.serving(database, tag)

    assert (served.n_workers, served.n_busy) == (n_workers, n_busy)
    assert (served.longest_s is not None) == (n_busy > 0)
