"""What goes over the wire, in the words of the public API: what is absent is left out, never null."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, UnsetType

from millhand.core.ids import hash_to_hex
from millhand.core.job import JobState, JobStatus
from millhand.core.people import TokenInfo
from millhand.core.script import Script
from millhand.store.jobs import JobRecord
from millhand.store.scripts import Version
from millhand.store.workers import WorkerRow


class QueuedJob(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="QueuedJob"):
    """A job that has not ended."""

    id: UUID
    workspace_id: str
    created_by: str
    created_at: datetime
    scheduled_for: datetime
    running: bool
    canceled: bool
    job_kind: str
    permissioned_as: str
    is_flow_step: bool
    email: str
    visible_to_owner: bool
    tag: str
    parent_job: UUID | UnsetType = UNSET
    root_job: UUID | UnsetType = UNSET
    started_at: datetime | UnsetType = UNSET
    script_path: str | UnsetType = UNSET
    script_hash: str | UnsetType = UNSET
    args: Raw | UnsetType = UNSET
    logs: str | UnsetType = UNSET
    raw_code: str | UnsetType = UNSET
    raw_lock: str | UnsetType = UNSET
    canceled_by: str | UnsetType = UNSET
    canceled_reason: str | UnsetType = UNSET
    schedule_path: str | UnsetType = UNSET
    trigger_kind: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    mem_peak: int | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    timeout: int | UnsetType = UNSET
    flow_step_id: str | UnsetType = UNSET
    suspend: int | UnsetType = UNSET
    worker: str | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    progress: int | UnsetType = UNSET


class CompletedJob(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="CompletedJob"):
    """A job that has ended."""

    id: UUID
    workspace_id: str
    created_by: str
    created_at: datetime
    scheduled_for: datetime
    started_at: datetime
    completed_at: datetime
    duration_ms: int
    success: bool
    status: str
    canceled: bool
    job_kind: str
    permissioned_as: str
    is_flow_step: bool
    is_skipped: bool
    email: str
    visible_to_owner: bool
    tag: str
    parent_job: UUID | UnsetType = UNSET
    root_job: UUID | UnsetType = UNSET
    script_path: str | UnsetType = UNSET
    script_hash: str | UnsetType = UNSET
    args: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    logs: str | UnsetType = UNSET
    raw_code: str | UnsetType = UNSET
    raw_lock: str | UnsetType = UNSET
    canceled_by: str | UnsetType = UNSET
    canceled_reason: str | UnsetType = UNSET
    schedule_path: str | UnsetType = UNSET
    trigger_kind: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    mem_peak: int | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    timeout: int | UnsetType = UNSET
    flow_step_id: str | UnsetType = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET
    deleted: bool | UnsetType = UNSET
    worker: str | UnsetType = UNSET
    attempt: int | UnsetType = UNSET


Job = QueuedJob | CompletedJob


def job_payload(job: JobRecord, *, logs: str | None = None, with_result: bool = True) -> Job:
    """Return a job as clients see it."""
    return _completed(job, logs=logs, with_result=with_result) if job.status else _queued(job, logs=logs)


def _queued(job: JobRecord, *, logs: str | None) -> QueuedJob:
    return QueuedJob(
        **_common(job, logs),
        running=job.state is JobState.RUNNING,
        canceled=job.canceled_by is not None,
        started_at=_or_unset(job.started_at),
        suspend=1 if job.state is JobState.SUSPENDED else UNSET,
        progress=_or_unset(job.progress),
    )


def _completed(job: JobRecord, *, logs: str | None, with_result: bool) -> CompletedJob:
    assert job.status is not None
    assert job.completed_at is not None
    return CompletedJob(
        **_common(job, logs),
        started_at=job.started_at or job.completed_at,
        completed_at=job.completed_at,
        duration_ms=job.duration_ms or 0,
        success=job.status in (JobStatus.SUCCESS, JobStatus.SKIPPED),
        status=job.status,
        canceled=job.status is JobStatus.CANCELED,
        is_skipped=job.status is JobStatus.SKIPPED,
        result=Raw(job.result or b"null") if with_result else UNSET,
        labels=_or_unset(job.labels),
        deleted=job.deleted or UNSET,
    )


def _common(job: JobRecord, logs: str | None) -> dict[str, Any]:
    return {
        "id": job.id,
        "workspace_id": job.workspace_id,
        "created_by": job.created_by,
        "created_at": job.created_at,
        "scheduled_for": job.scheduled_for,
        "job_kind": job.kind,
        "permissioned_as": job.permissioned_as,
        "is_flow_step": job.flow_step_id is not None,
        "email": job.email,
        "visible_to_owner": job.visible_to_owner,
        "tag": job.tag,
        "parent_job": _or_unset(job.parent_job),
        "root_job": _or_unset(job.root_job),
        "script_path": _or_unset(job.runnable_path),
        "script_hash": UNSET if job.runnable_hash is None else hash_to_hex(job.runnable_hash),
        "args": UNSET if job.args is None else Raw(job.args),
        "logs": _or_unset(logs),
        "raw_code": _or_unset(job.raw_code),
        "raw_lock": _or_unset(job.raw_lock),
        "canceled_by": _or_unset(job.canceled_by),
        "canceled_reason": _or_unset(job.canceled_reason),
        "schedule_path": _or_unset(job.trigger if job.trigger_kind == "schedule" else None),
        "trigger_kind": _or_unset(job.trigger_kind),
        "language": _or_unset(job.language),
        "mem_peak": job.memory_peak_kb or UNSET,
        "priority": job.priority or UNSET,
        "timeout": _or_unset(job.timeout_s),
        "flow_step_id": _or_unset(job.flow_step_id),
        "worker": _or_unset(job.worker),
        "attempt": job.attempt or UNSET,
    }


class MaybeResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a job, or how far it is. Clients read all four keys at every poll."""

    completed: bool
    success: bool | None
    result: Raw
    started: bool


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When a job was made, started, and how long it ran."""

    created_at: datetime
    started_at: datetime | UnsetType = UNSET
    duration_ms: int | UnsetType = UNSET


class JobUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What is new about a job since the last look. Offsets of logs count UTF-16 units."""

    running: bool | UnsetType = UNSET
    completed: bool | UnsetType = UNSET
    new_logs: str | UnsetType = UNSET
    log_offset: int | UnsetType = UNSET
    mem_peak: int | UnsetType = UNSET
    progress: int | UnsetType = UNSET
    new_result_stream: str | UnsetType = UNSET
    stream_offset: int | UnsetType = UNSET


class QueueCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs there are."""

    database_length: int
    suspended: int | UnsetType = UNSET


class TagCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a tag there are."""

    tag: str
    count: int


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True):
    """Place in the queue, from 1."""

    position: int


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What waits and runs for a tag, and how many workers listen to it."""

    tag: str
    waiting: int
    running: int
    workers: int
    scheduled: int
    delay: float | UnsetType = UNSET  # seconds the next job has been due


class WireScript(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a script."""

    workspace_id: str
    hash: str
    path: str
    summary: str
    description: str
    content: str
    created_by: str
    created_at: datetime
    archived: bool
    deleted: bool
    is_template: bool
    extra_perms: dict[str, bool]
    language: str
    kind: str
    starred: bool
    has_preprocessor: bool
    is_draft: bool
    ws_error_handler_muted: bool
    parent_hashes: list[str] | UnsetType = UNSET
    schema: Raw | UnsetType = UNSET
    lock: str | UnsetType = UNSET
    lock_error_logs: str | UnsetType = UNSET
    tag: str | UnsetType = UNSET
    envs: tuple[str, ...] | UnsetType = UNSET
    cache_ttl: int | UnsetType = UNSET
    timeout: int | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    concurrent_limit: int | UnsetType = UNSET
    concurrency_time_window_s: int | UnsetType = UNSET
    concurrency_key: str | UnsetType = UNSET
    dedicated_worker: bool | UnsetType = UNSET
    restart_unless_cancelled: bool | UnsetType = UNSET
    delete_after_use: bool | UnsetType = UNSET
    visible_to_runner_only: bool | UnsetType = UNSET
    no_main_func: bool | UnsetType = UNSET
    codebase: str | UnsetType = UNSET
    on_behalf_of_email: str | UnsetType = UNSET
    labels: tuple[str, ...] | UnsetType = UNSET


def script_payload(script: Script) -> WireScript:
    """Return a version of a script as clients see it."""
    options = script.options
    return WireScript(
        workspace_id=script.workspace_id,
        hash=hash_to_hex(script.hash),
        path=script.path,
        summary=script.summary,
        description=script.description,
        content=script.content,
        created_by=script.created_by,
        created_at=script.created_at,
        archived=script.archived,
        deleted=script.deleted,
        is_template=options.is_template,
        extra_perms={},
        language=script.language,
        kind=script.kind,
        starred=False,
        has_preprocessor=options.has_preprocessor,
        is_draft=False,
        ws_error_handler_muted=options.ws_error_handler_muted,
        parent_hashes=[hash_to_hex(parent) for parent in script.parent_hashes] or UNSET,
        schema=_or_unset(script.schema),
        lock=_or_unset(script.lock),
        lock_error_logs=_or_unset(script.lock_error),
        tag=_or_unset(script.tag),
        envs=script.envs or UNSET,
        cache_ttl=_or_unset(options.cache_ttl),
        timeout=_or_unset(options.timeout),
        priority=_or_unset(options.priority),
        concurrent_limit=_or_unset(options.concurrent_limit),
        concurrency_time_window_s=_or_unset(options.concurrency_time_window_s),
        concurrency_key=_or_unset(options.concurrency_key),
        dedicated_worker=_or_unset(options.dedicated_worker),
        restart_unless_cancelled=_or_unset(options.restart_unless_cancelled),
        delete_after_use=_or_unset(options.delete_after_use),
        visible_to_runner_only=_or_unset(options.visible_to_runner_only),
        no_main_func=_or_unset(options.no_main_func),
        codebase=_or_unset(options.codebase),
        on_behalf_of_email=_or_unset(options.on_behalf_of_email),
        labels=options.labels or UNSET,
    )


class ScriptVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a script's history."""

    script_hash: str
    created_at: datetime
    created_by: str
    deployment_msg: str | UnsetType = UNSET


def version_payload(version: Version) -> ScriptVersion:
    """Return a line of a script's history as clients see it."""
    return ScriptVersion(
        script_hash=hash_to_hex(version.hash),
        created_at=version.created_at,
        created_by=version.created_by,
        deployment_msg=_or_unset(version.deployment_message),
    )


class DeploymentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the dependencies of a version are known."""

    lock: str | UnsetType = UNSET
    lock_error_logs: str | UnsetType = UNSET
    job_id: str | UnsetType = UNSET


class WireWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker."""

    worker: str
    worker_instance: str
    last_ping: int  # seconds ago
    started_at: datetime
    ip: str
    jobs_executed: int
    custom_tags: list[str]
    worker_group: str
    wm_version: str
    vcpus: int
    memory: int
    memory_usage: int
    wm_memory_usage: int
    job_isolation: str
    native_mode: bool
    draining: bool
    last_job_id: UUID | UnsetType = UNSET
    last_job_workspace_id: str | UnsetType = UNSET
    current_job_id: UUID | UnsetType = UNSET
    occupancy_rate: float | UnsetType = UNSET
    occupancy_rate_15s: float | UnsetType = UNSET
    occupancy_rate_5m: float | UnsetType = UNSET
    occupancy_rate_30m: float | UnsetType = UNSET


def worker_payload(worker: WorkerRow) -> WireWorker:
    """Return a worker as clients see it."""
    return WireWorker(
        worker=worker.name,
        worker_instance=worker.hostname,
        last_ping=round(worker.last_ping_s),
        started_at=worker.started_at,
        ip=worker.ip,
        jobs_executed=worker.jobs_executed,
        custom_tags=worker.tags,
        worker_group=worker.worker_group,
        wm_version=worker.version,
        vcpus=worker.vcpus,
        memory=worker.memory,
        memory_usage=worker.memory_usage,
        wm_memory_usage=worker.host_memory_usage,
        job_isolation=worker.isolation,
        native_mode=worker.worker_group == "native",
        draining=worker.draining,
        last_job_id=_or_unset(worker.last_job),
        last_job_workspace_id=_or_unset(worker.last_job_workspace),
        current_job_id=_or_unset(worker.current_job),
        occupancy_rate=_or_unset(worker.occupancy),
        occupancy_rate_15s=_or_unset(worker.occupancy_15s),
        occupancy_rate_5m=_or_unset(worker.occupancy_5m),
        occupancy_rate_30m=_or_unset(worker.occupancy_30m),
    )


class WireToken(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a token."""

    token_prefix: str
    email: str
    created_at: datetime
    last_used_at: datetime
    read_only: bool
    label: str | UnsetType = UNSET
    expiration: datetime | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    workspace_id: str | UnsetType = UNSET


def token_payload(token: TokenInfo) -> WireToken:
    """Return what is shown of a token."""
    return WireToken(
        token_prefix=token.token_prefix,
        email=token.email,
        created_at=token.created_at,
        last_used_at=token.last_used_at,
        read_only="read_only" in (token.scopes or ()),
        label=_or_unset(token.label),
        expiration=_or_unset(token.expiration),
        scopes=_or_unset(token.scopes),
        workspace_id=_or_unset(token.workspace_id),
    )


def job_payloads(jobs: Iterable[JobRecord]) -> list[Job]:
    """Return jobs of a list as clients see them: without results."""
    return [job_payload(job, with_result=False) for job in jobs]


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value
