"""Scripts over HTTP: deploy, read, list, archive."""

from __future__ import annotations

import pytest

from millhand.core.ids import hash_from_hex
from millhand.server.settings import ServerSettings
from millhand.store import queue, scripts
from tests.server.conftest import Client, W, eventually, serving

NEW = {
    "path": "u/admin/hello",
    "summary": "",
    "description": "",
    "content": "def main(x: int): ...",
    "language": "python3",
}


async def test_a_script_comes_back_as_it_was_sent(admin):
    """A deployed script has all that clients need, no nulls, and its schema from its signature."""
    made = await admin.post(f"{W}/scripts/create", json={**NEW, "lock": "", "envs": ["A=b"], "tag": "gpu"})
    assert (made.status_code, made.headers["content-type"]) == (201, "text/plain; charset=utf-8")

    script = (await admin.get(f"{W}/scripts/get/p/u/admin/hello")).json()

    required = (
        "hash path summary description content created_by created_at archived deleted is_template extra_perms language "
        "kind starred has_preprocessor is_draft"
    )
    assert all(key in script for key in required.split())
    assert None not in script.values()
    assert (script["hash"], script["lock"], script["envs"], script["tag"]) == (made.text, "", ["A=b"], "gpu")
    assert script["schema"]["properties"]["x"]["type"] == "integer"
    assert script["ws_error_handler_muted"] is False
    assert (await admin.get(f"{W}/scripts/get/h/{made.text}")).json() == script
    assert (await admin.get(f"{W}/scripts/raw/p/u/admin/hello.py")).text == NEW["content"]
    assert (await admin.get(f"{W}/scripts/raw/h/{made.text}.py")).text == NEW["content"]
    assert (await admin.get(f"{W}/scripts/exists/p/u/admin/hello")).json() is True
    assert (await admin.get(f"{W}/scripts/exists/p/u/admin/other")).json() is False
    assert (await admin.get(f"{W}/scripts/list_paths")).json() == ["u/admin/hello"]


async def test_a_script_without_a_lock_gets_a_job(api, admin):
    """Without a lock, a job on the tag `dependency` resolves it; the deployment's status tells how that stands."""
    script_hash = (await admin.post(f"{W}/scripts/create", json=NEW)).text
    status = (await admin.get(f"{W}/scripts/deployment_status/h/{script_hash}")).json()
    assert list(status) == ["job_id"]
    job = (await admin.get(f"{W}/jobs_u/get/{status['job_id']}")).json()
    assert (job["job_kind"], job["tag"], job["script_hash"]) == ("dependencies", "dependency", script_hash)

    value = (await admin.get(f"{W}/scripts/get/h/{script_hash}")).json()
    assert "lock" not in value
    await scripts.save_lock(api.database, "main", hash_from_hex(script_hash), lock="requests==2", error=None)
    status = (await admin.get(f"{W}/scripts/deployment_status/h/{script_hash}")).json()
    assert status["lock"] == "requests==2"


async def test_languages_without_dependencies_need_no_job(api, admin):
    """Bash and SQL are ready as soon as they are deployed."""
    body = {**NEW, "path": "u/admin/sh", "language": "bash", "content": "echo hi"}
    script_hash = (await admin.post(f"{W}/scripts/create", json=body)).text

    assert (await admin.get(f"{W}/scripts/deployment_status/h/{script_hash}")).json() == {"lock": ""}
    assert await queue.counts(api.database) == []


async def test_versions_follow_each_other(admin):
    """Each deployment is a version after the newest; a stale parent is refused unless it is only a hint."""
    first = await admin.deploy("u/admin/hello", "def main(): return 1")
    second = await admin.deploy("u/admin/hello", "def main(): return 2", parent_hash=first)
    body = {**NEW, "lock": "", "parent_hash": first}

    stale = await admin.post(f"{W}/scripts/create", json=body)
    hinted = await admin.post(f"{W}/scripts/create", json={**body, "auto_parent": True})

    assert (stale.status_code, second in stale.text) == (409, True)
    assert hinted.status_code == 201
    history = (await admin.get(f"{W}/scripts/history/p/u/admin/hello")).json()
    assert [version["script_hash"] for version in history] == [hinted.text, second, first]
    assert (await admin.get(f"{W}/scripts/get/h/{second}")).json()["parent_hashes"] == [first]


async def test_deploying_the_same_again(admin):
    """With skip_if_noop, what is there already is not deployed again; without, it is a new version."""
    first = await admin.deploy("u/admin/hello", envs=["A=1"])
    again = {
        "path": "u/admin/hello", "content": "def main(x=1): return x", "language": "python3", "lock": "",
        "summary": "", "envs": ["A=1"],
    }  # fmt: skip

    same = await admin.post(f"{W}/scripts/create", params={"skip_if_noop": True}, json={**again, "parent_hash": first})
    changed = await admin.post(f"{W}/scripts/create", params={"skip_if_noop": True}, json={**again, "tag": "gpu"})
    plain = await admin.post(f"{W}/scripts/create", json=again)

    assert (same.status_code, same.text) == (201, first)
    assert len({first, changed.text, plain.text}) == 3


async def test_lists(admin):
    """Lists show the newest version of each path, filtered and paged, libraries without main only when asked."""
    await admin.deploy("u/admin/a")
    await admin.deploy("u/admin/a", "def main(): return 2")
    await admin.deploy("f/team/b", language="bash", content="echo")
    await admin.deploy("f/team/lib", "X = 1")

    async def listed(**query):
        return [each["path"] for each in (await admin.get(f"{W}/scripts/list", params=query)).json()]

    assert await listed() == ["f/team/b", "u/admin/a"]
    assert await listed(include_without_main=True) == ["f/team/lib", "f/team/b", "u/admin/a"]
    assert await listed(path_start="f/team/") == ["f/team/b"]
    assert await listed(languages="python3") == ["u/admin/a"]
    assert await listed(per_page=1, page=2) == ["u/admin/a"]
    assert await listed(show_archived=True) == []


async def test_archiving(admin):
    """An archived script is not found by its path, still by its hash; deployed again, it is back."""
    script_hash = await admin.deploy("u/admin/hello")

    assert (await admin.post(f"{W}/scripts/archive/p/u/admin/hello")).status_code == 200
    assert (await admin.post(f"{W}/scripts/archive/p/u/admin/hello")).status_code == 404
    assert (await admin.get(f"{W}/scripts/get/p/u/admin/hello")).status_code == 404
    assert (await admin.post(f"{W}/jobs/run/p/u/admin/hello", json={})).status_code == 404
    assert (await admin.post(f"{W}/jobs/run/h/{script_hash}", json={})).status_code == 201
    again = await admin.deploy("u/admin/hello")
    assert again != script_hash
    assert (await admin.post(f"{W}/scripts/archive/h/{again}")).json()["archived"] is True


async def test_deleting_is_for_admins(api, admin):
    """Admins erase code for good; others archive."""
    script_hash = await admin.deploy("u/admin/hello")
    ann = await api.person("ann", "main")

    assert (await ann.post(f"{W}/scripts/delete/p/u/admin/hello")).status_code == 403
    assert (await admin.post(f"{W}/scripts/delete/h/{script_hash}")).json()["content"] == ""
    assert (await admin.post(f"{W}/scripts/delete/p/u/admin/hello")).status_code == 404
    assert (await admin.post(f"{W}/jobs/run/h/{script_hash}", json={})).status_code == 404


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"path": "hello"}, "path"),
        ({"path": "u/admin/../../etc"}, "path"),
        ({"path": "u/admin/" + "x" * 300}, "path"),
        ({"language": "cobol"}, "cobol"),
        ({"tag": "a b"}, "tag"),
        ({"timeout": -1}, "timeout"),
        ({"priority": 1000}, "priority"),
        ({"cache_ttl": -1}, "cache_ttl"),
        ({"envs": ["NOPE"]}, "KEY=VALUE"),
        ({"parent_hash": "xyz"}, "parent_hash"),
        ({"parent_hash": "00000000000000aa"}, "parent_hash"),
        ({"content": "a\0b"}, "NUL"),
        ({"content": "def main(:"}, "line 1"),
        ({"content": 5}, "content"),
        ({"schema": "text"}, "schema"),
    ],
)
async def test_what_is_no_script_is_refused(admin, change, word):
    """Each wrong field is answered with 400 that names it."""
    answer = await admin.post(f"{W}/scripts/create", json={**NEW, **change})

    assert (answer.status_code, answer.text.partition(":")[0]) == (400, "Bad request")
    assert word in answer.text


async def test_paths_that_are_none_are_refused(admin):
    """A path that can't be one is refused, one that is not there not found."""
    for path, status in (("u/admin/none", 404), ("nothing", 400), ("u/admin/a%00b", 400), ("h", 400)):
        assert (await admin.get(f"{W}/scripts/get/p/{path}")).status_code == status
    assert (await admin.get(f"{W}/scripts/get/h/zz")).status_code == 400
    assert (await admin.get(f"{W}/scripts/get/h/00000000000000aa")).status_code == 404
    assert (await admin.get(f"{W}/scripts/raw/p/u/admin/none.py")).status_code == 404


async def test_scripts_of_other_workspaces_are_apart(admin):
    """The same path in another workspace is another script."""
    script_hash = await admin.deploy("u/admin/hello")

    assert (await admin.get("/api/w/admins/scripts/get/p/u/admin/hello")).status_code == 404
    assert (await admin.get(f"/api/w/admins/scripts/get/h/{script_hash}")).status_code == 404


async def _runs(client, path="u/admin/hello"):
    """Return the hash of the version that a run of the path takes."""
    return (await client.get(f"{W}/jobs_u/get/{await client.run(path)}")).json()["script_hash"]


async def test_what_is_deployed_is_run_at_once(api, admin):
    """A run after a deployment takes the new version, however often the old one was run just before."""
    old = await admin.deploy("u/admin/hello", "def main(): return 1")
    assert [await _runs(admin), await _runs(admin)] == [old, old]

    new = await admin.deploy("u/admin/hello", "def main(): return 2")

    assert await _runs(admin) == new


async def test_other_servers_hear_of_deployments(api, admin, database_url):
    """What is deployed on one server is run by the others, a lock that a worker finds counts too, and archives."""
    old = await admin.deploy("u/admin/hello", "def main(): return 1")
    async with serving(database_url, ServerSettings()) as url, Client(url, admin.token) as other:
        assert await _runs(other) == old
        new = await admin.deploy("u/admin/hello", "import x\ndef main(): return 2", lock=None)
        assert await _runs(other) == old

        await scripts.save_lock(api.database, "main", hash_from_hex(new), lock="x==1", error=None)

        async def runs_the_new_one():
            return await _runs(other) == new

        await eventually(runs_the_new_one)
        await admin.post(f"{W}/scripts/archive/p/u/admin/hello")

        async def runs_nothing():
            return (await other.post(f"{W}/jobs/run/p/u/admin/hello", json={})).status_code == 404

        await eventually(runs_nothing)
