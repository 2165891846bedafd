"""Worker hosts: their leases, their workers, and what they are told in answer to a ping."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from millhand.core.worker import Cancelation, HostInfo, HostPing, Orders, WorkerPing
from millhand.store.sql_files import load

SQL = load("workers")

# A host that has heard nothing of a job for so long will not hear of it any more: claims give up before (source.py).
FORGOTTEN_S = 75.0


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as lists show it, with what is true of its host."""

    name: str
    incarnation: UUID
    worker_group: str
    hostname: str
    ip: str
    version: str
    tags: list[str]
    isolation: str
    vcpus: int
    memory: int
    memory_usage: int
    host_memory_usage: int
    draining: bool
    started_at: datetime
    last_ping_s: float
    alive: bool  # its lease has not run out
    jobs_executed: int
    occupancy: float | None
    occupancy_15s: float | None
    occupancy_5m: float | None
    occupancy_30m: float | None
    current_job: UUID | None
    last_job: UUID | None
    last_job_workspace: str | None


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Who listens to a tag now."""

    n_workers: int
    n_busy: int
    longest_s: float | None  # how long the longest of their jobs has run


async def register(connection: Any, host: HostInfo, workers: Sequence[str], *, now: datetime | None = None) -> None:
    """Take the lease of a host's incarnation and enter its workers."""
    await connection.execute(
        SQL.register_host,
        host.incarnation,
        host.group,
        host.hostname,
        host.ip,
        host.version,
        host.tags,
        host.isolation,
        host.vcpus,
        host.memory,
        host.started_at,
        host.lease_s,
        workers,
        now,
    )


async def ping(connection: Any, host: HostInfo, beat: HostPing, *, now: datetime | None = None) -> Orders:
    """Renew the lease, record what the workers say of themselves, and return what they must know."""
    held = (host.incarnation, host.lease_s, beat.memory_usage, beat.host_memory_usage, beat.draining, now)
    if not await connection.fetchval(SQL.ping_host, *held):
        return Orders(lost=beat.held, lease_lost=True)
    await connection.execute(SQL.ping_workers, host.incarnation, *_columns(beat.workers))
    rows = await connection.fetch(SQL.orders, host.incarnation, beat.held) if beat.held else []
    return Orders(
        cancel=tuple(
            Cancelation(job_id=row["id"], by=row["canceled_by"], reason=row["canceled_reason"])
            for row in rows
            if not row["lost"]
        ),
        lost=tuple(row["id"] for row in rows if row["lost"]),
    )


def _columns(pings: Sequence[WorkerPing]) -> list[list[Any]]:
    return [
        [ping.worker for ping in pings],
        [ping.jobs_executed for ping in pings],
        [ping.occupancy for ping in pings],
        [ping.occupancy_15s for ping in pings],
        [ping.occupancy_5m for ping in pings],
        [ping.occupancy_30m for ping in pings],
        [ping.current_job for ping in pings],
        [ping.last_job for ping in pings],
        [ping.last_job_workspace for ping in pings],
    ]


async def release_forgotten(
    connection: Any, incarnation: UUID, held: Sequence[UUID], *, now: datetime | None = None
) -> dict[UUID, str]:
    """Queue the jobs that a host was given without hearing of it; returns them with their tags."""
    rows = await connection.fetch(SQL.release_forgotten, incarnation, held, FORGOTTEN_S, now)
    return {row["id"]: row["tag"] for row in rows}


async def deregister(connection: Any, incarnation: UUID) -> None:
    """Give the lease back. Jobs the host still holds are rescued."""
    await connection.execute(SQL.deregister_host, incarnation)


async def listed(connection: Any, *, ping_since_s: float = 300, now: datetime | None = None) -> list[WorkerRow]:
    """Return the workers that pinged lately."""
    return [WorkerRow(**row) for row in await connection.fetch(SQL.list_workers, ping_since_s, now)]


async def served_tags(connection: Any, *, now: datetime | None = None) -> list[str]:
    """Return the tags that a live host which takes new work listens to."""
    return [row["tag"] for row in await connection.fetch(SQL.list_served_tags, now)]


async def serving(connection: Any, tag: str, *, now: datetime | None = None) -> Served:
    """Tell who listens to a tag and how busy they are."""
    return Served(**await connection.fetchrow(SQL.served_by, tag, now))
