"""Jobs: one request to run something, its states, its outcome.

push ─► scheduled ─► queued ─► running ─► completed (success | failure | canceled | skipped)
                       ▲          │
                       └──────────┘ released by a draining worker, or rescued from a lost one
"""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

import msgspec

from millhand.core.script import Language

MAX_ATTEMPTS_LOST = 3  # rescues before a job is failed: a poison pill must not walk through all workers
MAX_JSON_BYTES = 500 * 1024 * 1024  # arguments and results over this are refused
DEFAULT_MAX_TIMEOUT_S = 604_800  # seven days: the bound where neither instance, script nor run says less


class JobKind(enum.StrEnum):
    """What a job runs; the value is its name on the wire."""

    SCRIPT = "script"  # a deployed script, by hash
    PREVIEW = "preview"  # code sent along with the request
    DEPENDENCIES = "dependencies"  # resolves a script's imports into its lock
    NOOP = "noop"  # nothing; result {}
    IDENTITY = "identity"  # gives back its argument `previous_result`


class JobState(enum.StrEnum):
    """Where a job that has not ended stands."""

    SCHEDULED = "scheduled"  # its time has not come
    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"  # a worker holds it
    SUSPENDED = "suspended"  # waits for an event, an approval, its children


class JobStatus(enum.StrEnum):
    """How a job ended. Final: nothing changes it."""

    SUCCESS = "success"
    FAILURE = "failure"
    CANCELED = "canceled"
    SKIPPED = "skipped"


class NewJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job to be pushed."""

    id: UUID
    workspace_id: str
    kind: JobKind
    tag: str
    created_by: str
    permissioned_as: str  # u/<username> or g/<group>: whose rights the job has
    email: str
    args: bytes = b"{}"  # a JSON object, as it came
    runnable_path: str | None = None
    runnable_hash: int | None = None
    raw_code: str | None = None
    raw_lock: str | None = None
    language: Language | None = None
    entrypoint: str | None = None  # another function than main
    priority: int = 0  # 1..100; 0 means none was asked for
    scheduled_for: datetime | None = None  # None: now, by the database's clock
    timeout_s: int | None = None
    cache_ttl_s: int | None = None
    parent_job: UUID | None = None
    root_job: UUID | None = None
    flow_step_id: str | None = None
    trigger: str | None = None
    trigger_kind: str | None = None
    visible_to_owner: bool = True
    awaited: bool = False  # somebody waits for the result: say so when it ends
    delete_after_use: bool = False
    restart_unless_cancelled: bool = False


class ClaimedJob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job that a worker holds: everything needed to run it but the code of deployed scripts, which is fetched by hash."""

    id: UUID
    attempt: int  # fences every later write: a job claimed again carries a higher one
    worker: str
    workspace_id: str
    kind: JobKind
    tag: str
    args: bytes
    created_by: str
    permissioned_as: str
    email: str
    scheduled_for: datetime
    started_at: datetime
    runnable_path: str | None
    runnable_hash: int | None
    raw_code: str | None
    raw_lock: str | None
    language: Language | None
    entrypoint: str | None
    priority: int
    timeout_s: int | None
    cache_ttl_s: int | None
    parent_job: UUID | None
    root_job: UUID | None
    flow_step_id: str | None
    trigger: str | None
    awaited: bool
    canceled_by: str | None  # set when it was canceled between push and claim
    canceled_reason: str | None
    delete_after_use: bool
    restart_unless_cancelled: bool


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one attempt of a job ended, on its way to the record."""

    job_id: UUID
    attempt: int
    worker: str
    status: JobStatus
    result: bytes  # JSON
    duration_ms: int
    memory_peak_kb: int = 0
    labels: tuple[str, ...] = ()
    canceled_by: str | None = None
    canceled_reason: str | None = None
    cache_key: str | None = None  # with cache_ttl_s: keep the result for later runs with the same input
    cache_ttl_s: int | None = None
    rerun: bool = False  # restart_unless_cancelled: push the same job again in the same transaction
    delete_after_use: bool = False
    log: str = ""  # the rest of its log, appended in the same commit: who sees the job ended sees all of its log


class LogChunk(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A piece of a job's log, in order of arrival."""

    job_id: UUID
    text: str


def error_result(name: str, message: str, **extra: object) -> bytes:
    """Return the JSON of a failed job's result: `{"error": {"name", "message", …}}`, the shape for every language."""
    fields = {key: value for key, value in extra.items() if value is not None}
    return msgspec.json.encode({"error": {"name": name, "message": message, **fields}})
