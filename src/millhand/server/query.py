"""Parameters that many routes share, read from the query of a request."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from litestar.params import FromQuery

from millhand.core.errors import BadRequestError
from millhand.core.ids import hash_from_hex
from millhand.core.script import check_path
from millhand.server.request import ApiRequest
from millhand.store import jobs
from millhand.store.jobs import JobFilter, Page

MAX_INT = 2**31 - 1
MAX_PER_PAGE = 100_000
LIST_PER_PAGE = 30


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is asked for, beside its arguments."""

    scheduled_for: datetime | None = None  # None: now, by the database's clock
    tag: str | None = None
    timeout: int | None = None  # seconds
    priority: int | None = None
    cache_ttl: int | None = None  # seconds
    parent_job: UUID | None = None
    root_job: UUID | None = None
    job_id: UUID | None = None
    invisible_to_owner: bool = False
    queue_limit: int | None = None
    include_header: str | None = None


async def run_options(
    *,
    request: ApiRequest,
    scheduled_for: FromQuery[datetime | None] = None,
    scheduled_in_secs: FromQuery[float | None] = None,
    tag: FromQuery[str | None] = None,
    timeout: FromQuery[float | None] = None,  # noqa: ASYNC109 - of the job, not of this function
    priority: FromQuery[int | None] = None,
    cache_ttl: FromQuery[int | None] = None,
    parent_job: FromQuery[UUID | None] = None,
    root_job: FromQuery[UUID | None] = None,
    job_id: FromQuery[UUID | None] = None,
    invisible_to_owner: FromQuery[bool] = False,
    queue_limit: FromQuery[int | None] = None,
    include_header: FromQuery[str | None] = None,
    retry: FromQuery[str | None] = None,
) -> RunOptions:
    """Read how a run is asked for; raises BadRequestError naming the parameter that makes no sense."""
    if retry:
        raise BadRequestError("retry is not possible for a single script yet; catch the error in the script itself")
    if scheduled_for is not None and scheduled_in_secs is not None:
        raise BadRequestError("give scheduled_for or scheduled_in_secs, not both")
    if scheduled_for is not None and scheduled_for.tzinfo is None:
        raise BadRequestError("scheduled_for needs a time zone, like 2030-01-31T08:00:00Z")
    _within("scheduled_in_secs", scheduled_in_secs, least=0)
    _within("timeout", timeout, least=0, open_end=True)
    _within("priority", priority, least=1, most=100)
    _within("cache_ttl", cache_ttl, least=0)
    _within("queue_limit", queue_limit, least=0)
    return RunOptions(
        scheduled_for=scheduled_for if scheduled_in_secs is None else await _in(request, scheduled_in_secs),
        tag=tag or None,
        timeout=None if timeout is None else math.ceil(timeout),
        priority=priority,
        cache_ttl=cache_ttl or None,
        parent_job=parent_job,
        root_job=root_job,
        job_id=job_id,
        invisible_to_owner=invisible_to_owner,
        queue_limit=queue_limit,
        include_header=include_header,
    )


async def _in(request: ApiRequest, seconds: float) -> datetime:
    """Return the time in so many seconds, by the database's clock: it decides when a job is due."""
    try:
        return await jobs.database_time(request.database) + timedelta(seconds=seconds)
    except OverflowError:
        raise BadRequestError("scheduled_in_secs lies beyond the calendar") from None


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs a list shows."""

    wanted: JobFilter
    page: Page
    path: str | None
    parent: UUID | None
    all_workspaces: bool
    with_args: bool
    in_queue: bool  # the filter asks for what only unended jobs have
    ended: bool  # the filter asks for what only ended jobs have


async def job_query(
    *,
    created_by: FromQuery[str | None] = None,
    label: FromQuery[str | None] = None,
    worker: FromQuery[str | None] = None,
    tag: FromQuery[str | None] = None,
    job_kinds: FromQuery[str | None] = None,
    trigger_kind: FromQuery[str | None] = None,
    trigger_path: FromQuery[str | None] = None,
    schedule_path: FromQuery[str | None] = None,
    script_path_exact: FromQuery[str | None] = None,
    script_path_start: FromQuery[str | None] = None,
    script_hash: FromQuery[str | None] = None,
    parent_job: FromQuery[UUID | None] = None,
    started_before: FromQuery[datetime | None] = None,
    started_after: FromQuery[datetime | None] = None,
    created_before: FromQuery[datetime | None] = None,
    created_after: FromQuery[datetime | None] = None,
    completed_before: FromQuery[datetime | None] = None,
    completed_after: FromQuery[datetime | None] = None,
    running: FromQuery[bool | None] = None,
    suspended: FromQuery[bool | None] = None,
    scheduled_for_before_now: FromQuery[bool | None] = None,
    success: FromQuery[bool | None] = None,
    status: FromQuery[str | None] = None,
    is_skipped: FromQuery[bool | None] = None,
    is_flow_step: FromQuery[bool | None] = None,
    has_null_parent: FromQuery[bool | None] = None,
    is_not_schedule: FromQuery[bool | None] = None,
    args: FromQuery[str | None] = None,
    result: FromQuery[str | None] = None,
    allow_wildcards: FromQuery[bool] = False,
    all_workspaces: FromQuery[bool] = False,
    include_args: FromQuery[bool] = False,
    order_desc: FromQuery[bool] = True,
    before_id: FromQuery[UUID | None] = None,
    page: FromQuery[int] = 1,
    per_page: FromQuery[int] = LIST_PER_PAGE,
) -> JobQuery:
    """Read the filter of a list of jobs. A comma means or; `!` before all values means none of them."""
    by, not_by = _patterns(created_by, wild=allow_wildcards)
    labels, not_labels = _patterns(label, wild=allow_wildcards)
    workers, not_workers = _patterns(worker, wild=allow_wildcards)
    tags, not_tags = _patterns(tag, wild=allow_wildcards)
    kinds, not_kinds = _values(job_kinds)
    trigger = schedule_path or trigger_path
    wanted = JobFilter(
        created_by=by,
        not_created_by=not_by,
        label=labels,
        not_label=not_labels,
        worker=workers,
        not_worker=not_workers,
        tag=tags,
        not_tag=not_tags,
        kinds=kinds,
        not_kinds=not_kinds,
        trigger_kinds=["schedule"] if schedule_path else _values(trigger_kind)[0],
        trigger=trigger or None,
        path_start=script_path_start or None,
        script_hash=None if script_hash is None else read_hash(script_hash),
        started_before=started_before,
        started_after=started_after,
        created_before=created_before,
        created_after=created_after,
        completed_before=completed_before,
        completed_after=completed_after,
        running=running,
        suspended=suspended,
        due=scheduled_for_before_now,
        statuses=_statuses(status, success=success, skipped=is_skipped),
        is_flow_step=is_flow_step,
        has_parent=None if has_null_parent is None else not has_null_parent,
        scheduled=None if is_not_schedule is None else not is_not_schedule,
        args=_json("args", args),
        result=_json("result", result),
    )
    ended = wanted.statuses or completed_before or completed_after or wanted.label or wanted.result
    return JobQuery(
        wanted=wanted,
        page=page_of(page, per_page, before=before_id, oldest_first=not order_desc),
        path=script_path_exact or None,
        parent=parent_job,
        all_workspaces=all_workspaces,
        with_args=include_args,
        in_queue=bool(running or suspended or scheduled_for_before_now),
        ended=bool(ended),
    )


def page_of(page: int, per_page: int, *, before: UUID | None = None, oldest_first: bool = False) -> Page:
    """Return a page; the first one is 1, and 0 is taken for it."""
    _within("per_page", per_page, least=1)
    _within("page", page, least=0)
    limit = min(per_page, MAX_PER_PAGE)
    return Page(limit=limit, offset=(max(page, 1) - 1) * limit, before=before, oldest_first=oldest_first)


def read_id(text: str) -> UUID:
    """Return the id of a job in a path; raises BadRequestError where it is none."""
    try:
        return UUID(text)
    except ValueError:
        raise BadRequestError(
            f"{text!r} is not the id of a job; ids look like 01890a5d-ac96-774b-bcce-b302099a8057"
        ) from None


def read_hash(text: str) -> int:
    """Return a script hash; raises BadRequestError where it is none."""
    try:
        return hash_from_hex(text)
    except ValueError:
        raise BadRequestError(f"{text!r} is not the hash of a script; hashes are 16 hexadecimal digits") from None


def read_path(text: str) -> str:
    """Return the path of a script from the end of a URL; raises BadRequestError where it is none."""
    return check_path(text.removeprefix("/"))


def _within(name: str, value: float | None, *, least: float, most: float = MAX_INT, open_end: bool = False) -> None:
    if value is None:
        return
    if not least <= value <= most or (open_end and value == least):
        over = f"greater than {least:g}" if open_end else f"at least {least:g}"
        raise BadRequestError(f"{name} is {value:g}; it must be {over} and at most {most:g}")


def _values(text: str | None) -> tuple[list[str] | None, list[str] | None]:
    """Cut a comma list into the wanted values, or, where all have a `!` before them, the unwanted ones."""
    values = [value.strip() for value in (text or "").split(",") if value.strip()]
    if not values:
        return None, None
    if all(value.startswith("!") for value in values):
        return None, [value[1:] for value in values]
    return values, None


def _patterns(text: str | None, *, wild: bool) -> tuple[list[str] | None, list[str] | None]:
    wanted, unwanted = _values(text)
    return wanted and [_like(value, wild=wild) for value in wanted], unwanted and [
        _like(value, wild=wild) for value in unwanted
    ]


def _like(value: str, *, wild: bool) -> str:
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%") if wild else escaped


def _statuses(status: str | None, *, success: bool | None, skipped: bool | None) -> list[str] | None:
    found = _values(status)[0]
    if found is None and success is not None:
        found = ["success", "skipped"] if success else ["failure", "canceled"]
    if skipped is not None:
        base = found or ["success", "failure", "canceled", "skipped"]
        found = [each for each in base if (each == "skipped") == skipped] or ["none"]
    return found


def _json(name: str, text: str | None) -> msgspec.Raw | None:
    if not text:
        return None
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise BadRequestError(f"{name} is not JSON") from None
    if "\\u0000" in text:
        raise BadRequestError(f"{name} has a NUL character, which no filter can look for")
    return msgspec.Raw(text.encode())
