"""Scripts that do what they can to harm their worker: each ends with a clear error, and the same worker runs the next job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millhand.core.job import NewJob
from millhand.core.script import Language
from millhand.store.pool import Database
from tests.support.postgres import TEMPLATE, Administrator, PostgresServer
from tests.system.stage import Part, Stage, ended, log_of, new_job, processes_named, push, until

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("bad jobs")]

MARK = "mh-outlives-me"
SHOW = f"open('/proc/self/comm', 'w').write({MARK!r})"


@pytest.fixture(scope="module")
def url(postgres_server: PostgresServer, postgres_admin: Administrator) -> Iterator[str]:
    """Return the URL of the database of all these tests."""
    postgres_admin.execute(f"create database bad_jobs template {TEMPLATE}")
    yield postgres_server.url("bad_jobs")
    postgres_admin.execute("drop database bad_jobs with (force)")


@pytest.fixture(scope="module")
def worker(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Part]:
    """Return the one worker that all these scripts meet. It must be there, the same one, in the end."""
    folder: Path = tmp_path_factory.mktemp("bad-jobs")
    stage = Stage(url, folder)
    worker = stage.worker(NUM_WORKERS="1", JOB_MEMORY_LIMIT_MB="768", MAX_LOG_BYTES="100000", ZOMBIE_JOB_TIMEOUT="60")
    yield worker
    assert worker.alive
    assert "worker.lease_lost" not in worker.log
    stage.close()


@pytest.fixture
async def database(url: str, worker: Part) -> AsyncIterator[Database]:
    async with Database(url, application_name="test", max_size=2) as opened:
        yield opened


async def run(database: Database, code: str, **fields: object) -> Any:
    """Run a script to its end, then another one, which must succeed on the same worker; return the record of the first."""
    job, after = new_job(code, **fields), new_job("def main():\n    return 'fine'\n")
    await push(database, job, after)
    row, next_row = await ended(database, job.id), await ended(database, after.id)
    assert (next_row["status"], next_row["result"]) == ("success", b'"fine"')
    assert next_row["worker"] == row["worker"]
    assert (row["attempt"], next_row["attempt"]) == (1, 1)
    return row


def error_of(row: Any) -> dict[str, Any]:
    assert row["status"] == "failure"
    return msgspec.json.decode(row["result"])["error"]


async def test_leaves_without_a_word(database: Database):
    """os._exit: the error says how it ended, with the end of its log."""
    error = error_of(await run(database, "import os\ndef main():\n    print('last words')\n    os._exit(3)\n"))
    assert (error["name"], error["exit_code"]) == ("ExecutionErr", 3)
    assert "last words" in error["message"]


async def test_claims_success_without_a_result(database: Database):
    """os._exit(0) is no success."""
    error = error_of(await run(database, "import os\ndef main():\n    os._exit(0)\n"))
    assert "without a result" in error["message"]


async def test_kills_itself(database: Database):
    """A signal is named."""
    error = error_of(await run(database, "import os\ndef main():\n    os.kill(os.getpid(), 11)\n    os.abort()\n"))
    assert error["message"]


async def test_closes_its_descriptors(database: Database):
    """All of them, the result's and the log's among them."""
    error = error_of(await run(database, "import os\ndef main():\n    os.closerange(0, 1000)\n    return 1\n"))
    assert error["message"]


@pytest.mark.parametrize(
    "garbage", ["b'garbage'", "b'\\xff' * 100", "os.urandom(100000)", "b'\\x05\\0\\0\\0V{{{{'", "b'\\x06\\0\\0\\0V12'"]
)
async def test_writes_garbage_to_the_protocol(database: Database, garbage: str):
    """Whatever comes where the result belongs, it is not taken for one."""
    code = f"import os\ndef main():\n    os.write(4, {garbage})\n    os._exit(0)\n"
    error = error_of(await run(database, code))
    assert error["message"]


async def test_forges_a_result(database: Database):
    """A job may only lie about itself: what it writes well-formed is its result, nothing after it counts."""
    code = "import os\ndef main():\n    os.write(4, b'\\x02\\0\\0\\0V1')\n    return 2\n"
    assert (await run(database, code))["result"] == b"1"


async def test_never_ends(database: Database):
    """An endless loop that ignores TERM is over when its time is."""
    code = "import signal\ndef main():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    while True: pass\n"
    row = await run(database, code, timeout_s=1)
    assert (row["status"], row["canceled_by"], row["canceled_reason"]) == ("canceled", "timeout", "duration > 1")


async def test_floods_its_log(database: Database):
    """The log is cut with a note; the job ends as it would have."""
    code = "def main():\n    for _ in range(20000): print('x' * 1000)\n    return 'dry'\n"
    row = await run(database, code)
    log = await log_of(database, row["id"])
    assert (row["status"], row["result"]) == ("success", b'"dry"')
    assert len(log) < 101_000
    assert log.endswith("--- the log is over 100000 bytes: the rest is left out ---\n")


async def test_writes_one_endless_line_of_noise(database: Database):
    """Bytes that are no text, and no line's end: the same bound."""
    code = "import os\ndef main():\n    for _ in range(50): os.write(1, os.urandom(100000).replace(b'\\n', b''))\n"
    row = await run(database, code)
    assert row["status"] == "success"
    assert len((await log_of(database, row["id"])).encode()) < 101_000


async def test_uses_too_much_memory(database: Database):
    """It is ended, labelled, and not tried again."""
    row = await run(database, "def main():\n    return len(bytearray(1 << 30))\n")
    assert (error_of(row)["name"], row["labels"]) == ("OutOfMemory", ["oom"])


async def test_fills_its_disk(database: Database):
    """The private disk has an end, which the script sees as such."""
    code = "import os\ndef main():\n    with open('big', 'wb') as file: os.posix_fallocate(file.fileno(), 0, 3 << 30)\n"
    error = error_of(await run(database, code))
    assert (error["name"], "No space left" in error["message"]) == ("OSError", True)


async def test_outlives_its_end(database: Database):
    """What left the session, twice, is gone with the job."""
    code = f"""
import os, time

def main():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            {SHOW}
            for fd in range(256):
                try: os.close(fd)
                except OSError: pass
            time.sleep(600)
        os._exit(0)
    while True:
        for pid in os.listdir('/proc'):
            if pid.isdigit() and open(f'/proc/{{pid}}/comm').read().strip() == {MARK!r}:
                return 'left one behind'
"""
    assert (await run(database, code))["result"] == b'"left one behind"'
    assert not processes_named(MARK)


async def test_outlives_its_shell(database: Database):
    """The same from a shell, which says goodbye in good order."""
    code = (
        "cp $(command -v sleep) mh-nap\n(setsid ./mh-nap 600 >/dev/null 2>&1 &)\n"
        "until cat /proc/[0-9]*/comm | grep -qx mh-nap; do :; done\necho bye\n"
    )
    row = await run(database, code, language=Language.BASH, tag="bash")
    assert (row["status"], row["result"]) == ("success", b'"bye"')
    assert not processes_named("mh-nap")


async def test_is_a_fork_bomb(database: Database):
    """It reaches its limit of processes, and all of them are gone when its time is up."""
    mark = "mh-fork-bomb"
    code = f"""
import os

def main():
    open('/proc/self/comm', 'w').write({mark!r})
    while True:
        try: os.fork()
        except OSError: pass
"""
    row = await run(database, code, timeout_s=1)
    assert (row["status"], row["canceled_by"]) == ("canceled", "timeout"), row["result"]
    assert not processes_named(mark)


async def test_returns_what_no_database_holds(database: Database):
    """NUL characters and lone surrogates in result and log come out somehow, or the error says why not."""
    row = await run(database, "def main():\n    print('a\\0b')\n    return ['a\\0b', '\\ud800']\n")
    assert row["status"] == "success" or error_of(row)["message"]


def bursting() -> list[NewJob]:
    """Return jobs that break in all these ways at once."""
    codes = ["os._exit(1)", "os.closerange(0, 1000)", "os.write(4, b'garbage')", "os.abort()", "1 / 0"]
    return [new_job(f"import os\ndef main():\n    {code}\n") for code in codes * 6]


async def test_come_in_numbers(database: Database):
    """Thirty of them one after the other, each ended once, none a success."""
    jobs = bursting()
    await push(database, *jobs)
    rows = [await ended(database, job.id) for job in jobs]
    assert {(row["status"], row["attempt"]) for row in rows} == {("failure", 1)}
    await run(database, "def main(): pass\n")


async def test_leaves_nothing_in_the_scratch(database: Database, worker: Part):
    """After all this the worker has no more processes than at its start: launchers, and children that wait."""
    await run(database, "def main(): pass\n")
    await until(lambda: len(worker.below()) <= 6)
