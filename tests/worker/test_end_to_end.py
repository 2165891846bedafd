"""A worker host over the real queue, running real scripts, warm and alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from millhand.core.job import JobKind
from millhand.core.script import Language
from millhand.runtimes.registry import Runtimes
from millhand.store import cancel, queue
from millhand.store.notify import Notifier
from millhand.store.pool import Database
from millhand.store.source import PgJobSource
from millhand.worker.host import WorkerHost
from millhand.worker.settings import WorkerSettings
from tests.worker.test_host_over_postgres import ended, log_of, new_job, running, until

SETTINGS = WorkerSettings(num_workers=2, tags=("python3",), heartbeat_s=0.2, poll_s=0.2)
SLEEPY = """
import os, time

def main():
    print("begun", flush=True)
    time.sleep(600)
"""


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, application_name="test", max_size=2) as opened:
        yield opened


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "cache"


@asynccontextmanager
async def hosting(url: str, cache: Path, settings: WorkerSettings = SETTINGS) -> AsyncIterator[WorkerHost]:
    host = WorkerHost(
        settings=settings, source=PgJobSource(url), runtimes=Runtimes(cache_dir=cache, n_workers=settings.num_workers)
    )
    await host.start()
    try:
        yield host
    finally:
        await host.terminate()


async def begun(database: Database, job_id: UUID) -> None:
    async def look() -> Any:
        return "begun" in await log_of(database, job_id)

    await running(database, job_id)
    await until(look)


async def test_a_script_runs_alone_with_its_context(database: Database, database_url: str, cache: Path):
    """Arguments, contextual variables, result, labels and log; nothing of the worker's environment."""
    code = """
import os

def main(name: str):
    print("hello", name)
    return {"path": os.environ["WM_JOB_PATH"], "token": os.environ["WM_TOKEN"][:4], "pid": os.getpid(),
            "home": "DATABASE_URL" in os.environ, "wm_labels": ["a", "b"]}
"""
    job = new_job(raw_code=code, runnable_path="u/admin/hello", args=b'{"name": "world"}')
    async with hosting(database_url, cache):
        await queue.push(database, [job])
        row = await ended(database, job.id)
    result = msgspec.json.decode(row["result"])
    assert (row["status"], row["labels"]) == ("success", ["a", "b"])
    assert (result["path"], result["token"], result["home"]) == ("u/admin/hello", "jwt_", False)
    log = await log_of(database, job.id)
    assert log.startswith(f"job={job.id} tag=python3 worker={row['worker']} ")
    assert log.endswith("--- PYTHON CODE EXECUTION ---\n\nhello world\n")


async def test_an_exception_is_the_jobs_error(database: Database, database_url: str, cache: Path):
    """Name, message and the user's frames."""
    job = new_job(raw_code="def main():\n    raise ValueError('no')\n")
    async with hosting(database_url, cache):
        await queue.push(database, [job])
        row = await ended(database, job.id)
    error = msgspec.json.decode(row["result"])["error"]
    assert (row["status"], error["name"], error["message"]) == ("failure", "ValueError", "no")


async def test_a_cancelled_script_is_ended(database: Database, database_url: str, cache: Path):
    """The process dies at once, with who and why in the result; its words until then are kept."""
    job = new_job(raw_code=SLEEPY)
    async with hosting(database_url, cache), Notifier(database) as notifier:
        await queue.push(database, [job])
        await begun(database, job.id)
        done = await cancel.cancel(database, [job.id], workspace_id="main", by="bob", reason="typo")
        notifier.canceled(done.told)
        row = await ended(database, job.id)
    assert (row["status"], row["canceled_by"]) == ("canceled", "bob")
    assert "begun" in await log_of(database, job.id)


async def test_a_script_over_its_time_is_ended(database: Database, database_url: str, cache: Path):
    """By its own timeout."""
    job = new_job(raw_code=SLEEPY, timeout_s=1)
    async with hosting(database_url, cache):
        await queue.push(database, [job])
        row = await ended(database, job.id)
    assert (row["status"], row["canceled_by"], row["canceled_reason"]) == ("canceled", "timeout", "duration > 1")


async def test_a_host_that_ends_gives_its_script_to_the_next(database: Database, database_url: str, cache: Path):
    """Terminated in the middle: the process is gone, the job waits, and the next host runs it to the end."""
    job = new_job(raw_code=SLEEPY.replace("600", "0.3 if os.environ['WM_WORKER_GROUP'] == 'next' else 600"))
    async with hosting(database_url, cache) as host:
        await queue.push(database, [job])
        await begun(database, job.id)
        await host.terminate()
    row = await database.fetchrow("select state, n_lost from job_queue where id = $1", job.id)
    assert (row["state"], row["n_lost"]) == ("queued", 0)
    async with hosting(database_url, cache, msgspec.structs.replace(SETTINGS, group="next")):
        assert (await ended(database, job.id))["status"] == "success"


async def test_a_draining_host_lets_its_script_finish(database: Database, database_url: str, cache: Path):
    """The result of the last job is recorded before the host is gone."""
    job = new_job(raw_code=SLEEPY.replace("600", "0.5"))
    async with hosting(database_url, cache) as host:
        await queue.push(database, [job])
        await begun(database, job.id)
        await host.drain()
        row = await database.fetchrow("select status from job_completed where id = $1", job.id)
        assert row is not None
        assert row["status"] == "success"


async def test_a_script_that_streams_keeps_its_stream(database: Database, database_url: str, cache: Path):
    """Pieces are stored while it runs, and the whole is the result."""
    job = new_job(raw_code="def main():\n    yield 'a'\n    yield 'b'\n")
    async with hosting(database_url, cache):
        await queue.push(database, [job])
        row = await ended(database, job.id)
    pieces = await database.fetch("select text from job_stream where job_id = $1 order by seq", job.id)
    assert "".join(text for (text,) in pieces) == "ab"
    assert msgspec.json.decode(row["result"]) == "ab"


@pytest.mark.parametrize(
    "code", ["import os\ndef main():\n    os._exit(3)\n", "def main():\n    import os\n    os.close(4)\n    return 1\n"]
)
async def test_a_script_that_breaks_its_process_fails_alone(
    database: Database, database_url: str, cache: Path, code: str
):
    """It fails with a clear error; the worker takes the next job."""
    job, other = new_job(raw_code=code), new_job(raw_code="def main():\n    return 1\n")
    async with hosting(database_url, cache):
        await queue.push(database, [job, other])
        broken, fine = await ended(database, job.id), await ended(database, other.id)
    assert (broken["status"], fine["status"]) == ("failure", "success")
    assert msgspec.json.decode(broken["result"])["error"]["message"]


async def test_a_flood_of_words_is_bounded(database: Database, database_url: str, cache: Path):
    """The log is cut with a note, and the job ends as usual."""
    settings = msgspec.structs.replace(SETTINGS, max_log_bytes=100_000)
    job = new_job(raw_code="def main():\n    for i in range(20000):\n        print('x' * 100)\n    return 1\n")
    async with hosting(database_url, cache, settings):
        await queue.push(database, [job])
        row = await ended(database, job.id)
    log = await log_of(database, job.id)
    assert row["status"] == "success"
    assert len(log) < 101_000
    assert log.endswith("--- the log is over 100000 bytes: the rest is left out ---\n")


async def test_a_deployed_script_finds_the_scripts_it_imports(database: Database, database_url: str, cache: Path):
    """Code by hash, relative imports by path, the latest version of each."""
    await database.execute("insert into workspace (id, name, owner) values ('main', 'main', 'admin')")
    insert = (
        "insert into script (workspace_id, hash, path, content, language, lock, created_by, envs) "
        "values ('main', $1, $2, $3, 'python3', '', 'admin', '{COLOUR=red}')"
    )
    await database.execute(insert, 1, "f/shop/tax", "def tax(price):\n    return price / 5\n")
    main = "import os\nfrom f.shop.tax import tax\ndef main(price):\n    return [tax(price), os.environ['COLOUR']]\n"
    await database.execute(insert, 2, "f/shop/bill", main)
    job = new_job(
        kind=JobKind.SCRIPT,
        raw_code=None,
        raw_lock=None,
        runnable_path="f/shop/bill",
        runnable_hash=2,
        args=b'{"price":10}',
    )
    async with hosting(database_url, cache):
        await queue.push(database, [job])
        row = await ended(database, job.id)
    assert row["result"] == b'[2.0,"red"]'


async def test_a_shell_script_runs_the_same_way(database: Database, database_url: str, cache: Path):
    """Another language through the same host."""
    code = 'name="$1"\necho "hello $name"\n'
    job = new_job(raw_code=code, language=Language.BASH, args=b'{"name":"you"}')
    async with hosting(database_url, cache):
        await queue.push(database, [job])
        row = await ended(database, job.id)
    assert (row["status"], row["result"]) == ("success", b'"hello you"')
    assert "--- BASH CODE EXECUTION ---" in await log_of(database, job.id)
