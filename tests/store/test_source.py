"""PgJobSource: the queue as a worker host sees it."""

import asyncio
import contextlib
import threading
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from millhand.core.errors import SchemaVersionError, SourceUnavailableError
from millhand.core.job import LogChunk
from millhand.core.script import Language, Script, ScriptOptions
from millhand.core.worker import HostPing
from millhand.store import cancel, completion, logs, migrate, queue, scripts, workers
from millhand.store.notify import WATCH_CHANNEL, Notifier, parse_ids
from millhand.store.pool import Database, Listener
from millhand.store.source import PgJobSource

from .conftest import new_host, new_job, report

BEAT = HostPing(workers=(), memory_usage=1, host_memory_usage=1, draining=False, held=())
NAMES = ("w0", "w1", "w2")


@pytest.fixture
async def source(database_url):
    source = PgJobSource(database_url)
    await source.open(new_host(tags=("t", "u")), NAMES)
    await source._listener.listening()
    yield source
    await source.close()


@pytest.fixture
async def notifier(database):
    async with Notifier(database) as notifier:
        yield notifier


async def within(awaitable):
    async with asyncio.timeout(20):
        return await awaitable


@pytest.fixture
async def watched(database):
    """A queue of what servers hear."""
    heard = asyncio.Queue()
    listener = Listener(database, WATCH_CHANNEL, heard.put_nowait)
    await listener.start()
    await within(listener.listening())
    yield heard
    await listener.stop()


async def test_a_job_from_claim_to_record(database, source, watched):
    """A worker host claims, logs, streams, reports progress and completes; those who wait hear of each."""
    await queue.push(database, [new_job(awaited=True)])
    (job,) = await source.claim(NAMES, ("t",))
    hears_growth, hears_end = f"l:{job.id}", f'r:{job.id}:success:{{"a": 1}}'

    await source.append_logs([LogChunk(job_id=job.id, text="hello\n")])
    assert await within(watched.get()) == hears_growth
    await source.append_stream(job.id, "piece")
    assert await within(watched.get()) == hears_growth
    await source.set_progress(job.id, 50)
    assert await within(watched.get()) == hears_growth
    assert await source.complete([report(job)]) == {job.id}
    assert await within(watched.get()) == hears_end
    assert await logs.read(database, job.id) == ("hello\n", 6)
    assert await logs.read_stream(database, job.id) == ("piece", 1)


async def test_nobody_is_told_of_jobs_nobody_awaits(database, source, watched):
    """Jobs that nobody waits for end without a word."""
    await queue.push(database, [new_job(), new_job(awaited=True)])
    quiet, awaited = await source.claim(NAMES, ("t",))
    await source.append_logs([LogChunk(job_id=quiet.id, text="x")])
    await source.complete([report(quiet)])
    await source.complete([report(awaited)])

    assert (await within(watched.get())).startswith(f"r:{awaited.id}:")


async def test_a_long_result_is_only_announced(database, source, watched):
    """What is too long for a notification is left for those who wait to fetch, and a batch is announced after its commit."""
    await queue.push(database, [new_job(awaited=True) for _ in range(6)])
    (first, *others) = await source.claim([f"w{number}" for number in range(6)], ("t",))
    await source.complete([report(first, result=b'"%b"' % (b"x" * 7000))])
    assert await within(watched.get()) == f"d:{first.id}"

    await source.complete([report(job) for job in others])
    assert set((await within(watched.get()))[2:].split(",")) == {str(job.id) for job in others}


async def test_nudges_for_our_tags(source, notifier):
    """A push of a tag this host listens to calls back once for many nudges; other tags do not."""
    called = asyncio.Event()
    source.on_nudge(called.set)
    notifier.work(["foreign"])
    source._heard("q:foreign")
    await asyncio.sleep(0)
    assert not called.is_set()
    notifier.work(["u"])
    await within(called.wait())


async def test_many_nudges_are_one(source):
    """Nudges that come in the same turn of the loop call back once."""
    calls = []
    source.on_nudge(lambda: calls.append(1))
    for _ in range(5):
        source._heard("q:t")
    await asyncio.sleep(0)

    assert calls == [1]


async def test_cancels_are_heard(database, source, notifier):
    """A cancel of a running job is passed on with the job's id."""
    heard = asyncio.Queue()
    source.on_cancel(heard.put_nowait)
    await queue.push(database, [new_job()])
    (job,) = await source.claim(NAMES, ("t",))
    notifier.canceled((await cancel.cancel(database, [job.id], workspace_id="main", by="bob")).told)

    assert await within(heard.get()) == job.id


async def test_due_jobs_are_promoted_and_announced(database, source):
    """Jobs whose time has come are queued, this host is nudged, and the next time is told."""
    called = asyncio.Event()
    source.on_nudge(called.set)
    later = datetime.now(UTC) + timedelta(hours=1)
    job = new_job(scheduled_for=later)
    await queue.push(database, [job, new_job(scheduled_for=later + timedelta(hours=1))])
    assert 3500 < await source.next_due_s(("t",)) <= 3600
    assert not called.is_set()
    await database.execute("update job_queue set scheduled_for = now() where id = $1", job.id)
    assert 7100 < await source.next_due_s(("t",)) <= 7200
    await within(called.wait())

    assert len(await source.claim(NAMES, ("t",))) == 1


async def test_release_says_why(database, source):
    """A job that is given back waits again, and its log says why."""
    await queue.push(database, [new_job()])
    (job,) = await source.claim(NAMES, ("t",))

    assert await source.release([(job.id, 1)], why="the worker is draining") == {job.id}
    assert (await logs.read(database, job.id))[0] == "the worker is draining\n"
    assert (await source.claim(NAMES, ("t",)))[0].attempt == 2


async def test_heartbeat_from_another_thread(database, source):
    """The heartbeat runs in a thread with a loop of its own, and opens its connection again when it was lost."""
    outcome = []

    async def beats():
        outcome.append(await source.heartbeat(BEAT))
        await _kill(source)
        with contextlib.suppress(SourceUnavailableError):  # unless the loss was noticed before
            await source.heartbeat(BEAT)
        outcome.append(await source.heartbeat(BEAT))

    async def _kill(source):
        admin = await Database(source._database.url, application_name="killer").connect(purpose="")
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name like '%heartbeat'"
        )
        await admin.close()

    thread = threading.Thread(target=lambda: asyncio.run(beats()))
    thread.start()
    await within(asyncio.to_thread(thread.join))

    assert [order.lease_lost for order in outcome] == [False, False]


async def test_a_lost_lease_is_told(database, source):
    """A host that was struck off hears it with its next heartbeat, and gets nothing from its claims."""
    await queue.push(database, [new_job()])
    await workers.deregister(database, source._host.incarnation)

    assert (await source.heartbeat(BEAT)).lease_lost
    assert await source.claim(NAMES, ("t",)) == []


async def test_lost_connections_are_unavailability(database, source):
    """When all connections are cut, calls raise SourceUnavailableError and work again afterwards, nudges too."""
    called = asyncio.Event()
    source.on_nudge(called.set)
    await queue.push(database, [new_job()])
    (job,) = await source.claim(NAMES, ("t",))
    await database.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name like 'millhand worker%'"
    )

    async def insist():
        while True:
            try:
                return await source.complete([report(job)])
            except SourceUnavailableError:
                await asyncio.sleep(0)

    assert await within(insist()) == {job.id}
    await within(called.wait())


async def test_a_missing_server_is_unavailability(tmp_path):
    """A server that is not there is told as such, not as an error of the driver."""
    source = PgJobSource(f"postgresql://postgres@/x?host={tmp_path}&port=1")
    with pytest.raises(SourceUnavailableError, match="can't be reached"):
        await source.open(new_host(), NAMES)


async def test_an_old_schema_refuses_the_worker(database, database_url):
    """A worker of another release does not start on this schema."""
    await database.execute("delete from millhand_migration")
    with pytest.raises(SchemaVersionError, match="millhand migrate"):
        await PgJobSource(database_url).open(new_host(), NAMES)


async def test_a_source_opens_again(database, database_url):
    """After a lost lease the host closes its source and opens it under a new incarnation."""
    source = PgJobSource(database_url)
    for _ in range(2):
        host = new_host()
        await source.open(host, [f"w-{host.incarnation}"])
        await source.heartbeat(BEAT)
        await source.close()

    assert await workers.listed(database) == []


def script(**changes):
    fields = {
        "hash": 5, "workspace_id": "main", "path": "u/admin/x", "content": "", "language": Language.BASH, "summary": "",
        "description": "", "schema": None, "lock": None, "lock_error": None, "lock_job_id": None, "parent_hashes": (),
        "kind": "script", "tag": None, "envs": (), "created_by": "admin", "created_at": datetime.now(UTC),
        "archived": False, "deleted": False, "options": ScriptOptions(),
    }  # fmt: skip
    return Script(**{**fields, **changes})


async def test_scripts_are_kept_once_they_are_locked(database, source):
    """A script is read from the database until its lock is known, and from memory afterwards."""
    await database.execute("insert into workspace (id, name, owner) values ('main', 'main', 'admin')")
    await scripts.insert(database, script())
    assert (await source.script("main", 5)).lock is None
    await source.save_lock("main", 5, lock="", error=None)
    assert (await source.script("main", 5)).lock == ""
    await database.execute("delete from script")

    assert (await source.script("main", 5)).path == "u/admin/x"
    assert await source.script_at("main", "u/admin/x") is None
    assert await source.script("main", 6) is None


async def test_the_newest_version_is_the_last_deployed(database, source):
    """Whatever the clock says, a version that is deployed later is newer."""
    await database.execute("insert into workspace (id, name, owner) values ('main', 'main', 'admin')")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await scripts.insert(database, script(hash=1))
    await scripts.insert(database, script(hash=2), now=hour_ago)

    assert (await source.script_at("main", script().path)).hash == 2


async def test_cached_results(database, source):
    """A kept result is found by its key."""
    await database.execute(completion.SQL.cache_results, ["k"], [b"1"], [60], None)

    assert await source.cached_result("k") == b"1"
    assert await source.cached_result("other") is None


async def test_job_tokens_name_the_job_and_end(database, source):
    """A job's token is signed with the instance's secret, names job, workspace and rights, and expires."""
    await queue.push(database, [new_job()])
    (job,) = await source.claim(NAMES, ("t",))
    token = source.job_token(job, ttl_s=60)
    secret = await migrate.setting(database, "jwt_secret")
    claims = jwt.decode(token.removeprefix("jwt_"), secret, algorithms=["HS256"])

    assert token.startswith("jwt_")
    assert (claims["job_id"], claims["workspace_id"], claims["permissioned_as"]) == (str(job.id), "main", "u/admin")
    assert (claims["username"], claims["email"], claims["label"]) == ("admin", job.email, "ephemeral-script")
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(source.job_token(job, ttl_s=-1).removeprefix("jwt_"), secret, algorithms=["HS256"])


async def test_many_ids_are_cut_into_payloads(notifier, watched):
    """However many jobs end at once, all of them are announced, in payloads that NOTIFY takes."""
    ids = {new_job().id for _ in range(450)}
    notifier.ended(ids)
    heard = set()
    while heard != ids:
        heard.update(parse_ids(await within(watched.get())))


async def test_the_same_tag_is_named_once_per_interval(database, notifier):
    """Pushes of one tag in quick succession nudge once at once, and once more at the end of the interval."""
    sent = []

    async def execute(_, channels, payloads):
        sent.extend(payloads)

    database.execute = execute
    for _ in range(20):
        notifier.work(["t"])
        await asyncio.sleep(0)
    await within(_until(lambda: len(sent) >= 2 and not notifier._tags))

    assert set(sent) == {"q:t"}
    assert len(sent) < 20  # two, but for a machine that is busy with other things


async def _until(condition):
    while not condition():
        await asyncio.sleep(0.001)
