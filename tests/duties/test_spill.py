"""The duties of object storage, over S3's API and a folder."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from millhand.core.errors import ObjectStoreError
from millhand.core.ids import new_id
from millhand.core.job import LogChunk
from millhand.core.spill import OBJECT_UNITS, STEP_UNITS
from millhand.duties import spill
from millhand.duties.run import Duties, DutySettings
from millhand.duties.spill import delete_doomed_objects, spill_logs
from millhand.store import completion, logs, queue
from millhand.store.objects import open_store
from millhand.store.pool import Database
from tests.store.conftest import Host, new_host, new_job, report
from tests.support.object_storage import BUCKET, MemoryObjects, files

OFTEN = DutySettings(spill_every_s=0.02, expiry_every_s=0.02, lead_every_s=0.02)
DAY_S = 86_400.0


@pytest.fixture
async def database(database_url):
    async with Database(database_url, application_name="test", max_size=8) as database:
        yield database


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    """Object storage of each kind that we can have here, and a function that lists what is in it."""
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/objects", {}), lambda: files(tmp_path / "objects")
    server, prefix = request.getfixturevalue("s3_environment"), f"p{new_id()}"
    objects = open_store(f"s3://{BUCKET}/{prefix}", server.environment)
    return objects, lambda: [key for key in server.names() if key.startswith(prefix)]


async def until(question):
    """Wait until a coroutine function answers with something true."""
    async with asyncio.timeout(20):
        while not await question():
            await asyncio.sleep(0.01)


async def write(database, job_id, *, n_rows=4, text="é" * (STEP_UNITS // 2)):
    for _ in range(n_rows):
        await logs.append(database, [LogChunk(job_id=job_id, text=text)])
    return text * n_rows


async def test_large_logs_go_and_come_back(database, store):
    """Logs of several jobs, one of them of several objects, are moved and read; only their ends stay; then all ends."""
    objects, names = store
    host = await Host(database, new_host()).register()
    await queue.push(database, [new_job() for _ in range(3)])
    large, medium, small = await host.claim(3)
    texts = {job.id: await write(database, job.id, n_rows=n) for job, n in ((large, 14), (medium, 5), (small, 1))}

    assert await spill_logs(database, objects) == 3
    assert await spill_logs(database, objects) == 0
    for job_id, text in texts.items():
        assert await logs.read(database, job_id, objects=objects) == (text, len(text))
    assert await database.fetchval("select max(end_at - start_at) <= $1 from log_object", OBJECT_UNITS)
    assert len(names()) == 3
    assert all(f"{datetime.now(UTC):%Y-%m}" in name for name in names())

    used = [report(job, delete_after_use=True) for job in (large, medium, small)]
    await completion.complete(database, used, host.info.incarnation)
    assert await delete_doomed_objects(database, objects, retention_s=DAY_S) == 3
    assert names() == []
    assert await database.fetchval("select count(*) from log_object") == 0


async def test_much_work_is_done_in_bounded_batches(database, monkeypatch):
    """However much has gathered, no look and no moment takes more than its share, and nothing is left over."""
    objects, n_now, n_most = MemoryObjects(), 0, 0
    monkeypatch.setattr(spill, "BORDERS", 12)
    put = objects.put

    async def counted_put(key, data):
        nonlocal n_now, n_most
        n_now += 1
        n_most = max(n_most, n_now)
        for _ in range(20):  # let others come, if any may
            await asyncio.sleep(0)
        await put(key, data)
        n_now -= 1

    objects.put = counted_put
    ids = [new_id() for _ in range(12)]
    texts = [await write(database, job_id, n_rows=3, text=f"{i:x}" * STEP_UNITS) for i, job_id in enumerate(ids)]

    assert await spill_logs(database, objects) >= 12
    assert n_most <= spill.AT_ONCE
    assert await database.fetchval("select count(*) from job_log") == 12
    for job_id, text in zip(ids, texts, strict=True):
        assert (await logs.read(database, job_id, objects=objects))[0] == text


async def test_object_storage_that_is_away_is_not_insisted_on(database):
    """The first failure ends the round: nothing is lost by it, and the next round goes on."""
    objects = MemoryObjects()
    job = new_id()
    text = await write(database, job, n_rows=12)
    objects.away = True
    with pytest.raises(ObjectStoreError):
        await spill_logs(database, objects)
    assert (await logs.read(database, job))[0] == text

    objects.away = False
    assert await spill_logs(database, objects) == 2
    assert (await logs.read(database, job, objects=objects))[0] == text


async def test_the_leader_spills_and_deletes(database, store):
    """Among the duties of the leader: large logs go, objects of erased ones too, and the first check says that it works."""
    objects, names = store
    job = new_id()

    with capture_logs() as told:
        async with Duties(database, OFTEN, objects=objects):
            await write(database, job)
            await until(lambda: database.fetchval("select exists (select from log_object where delete_at is null)"))
            await logs.doom(database, [job])
            await until(lambda: database.fetchval("select not exists (select from log_object)"))
    assert names() == []
    assert "objects.ready" in [entry["event"] for entry in told]


async def test_the_leader_says_that_object_storage_is_away(database):
    """A store that can't be used is a line in the log that says so, again and again, and no stack; then it works."""
    objects = MemoryObjects()
    objects.away = True

    with capture_logs() as told:
        async with Duties(database, OFTEN, objects=objects):

            async def says(event):
                return event in [(entry["event"], entry.get("duty")) for entry in told]

            await until(lambda: says(("duty.postponed", "spill")))
            objects.away = False
            await until(lambda: says(("objects.ready", None)))
    assert "duty.failed" not in [entry["event"] for entry in told]


async def test_without_object_storage_logs_stay(database):
    """Without the setting there is no such duty, and a log of any size stays in the database."""
    names = {duty.name for duty in Duties(database, OFTEN)._duties()}

    assert not names & {"spill", "objects"}


async def test_objects_of_days_past_retention_go(database, store):
    """Objects of jobs that are there no more, whatever took them, are deleted once their day is past retention."""
    objects, names = store
    old = new_id(int((datetime.now(UTC) - timedelta(days=3)).timestamp() * 1000))
    await write(database, old)
    await write(database, new_id())
    await spill_logs(database, objects)

    assert await delete_doomed_objects(database, objects, retention_s=DAY_S) == 1
    assert len(names()) == 1
