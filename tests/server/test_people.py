"""Who may do what: logins, tokens, scopes, workspaces, the tokens of jobs."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from millhand.core.credentials import JobClaims, sign_job_token
from millhand.store import migrate, people
from tests.server.conftest import W, eventually

LOGIN = {"email": "admin@millhand.local", "password": "correct horse"}


async def test_login_gives_a_token_and_a_cookie(api):
    """The right password gives a token as text and as a cookie that scripts of a page can't read; both work."""
    async with api.client(None) as anyone:
        answer = await anyone.post("/api/auth/login", json=LOGIN)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"token={answer.text};")
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie

        by_cookie = await anyone.get("/api/users/whoami")
        assert by_cookie.json()["email"] == LOGIN["email"]
    async with api.client(answer.text) as again:
        assert (await again.get("/api/users/whoami")).status_code == 200


async def test_logout_revokes_the_session(api):
    """After logging out the token of the session is worth nothing."""
    async with api.client(None) as anyone:
        token = (await anyone.post("/api/auth/login", json=LOGIN)).text
        await anyone.get("/api/users/whoami")
        assert (await anyone.post("/api/auth/logout")).status_code == 200
    async with api.client(token) as late:
        assert (await late.get("/api/users/whoami")).status_code == 401


async def test_wrong_passwords_are_refused_and_slowed_down(api):
    """A wrong password and an unknown e-mail look alike; after five the next attempt has to wait."""
    async with api.client(None) as anyone:
        wrong = [await anyone.post("/api/auth/login", json={**LOGIN, "password": "x"}) for _ in range(6)]
        unknown = await anyone.post("/api/auth/login", json={"email": "no@x", "password": "x"})

        assert [answer.status_code for answer in wrong] == [401] * 5 + [429]
        assert (unknown.status_code, unknown.text) == (401, wrong[0].text)
        assert (await anyone.post("/api/auth/login", json=LOGIN)).status_code == 429


async def test_whoami_has_all_that_clients_need(admin):
    """Both whoami answers have the keys that the generated client requires."""
    globally = (await admin.get("/api/users/whoami")).json()
    here = (await admin.get(f"{W}/users/whoami")).json()

    required = "email login_type super_admin verified first_time_user role_source disabled"
    assert all(key in globally for key in required.split())
    required = "email username is_admin is_super_admin created_at operator disabled folders folders_read folders_owners"
    assert all(key in here for key in required.split())
    assert (globally["super_admin"], here["username"], here["is_admin"]) == (True, "admin", True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": "Basic YTpi"}, 401),
        ({"Authorization": "Bearer jwt_a.b.c"}, 401),
        ({"Authorization": "Bearer \u00e9\u00e8".encode("latin-1").decode("latin-1")}, 401),
        ({"Cookie": "token=nonsense"}, 401),
    ],
)
async def test_without_a_valid_token_nothing_opens(api, headers, status):
    """Every kind of missing or malformed token is answered with 401 in plain text."""
    async with api.client(None) as anyone:
        raw = {key: value.encode("latin-1") for key, value in headers.items()}
        for path in ("/api/users/whoami", f"{W}/jobs/list", "/api/workers/list"):
            answer = await anyone.get(path, headers=raw)
            assert (answer.status_code, answer.text.partition(":")[0]) == (status, "Not authorized")


async def test_expired_tokens_are_refused(api, admin):
    """A token counts until it expires, and the answer says that it has."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    token = await people.create_token(api.database, email=LOGIN["email"], expiration=past)
    async with api.client(token) as late:
        answer = await late.get("/api/users/whoami")
    assert (answer.status_code, "expired" in answer.text) == (401, True)


async def test_tokens_are_made_listed_and_revoked(api, admin):
    """A token is shown once; lists know its first characters, and deleting it takes effect at once."""
    expiration = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = await admin.post("/api/users/tokens/create", json={"label": "ci", "expiration": expiration})
    assert (made.status_code, made.headers["content-type"]) == (201, "text/plain; charset=utf-8")
    token = made.text
    async with api.client(token) as other:
        assert (await other.get("/api/users/whoami")).status_code == 200

        listed = (await admin.get("/api/users/tokens/list")).json()
        mine = next(each for each in listed if each.get("label") == "ci")
        assert (mine["token_prefix"], mine["read_only"]) == (token[:10], False)
        assert token not in str(listed)

        assert (await admin.delete(f"/api/users/tokens/delete/{token[:10]}")).status_code == 200
        assert (await other.get("/api/users/whoami")).status_code == 401
    assert (await admin.delete("/api/users/tokens/delete/nothing")).status_code == 404
    naive = {"expiration": "2030-01-01T00:00:00"}
    assert (await admin.post("/api/users/tokens/create", json=naive)).status_code == 400


async def test_scopes_limit_a_token(api, admin):
    """A token with scopes does what they cover, and makes no token that does more."""

    async def scoped(**fields):
        token = (await admin.post("/api/users/tokens/create", json=fields)).text
        return await api._stack.enter_async_context(api.client(token))

    await admin.deploy("u/admin/a")
    await admin.deploy("u/admin/b")
    reader = await scoped(read_only=True)
    runner = await scoped(scopes=["jobs:run"])
    one = await scoped(scopes=["jobs:run:scripts:u/admin/a"])

    assert (await reader.get(f"{W}/jobs/list")).status_code == 200
    assert (await reader.post(f"{W}/jobs/run/p/u/admin/a", json={})).status_code == 403
    assert (await reader.post(f"{W}/scripts/create", json={})).status_code == 403
    assert (await reader.post("/api/users/tokens/create", json={})).status_code == 403
    assert (await runner.post(f"{W}/jobs/run/p/u/admin/b", json={})).status_code == 201
    assert (await runner.get(f"{W}/jobs/list")).status_code == 403
    assert (await one.post(f"{W}/jobs/run/p/u/admin/a", json={})).status_code == 201
    assert (await one.post(f"{W}/jobs/run/p/u/admin/b", json={})).status_code == 403
    body = {"content": "x", "language": "bash", "args": {}}
    assert (await one.post(f"{W}/jobs/run/preview", json=body)).status_code == 403
    minter = await scoped(scopes=["users:write", "jobs:read"])
    assert (await minter.post("/api/users/tokens/create", json={})).status_code == 403
    assert (await minter.post("/api/users/tokens/create", json={"scopes": ["jobs:read"]})).status_code == 201


async def test_workspaces_are_apart(api, admin):
    """Members enter their workspaces, tokens of one workspace that one, superadmins all there are."""
    ann = await api.person("ann", "main")
    assert (await ann.get(f"{W}/jobs/list")).status_code == 200
    denied = await ann.get("/api/w/admins/jobs/list")
    assert (denied.status_code, denied.text.partition(":")[0]) == (403, "Permission denied")
    assert (await ann.get("/api/w/nowhere/jobs/list")).status_code == 403
    assert (await admin.get("/api/w/nowhere/jobs/list")).status_code == 404
    assert (await ann.get("/api/w/%00/jobs/list")).status_code == 403
    assert (await admin.get("/api/w/%00/jobs/list")).status_code in (400, 404)
    token = (await admin.post("/api/users/tokens/create", json={"workspace_id": "admins"})).text
    async with api.client(token) as narrow:
        assert (await narrow.get("/api/w/admins/jobs/list")).status_code == 200
        assert (await narrow.get(f"{W}/jobs/list")).status_code == 403


async def test_workspaces_are_made_and_listed(api, admin):
    """A superadmin makes a workspace and is its admin; others don't; ids are checked and taken once."""
    ann = await api.person("ann", "main")
    new = {"id": "lab", "name": "The lab"}

    assert (await ann.post("/api/workspaces/create", json=new)).status_code == 403
    assert (await admin.post("/api/workspaces/exists", json={"id": "lab"})).json() is False
    assert (await admin.post("/api/workspaces/create", json=new)).status_code == 201
    assert (await admin.post("/api/workspaces/create", json=new)).status_code == 409
    assert (await admin.post("/api/workspaces/create", json={"id": "a b", "name": "x"})).status_code == 400
    assert (await admin.post("/api/workspaces/exists", json={"id": "lab"})).json() is True
    assert [each["id"] for each in (await admin.get("/api/workspaces/list")).json()] == ["admins", "lab", "main"]
    assert [each["id"] for each in (await ann.get("/api/workspaces/list")).json()] == ["main"]
    mine = (await ann.get("/api/workspaces/users")).json()
    assert (mine["email"], mine["workspaces"][0]["role"]) == ("ann@example.com", "developer")
    assert (await admin.get("/api/w/lab/users/whoami")).json()["non_member"] is False


async def test_operators_run_and_do_not_deploy(api, admin):
    """An operator runs what is deployed, and can neither deploy nor send code."""
    await admin.deploy("u/admin/hello")
    operator = await api.person("olga", "main", operator=True)

    assert (await operator.post(f"{W}/jobs/run/p/u/admin/hello", json={})).status_code == 201
    body = {"content": "x", "language": "bash", "args": {}}
    assert (await operator.post(f"{W}/jobs/run/preview", json=body)).status_code == 403
    script = {"path": "u/olga/x", "content": "x", "language": "bash"}
    assert (await operator.post(f"{W}/scripts/create", json=script)).status_code == 403


async def test_a_job_has_a_token_as_long_as_it_runs(api, admin, worker):
    """The token of a running job acts for its person in its workspace, makes no tokens, and dies with the job."""
    tokens = {}
    secret = await migrate.setting(api.database, "jwt_secret")

    async def hold(job, standin):
        tokens[str(job.id)] = standin.source.job_token(job, ttl_s=600)
        await standin.canceled[job.id].wait()
        return "success", 1

    await worker(hold)
    job_id = await admin.preview()
    await eventually(lambda: _there(tokens, job_id))

    async with api.client(tokens[job_id]) as job:
        assert (await job.get("/api/users/whoami")).json()["super_admin"] is False
        assert (await job.get(f"{W}/users/whoami")).json()["username"] == "admin"
        assert (await job.get(f"{W}/jobs_u/get/{job_id}")).status_code == 200
        assert (await job.get("/api/w/admins/jobs/list")).status_code == 403
        past = sign_job_token(secret, msgspec.structs.replace(_claims(job_id), exp=int(time.time()) - 1))
        async with api.client(past) as late:
            answer = await late.get("/api/users/whoami")
            assert (answer.status_code, "has run past its timeout" in answer.text) == (401, True)
        assert (await job.post("/api/users/tokens/create", json={})).status_code == 403
        assert (await job.post("/api/workspaces/create", json={"id": "x", "name": "x"})).status_code == 403
        await admin.post(f"{W}/jobs_u/queue/cancel/{job_id}", json={})

        async def refused():
            return (await job.get("/api/users/whoami")).status_code == 401

        await eventually(refused)
    claims = _claims(job_id)
    for forged in (sign_job_token("another secret, long enough for HS256", claims), sign_job_token(secret, claims)):
        async with api.client(forged) as late:
            assert (await late.get("/api/users/whoami")).status_code == 401


def _claims(job_id):
    return JobClaims(
        email=LOGIN["email"], username="admin", workspace_id="main", job_id=UUID(job_id), permissioned_as="u/admin",
        exp=int(time.time()) + 60,
    )  # fmt: skip


async def _there(tokens, job_id):
    return job_id in tokens


async def test_a_link_runs_nothing(api, admin):
    """A GET that runs a script is refused to cookies: a link on another page must not run scripts."""
    await admin.deploy("u/admin/hello")
    async with api.client(None) as browser:
        await browser.post("/api/auth/login", json=LOGIN)
        answer = await browser.get(f"{W}/jobs/run_wait_result/p/u/admin/hello")
    assert (answer.status_code, answer.text.partition(":")[0]) == (403, "Permission denied")


async def test_disabled_accounts_are_out(api):
    """Somebody whose account is disabled can neither log in nor use a token."""
    ann = await api.person("ann", "main")
    await api.database.execute("update account set disabled = true where username = 'ann'")

    assert (await ann.get("/api/users/whoami")).status_code == 401


async def test_bootstrap_happens_once(api):
    """The first start makes people and workspaces; later starts change nothing."""
    assert await people.bootstrap(api.database) is None
    assert await people.workspace_exists(api.database, "admins")
