"""The run of a job, in one sentence: started → prepared → executed → classified → reported.

Each step takes one record, the attempt. What is decided early (a cached result, a lock that failed, a stop) is written on
it as its outcome, and the steps after it pass by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
import structlog

from millhand.core.clock import Clock
from millhand.core.errors import LockFailedError, MillhandError, RuntimeUnavailableError
from millhand.core.job import ClaimedJob, JobKind, Report
from millhand.core.script import Language
from millhand.core.worker import Cancelation, JobSource
from millhand.runtimes.contract import (
    Execution,
    Failure,
    FailureKind,
    Outcome,
    Runtime,
    Stop,
    StopCause,
    Stopped,
    Success,
)
from millhand.worker import classify
from millhand.worker.code import Code, CodeLoader
from millhand.worker.environment import job_environment
from millhand.worker.logs import JobLog
from millhand.worker.pace import insist
from millhand.worker.settings import WorkerSettings

T = TypeVar("T")

# A job's token outlives its timeout by this: `finally` blocks use it too, and the answer to the claim took a while.
_TOKEN_GRACE_S = 120.0
_LANGUAGE_NAMES = {Language.PYTHON3: "PYTHON"}

_log = structlog.get_logger()


class Runtimes(Protocol):
    """The languages this host runs."""

    @property
    def isolation_text(self) -> str:
        """Say what jobs are kept apart by."""
        ...

    async def start(self) -> None:
        """Start what should be warm before the first job."""
        ...

    async def close(self) -> None:
        """End every process."""
        ...

    def get(self, language: Language) -> Runtime:
        """Return the runtime of a language; raises RuntimeUnavailableError."""
        ...


class Attempt:
    """One try of a job, from claim to report."""

    def __init__(self, job: ClaimedJob, log: JobLog, *, began: float) -> None:
        self.job = job
        self.log = log
        self.began = began  # monotonic
        self.stop = Stop()
        self.cancelation: Cancelation | None = None
        self.timeout_s = 0
        self.runtime: Runtime | None = None
        self.execution: Execution | None = None
        self.outcome: Outcome | None = None
        self.cache_key: str | None = None
        self.report: Report | None = None
        self.task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def clock_on(self) -> None:
        """Have the run ended when its time is up."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.timeout_s, self.stop.request, StopCause.TIMEOUT)

    def clock_off(self) -> None:
        """Let time pass: the run has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def cancel(self, cancelation: Cancelation) -> None:
        """End the run because somebody wants it to end."""
        self.cancelation = self.cancelation or cancelation
        self.stop.request(StopCause.CANCELED)


class JobRunner:
    """Runs attempts; holds what all of them need."""

    def __init__(
        self,
        *,
        source: JobSource,
        runtimes: Runtimes,
        settings: WorkerSettings,
        clock: Clock,
        hostname: str,
        free: Callable[[Attempt], None],
        report: Callable[[Attempt], None],
    ) -> None:
        self._source = source
        self._runtimes = runtimes
        self._settings = settings
        self._clock = clock
        self._hostname = hostname
        self._free = free  # the attempt's worker can take the next job
        self._report = report  # hand over what is to be recorded
        self._code = CodeLoader(source)
        self._limits = settings.limits

    async def run(self, attempt: Attempt) -> None:
        """Run an attempt to its report. Never raises for what the job does, nor for a source that is away."""
        try:
            await self._decided(attempt, self._started)
            await self._decided(attempt, self._prepared)
            await self._decided(attempt, self._executed)
        finally:
            attempt.clock_off()
            self._free(attempt)
        self._classified(attempt)
        await self._reported(attempt)

    async def _started(self, attempt: Attempt) -> None:
        """Begin the log and start the clock."""
        job = attempt.job
        attempt.timeout_s = effective_timeout_s(job, self._settings)
        isolation = self._runtimes.isolation_text
        attempt.log.head(
            f"job={job.id} tag={job.tag} worker={job.worker} hostname={self._hostname} isolation={isolation}\n"
        )
        attempt.clock_on()

    async def _decided(self, attempt: Attempt, step: Callable[[Attempt], Awaitable[Outcome | None]]) -> None:
        """Take a step unless the outcome stands already; what goes wrong in it is the outcome."""
        if attempt.outcome is not None:
            return
        try:
            attempt.outcome = await step(attempt)
        except LockFailedError as error:
            attempt.outcome = classify.failure("LockFailed", str(error))
        except RuntimeUnavailableError as error:
            attempt.outcome = classify.failure("RuntimeUnavailable", str(error), FailureKind.UNAVAILABLE)
        except MillhandError as error:
            attempt.outcome = classify.failure("ExecutionErr", str(error))
        except Exception as error:  # noqa: BLE001 - a bug of ours ends this job with a clear error, not the host
            _log.exception("job.worker_error", job_id=str(attempt.job.id))
            message = f"the worker failed to run this job: {type(error).__name__}: {error}"
            attempt.outcome = classify.failure("WorkerError", message, FailureKind.UNAVAILABLE)

    async def _prepared(self, attempt: Attempt) -> Outcome | None:
        """Fetch the code and what it imports, look into the cache, make its environment ready."""
        job = attempt.job
        code = await _unless_stopped(attempt.stop, insist(lambda: self._code.load(job)))
        if isinstance(code, Stopped):
            return code
        attempt.runtime = self._runtimes.get(code.language)
        attempt.execution = self._execution(attempt, code)
        if job.kind is JobKind.DEPENDENCIES:
            return None
        cached = await self._cached(attempt, code)
        if cached is not None:
            return cached
        prepared = await _unless_stopped(attempt.stop, attempt.runtime.prepare(attempt.execution, attempt.log))
        if isinstance(prepared, Stopped):
            return prepared
        attempt.execution = prepared
        return None

    async def _executed(self, attempt: Attempt) -> Outcome:
        """Run the prepared code, or resolve its dependencies, to the end."""
        assert attempt.runtime is not None
        assert attempt.execution is not None
        if attempt.job.kind is JobKind.DEPENDENCIES:
            return await self._locked(attempt, attempt.runtime, attempt.execution)
        language = attempt.execution.language
        attempt.log.log(f"\n--- {_LANGUAGE_NAMES.get(language, language.value.upper())} CODE EXECUTION ---\n\n")
        return await attempt.runtime.execute(attempt.execution, attempt.log, attempt.stop)

    def _classified(self, attempt: Attempt) -> None:
        """Turn the outcome into the report; there is none for a job that was lost or goes back to the queue."""
        job, outcome = attempt.job, attempt.outcome
        ran = classify.Ran(
            duration_ms=round((self._clock.monotonic() - attempt.began) * 1000),
            timeout_s=attempt.timeout_s,
            streamed=attempt.log.streamed,
            cancelation=attempt.cancelation,
            cache_key=attempt.cache_key,
        )
        match outcome:
            case Success():
                attempt.report = classify.report_success(job, outcome, ran)
            case Failure():
                attempt.report = classify.report_failure(job, outcome, ran)
            case Stopped():
                attempt.report = classify.report_stopped(job, outcome, ran)

    async def _reported(self, attempt: Attempt) -> None:
        """Hand over the report with the rest of the log: who sees the job ended sees all of its log."""
        if attempt.stop.cause is StopCause.LOST:
            attempt.log.discard()
        elif attempt.report is None:
            attempt.log.log("\nthe worker shuts down: the job goes back to the queue\n")
        rest = attempt.log.rest() if attempt.report is not None else None
        if rest is None:
            await attempt.log.end()
        elif attempt.report is not None:
            attempt.report = msgspec.structs.replace(attempt.report, log=rest)
        self._report(attempt)

    def _execution(self, attempt: Attempt, code: Code) -> Execution:
        job = attempt.job
        token = self._source.job_token(job, ttl_s=attempt.timeout_s + _TOKEN_GRACE_S)
        return Execution(
            job_id=job.id,
            language=code.language,
            code=code.text,
            args=job.args,
            env=job_environment(job, settings=self._settings, token=token, envs=code.envs),
            path=code.path,
            lock=code.lock,
            entrypoint=job.entrypoint,
            modules=code.modules,
            limits=self._limits,
        )

    async def _cached(self, attempt: Attempt, code: Code) -> Success | None:
        """Return the kept result of an earlier run with the same input; else note under which key to keep this one's."""
        if not attempt.job.cache_ttl_s:
            return None
        key = classify.cache_key(attempt.job, code.text)
        result = await insist(lambda: self._source.cached_result(key))
        if result is None:
            attempt.cache_key = key
            return None
        attempt.log.log("not run: the same code ran with the same arguments, and its result has not expired\n")
        return Success(result=result)

    async def _locked(self, attempt: Attempt, runtime: Runtime, execution: Execution) -> Outcome:
        """Resolve the dependencies and store the lock, or why there is none, with the script."""
        attempt.log.log("\n--- RESOLVING DEPENDENCIES ---\n\n")
        try:
            lock = await _unless_stopped(attempt.stop, runtime.lock(execution, attempt.log))
        except LockFailedError as error:
            await self._save_lock(attempt.job, lock=None, error=str(error))
            raise
        if isinstance(lock, Stopped):
            if lock.cause in (StopCause.TIMEOUT, StopCause.CANCELED):
                await self._save_lock(attempt.job, lock=None, error=f"resolving was ended early: {lock.cause}")
            return lock
        await self._save_lock(attempt.job, lock=lock, error=None)
        return Success(result=msgspec.json.encode({"lock": lock}))

    async def _save_lock(self, job: ClaimedJob, *, lock: str | None, error: str | None) -> None:
        script_hash = job.runnable_hash
        if script_hash is not None:
            await insist(lambda: self._source.save_lock(job.workspace_id, script_hash, lock=lock, error=error))


def effective_timeout_s(job: ClaimedJob, settings: WorkerSettings) -> int:
    """Return after how long a run is ended: what the job asks for, else the instance's default, never over its maximum."""
    asked = job.timeout_s or settings.job_default_timeout_s or settings.job_max_timeout_s
    return min(asked, settings.job_max_timeout_s)


async def _unless_stopped(stop: Stop, work: Awaitable[T]) -> T | Stopped:
    """Do work that can be cancelled; a stop, also one that came before, ends it.

    It is done in the task of the attempt itself: nearly always it needs not wait, and a task more costs a job 20 µs.
    """
    task = asyncio.current_task()
    assert task is not None

    def end(_: StopCause) -> None:
        task.cancel()

    stop.arm(end)
    try:
        result = await work
    except asyncio.CancelledError:
        if stop.cause is None or task.uncancel():
            raise
        return Stopped(cause=stop.cause)
    finally:
        stop.disarm()
    if stop.cause is not None:  # it came too late to end the work
        task.uncancel()
        return Stopped(cause=stop.cause)
    return result
