"""From what a run came to, to what is recorded of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from millhand.core.job import MAX_JSON_BYTES, ClaimedJob, JobKind, JobStatus, Report
from millhand.core.worker import Cancelation
from millhand.runtimes.contract import Failure, FailureKind, StopCause, Stopped, Success
from millhand.worker.instant import canceled_report

OOM_LABEL = "oom"
TIMEOUT_CANCELER = "timeout"


class _Labelled(msgspec.Struct):
    wm_labels: msgspec.Raw = msgspec.Raw(b"[]")


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an attempt besides its outcome."""

    duration_ms: int
    timeout_s: int
    streamed: Sequence[str] = ()
    cancelation: Cancelation | None = None
    cache_key: str | None = None  # None also where the result came from the cache


def report_success(job: ClaimedJob, outcome: Success, ran: Ran) -> Report:
    """Return the report of code that returned."""
    result = with_stream(outcome.result, ran.streamed)
    if len(result) > MAX_JSON_BYTES:
        return report_failure(job, _too_large(len(result), outcome.memory_peak_kb), ran)
    return Report(
        job_id=job.id,
        attempt=job.attempt,
        worker=job.worker,
        status=JobStatus.SUCCESS,
        result=result,
        duration_ms=ran.duration_ms,
        memory_peak_kb=outcome.memory_peak_kb,
        labels=labels_of(result),
        cache_key=ran.cache_key,
        cache_ttl_s=job.cache_ttl_s if ran.cache_key else None,
        rerun=job.restart_unless_cancelled,
        delete_after_use=job.delete_after_use,
    )


def report_failure(job: ClaimedJob, outcome: Failure, ran: Ran) -> Report:
    """Return the report of code that failed. Failures are final: what ran out of memory once is not tried again."""
    return Report(
        job_id=job.id,
        attempt=job.attempt,
        worker=job.worker,
        status=JobStatus.FAILURE,
        result=b'{"error":%b}' % outcome.error,
        duration_ms=ran.duration_ms,
        memory_peak_kb=outcome.memory_peak_kb,
        labels=(OOM_LABEL,) if outcome.kind is FailureKind.OOM else (),
        rerun=job.restart_unless_cancelled,
        delete_after_use=job.delete_after_use,
    )


def report_stopped(job: ClaimedJob, outcome: Stopped, ran: Ran) -> Report | None:
    """Return the report of a run ended from outside; None where there is nothing to report: it was lost, or goes back."""
    if outcome.cause is StopCause.TIMEOUT:
        report = canceled_report(
            job,
            by=TIMEOUT_CANCELER,
            reason=f"duration > {ran.timeout_s}",
            duration_ms=ran.duration_ms,
            memory_kb=outcome.memory_peak_kb,
        )
        return msgspec.structs.replace(report, rerun=job.restart_unless_cancelled)
    if outcome.cause is StopCause.CANCELED and ran.cancelation is not None:
        return canceled_report(
            job,
            by=ran.cancelation.by,
            reason=ran.cancelation.reason,
            duration_ms=ran.duration_ms,
            memory_kb=outcome.memory_peak_kb,
        )
    return None


def failure(name: str, message: str, kind: FailureKind = FailureKind.ERROR) -> Failure:
    """Return a failure that the worker itself found."""
    return Failure(kind=kind, error=msgspec.json.encode({"name": name, "message": message}))


def with_stream(result: bytes, streamed: Sequence[str]) -> bytes:
    """Return the result of a job that streamed: the stream in place of null, or beside an object's keys as `wm_stream`."""
    if not streamed:
        return result
    stream = msgspec.json.encode("".join(streamed))
    body = result.strip()
    if body == b"null":
        return stream
    if not body.startswith(b"{") or b'"wm_stream"' in body:
        return result
    return b"{%b}" % (
        b'"wm_stream":' + stream if body[1:-1].isspace() or body == b"{}" else body[1:-1] + b',"wm_stream":' + stream
    )


def labels_of(result: bytes) -> tuple[str, ...]:
    """Return the labels that a result object carries under `wm_labels`: the strings of its list."""
    if b'"wm_labels"' not in result:
        return ()
    try:
        labels = msgspec.json.decode(msgspec.json.decode(result, type=_Labelled).wm_labels)
    except msgspec.DecodeError:  # not an object: no labels
        return ()
    if not isinstance(labels, list):
        return ()
    return tuple(dict.fromkeys(label for label in labels if isinstance(label, str)))


def cache_key(job: ClaimedJob, code: str) -> str:
    """Return the key under which this job's result is kept: the same code with the same arguments in the same workspace."""
    what = str(job.runnable_hash) if job.kind is JobKind.SCRIPT else code
    parts = (job.workspace_id, job.kind, job.runnable_path, job.language, job.entrypoint, what, _sorted(job.args))
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _sorted(args: bytes) -> str:
    return msgspec.json.encode(msgspec.json.decode(args), order="sorted").decode()


def _too_large(size: int, memory_peak_kb: int) -> Failure:
    found = failure(
        "ResultTooLarge",
        f"the result is {size} bytes of JSON; at most {MAX_JSON_BYTES} are kept: write it to a file or a table and return its name",
    )
    return msgspec.structs.replace(found, memory_peak_kb=memory_peak_kb)
