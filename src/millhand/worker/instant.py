"""Jobs that need no process: the worker knows the answer at once. Pure, and lean: 30,000 of them go by in a second."""

from __future__ import annotations

import msgspec

from millhand.core.job import ClaimedJob, JobKind, JobStatus, Report, error_result


class _IdentityArgs(msgspec.Struct):
    previous_result: msgspec.Raw = msgspec.Raw(b"null")


_decode_identity = msgspec.json.Decoder(_IdentityArgs).decode


def instant_report(job: ClaimedJob) -> Report | None:
    """Return how a no-op, an identity or an already cancelled job ended; None for jobs that must be run."""
    if job.canceled_by is not None:
        return canceled_report(job, by=job.canceled_by, reason=job.canceled_reason)
    if job.kind is JobKind.NOOP:
        return _success(job, b"{}")
    if job.kind is JobKind.IDENTITY:
        return _identity(job)
    return None


def canceled_report(
    job: ClaimedJob, *, by: str, reason: str | None, duration_ms: int = 0, memory_kb: int = 0
) -> Report:
    """Return the report of a job that was cancelled."""
    words = f"Job canceled: {reason} by {by}" if reason else f"Job canceled by {by}"
    return Report(
        job_id=job.id,
        attempt=job.attempt,
        worker=job.worker,
        status=JobStatus.CANCELED,
        result=error_result("Canceled", words, reason=reason, canceler=by),
        duration_ms=duration_ms,
        memory_peak_kb=memory_kb,
        canceled_by=by,
        canceled_reason=reason,
        delete_after_use=job.delete_after_use,
    )


def _identity(job: ClaimedJob) -> Report:
    try:
        return _success(job, bytes(_decode_identity(job.args).previous_result))
    except msgspec.DecodeError as error:
        result = error_result("BadArguments", f"an identity job gives back its argument previous_result: {error}")
        return msgspec.structs.replace(_success(job, result), status=JobStatus.FAILURE)


def _success(job: ClaimedJob, result: bytes) -> Report:
    return Report(
        job_id=job.id,
        attempt=job.attempt,
        worker=job.worker,
        status=JobStatus.SUCCESS,
        result=result,
        duration_ms=0,
        delete_after_use=job.delete_after_use,
    )
