"""The instance: version, health, workers, metrics, its own description, and what it says to nonsense."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from millhand.server.app import create_app
from millhand.server.settings import ServerSettings
from millhand.store.pool import Database
from tests.server.conftest import W, eventually
from tests.support.golden import assert_golden


async def test_the_version_reads_like_clients_want_it(api):
    """The version needs no token, and clients find major and minor in it."""
    async with api.client(None) as anyone:
        text = (await anyone.get("/api/version")).text
        keep = (await anyone.get("/api/min_keep_alive_version")).json()
    prefix, minor = text.split(".")[:2]
    assert (prefix.split("v")[1], int(minor) >= 585) == ("1", True)
    assert set(keep) == {"worker", "agent"}


async def test_health(api, admin, worker):
    """Health is degraded without workers, healthy with one."""
    async with api.client(None) as anyone:
        before = (await anyone.get("/api/health/status")).json()
        await worker()
        after = (await anyone.get("/api/health/status")).json()
    detailed = (await admin.get("/api/health/detailed")).json()
    assert (before["status"], before["database_healthy"], before["workers_alive"]) == ("degraded", True, 0)
    assert (after["status"], after["workers_alive"]) == ("healthy", 8)
    assert all(key in detailed for key in ("status", "checked_at", "version", "checks"))
    assert detailed["checks"]["workers"]["active_count"] == 8


async def test_workers_and_queues(admin, worker):
    """Workers are listed with what clients need; tags tell what waits for them."""
    await worker(tags=("python3", "gpu"))
    await admin.post(f"{W}/jobs/add_batch_jobs/3", json={"kind": "noop", "tag": "lonely"})

    workers = (await admin.get("/api/workers/list", params={"ping_since": 10})).json()
    required = "worker worker_instance started_at ip jobs_executed worker_group wm_version"
    assert len(workers) == 8
    assert all(key in workers[0] for key in required.split())
    assert None not in workers[0].values()
    assert (workers[0]["custom_tags"], isinstance(workers[0]["last_ping"], int)) == (["python3", "gpu"], True)
    assert (await admin.get("/api/workers/exists_workers_with_tags", params={"tags": "gpu,lonely"})).json() == {
        "gpu": True, "lonely": False,
    }  # fmt: skip
    assert (await admin.get("/api/workers/queue_counts")).json() == {"lonely": 3}
    assert (await admin.get("/api/workers/queue_running_counts")).json() == {}
    status = {each["tag"]: each for each in (await admin.get("/api/workers/queue_status")).json()}
    assert (status["lonely"]["waiting"], status["lonely"]["workers"], status["gpu"]["workers"]) == (3, 0, 8)
    assert (await admin.get("/api/workers/custom_tags")).json() == ["gpu"]
    assert (await admin.get(f"{W}/workers/custom_tags")).json() == ["gpu"]
    assert "python3" in (await admin.get("/api/workers/get_default_tags")).json()
    assert (await admin.get("/api/workers/is_default_tags_per_workspace")).json() is False


async def test_metrics(api, admin):
    """Prometheus finds requests by route and the queue by tag."""
    await admin.post(f"{W}/jobs/add_batch_jobs/3", json={"kind": "noop", "tag": "lonely"})
    await admin.get(f"{W}/jobs/list")

    text = (await admin.get("/metrics")).text

    assert 'millhand_queue_jobs{state="queued",tag="lonely"} 3.0' in text
    assert 'route="/api/w/{workspace}/jobs/list",status="200"' in text
    assert "millhand_database_up 1.0" in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/nothing", 404),
        ("GET", "/api", 404),
        ("GET", "/api/w/main/flows/list", 404),
        ("POST", "/api/version", 405),
        ("DELETE", "/api/w/main/jobs/list", 405),
        ("GET", "/api/../etc/passwd", 404),
    ],
)
async def test_unknown_routes_are_plain_text(admin, method, path, status):
    """What is not there is said in plain text, never in HTML."""
    answer = await admin.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")


async def test_bodies_have_a_limit(admin):
    """A body over the limit is refused before it is read; arguments may be larger."""
    large = "x" * 3_000_000
    body = {"path": "u/admin/x", "content": large, "language": "bash"}

    refused = await admin.post(f"{W}/scripts/create", json=body)
    accepted = await admin.post(
        f"{W}/jobs/run/preview", json={"content": "x", "language": "bash", "args": {"a": large}}
    )

    assert (refused.status_code, refused.text.partition(":")[0]) == (413, "Too large")
    assert accepted.status_code == 201


async def test_requests_have_ids(admin):
    """Every answer carries an id, the caller's where it sent a sensible one."""
    own = await admin.get("/api/version")
    given = await admin.get("/api/version", headers={"x-request-id": "abc-123"})
    odd = await admin.get("/api/version", headers={"x-request-id": "a b\tc"})

    assert len(own.headers["x-request-id"]) == 32
    assert given.headers["x-request-id"] == "abc-123"
    assert odd.headers["x-request-id"] != "a b\tc"


async def test_defects_are_told_by_a_number(admin, monkeypatch):
    """An error of ours shows the caller an id for the log, and nothing else."""

    async def broken(*_):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("millhand.store.jobs.clock_ms", broken)

    answer = await admin.get("/api/jobs/db_clock")

    assert (answer.status_code, answer.text.startswith("Internal error, id ")) == (500, True)
    assert "secret" not in answer.text


async def test_a_lost_database_is_said_and_survived(api, admin):
    """While connections break, answers say so or come after all; then all is well again."""
    everybody = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity "
        "where application_name like 'server%' and datname = current_database()"
    )
    assert await api.database.fetchval(everybody) > 0

    async def well_again():
        answer = await admin.get("/api/jobs/db_clock")
        assert answer.status_code in (200, 503)
        return answer.status_code == 200

    await eventually(well_again)


async def test_concurrent_reads_do_not_starve(admin):
    """More requests at once than there are connections are all answered."""
    answers = await asyncio.gather(*(admin.get(f"{W}/jobs/list") for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}


def test_the_golden_description_of_the_api():
    """The OpenAPI document is the one everybody has seen."""
    app = create_app(Database("postgresql://nowhere/none", application_name="server"), ServerSettings())
    schema = app.openapi_schema.to_schema()
    schema["info"]["version"] = "…"

    assert_golden("openapi.json", msgspec.json.format(msgspec.json.encode(schema), indent=1).decode() + "\n")


async def test_the_description_is_served(api):
    """The OpenAPI document can be fetched without a token, as JSON and as YAML."""
    async with api.client(None) as anyone:
        described = (await anyone.get("/api/openapi.json")).json()
        text = await anyone.get("/api/openapi.yaml")
    assert "/api/w/{workspace}/jobs/run/p/{path}" in described["paths"]
    assert text.headers["content-type"].startswith("application/yaml")
