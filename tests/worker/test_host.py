"""A worker host over a queue in memory: runs, ends, orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest

from millhand.core.errors import LockFailedError, RuntimeUnavailableError
from millhand.core.job import JobKind, JobStatus
from millhand.core.script import Language, Script, ScriptOptions
from millhand.core.worker import Orders
from millhand.runtimes.contract import Failure, FailureKind, Success
from millhand.worker.host import HostState, WorkerHost
from millhand.worker.settings import WorkerSettings
from tests.worker.fakes import FakeRuntime, FakeRuntimes, FakeSource, claimed, hang

FAST = WorkerSettings(num_workers=4, heartbeat_s=0.02, poll_s=0.02)


@asynccontextmanager
async def hosting(
    source: FakeSource, runtime: FakeRuntime | None = None, settings: WorkerSettings = FAST
) -> AsyncIterator[WorkerHost]:
    host = WorkerHost(settings=settings, source=source, runtimes=FakeRuntimes(runtime))
    await host.start()
    try:
        yield host
    finally:
        await host.terminate()


def script(path: str, content: str, *, script_hash: int = 7, lock: str | None = "", error: str | None = None) -> Script:
    return Script(
        hash=script_hash, workspace_id="main", path=path, content=content, language=Language.PYTHON3, summary="",
        description="", schema=None, lock=lock, lock_error=error, lock_job_id=None, parent_hashes=(), kind="script",
        tag=None, envs=("COLOUR=red",), created_by="admin", created_at=datetime.now(UTC), archived=False, deleted=False,
        options=ScriptOptions(),
    )  # fmt: skip


async def test_a_preview_runs_to_its_report():
    """Log first line, banner, result, worker, duration."""
    source, runtime, job = FakeSource(), FakeRuntime(), claimed()
    async with hosting(source, runtime) as host:
        source.push(job)
        (report,) = await source.ended(job)
    assert (report.status, report.result, report.attempt) == (JobStatus.SUCCESS, b'"done"', 1)
    first, *rest = source.logs[job.id].splitlines()
    assert first.startswith(f"job={job.id} tag=python3 worker={report.worker} hostname=")
    assert first.endswith("isolation=none")
    assert "--- PYTHON CODE EXECUTION ---" in rest
    assert runtime.executions[0].env["WM_TOKEN"] == f"jwt_{job.id}"
    assert host.state is HostState.TERMINATED


async def test_a_log_is_complete_before_its_job_is_seen_ended():
    """For each of many jobs, the last of its log was shipped before its report."""

    async def talk(execution, listener):
        listener.log("hello\n")
        await asyncio.sleep(0)
        listener.log("bye\n")
        return Success(result=b"1")

    source, jobs = FakeSource(), [claimed() for _ in range(40)]
    async with hosting(source, FakeRuntime(talk)):
        source.push(*jobs)
        await source.ended(*jobs)
    for job in jobs:
        assert source.logs[job.id].endswith("hello\nbye\n")
        kinds = [kind for kind, job_id in source.events if job_id == job.id]
        assert kinds.index("completed") == len(kinds) - 1


async def test_noops_need_no_runtime():
    """They are answered in the host, in batches, and counted."""
    source, runtime = FakeSource(), FakeRuntime()
    jobs = [claimed(kind=JobKind.NOOP, raw_code=None) for _ in range(50)]
    async with hosting(source, runtime) as host:
        source.push(*jobs)
        reports = await source.ended(*jobs)
        await source.until(lambda: source.ping and sum(w.jobs_executed for w in source.ping.workers) == 50)
    assert {report.result for report in reports} == {b"{}"}
    assert runtime.executions == []
    assert (
        host.metrics.registry.get_sample_value("millhand_jobs_completed_total", {"tag": "python3", "status": "success"})
        == 50
    )


async def test_a_worker_runs_one_job_at_a_time():
    """Never more at once than there are workers, each under its own name."""
    running: set[str] = set()
    most = 0

    async def count(execution, listener):
        nonlocal most
        worker = source.running[execution.job_id].worker
        assert worker not in running
        running.add(worker)
        most = max(most, len(running))
        await asyncio.sleep(0.002)
        running.remove(worker)
        return Success(result=b"1")

    source, jobs = FakeSource(), [claimed() for _ in range(30)]
    async with hosting(source, FakeRuntime(count)):
        source.push(*jobs)
        reports = await source.ended(*jobs)
    assert {report.status for report in reports} == {JobStatus.SUCCESS}
    assert most == 4


async def test_a_deployed_script_runs_from_its_lock_with_what_it_imports():
    """Code, lock and own variables come from the version named by its hash; imports are fetched, near and far."""
    source, runtime = FakeSource(), FakeRuntime()
    source.scripts = {
        7: script("f/a/main", "from f.a.near import x\ndef main(): ...", lock="# py: 3.11\nsix==1.17.0"),
        8: script("f/a/near", "from f.a.far import x", script_hash=8),
        9: script("f/a/far", "x = 1", script_hash=9),
    }
    job = claimed(
        kind=JobKind.SCRIPT, raw_code=None, raw_lock=None, language=None, runnable_path="f/a/main", runnable_hash=7
    )
    async with hosting(source, runtime):
        source.push(job)
        await source.ended(job)
    (execution,) = runtime.executions
    assert execution.lock == "# py: 3.11\nsix==1.17.0"
    assert execution.modules == {"f/a/near": "from f.a.far import x", "f/a/far": "x = 1"}
    assert execution.env["COLOUR"] == "red"


@pytest.mark.parametrize(
    ("found", "name", "says"),
    [
        (None, "ExecutionErr", "no version"),
        (script("f/a/x", "", lock=None, error="no such package"), "LockFailed", "no such package"),
    ],
)
async def test_a_script_that_cannot_run_says_why(found: Script | None, name: str, says: str):
    """Deleted, or its dependencies could not be resolved at its deployment."""
    source, runtime = FakeSource(), FakeRuntime()
    source.scripts = {7: found} if found else {}
    job = claimed(kind=JobKind.SCRIPT, raw_code=None, runnable_path="f/a/x", runnable_hash=7)
    async with hosting(source, runtime):
        source.push(job)
        (report,) = await source.ended(job)
    error = msgspec.json.decode(report.result)["error"]
    assert (report.status, error["name"], runtime.executions) == (JobStatus.FAILURE, name, [])
    assert says in error["message"]


async def test_a_dependencies_job_stores_the_lock():
    """And gives it as its result."""
    source, runtime = FakeSource(), FakeRuntime()
    runtime.locked = lambda execution: "six==1.17.0"
    source.scripts = {7: script("f/a/x", "import six", lock=None)}
    job = claimed(kind=JobKind.DEPENDENCIES, raw_code=None, runnable_path="f/a/x", runnable_hash=7)
    async with hosting(source, runtime):
        source.push(job)
        (report,) = await source.ended(job)
    assert source.locks == {7: ("six==1.17.0", None)}
    assert report.result == b'{"lock":"six==1.17.0"}'


async def test_a_lock_that_fails_is_stored_as_the_scripts_error():
    """The dependencies job fails with the resolver's words, and the script keeps them."""
    source, runtime = FakeSource(), FakeRuntime()

    def refuse(execution):
        raise LockFailedError("no such package: nonsense")

    runtime.locked = refuse
    source.scripts = {7: script("f/a/x", "import nonsense", lock=None)}
    job = claimed(kind=JobKind.DEPENDENCIES, raw_code=None, runnable_path="f/a/x", runnable_hash=7)
    async with hosting(source, runtime):
        source.push(job)
        (report,) = await source.ended(job)
    assert source.locks == {7: (None, "no such package: nonsense")}
    assert msgspec.json.decode(report.result)["error"]["name"] == "LockFailed"


@pytest.mark.parametrize(
    ("error", "name"),
    [(RuntimeUnavailableError("pip install millhand[bun]"), "RuntimeUnavailable"), (KeyError("bug"), "WorkerError")],
)
async def test_a_worker_that_cannot_run_a_job_says_why(error: Exception, name: str):
    """The job fails with the reason; the worker takes the next."""
    source, runtime = FakeSource(), FakeRuntime()

    def refuse(execution):
        raise error

    runtime.prepared = refuse
    job, other = claimed(), claimed(kind=JobKind.NOOP)
    async with hosting(source, runtime):
        source.push(job)
        (report,) = await source.ended(job)
        source.push(other)
        await source.ended(other)
    assert msgspec.json.decode(report.result)["error"]["name"] == name


async def test_a_cached_result_is_served_once_kept():
    """The second run with the same arguments does not run, and says so in its log."""
    source, runtime = FakeSource(), FakeRuntime()
    first, second, other = claimed(cache_ttl_s=60), claimed(cache_ttl_s=60), claimed(cache_ttl_s=60, args=b'{"a":1}')
    async with hosting(source, runtime):
        source.push(first)
        (report,) = await source.ended(first)
        assert report.cache_key is not None
        source.cache[report.cache_key] = report.result
        source.push(second, other)
        again, _ = await source.ended(second, other)
    assert (again.result, again.cache_key) == (report.result, None)
    assert [execution.job_id for execution in runtime.executions] == [first.id, other.id]
    assert "has not expired" in source.logs[second.id]


async def test_a_running_job_is_cancelled():
    """The order comes with the next ping, which a cancel hint brings forward; who and why reach the result."""
    source, job = FakeSource(), claimed()
    settings = msgspec.structs.replace(FAST, heartbeat_s=60.0)
    async with hosting(source, FakeRuntime(hang), settings):
        source.push(job)
        await source.until(lambda: job.id in source.running and source.pings)
        source.cancel(job.id, "bob", "typo")
        (report,) = await source.ended(job)
    assert (report.status, report.canceled_by, report.canceled_reason) == (JobStatus.CANCELED, "bob", "typo")


async def test_a_run_over_its_time_is_ended():
    """By the instance's maximum where the job asks for more."""
    source, job = FakeSource(), claimed(timeout_s=100)
    settings = msgspec.structs.replace(FAST, job_max_timeout_s=1)
    async with hosting(source, FakeRuntime(hang), settings):
        source.push(job)
        (report,) = await source.ended(job)
    assert (report.status, report.canceled_by, report.canceled_reason) == (
        JobStatus.CANCELED,
        "timeout",
        "duration > 1",
    )


async def test_draining_lets_jobs_finish():
    """No new claims; what runs ends as usual."""
    go = asyncio.Event()

    async def wait(execution, listener):
        await go.wait()
        return Success(result=b'"finished"')

    source, job, late = FakeSource(), claimed(), claimed()
    async with hosting(source, FakeRuntime(wait)) as host:
        source.push(job)
        await source.until(lambda: job.id in source.running)
        draining = asyncio.create_task(host.drain(60))
        await source.until(lambda: source.ping and source.ping.draining)
        source.push(late)
        go.set()
        await draining
    assert source.reports[job.id].result == b'"finished"'
    assert list(source.queue) == [late]


async def test_a_drain_that_takes_too_long_gives_jobs_back():
    """Stopped and released, not failed: no attempt is spent; the log says why."""
    source, job = FakeSource(), claimed()
    async with hosting(source, FakeRuntime(hang)) as host:
        source.push(job)
        await source.until(lambda: job.id in source.running)
        await host.drain(0.01)
    assert [job_id for job_id, _ in source.released] == [job.id]
    assert "goes back to the queue" in source.logs[job.id]
    assert source.reports == {}


async def test_terminate_cuts_a_drain_short():
    """The second signal ends at once."""
    source, job = FakeSource(), claimed()
    async with hosting(source, FakeRuntime(hang)) as host:
        source.push(job)
        await source.until(lambda: job.id in source.running)
        draining = asyncio.create_task(host.drain(600))
        await source.until(lambda: source.ping and source.ping.draining)
        await host.terminate()
        await draining
    assert [job_id for job_id, _ in source.released] == [job.id]


async def test_a_job_that_is_not_ours_any_more_is_dropped():
    """Stopped, and nothing more said of it; other jobs go on."""
    source, job, other = FakeSource(), claimed(), claimed(kind=JobKind.NOOP)
    async with hosting(source, FakeRuntime(hang)):
        source.push(job)
        await source.until(lambda: source.ping and job.id in source.ping.held)
        source.orders = Orders(lost=(job.id,))
        await source.until(lambda: job.id not in source.pings[-1].held)
        source.push(other)
        await source.ended(other)
    assert job.id not in source.reports
    assert source.released == []


async def test_a_host_taken_for_dead_comes_back_as_another():
    """Its runs end unreported; it works on under a new incarnation with new worker names."""
    runtime = FakeRuntime(hang)
    source, job, other = FakeSource(), claimed(), claimed()
    async with hosting(source, runtime):
        source.push(job)
        await source.until(lambda: job.id in source.running and source.pings)
        before = {worker.worker for worker in source.pings[-1].workers}
        source.orders = Orders(lease_lost=True)
        await source.until(lambda: len(source.hosts) == 2)
        runtime.behaviour = FakeRuntime().behaviour
        source.push(other)
        (report,) = await source.ended(other)
    assert source.hosts[0].incarnation != source.hosts[1].incarnation
    assert report.worker not in before
    assert job.id not in source.reports


async def test_a_host_that_waits_for_its_source_can_be_ended():
    """Taken for dead, and the queue is away: it gives up waiting when told to."""
    source = FakeSource()
    async with hosting(source) as host:
        await source.until(lambda: source.pings)
        source.away = True
        source.orders = Orders(lease_lost=True)
        host._session._obey(source.orders, 0.0)
        await asyncio.sleep(0.02)
        await host.drain(1)
    assert len(source.hosts) == 1


async def test_results_survive_a_source_that_is_away():
    """The run goes on while the queue can't be reached; its result is reported when it is back."""
    go = asyncio.Event()

    async def wait(execution, listener):
        await go.wait()
        listener.log("still here\n")
        return Success(result=b'"kept"')

    source, job = FakeSource(), claimed()
    async with hosting(source, FakeRuntime(wait)):
        source.push(job)
        await source.until(lambda: job.id in source.running)
        source.away = True
        go.set()
        await asyncio.sleep(0.05)
        assert source.reports == {}
        source.away = False
        (report,) = await source.ended(job)
    assert report.result == b'"kept"'
    assert "still here" in source.logs[job.id]


async def test_a_host_can_be_told_to_end_after_n_jobs():
    """EXIT_AFTER_N_JOBS: it drains itself."""
    source = FakeSource()
    settings = msgspec.structs.replace(FAST, num_workers=1, exit_after_n_jobs=2)
    host = WorkerHost(settings=settings, source=source, runtimes=FakeRuntimes())
    await host.start()
    source.push(*(claimed() for _ in range(5)))
    await host.wait()
    assert len(source.reports) == 2
    assert source.running == {}


async def test_the_heartbeat_does_not_wait_for_the_loop():
    """A main loop that is blocked keeps its lease: pings come from a thread of their own."""
    source = FakeSource()
    async with hosting(source):
        await source.until(lambda: source.pings)
        n_pings = len(source.pings)
        deadline = asyncio.get_running_loop().time() + 10
        while len(source.pings) < n_pings + 3:  # never gives the loop a turn
            assert asyncio.get_running_loop().time() < deadline


async def test_an_out_of_memory_failure_is_labelled():
    """So that lists can show it."""

    async def starve(execution, listener):
        return Failure(kind=FailureKind.OOM, error=b'{"name":"OutOfMemory","message":"m"}')

    source, job = FakeSource(), claimed()
    async with hosting(source, FakeRuntime(starve)):
        source.push(job)
        (report,) = await source.ended(job)
    assert (report.status, report.labels) == (JobStatus.FAILURE, ("oom",))
