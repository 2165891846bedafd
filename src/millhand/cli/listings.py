"""The tables of jobs, workers and queues."""

from __future__ import annotations

from typing import Any

from millhand.cli import tables
from millhand.cli.api import Api
from millhand.cli.watch import why_text

_MAX_EXPLAINED = 20  # waiting jobs of one list that are asked why
_Job = dict[str, Any]


def jobs(api: Api, *, limit: int, as_json: bool) -> None:
    """List jobs, the newest first; of those that wait, why."""
    found: list[_Job] = api.get("jobs/list", per_page=limit, page=1)
    for job in [job for job in found if state(job) == "waiting"][:_MAX_EXPLAINED]:
        job["why"] = api.get(f"jobs_u/why/{job['id']}")
    if as_json:
        tables.show_json(found)
        return
    columns = ("id", "state", "what", "tag", "worker", "created", "waited", "ran", "note")
    tables.show(columns, [_job_row(job) for job in found], nothing="no jobs yet; try: millhand run FILE")


def why(api: Api, job_id: str, *, as_json: bool) -> None:
    """Say why a job has not started."""
    answer = api.get(f"jobs_u/why/{job_id}")
    if as_json:
        tables.show_json(answer)
    else:
        print(why_text(answer))


def workers(api: Api, *, as_json: bool) -> None:
    """List the workers that are alive."""
    found = api.get("/workers/list", per_page=1000)
    if as_json:
        tables.show_json(found)
        return
    columns = ("worker", "group", "pinged", "jobs", "busy 15 s", "busy 5 min", "isolation", "version", "tags")
    tables.show(
        columns, [_worker_row(worker) for worker in found], nothing="no worker is alive; start one: millhand worker"
    )


def queues(api: Api, *, as_json: bool) -> None:
    """List the tags with what waits and runs, and how many workers listen."""
    found = api.get("/workers/queue_status")
    if as_json:
        tables.show_json(found)
        return
    rows = [
        (each["tag"], str(each["waiting"]), tables.span(each.get("delay")), str(each["running"]), str(each["workers"]))
        for each in found
    ]
    tables.show(
        ("tag", "waiting", "oldest", "running", "workers"), rows, nothing="no tags: nothing waits, no worker listens"
    )


def state(job: _Job) -> str:
    """Return one word for where a job stands."""
    if job["type"] == "QueuedJob":
        return "running" if job.get("running") else "waiting"
    if job.get("canceled"):
        return "canceled"
    return "success" if job.get("success") else "failure"


def waited_s(job: _Job) -> float | None:
    """Return how long a started job had waited since it could start."""
    since = max(filter(None, (job.get("created_at"), job.get("scheduled_for"))), key=tables.parse_time)
    return tables.between(since, job.get("started_at"))


def _job_row(job: _Job) -> tuple[str, ...]:
    ran = job.get("duration_ms")
    what = job.get("script_path") or " ".join(filter(None, (job["job_kind"], job.get("language"))))
    return (
        job["id"],
        state(job),
        what,
        job["tag"],
        job.get("worker") or "",
        tables.ago(job["created_at"]),
        tables.span(waited_s(job)) if job.get("started_at") else "",
        "" if ran is None else tables.span(ran / 1000),
        why_text(job["why"]) if "why" in job else job.get("canceled_reason") or "",
    )


def _worker_row(worker: dict[str, Any]) -> tuple[str, ...]:
    return (
        worker["worker"],
        worker["worker_group"],
        f"{tables.span(worker.get('last_ping'))} ago",
        str(worker["jobs_executed"]),
        _percent(worker.get("occupancy_rate_15s")),
        _percent(worker.get("occupancy_rate_5m")),
        worker.get("job_isolation") or "",
        worker.get("wm_version") or "",
        " ".join(worker.get("custom_tags") or ()),
    )


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
