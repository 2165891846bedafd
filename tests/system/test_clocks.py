"""Wall clocks set forwards and back while jobs run, wait and are due later: the database's decides, the others only tell."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import psutil
import pytest

from millhand.duties.run import Duties, DutySettings
from millhand.store import people
from millhand.store.migrate import migrate
from millhand.store.pool import Database
from tests.support.postgres import PostgresServer
from tests.support.wall_clock import WallClock, library
from tests.system.stage import (
    Part,
    Stage,
    all_ended,
    client,
    deploy,
    free_port,
    in_queue,
    incarnations,
    log_of,
    new_job,
    push,
    until,
)
from tests.system.witness import SCRIPT, Witness

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(library() is None, reason="no libfaketime here; on Debian: apt-get install libfaketime"),
]

DAY, HOUR = 86_400, 3_600
ASKS = """
import json, os, urllib.request

def main():
    headers = {"Authorization": "Bearer " + os.environ["WM_TOKEN"]}
    request = urllib.request.Request(os.environ["BASE_INTERNAL_URL"] + "/api/users/whoami", headers=headers)
    return json.load(urllib.request.urlopen(request))["email"]
"""


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    """Remove what libfaketime leaves in shared memory of processes that were killed."""
    began = time.time()
    yield
    for left in Path("/dev/shm").glob("*faketime_*"):
        pid = left.name.rpartition("_")[2]
        if left.stat().st_mtime >= began - 1 and pid.isdigit() and not psutil.pid_exists(int(pid)):
            left.unlink(missing_ok=True)


async def a_lease_passes(database: Database) -> None:
    """Wait until every host has pinged more than a lease from now."""
    start = await database.fetchval("select now()")
    late = "select count(*) > 0 and min(pinged_at) > $1::timestamptz + interval '4.5 s' from worker_host"
    await until(lambda: database.fetchval(late, start))


async def test_of_a_worker_host_and_a_server(
    database: Database, stage: Stage, witness: Witness, tmp_path: Path
) -> None:
    """One a day ahead, the other an hour behind, and the reverse: nothing is rescued, what is due runs, tokens count."""
    port = free_port()
    of_host, of_server = WallClock(tmp_path / "host"), WallClock(tmp_path / "server")
    async with await client(database, port) as http:
        stage.server(port, **of_server.env)
        worker = stage.worker(NUM_WORKERS="3", BASE_INTERNAL_URL=f"http://127.0.0.1:{port}", **of_host.env)
        held = new_job(SCRIPT, witness.args(wait=True))
        await push(database, held)
        run, rows = await witness.run(held.id), {}
        for number, off_s, other_s in ((1, DAY, -HOUR), (2, -HOUR, DAY)):
            of_host.jump(off_s)
            of_server.jump(other_s)
            await deploy(http, "u/admin/number", f"def main():\n    return {number}\n")
            assert (await http.post("jobs/run_wait_result/p/u/admin/number", json={})).text == str(number)
            code = {"content": ASKS, "language": "python3", "args": {}}
            asks = await http.post("jobs/run/preview", params={"timeout": 60}, json=code)
            later = await http.post("jobs/run/p/u/admin/number", params={"scheduled_in_secs": 1}, json={})
            rows |= await all_ended(database, [UUID(asks.text), UUID(later.text)])
            assert rows[UUID(asks.text)]["result"] == b'"admin@millhand.local"'
            assert [await whoami(http, database, ttl_s) for ttl_s in (HOUR / 2, -1)] == [200, 401]
            await a_lease_passes(database)
        run.go()
        rows |= await all_ended(database, [held.id])
    assert {(row["status"], row["attempt"]) for row in rows.values()} == {("success", 1)}
    assert len(await incarnations(database)) == 1
    assert "worker.lease_lost" not in worker.log


async def whoami(http: httpx.AsyncClient, database: Database, ttl_s: float) -> int:
    """Return the status of the answer to a session that ends in so many seconds."""
    token = await people.create_token(database, email=people.ADMIN_EMAIL, ttl_s=ttl_s)
    answer = await http.get("users/whoami", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200 or "this token has expired" in answer.text
    return answer.status_code


def often(database: Database) -> Duties:
    """Return the duties of a leader, done more often than usual."""
    return Duties(database, DutySettings(rescue_every_s=0.2))


@contextlib.asynccontextmanager
async def clocked(postgres: PostgresServer, folder: Path) -> AsyncIterator[tuple[Database, Stage, WallClock]]:
    """Start a PostgreSQL with a clock of its own, and the duties over it."""
    clock = WallClock(postgres.directory / "clock")
    postgres.env = clock.env
    postgres.start()
    await migrate(postgres.url())
    stage = Stage(postgres.url(), folder)
    try:
        async with Database(postgres.url(), application_name="test", max_size=4) as database, often(database):
            yield database, stage, clock
    finally:
        stage.close()


async def test_of_the_database_set_forwards(own_postgres: PostgresServer, tmp_path: Path, witness: Witness):
    """Past all leases: what ran is rescued at once, runs again, and ends once; the late report of the first is refused."""
    async with clocked(own_postgres, tmp_path) as (database, stage, clock):
        first = stage.worker(
            PING_INTERVAL="60", ZOMBIE_JOB_TIMEOUT="180"
        )  # so that the rescue comes before its next ping
        held = [new_job(SCRIPT, witness.args(wait=True)) for _ in range(2)]
        in_an_hour = await database.fetchval("select now() + interval '1 h'")
        later = new_job(SCRIPT, witness.args(), scheduled_for=in_an_hour)
        await push(database, *held, later)
        runs = [await witness.run(job.id) for job in held]
        clock.jump(DAY)
        await until(lambda: rescued(database, [job.id for job in held]))
        runs[0].go()  # while nobody holds it
        await runs[0].gone()
        stage.worker()
        again = [await witness.run(job.id, 2) for job in held]
        runs[1].go()  # while somebody else does
        await runs[1].gone()
        await until(lambda: all(str(job.id) in not_held(first) for job in held))
        for run in again:
            run.go()
        rows = await all_ended(database, [job.id for job in (*held, later)])
        assert [rows[job.id]["result"] for job in held] == [b"%d" % run.number for run in again]
        assert [rows[job.id]["attempt"] for job in (*held, later)] == [2, 2, 1]
        assert {row["status"] for row in rows.values()} == {"success"}
        assert "(rescue 1 of 3)" in await log_of(database, held[0].id)


async def test_of_the_database_set_back(own_postgres: PostgresServer, tmp_path: Path, witness: Witness):
    """Living hosts keep their jobs and what waits goes on; a host that died before is found out a lease later."""
    async with clocked(own_postgres, tmp_path) as (database, stage, clock):
        dead, alive = stage.worker(WORKER_TAGS="gpu"), stage.worker()
        lost, held = new_job(SCRIPT, witness.args(wait=True), tag="gpu"), new_job(SCRIPT, witness.args(wait=True))
        await push(database, lost, held)
        first, kept = await witness.run(lost.id), await witness.run(held.id)
        dead.kill()
        clock.jump(-HOUR)
        await first.gone()
        later = new_job(SCRIPT, witness.args(), scheduled_for=await database.fetchval("select now() + interval '1 s'"))
        await push(database, later)
        stage.worker(WORKER_TAGS="gpu")
        (await witness.run(lost.id, 2)).go()
        rows = await all_ended(database, [lost.id, later.id])
        await a_lease_passes(database)
        kept.go()
        rows |= await all_ended(database, [held.id])
        assert [rows[job.id]["attempt"] for job in (lost, held, later)] == [2, 1, 1]
        assert {row["status"] for row in rows.values()} == {"success"}
        assert not witness.doubled
        assert "worker.lease_lost" not in alive.log


async def rescued(database: Database, job_ids: list[UUID]) -> bool:
    """Tell whether these jobs have been taken from their host."""
    return all([(await in_queue(database, job_id))["n_lost"] == 1 for job_id in job_ids])


def not_held(worker: Part) -> str:
    """Return what a host has logged of reports that were refused."""
    return "".join(line for line in worker.log.splitlines() if "job.not_held" in line)
