"""Every route asks who is there: all of the API's document, walked with tokens that must not do."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import msgspec
import pytest

from millhand.core.credentials import JOB_TOKEN_PREFIX, JobClaims, sign_job_token
from millhand.core.job import JobStatus
from millhand.store import migrate, people
from tests.server.conftest import Api, eventually

DOCUMENT = json.loads((Path(__file__).parents[1] / "golden" / "openapi.json").read_text())
PUBLIC = {"login", "logout", "backendVersion", "getMinKeepAliveVersion", "getHealthStatus"}
REFUSED = (401, 403, 404)
JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
CODE = {"content": "def main(): pass", "language": "python3"}
BODIES: dict[str, Any] = {
    "createToken": {"label": "mine"},
    "existsWorkspace": {"id": "main"},
    "createWorkspace": {"id": "mine", "name": "mine"},
    "createScript": {"path": "f/a/b", "summary": "", **CODE},
    "runScriptPreview": CODE,
    "runWaitResultScriptPreview": CODE,
    "runScriptPreviewAndWaitResult": CODE,
    "runScriptPreviewInline": CODE,
    "runBatch": [{"kind": "noop"}],
    "addBatchJobs": {"kind": "noop"},
    "batchReRunJobs": {"job_ids": [JOB]},
    "getStartedAtByIds": [JOB],
    "setJobProgress": {"percent": 1},
    "cancelSelection": [JOB],
}
READING_POSTS = {"existsWorkspace", "getStartedAtByIds"}  # they ask much, and change nothing


class Route:
    """One operation of the document, with what it takes to call it rightly."""

    def __init__(self, method: str, path: str, operation: dict[str, Any]) -> None:
        self.id: str = operation["operationId"]
        self.method = method.upper()
        self.in_workspace = "{workspace}" in path
        self._path = path
        self.changes = (self.method != "GET" and self.id not in READING_POSTS) or "/run_wait_result/" in path
        self._query = {"tags": "python3"} if self.id == "existsWorkersWithTags" else {}

    def path(self, workspace: str) -> str:
        place = self._path.replace("{workspace}", workspace).replace("{job_id}", JOB).replace("{due_ms}", "0")
        place = place.replace("{path}", "f/a/b").replace("{script_hash}", "0123456789abcdef").replace("{n}", "1")
        return place.replace("{token_prefix}", "0123456789")

    async def call(self, client: Any, workspace: str = "main", **more: Any) -> Any:
        body = {} if self.method in ("GET", "DELETE") else {"json": BODIES.get(self.id, {})}
        return await client.request(self.method, self.path(workspace), params=self._query, **body, **more)


ROUTES = [
    Route(method, path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
ASKING = [route for route in ROUTES if route.id not in PUBLIC]


def claims(**changed: Any) -> JobClaims:
    good = {
        "email": "admin@millhand.local", "username": "admin", "workspace_id": "main", "job_id": UUID(JOB),
        "permissioned_as": "u/admin", "exp": 4_000_000_000,
    }  # fmt: skip
    return JobClaims(**{**good, **changed})


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.fixture
async def ended_job(api: Api, worker) -> str:
    """Return the token of a job that has ended."""
    tokens: list[str] = []

    async def keep(job, standin):
        tokens.append(standin.source.job_token(job, ttl_s=600))
        return JobStatus.SUCCESS, b"null"

    await worker(keep)
    async with api.client(api._token) as admin:
        job = await admin.preview()

        async def ended():
            return (await admin.get(f"/api/w/main/jobs_u/completed/get_result_maybe/{job}")).json()["completed"]

        await eventually(ended)
    return tokens[0]


async def walk(client: Any, routes: list[Route], workspace: str = "main", **more: Any) -> dict[str, int]:
    """Call routes; return the answers that are no refusals in plain text, by operation."""
    wrong = {}
    for route in routes:
        answer = await route.call(client, workspace, **more)
        plain = answer.headers["content-type"].startswith("text/plain") and "Traceback" not in answer.text
        if answer.status_code not in REFUSED or not plain:
            wrong[route.id] = answer.status_code
    return wrong


def test_the_document_has_routes_to_walk():
    """The walk is over all of the API, and what is public is a choice made here."""
    assert len(ASKING) > 60
    assert {route.id for route in ROUTES} >= PUBLIC


@pytest.mark.parametrize("kind", ["none", "malformed", "expired", "unsigned", "foreign", "another algorithm", "cookie"])
async def test_tokens_that_are_none(api: Api, kind):
    """Without a token that counts, every route but the public ones answers 401 before it looks at anything."""
    secret = await migrate.setting(api.database, "jwt_secret")
    past = datetime.now(UTC) - timedelta(seconds=1)
    payload = msgspec.to_builtins(claims())
    token = {
        "none": None,
        "malformed": "jwt_....",
        "expired": await people.create_token(api.database, email="admin@millhand.local", expiration=past),
        "unsigned": f"{JOB_TOKEN_PREFIX}{encoded({'alg': 'none', 'typ': 'JWT'})}.{encoded(payload)}.",
        "foreign": sign_job_token("the secret of some other instance", claims()),
        "another algorithm": JOB_TOKEN_PREFIX + jwt.encode(payload, secret * 2, algorithm="HS512"),
        "cookie": None,
    }[kind]
    more = {"headers": {"cookie": "token=nonsense"}} if kind == "cookie" else {}
    async with api.client(token) as client:
        for route in ASKING:
            answer = await route.call(client, **more)
            assert (route.id, answer.status_code) == (route.id, 401)


async def test_people_of_another_workspace(api: Api):
    """Who is a member elsewhere gets into no route of this workspace, nor into one that does not exist."""
    stranger = await api.person("stranger")
    await people.create_workspace(
        api.database, workspace_id="other", name="other", owner="stranger@example.com", username="stranger"
    )
    inside = [route for route in ASKING if route.in_workspace]
    assert await walk(stranger, inside) == {}
    assert await walk(stranger, inside, "nowhere") == {}
    assert await walk(stranger, inside, "..%2fmain") == {}


async def test_tokens_of_one_workspace(api: Api):
    """A superadmin's token that counts in one workspace opens no other, and nothing of the instance."""
    await people.create_workspace(
        api.database, workspace_id="other", name="other", owner="admin@millhand.local", username="admin"
    )
    for home in ("other", "admins"):
        token = await people.create_token(api.database, email="admin@millhand.local", workspace_id=home)
        async with api.client(token) as client:
            assert await walk(client, [route for route in ASKING if route.in_workspace]) == {}
            made = await client.post("/api/workspaces/create", json={"id": "mine", "name": "mine"})
            counts = await client.get("/api/jobs/completed/count_by_tag")
            all_jobs = await client.get(f"/api/w/{home}/jobs/list", params={"all_workspaces": "true"})
            assert [answer.status_code for answer in (made, counts, all_jobs)] == [403, 403, 403]


async def test_tokens_of_ended_jobs(api: Api, ended_job: str):
    """The token of a job is worth nothing once the job has ended."""
    async with api.client(ended_job) as client:

        async def refused():
            return (await client.get("/api/users/whoami")).status_code == 401

        await eventually(refused)
        assert await walk(client, ASKING) == {}


async def test_tokens_of_running_jobs(api: Api, worker):
    """The token of a running job opens its own workspace only, and nothing that outlives the job."""
    tokens, go_on = [], asyncio.Event()

    async def hold(job, standin):
        tokens.append(standin.source.job_token(job, ttl_s=600))
        await go_on.wait()
        return JobStatus.SUCCESS, b"null"

    await worker(hold)
    await people.create_workspace(
        api.database, workspace_id="other", name="other", owner="admin@millhand.local", username="admin"
    )
    async with api.client(api._token) as admin:
        await admin.preview()

        async def running():
            return tokens

        await eventually(running)
    async with api.client(tokens[0]) as client:
        assert (await client.get("/api/w/main/users/whoami")).status_code == 200
        assert await walk(client, [route for route in ASKING if route.in_workspace], "other") == {}
        lasting = [
            route for route in ASKING if route.id in ("createToken", "deleteToken", "createWorkspace", "countJobsByTag")
        ]
        assert await walk(client, lasting) == {}
    go_on.set()


@pytest.mark.parametrize("scopes", [["read_only"], [], ["scripts:read", "jobs:read"], ["jobs:run:scripts:u/me/*"]])
async def test_tokens_that_only_read(api: Api, scopes):
    """A token whose scopes don't cover it changes nothing and runs nothing, by no route."""
    token = await people.create_token(api.database, email="admin@millhand.local", scopes=scopes)
    async with api.client(token) as client:
        assert await walk(client, [route for route in ASKING if route.changes]) == {}
        if not scopes:
            assert await walk(client, ASKING) == {}


async def test_operators(api: Api):
    """An operator deploys nothing and runs no code of their own."""
    operator = await api.person("operator", "main", operator=True)
    asked = [
        route
        for route in ASKING
        if "Preview" in route.id
        or route.id in ("createScript", "deleteScriptByPath", "archiveScriptByPath", "deleteCompletedJob")
    ]
    assert len(asked) > 5
    assert await walk(operator, asked) == {}
    batch = await operator.post("/api/w/main/jobs/run/batch", json=[CODE])
    many = await operator.post("/api/w/main/jobs/add_batch_jobs/1", json={"kind": "rawscript", "rawscript": CODE})
    assert [batch.status_code, many.status_code] == [403, 403]
