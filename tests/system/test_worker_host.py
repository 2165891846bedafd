"""Worker hosts and their jobs, killed, stopped and told to end: each accepted job ends exactly once, or waits."""

from __future__ import annotations

import signal

import msgspec
import psutil
import pytest

from millhand.store.pool import Database
from millhand.store.rescue import rescue
from tests.system.stage import (
    Part,
    Stage,
    all_ended,
    ended,
    in_queue,
    incarnations,
    kill,
    log_of,
    new_job,
    processes_named,
    push,
    until,
)
from tests.system.witness import SCRIPT, Witness, process_name

pytestmark = pytest.mark.system


def error_of(row) -> dict:
    return msgspec.json.decode(row["result"])["error"]


async def works(database: Database, witness: Witness) -> bool:
    """Run one more job and tell whether it succeeds."""
    job = new_job(SCRIPT, witness.args())
    await push(database, job)
    return (await ended(database, job.id))["status"] == "success"


async def test_a_killed_job_fails_alone(database: Database, stage: Stage, witness: Witness):
    """Kill -9 of one job's process: it fails and says why, its neighbour and the worker go on."""
    worker = stage.worker()
    job, neighbour = new_job(SCRIPT, witness.args(wait=True)), new_job(SCRIPT, witness.args(wait=True))
    await push(database, job, neighbour)
    await witness.run(job.id)
    beside = await witness.run(neighbour.id)
    (process,) = processes_named(process_name(job.id))
    kill(process)
    row = await ended(database, job.id)
    assert (row["status"], row["attempt"], error_of(row)["name"]) == ("failure", 1, "Killed")
    assert "SIGKILL" in error_of(row)["message"]
    beside.go()
    assert (await ended(database, neighbour.id))["status"] == "success"
    assert worker.alive
    assert await works(database, witness)
    assert len(witness.of(job.id)) == 1


@pytest.mark.parametrize("depth", [0, 1], ids=["outer", "inner"])
async def test_a_killed_zygote_is_replaced(database: Database, stage: Stage, witness: Witness, depth: int):
    """Kill -9 of the process that forks jobs: its jobs end with it and say why, the next ones have a new one."""
    worker = stage.worker()
    job = new_job(SCRIPT, witness.args(wait=True))
    await push(database, job)
    run = await witness.run(job.id)
    stage.note()
    kill(zygotes(worker, depth))
    row = await ended(database, job.id)
    assert (row["status"], row["attempt"]) == ("failure", 1)
    assert "launcher died" in error_of(row)["message"]
    await run.gone()
    assert not processes_named(process_name(job.id))
    assert await works(database, witness)
    assert worker.alive


def zygotes(worker: Part, depth: int) -> psutil.Process:
    """Return the process the host started for Python, or the one below it that is the first of its namespace."""
    (outer,) = psutil.Process(worker.pid).children()
    assert "zygote.py" in " ".join(outer.cmdline())
    return outer if depth == 0 else outer.children()[0]


async def test_a_killed_host_is_noticed(database: Database, stage: Stage, witness: Witness, duties: None):
    """Kill -9 of a worker host: its processes end with it, and another one on the same machine runs its jobs."""
    first = stage.worker()
    held = [new_job(SCRIPT, witness.args(wait=True)) for _ in range(2)]
    waiting = [new_job(SCRIPT, witness.args()) for _ in range(10)]
    await push(database, *held, *waiting)
    runs = [await witness.run(job.id) for job in held]
    stage.note()
    first.kill()
    for run in runs:
        await run.gone()
    await stage.all_gone()
    stage.worker()
    for job in held:
        (await witness.run(job.id, 2)).go()
    rows = await all_ended(database, [job.id for job in (*held, *waiting)])
    assert {row["status"] for row in rows.values()} == {"success"}
    assert [rows[job.id]["attempt"] for job in held] == [2, 2]
    assert {rows[job.id]["attempt"] for job in waiting} == {1}
    assert {len(witness.of(job.id)) for job in waiting} == {1}
    assert not witness.doubled
    log = await log_of(database, held[0].id)
    assert "was lost: its host has stopped pinging; the job goes back to the queue (rescue 1 of 3)\n" in log
    assert len(await incarnations(database)) == 1


async def test_a_job_that_always_loses_its_worker_is_given_up(database: Database, stage: Stage, witness: Witness):
    """After three rescues it fails, with the cause in its result and in its log."""
    job = new_job(SCRIPT, witness.args(wait=True))
    await push(database, job)
    for number in range(1, 5):
        assert (await in_queue(database, job.id))["n_lost"] == number - 1
        worker = stage.worker(NUM_WORKERS="1")
        await witness.run(job.id, number)
        worker.kill()
        await database.execute("update worker_host set lease_expires_at = now() - interval '1 s'")
        await rescue(database)
    row = await ended(database, job.id)
    assert (row["status"], error_of(row)["name"]) == ("failure", "WorkerLost")
    assert "for the fourth time" in error_of(row)["message"]
    log = await log_of(database, job.id)
    assert log.count("goes back to the queue") == 3
    assert log.endswith("the job is given up\n")
    assert len(witness.of(job.id)) == 4
    assert not witness.doubled


async def test_a_host_that_slept_reports_nothing(database: Database, stage: Stage, witness: Witness, duties: None):
    """SIGSTOP past the lease, then SIGCONT: late results are refused, late runs end, and the host comes back as another."""
    first = stage.worker()
    finishes, hangs = new_job(SCRIPT, witness.args(wait=True)), new_job(SCRIPT, witness.args(wait=True))
    await push(database, finishes, hangs)
    late, hanging = await witness.run(finishes.id), await witness.run(hangs.id)
    (before,) = await incarnations(database)
    first.signal(signal.SIGSTOP)
    late.go()
    await late.gone()
    second = stage.worker()
    again = [await witness.run(finishes.id, 2), await witness.run(hangs.id, 2)]
    assert hanging.alive
    first.signal(signal.SIGCONT)
    await hanging.gone()
    await until(lambda: "worker.lease_lost" in first.log)
    assert (await in_queue(database, finishes.id))["state"] == "running"
    for run in again:
        run.go()
    rows = await all_ended(database, [finishes.id, hangs.id])
    for job, run in zip((finishes, hangs), again, strict=True):
        row = rows[job.id]
        assert (row["status"], row["attempt"], row["result"]) == ("success", 2, b"%d" % run.number)

    async def both_work() -> bool:
        return len(await incarnations(database)) == 2

    await until(both_work)
    assert before not in await incarnations(database)
    second.kill()
    assert await works(database, witness)
    assert first.alive


async def test_a_host_that_drains_finishes_its_jobs(database: Database, stage: Stage, witness: Witness):
    """SIGTERM: what runs is finished and recorded, what waits is left, the process ends with code 0."""
    worker = stage.worker(NUM_WORKERS="1")
    job, later = new_job(SCRIPT, witness.args(wait=True)), new_job(SCRIPT, witness.args())
    await push(database, job)
    run = await witness.run(job.id)
    stage.note()
    worker.signal(signal.SIGTERM)
    await until(lambda: "worker.draining" in worker.log)
    await push(database, later)
    run.go()
    assert await until(lambda: not worker.alive)
    row = await ended(database, job.id)
    assert (worker.process.returncode, row["status"], row["attempt"]) == (0, "success", 1)
    assert (await in_queue(database, later.id))["state"] == "queued"
    assert not witness.of(later.id)
    assert not await incarnations(database)
    await stage.all_gone()


async def test_a_second_signal_gives_the_jobs_back(database: Database, stage: Stage, witness: Witness):
    """TERM twice: the job's process ends, the job waits with no rescue spent, and the next host runs it."""
    worker = stage.worker()
    job = new_job(SCRIPT, witness.args(wait=True))
    await push(database, job)
    run = await witness.run(job.id)
    stage.note()
    worker.signal(signal.SIGTERM)
    await until(lambda: "worker.draining" in worker.log)
    worker.signal(signal.SIGTERM)
    await run.gone()
    assert await until(lambda: not worker.alive)
    row = await in_queue(database, job.id)
    assert (worker.process.returncode, row["state"], row["n_lost"], row["incarnation"]) == (0, "queued", 0, None)
    await stage.all_gone()
    stage.worker()
    (await witness.run(job.id, 2)).go()
    assert (await ended(database, job.id))["status"] == "success"
    assert not witness.doubled
