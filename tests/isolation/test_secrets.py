"""Jobs that look for what is not theirs."""

from __future__ import annotations

import os

import pytest

from millhand.runtimes.launcher import Launcher
from tests.isolation.conftest import SECRET, Cell

READ_EVERYTHING_IN_PROC = """
import os

def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace")
    except OSError as error:
        return ""

def main():
    found = {}
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        found[pid] = read(f"/proc/{pid}/environ") + read(f"/proc/{pid}/task/{pid}/environ")
    return {"environment": dict(os.environ), "found": found}
"""

SEARCH_OWN_MEMORY = """
import re

def main(beginning):
    needle = (beginning + "-of-the-neighbour").encode()
    hits = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            first, last = (int(word, 16) for word in line.split()[0].split("-"))
            if " rw" in line:
                memory.seek(first)
                try:
                    hits += memory.read(last - first).count(needle)
                except OSError:
                    pass
    return hits
"""


async def test_the_environment_of_the_worker(cell: Cell):
    """No environment that a job can read, its own or of any process in /proc, has the database's URL."""
    ran = await cell.run(READ_EVERYTHING_IN_PROC)
    assert SECRET not in str(ran.result)
    assert "DATABASE_URL" not in ran.result["environment"]
    assert ran.result["environment"]["WM_WORKSPACE"] == "main"


async def test_the_token_of_a_running_job(cell: Cell):
    """A job can't read the token of one that runs beside it."""
    neighbour = cell.begin(
        "import time\ndef main():\n    print('here', flush=True)\n    time.sleep(60)",
        env={"WM_TOKEN": "token-of-the-neighbour"},
    )
    await neighbour.heard.until("here")
    ran = await cell.run(READ_EVERYTHING_IN_PROC)
    await neighbour.cancel()
    assert "token-of-the-neighbour" not in str(ran.result)


async def test_traces_of_earlier_jobs(cell: Cell):
    """No earlier job's token is left in the memory that a job starts with."""
    for _ in range(3):
        await cell.run("def main():\n    return 1", env={"WM_TOKEN": "token-of-the-neighbour"})
    ran = await cell.run(SEARCH_OWN_MEMORY, {"beginning": "token"})
    assert ran.result <= 1  # the needle itself


async def test_the_memory_of_others(cell: Cell):
    """A job can neither read nor trace the worker and its launcher, nor any process but its own."""
    ran = await cell.run(
        """
import ctypes, os

def main(strangers):
    libc, reached = ctypes.CDLL(None, use_errno=True), []
    own = {os.getpid(), os.getppid()}
    for pid in set(strangers) | {int(name) for name in os.listdir("/proc") if name.isdigit()}:
        try:
            with open(f"/proc/{pid}/stat") as file:
                theirs = int(file.read().rpartition(")")[2].split()[1]) in own
        except OSError:
            theirs = False
        if pid in own or theirs:
            continue
        try:
            open(f"/proc/{pid}/mem", "rb").close()
            reached.append(f"mem {pid}")
        except OSError:
            pass
        if libc.ptrace(16, pid, None, None) == 0:
            reached.append(f"ptrace {pid}")
    return reached
""",
        {"strangers": [os.getpid(), os.getppid()]},
    )
    assert ran.result == []


async def test_hidden_folders(make_launcher, folder):
    """A hidden folder is empty for a job, also where what is around it may be read."""
    (folder / "shared" / "data").mkdir(parents=True)
    (folder / "shared" / "data" / "token").write_text("a secret")
    (folder / "shared" / "library").write_text("a book")
    launcher: Launcher = make_launcher("sandbox", readonly=[folder / "shared"], hidden=[folder / "shared" / "data"])
    await launcher.start()
    ran = await Cell(launcher, "sandbox").run(
        "import os\ndef main(path):\n    return [open(path + '/library').read(), os.listdir(path + '/data')]",
        {"path": str(folder / "shared")},
    )
    await launcher.close()
    assert ran.result == ["a book", []]


async def test_files_of_the_worker(cell: Cell, folder):
    """A job sees no file of the worker's, whatever its mode bits say."""
    (folder / "data").mkdir()
    (folder / "data" / "token").write_text("a secret")
    ran = await cell.run("def main(path):\n    return open(path).read()", {"path": str(folder / "data" / "token")})
    assert ran.error["name"] in ("FileNotFoundError", "PermissionError")


async def test_what_a_job_has_open(cell: Cell):
    """A job has its streams and its channel open, and nothing of the launcher's."""
    ran = await cell.run("import os\ndef main():\n    return sorted(os.listdir('/proc/self/fd'), key=int)")
    assert ran.result[:5] == ["0", "1", "2", "3", "4"]
    assert len(ran.result) == 6  # the sixth is the listing itself


@pytest.mark.parametrize("what", ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"])
async def test_rights(cell: Cell, what):
    """A job has no capability and can gain none."""
    ran = await cell.run("def main():\n    return open('/proc/self/status').read()")
    assert what in ran.result
