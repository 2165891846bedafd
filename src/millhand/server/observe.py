"""What is to be seen of requests from outside: an id for each, a line in the log, metrics."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from millhand.core.ids import new_id
from millhand.store.queue import TagCount
from millhand.store.workers import WorkerRow

SLOW_S = 1.0
REQUEST_ID = "x-request-id"
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)

_NOSNIFF = (b"x-content-type-options", b"nosniff")  # logs and results are what a script wrote: never a page

log = structlog.get_logger(__name__)


class Metrics:
    """The metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "millhand_http_requests_total", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "millhand_http_request_seconds",
            "Time from a request to the end of its answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._jobs = Gauge("millhand_queue_jobs", "Jobs that have not ended.", ("tag", "state"), registry=registry)
        self._oldest = Gauge(
            "millhand_queue_oldest_seconds", "How long the next job has been due.", ("tag",), registry=registry
        )
        self._workers = Gauge("millhand_workers", "Live workers.", ("worker_group", "draining"), registry=registry)
        self._database = Gauge("millhand_database_up", "Whether the database answers.", registry=registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def set_queue(self, counts: Iterable[TagCount]) -> None:
        """Take over what is in the queue."""
        self._database.set(1)
        self._jobs.clear()
        self._oldest.clear()
        for count in counts:
            self._jobs.labels(count.tag, "queued").set(count.n_queued)
            self._jobs.labels(count.tag, "running").set(count.n_running)
            self._jobs.labels(count.tag, "scheduled").set(count.n_scheduled)
            self._jobs.labels(count.tag, "suspended").set(count.n_suspended)
            self._oldest.labels(count.tag).set(max(count.oldest_s or 0.0, 0.0))

    def set_workers(self, alive: Iterable[WorkerRow]) -> None:
        """Take over which workers are alive."""
        self._workers.clear()
        for worker in alive:
            self._workers.labels(worker.worker_group, str(worker.draining).lower()).inc()

    def database_away(self) -> None:
        """Note that the database does not answer: what was known of the queue is known no more."""
        self._database.set(0)
        self._jobs.clear()
        self._oldest.clear()
        self._workers.clear()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class Observer:
    """Wraps the application: gives each request an id, counts it, and logs it where it failed or was slow."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _given_id(scope) or new_id().hex
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), _NOSNIFF]
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, sending)
        finally:
            self._note(scope, status, time.perf_counter() - began)
            structlog.contextvars.unbind_contextvars("request_id")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = str(scope["method"]), str(scope.get("path_template", "unknown"))  # type: ignore[typeddict-item]
        self._metrics.answered(method, route, status, seconds)
        write = log.info if status >= 400 or seconds > SLOW_S else log.debug  # noqa: PLR2004 - HTTP's
        write("http.request", method=method, path=scope["path"], status=status, ms=round(seconds * 1000, 2))


def _given_id(scope: Scope) -> str | None:
    """Return the id a proxy in front of us gave the request, where it is one that a log can hold."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            return text if 0 < len(text) <= 64 and text.replace("-", "").isalnum() else None  # noqa: PLR2004 - a line
    return None
