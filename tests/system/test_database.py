"""PostgreSQL killed, cut off and full, under load: nothing that was accepted is lost, nothing is run twice unnoticed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from millhand.core.ids import new_id
from millhand.store import queue
from millhand.store.migrate import migrate
from millhand.store.pool import CONNECTION_ERRORS, Database
from tests.support.postgres import PostgresServer
from tests.system.load import check, fill, loaded
from tests.system.stage import (
    Stage,
    ended,
    in_queue,
    incarnations,
    log_of,
    new_job,
    push,
    until,
)
from tests.system.witness import SCRIPT, Witness

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


async def test_cut_connections(database: Database, stage: Stage, witness: Witness):
    """pg_terminate_backend of all connections of worker host and server, again and again, under load."""
    async with loaded(database, stage, witness) as load:
        async with load.running():
            for _ in range(15):
                await load.more(5)
                await database.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and application_name like 'millhand%'"
                )
            await load.more(5)
        await check(database, witness, load.accepted)
    assert len(await incarnations(database)) == 1


async def test_a_killed_database(own_postgres: PostgresServer, tmp_path: Path, witness: Witness):
    """Kill -9 of a backend, then of the whole server, under load: runs go on, and are recorded when it is back."""
    own_postgres.start()
    url = own_postgres.url()
    await migrate(url)
    stage = Stage(url, tmp_path)
    try:
        async with Database(url, application_name="test", max_size=4) as database:
            long = new_job(SCRIPT, witness.args(wait=True))
            async with loaded(database, stage, witness) as load:
                await push(database, long)
                run = await witness.run(long.id)
                async with load.running():
                    await load.more(20)
                    await kill_a_backend(url)
                    await load.more(20)
                    own_postgres.stop(signal.SIGKILL)
                    run.go()
                    await run.gone()
                    n_refused = load.n_refused
                    await until(lambda: load.n_refused > n_refused)
                    restart(own_postgres)
                    await load.more(20)
            row = await ended(database, long.id)
            assert (row["status"], row["attempt"], row["result"]) == ("success", 1, b"%d" % run.number)
            await check(database, witness, load.accepted)
            assert len(await incarnations(database)) == 1
    finally:
        stage.close()


async def kill_a_backend(url: str) -> None:
    """Kill -9 of the process behind the worker's claims: PostgreSQL ends all sessions and recovers."""
    connection = await asyncpg.connect(url)
    pid = await connection.fetchval(
        "select pid from pg_stat_activity where application_name = 'millhand worker' order by query_start desc limit 1"
    )
    psutil.Process(pid).kill()
    with contextlib.suppress(*CONNECTION_ERRORS):
        await until(lambda: connection.fetchval("select false"))
    connection.terminate()


def restart(server: PostgresServer) -> None:
    """Start a killed server again, as soon as what is left of it has gone."""
    for _ in range(50):
        with contextlib.suppress(RuntimeError):
            server.start()
            return
    raise AssertionError("PostgreSQL does not start again")


@pytest.fixture
def small_disk(own_postgres: PostgresServer) -> Iterator[Path]:
    """Put the files of `own_postgres` on a disk of 160 MB; skips where that is not allowed."""
    place = own_postgres.directory
    if (
        any(place.iterdir())
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", place], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("can't mount a small disk here")
    try:
        yield place
    finally:
        own_postgres.stop(signal.SIGQUIT)
        subprocess.run(["umount", "-l", place], check=True)


async def test_a_full_disk(own_postgres: PostgresServer, small_disk: Path, tmp_path: Path, witness: Witness):
    """While the disk is full jobs go on; when there is room again their logs and results are recorded, whole."""
    own_postgres.start()
    url = own_postgres.url()
    await migrate(url)
    stage = Stage(url, tmp_path)
    words = SCRIPT.replace("return number", "[print(os.urandom(500).hex()) for _ in range(4000)]\n    return number")
    job, filler = new_job(words, witness.args(wait=True)), small_disk / "filler"
    try:
        async with Database(url, application_name="test") as database:
            worker = stage.worker(ZOMBIE_JOB_TIMEOUT="60")
            await push(database, job)
            run = await witness.run(job.id)
            await database.execute("select pg_switch_wal()")
            await database.execute("checkpoint")
            fill(filler)
            run.go()
            await run.gone()
            await until(lambda: "No space left on device" in worker.log)
            assert (await in_queue(database, job.id))["state"] == "running"
            filler.unlink()
            row = await ended(database, job.id)
            assert (row["status"], row["attempt"], row["result"]) == ("success", 1, b"%d" % run.number)
            log = await log_of(database, job.id)
            assert len([line for line in log.splitlines() if len(line) == 1000]) == 4000
            assert worker.alive
    finally:
        stage.close()


async def test_a_claim_whose_answer_was_lost(database: Database, stage: Stage, witness: Witness):
    """The host lives and holds nothing of it: it hears of the job with a later ping, and the job runs after all."""
    worker = stage.worker()
    (incarnation,) = await incarnations(database)
    name = await database.fetchval("select name from worker limit 1")
    held = new_job(SCRIPT, witness.args(wait=True))
    await push(database, held)
    run = await witness.run(held.id)
    job = new_job(SCRIPT, witness.args(), id=new_id(), tag="bash")
    async with database.transaction() as connection:
        await queue.push(connection, [job])
        assert len(await queue.claim(connection, [name], ["bash"], incarnation)) == 1
    long_ago = "update job_queue set started_at = now() - interval '80 s'"
    await database.execute(long_ago)
    row = await ended(database, job.id)
    assert (row["status"], row["attempt"]) == ("success", 2)
    assert "goes back to the queue" in await log_of(database, job.id)
    assert (await in_queue(database, held.id))["attempt"] == 1  # it has run for as long, and is held
    run.go()
    assert (await ended(database, held.id))["status"] == "success"
    assert worker.alive
