"""Why a job stands where it stands, in words and in data. Pure: the facts come from one statement."""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

import msgspec

from millhand.core.job import JobState, JobStatus

AHEAD_BOUND = 10_000  # jobs ahead are counted no further


class Cause(enum.StrEnum):
    """What a job waits for, or that it waits for nothing."""

    SCHEDULED = "scheduled"  # its time has not come
    NO_WORKER = "no_worker"  # no live worker listens to its tag
    DRAINING = "draining"  # the only workers of its tag are about to end
    BUSY = "busy"  # every worker of its tag runs something else
    STARTING = "starting"  # a worker is free and takes it in the next moment
    SUSPENDED = "suspended"  # waits for an event, an approval, its children
    CANCELING = "canceling"  # runs, and was told to stop
    RUNNING = "running"
    COMPLETED = "completed"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the queue knows about one job at one moment."""

    now: datetime
    tag: str
    priority: int
    scheduled_for: datetime
    state: JobState | None  # None: completed
    status: JobStatus | None
    completed_at: datetime | None
    worker: str | None
    started_at: datetime | None
    attempt: int
    n_lost: int
    canceled_by: str | None
    canceled_reason: str | None
    n_ahead: int  # queued jobs of its tag that go first, up to AHEAD_BOUND
    n_workers: int  # live workers that listen to the tag, draining ones left out
    n_draining: int  # live workers of the tag that take no more jobs
    n_busy: int  # those of n_workers that run a job
    busy_since: datetime | None  # start of the longest of these jobs
    live_tags: tuple[str, ...]  # every tag a live worker listens to


class Why(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer."""

    id: UUID
    cause: Cause
    text: str
    tag: str
    jobs_ahead: int | None = None
    workers: int | None = None
    workers_busy: int | None = None
    busy_since: datetime | None = None
    scheduled_for: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker: str | None = None
    status: JobStatus | None = None
    canceled_by: str | None = None
    canceled_reason: str | None = None
    live_tags: tuple[str, ...] = ()


def explain(job_id: UUID, facts: Facts) -> Why:
    """Say why a job has not started; for jobs that have, say how they stand."""
    if facts.state is None:
        return _completed(job_id, facts)
    if facts.state == JobState.RUNNING:
        return _running(job_id, facts)
    if facts.state == JobState.SUSPENDED:
        return _answer(job_id, facts, Cause.SUSPENDED, "it waits for an approval, an event or its children")
    if facts.state == JobState.SCHEDULED and facts.scheduled_for > facts.now:
        wait = duration((facts.scheduled_for - facts.now).total_seconds())
        when = facts.scheduled_for.strftime("%Y-%m-%d %H:%M:%S UTC")
        return _answer(job_id, facts, Cause.SCHEDULED, f"it is scheduled for {when}, in {wait}")
    return _queued(job_id, facts)


def unserved(tag: str) -> str:
    """Return the warning for a job whose tag nobody serves."""
    return f"no live worker listens to the tag '{tag}'; the job waits until one does"


def duration(seconds: float) -> str:
    """Write a span of time the way people say it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if seconds < 10:  # noqa: PLR2004 - below this, tenths matter
        return f"{abs(max(seconds, 0)):.1f} s"  # of -0.0, too
    whole = round(seconds)
    for size, unit, rest, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            left = whole % size // rest
            return f"{whole // size} {unit}" + (f" {left} {small}" if left else "")
    return f"{whole} s"


def _queued(job_id: UUID, facts: Facts) -> Why:
    if not facts.n_workers and facts.n_draining:
        text = f"the only workers that listen to the tag '{facts.tag}' are draining; it waits for new ones"
        return _answer(job_id, facts, Cause.DRAINING, text)
    if not facts.n_workers:
        return _answer(job_id, facts, Cause.NO_WORKER, f"{unserved(facts.tag)} {_listened(facts)}")
    ahead = _ahead(facts.n_ahead)
    if facts.n_busy < facts.n_workers:
        free = facts.n_workers - facts.n_busy
        text = f"{free} of {facts.n_workers} workers of the tag '{facts.tag}' {_are(free)} free; {ahead}; it starts in a moment"
        return _answer(job_id, facts, Cause.STARTING, text)
    since = duration((facts.now - facts.busy_since).total_seconds()) if facts.busy_since else "a moment"
    workers = f"all {facts.n_workers} workers" if facts.n_workers > 1 else "the only worker"
    text = f"{workers} of the tag '{facts.tag}' {_are(facts.n_workers)} busy, the longest for {since}; {ahead}"
    return _answer(job_id, facts, Cause.BUSY, text)


def _running(job_id: UUID, facts: Facts) -> Why:
    since = duration((facts.now - facts.started_at).total_seconds()) if facts.started_at else "a moment"
    if facts.canceled_by:
        text = f"it runs on {facts.worker} since {since} and was told to stop by {facts.canceled_by}"
        return _answer(job_id, facts, Cause.CANCELING, text)
    again = f" (its attempt {facts.attempt}: {facts.n_lost} lost their worker)" if facts.n_lost else ""
    return _answer(job_id, facts, Cause.RUNNING, f"it runs on {facts.worker} since {since}{again}")


def _completed(job_id: UUID, facts: Facts) -> Why:
    words = {JobStatus.SUCCESS: "it succeeded", JobStatus.FAILURE: "it failed", JobStatus.SKIPPED: "it was skipped"}
    text = words.get(facts.status) if facts.status else None
    if text is None:
        text = f"it was canceled by {facts.canceled_by or 'somebody'}"
        text += f": {facts.canceled_reason}" if facts.canceled_reason else ""
    return _answer(job_id, facts, Cause.COMPLETED, text)


def _listened(facts: Facts) -> str:
    if not facts.live_tags:
        return "(no worker is alive at all: start one with `millhand worker`)"
    shown = ", ".join(facts.live_tags[:12]) + (", …" if len(facts.live_tags) > 12 else "")  # noqa: PLR2004 - a line
    return f"(live workers listen to: {shown})"


def _ahead(n: int) -> str:
    if n == 0:
        return "it is next"
    return f"{n} {'job goes' if n == 1 else 'jobs go'} first" if n < AHEAD_BOUND else f"more than {n - 1} jobs go first"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def _answer(job_id: UUID, facts: Facts, cause: Cause, text: str) -> Why:
    waiting = cause in (Cause.NO_WORKER, Cause.DRAINING, Cause.BUSY, Cause.STARTING)
    return Why(
        id=job_id,
        cause=cause,
        text=text,
        tag=facts.tag,
        jobs_ahead=facts.n_ahead if waiting else None,
        workers=facts.n_workers if waiting else None,
        workers_busy=facts.n_busy if waiting else None,
        busy_since=facts.busy_since if cause is Cause.BUSY else None,
        scheduled_for=facts.scheduled_for,
        started_at=facts.started_at,
        completed_at=facts.completed_at,
        worker=facts.worker,
        status=facts.status,
        canceled_by=facts.canceled_by,
        canceled_reason=facts.canceled_reason,
        live_tags=facts.live_tags if cause is Cause.NO_WORKER else (),
    )
