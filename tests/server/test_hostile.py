"""Requests, arguments and results that were made to do harm."""

from __future__ import annotations

import asyncio
import json
import socket
from urllib.parse import urlsplit

from millhand.core.job import JobStatus
from tests.server.conftest import Api, StandIn, W

CODE = {"content": "def main(): pass", "language": "python3"}
LOGIN = {"email": "admin@millhand.local", "password": "correct horse"}
DEEP = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"


async def give_back(job, _: StandIn):
    """End a job with its argument `result`: some text of JSON."""
    return JobStatus.SUCCESS, json.loads(job.args)["result"].encode()


def wish(result: object = None, **wishes: object) -> dict[str, object]:
    """Return the body of a preview whose result has wishes about its answer."""
    value = json.dumps({**{f"windmill_{name}": value for name, value in wishes.items()}, "result": result})
    return {**CODE, "args": {"result": value}}


async def raw(api: Api, request: bytes, *, until: bytes = b"", wait_s: float = 2.0) -> bytes:
    """Send bytes over a connection and return what comes back until it pauses."""
    place = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, family=socket.AF_INET)
    writer.write(request)
    got = b""
    try:
        async with asyncio.timeout(wait_s):
            while not (until and until in got) and (data := await reader.read(65536)):
                got += data
    except TimeoutError:
        pass
    writer.close()
    return got


_BODILESS = [204, 304, 205]


async def test_a_result_that_poses_as_the_next_answer(api: Api, admin, worker):
    """A job can't smuggle a second answer into a connection behind one that has no body."""
    await worker(give_back)
    for status in _BODILESS:
        forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
        body = json.dumps(wish(forged, status_code=status, content_type="text/plain")).encode()
        head = f"HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {admin.token}\r\n"
        first = f"POST {W}/jobs/run_wait_result/preview {head}content-length: {len(body)}\r\n\r\n".encode() + body
        second = f"GET /api/version {head}\r\n".encode()
        got = await raw(api, first + second, until=b"Millhand")
        assert b"Millhand" in got
        assert b"forged" not in got


_NO_STATUS = [100, 101, 199, 600, -1, 10**12]


async def test_statuses_that_are_none(admin, worker):
    """A status that no answer can have is not a wish, but a result like any other."""
    await worker(give_back)
    for status in _NO_STATUS:
        answer = await admin.post(f"{W}/jobs/run_wait_result/preview", json=wish("fine", status_code=status))
        assert (answer.status_code, answer.json()["result"]) == (200, "fine")


_NOT_THEIRS = [
    "Set-Cookie",
    "Clear-Site-Data",
    "Strict-Transport-Security",
    "X-Accel-Redirect",
    "X-Sendfile",
    "Alt-Svc",
    "Content-Length",
    "Transfer-Encoding",
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "Connection",
    "X-Millhand-Job",
    "Service-Worker-Allowed",
    "WWW-Authenticate",
    "Proxy-Authenticate",
]


async def test_headers_that_are_not_a_jobs_to_set(admin, worker):
    """A job can't set headers that act on the whole site, on the proxy in front, or on the connection."""
    await worker(give_back)
    for name in _NOT_THEIRS:
        answer = await admin.post(
            f"{W}/jobs/run_wait_result/preview", json=wish({"a": 1}, headers={name: "0-of-the-job", "X-Fine": "yes"})
        )
        assert (answer.status_code, answer.json(), answer.headers["x-fine"]) == (200, {"a": 1}, "yes")
        assert "of-the-job" not in str(answer.headers.multi_items())
        assert answer.headers["content-security-policy"] == "sandbox"


_BREAKING = ["a\r\nset-cookie: token=b", "a\nb", "\x00", "\u2028", ""]


async def test_headers_that_would_break_out(admin, worker):
    """A header with a line break in it is not set."""
    await worker(give_back)
    for value in _BREAKING:
        answer = await admin.post(
            f"{W}/jobs/run_wait_result/preview", json=wish(1, headers={"X-Broken": value, "X\r\nY": "1", "": "2"})
        )
        assert answer.status_code == 200
        assert "x-broken" not in answer.headers
        assert "set-cookie" not in answer.headers


async def test_pages_made_by_a_job(admin, worker):
    """A page that a job answers with is shown in a sandbox, and no answer of ours is guessed to be a page."""
    await worker(give_back)
    answer = await admin.post(
        f"{W}/jobs/run_wait_result/preview", json=wish("<script>alert(1)</script>", content_type="text/html")
    )
    assert (answer.text, answer.headers["content-security-policy"]) == ("<script>alert(1)</script>", "sandbox")
    job = answer.headers["x-millhand-job"]
    for path in (f"jobs_u/get_logs/{job}", f"jobs_u/completed/get_result/{job}", f"jobs_u/get/{job}", "jobs_u/get/<b>"):
        shown = await admin.get(f"{W}/{path}")
        assert shown.headers.get_list("x-content-type-options") == ["nosniff"]
        assert "html" not in shown.headers["content-type"]


_FROM = [
    ({"origin": "http://evil.example"}, 403),
    ({"origin": "null"}, 403),
    ({"origin": "http://127.0.0.1:1"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"origin": "OWN"}, 201),
    ({"sec-fetch-site": "same-origin"}, 201),
    ({}, 201),
]


async def test_a_page_of_another_site_uses_the_cookie(api: Api):
    """With a cookie, only pages of this site may change things: another port of this host is not this site."""
    for headers, status in _FROM:
        own = {name: value.replace("OWN", api.url) for name, value in headers.items()}
        async with api.client(None) as browser:
            token = (await browser.post("/api/auth/login", json=LOGIN)).text
            body = {"content": "def main(): pass", "language": "python3"}
            answer = await browser.post(f"{W}/jobs/run/preview", json=body, headers=own)
            assert answer.status_code == status
            assert (await browser.get("/api/users/whoami", headers=own)).status_code == 200
        async with api.client(token) as program:  # a token that is sent on purpose comes from whoever has it
            assert (await program.post(f"{W}/jobs/run/preview", json=body, headers=own)).status_code == 201
        async with api.client(None) as browser:
            browser.cookies.set("token", token)
            logout = await browser.post("/api/auth/logout", headers=own)
            assert logout.status_code == (403 if status == 403 else 200)


async def test_guessing_passwords_all_at_once(api: Api):
    """Many guesses at the same time learn no more than a few one after the other: the right one among them is not told."""
    guesses = [{**LOGIN, "password": str(number)} for number in range(30)]
    async with api.client(None) as anyone:
        answers = await asyncio.gather(*[anyone.post("/api/auth/login", json=guess) for guess in [*guesses, LOGIN]])
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(401) <= 6
    assert statuses.count(429) >= 24


async def test_headers_with_the_callers_secrets(api: Api, admin, worker):
    """A link can't have the caller's own token handed to the script."""
    await worker()
    await admin.deploy("u/admin/x")
    for name in ("authorization", "Cookie", "x-fine,AUTHORIZATION"):
        answer = await admin.post(f"{W}/jobs/run_wait_result/p/u/admin/x", json={}, params={"include_header": name})
        assert answer.status_code == 400
        assert admin.token not in answer.text


async def test_filters_over_odd_values(admin, worker):
    """Arguments and results that a comparison can't read are not found, and no list fails for them."""
    odd = [b'{"a":"\\ud800"}', b'{"a":1e400000}', b'{"a":"\\u0000"}', b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"]
    await worker()
    for args in [*odd, b'{"a":"plain"}']:
        body = b'{"content":"def main(): pass","language":"python3","args":' + args + b"}"
        pushed = await admin.post(f"{W}/jobs/run_wait_result/preview", content=body)
        assert pushed.status_code in (200, 400), pushed.text
    for name in ("args", "result"):
        found = await admin.get(f"{W}/jobs/list", params={name: '{"a":"plain"}'})
        assert (found.status_code, len(found.json())) == (200, 1), found.text
        for wanted in odd:
            answer = await admin.get(f"{W}/jobs/list", params={name: wanted.decode()})
            assert answer.status_code in (200, 400, 414), answer.text


_BOMBS = [
    DEEP.encode(),
    b"\xff\xfe{}",
    b'{"a":"\xed\xa0\x80"}',
    b"[" * 1_000_000,
    b'"text"',
    b"null",
    b"NaN",
    b'{"a":NaN}',
    b"{" + b'"a":{' * 50_000,
    b"\x00",
    b'{"a":1}garbage',
    b'{"a":1e999999}',
    b'{"a":' + b"9" * 100_000 + b"}",
]


async def test_bodies_that_are_bombs(admin):
    """Bodies that are too deep, not JSON, not UTF-8, or hardly numbers get an answer, and the server goes on."""
    for body in _BOMBS:
        for path in ("jobs/run/preview", "scripts/create", "jobs/run/batch", "jobs/queue/cancel_selection"):
            answer = await admin.post(f"{W}/{path}", content=body, headers={"content-type": "application/json"})
            assert answer.status_code in (400, 413), (path, answer.text)
        await admin.deploy("u/admin/x")
        answer = await admin.post(f"{W}/jobs/run/p/u/admin/x", content=body)
        assert answer.status_code in (201, 400, 413), answer.text
        assert "Traceback" not in answer.text
        if answer.status_code == 201:
            assert (await admin.get(f"{W}/jobs_u/get_args/{answer.text}")).content == body
            assert (await admin.get(f"{W}/jobs_u/get/{answer.text}")).status_code == 200
            assert (await admin.get(f"{W}/jobs/list", params={"include_args": "true"})).status_code == 200


_ENCODINGS = ["gzip", "br", "deflate", "utf-16", "\xff"]


async def test_odd_encodings(admin):
    """What claims to be compressed or in another character set is read as it is, and refused as what it is not."""
    for encoding in _ENCODINGS:
        headers = [
            (b"content-encoding", encoding.encode("latin-1")),
            (b"content-type", b"application/json; charset=utf-16"),
        ]
        answer = await admin.post(f"{W}/jobs/run/preview", content=b"\x1f\x8b\x08\x00", headers=headers)
        assert answer.status_code == 400


_ELSEWHERE = [
    "..",
    "../admins",
    "%2e%2e/x",
    "u/../../etc/passwd",
    "u//x",
    "f/a/%00",
    "f/a/b;drop table job",
    "f/a/'",
    "f/a/\u202e",
    "/etc/passwd",
    "u/admin/..",
    "u/admin/../x",
    "u/../admin/x",
    "f/./x",
    "u/admin/" + "x" * 5000,
]


async def test_paths_that_lead_elsewhere(admin):
    """A path that is none is refused by each route that takes one, without looking anything up."""
    for path in _ELSEWHERE:
        for before in ("scripts/get/p/", "scripts/raw/p/", "scripts/history/p/", "scripts/exists/p/"):
            answer = await admin.get(f"{W}/{before}{path}")
            assert answer.status_code in (400, 404), (before, answer.status_code)
        body = {"path": path, "content": "def main(): pass", "language": "python3", "summary": "", "lock": ""}
        assert (await admin.post(f"{W}/scripts/create", json=body)).status_code == 400
        body = {"path": path, "content": "def main(): pass", "language": "python3"}
        assert (await admin.post(f"{W}/jobs/run/preview", json=body)).status_code == 400


_STATEMENTS = ["' or 1=1 --", "%", "\\", "a\x1fb", "$1", "*" * 300, "\U0001f600"]


async def test_filters_that_are_statements(api: Api, admin, worker):
    """What a filter is given is a value: it finds nothing, and breaks nothing."""
    for value in _STATEMENTS:
        await worker()
        await admin.post(f"{W}/jobs/run_wait_result/preview", json=CODE)
        for name in (
            "created_by",
            "label",
            "worker",
            "tag",
            "job_kinds",
            "script_path_start",
            "script_path_exact",
            "status",
            "trigger_path",
        ):
            for wild in ("true", "false"):
                answer = await admin.get(f"{W}/jobs/completed/list", params={name: value, "allow_wildcards": wild})
                assert answer.status_code in (200, 400), answer.text
                if set(value) != {"*"} and answer.status_code == 200:
                    assert answer.json() == [], name


async def test_a_name_of_a_job_in_another_workspace(api: Api, admin):
    """Taking the id of a job that is there tells nothing of it, and touches nothing."""
    job = await admin.preview()
    stranger = await api.person("stranger", "admins")
    for way in ("run", "run_wait_result"):
        answer = await stranger.post(f"/api/w/admins/jobs/{way}/preview", json=CODE, params={"job_id": job})
        assert answer.status_code in (400, 409), answer.text
    assert (await admin.get(f"{W}/jobs_u/get/{job}")).json()["language"] == "python3"
