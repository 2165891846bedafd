"""What this server is and how it does: version, health, metrics, its own description."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import msgspec
from litestar import MediaType, Response, Router, get

import millhand
from millhand.server.observe import Metrics
from millhand.server.request import PUBLIC, ApiRequest
from millhand.store import jobs, queue, workers
from millhand.store.pool import CONNECTION_ERRORS, Database

API_LEVEL = "1.850.0"  # the version of the public API that the routes here speak
ALIVE_S = 300.0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the instance does."""

    status: str  # healthy, degraded (no worker is alive), unhealthy (no database)
    checked_at: datetime
    database_healthy: bool
    workers_alive: int


class DatabaseHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the database does."""

    healthy: bool
    latency_ms: float


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this server takes requests."""

    healthy: bool


class WorkersHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the workers do."""

    healthy: bool
    active_count: int
    worker_groups: list[str]


class QueueHealth(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the queue."""

    pending_jobs: int
    running_jobs: int


class Checks(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was checked."""

    database: DatabaseHealth
    readiness: Readiness
    workers: WorkersHealth | None = None
    queue: QueueHealth | None = None


class DetailedHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the parts of the instance do."""

    status: str
    checked_at: datetime
    version: str
    checks: Checks


class KeepAlive(msgspec.Struct, frozen=True, kw_only=True):
    """The oldest versions that may stay."""

    worker: str
    agent: str


@get("/version", media_type=MediaType.TEXT, operation_id="backendVersion", opt=PUBLIC)
async def version() -> str:
    """Return the version of the API this server speaks, and of the server."""
    return _version()


@get("/min_keep_alive_version", operation_id="getMinKeepAliveVersion", opt=PUBLIC)
async def min_keep_alive_version() -> KeepAlive:
    """Return the oldest versions of workers that may stay connected."""
    return KeepAlive(worker=millhand.__version__, agent=millhand.__version__)


@get("/health/status", operation_id="getHealthStatus", opt=PUBLIC)
async def health_status(request: ApiRequest) -> Response[Health]:
    """Tell whether the instance does its work: 503 where it can't reach its database."""
    database_healthy, _ = await _probe(request.database)
    alive = len(await _alive(request.database)) if database_healthy else 0
    health = Health(
        status=_status(database_healthy, alive),
        checked_at=request.services.clock.now(),
        database_healthy=database_healthy,
        workers_alive=alive,
    )
    return Response(health, status_code=200 if database_healthy else 503)


@get("/health/detailed", operation_id="getHealthDetailed", opt={"action": "workers:read"})
async def health_detailed(request: ApiRequest) -> Response[DetailedHealth]:
    """Tell how the parts of the instance do."""
    healthy, latency_ms = await _probe(request.database)
    alive = await _alive(request.database) if healthy else []
    counts = await queue.counts(request.database) if healthy else []
    checks = Checks(
        database=DatabaseHealth(healthy=healthy, latency_ms=latency_ms),
        readiness=Readiness(healthy=True),
        workers=WorkersHealth(
            healthy=bool(alive), active_count=len(alive), worker_groups=sorted({each.worker_group for each in alive})
        )
        if healthy
        else None,
        queue=QueueHealth(
            pending_jobs=sum(count.n_queued for count in counts), running_jobs=sum(count.n_running for count in counts)
        )
        if healthy
        else None,
    )
    health = DetailedHealth(
        status=_status(healthy, len(alive)),
        checked_at=request.services.clock.now(),
        version=_version(),
        checks=checks,
    )
    return Response(health, status_code=200 if healthy else 503)


@get("/openapi.json", media_type="application/json", include_in_schema=False, opt=PUBLIC)
async def openapi_json(request: ApiRequest) -> Response[bytes]:
    """Return the description of this API."""
    return Response(_description(request), media_type="application/json")


@get("/openapi.yaml", include_in_schema=False, opt=PUBLIC)
async def openapi_yaml(request: ApiRequest) -> Response[bytes]:
    """Return the description of this API. JSON is YAML, too."""
    return Response(_description(request), media_type="application/yaml")


@get("/metrics", include_in_schema=False, opt=PUBLIC)
async def metrics(request: ApiRequest) -> Response[bytes]:
    """Return metrics for Prometheus."""
    exposed: Metrics = request.app.state.metrics
    try:
        exposed.set_queue(await queue.counts(request.database))
        exposed.set_workers(await _alive(request.database))
    except CONNECTION_ERRORS:
        exposed.database_away()
    return Response(exposed.text(), media_type=exposed.content_type)


def _description(request: ApiRequest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(request.app.openapi_schema.to_schema()), indent=1)


async def _probe(database: Database) -> tuple[bool, float]:
    began = time.perf_counter()
    try:
        await jobs.clock_ms(database)
    except CONNECTION_ERRORS:
        return False, 0.0
    return True, round((time.perf_counter() - began) * 1000, 3)


async def _alive(database: Database) -> list[workers.WorkerRow]:
    return [worker for worker in await workers.listed(database, ping_since_s=ALIVE_S) if worker.alive]


def _status(database_healthy: bool, alive: int) -> str:  # noqa: FBT001 - one of two facts
    if not database_healthy:
        return "unhealthy"
    return "healthy" if alive else "degraded"


def _version() -> str:
    return f"CE v{API_LEVEL} (Millhand {millhand.__version__})"


_handlers: list[Any] = [version, min_keep_alive_version, health_status, health_detailed, openapi_json, openapi_yaml]
router = Router("/", route_handlers=_handlers, tags=["instance"])
