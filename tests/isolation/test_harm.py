"""Jobs that try to do harm, or to stay."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from millhand.runtimes import run_child
from millhand.runtimes.contract import FailureKind, Limits, StopCause, Stopped
from tests.isolation.conftest import Cell

BOMB = """
import os, time

def main():
    refused = False
    while not refused:
        try:
            if os.fork() == 0:
                time.sleep(60)
        except OSError:
            refused = True
    print("refused", flush=True)
    time.sleep(60)
"""
FORKS = """
import _thread, os

def main():
    done = _thread.allocate_lock()
    done.acquire()
    _thread.start_new_thread(done.release, ())
    done.acquire()
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def running(marker: str) -> list[str]:
    """Return the processes of this machine that have a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker in path.read_text().split("\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


async def until_gone(marker: str) -> None:
    async with asyncio.timeout(10):
        while running(marker):
            await asyncio.sleep(0.01)


async def test_killing_the_worker(cell: Cell):
    """A job can't signal the worker, its parent, nor anybody else."""
    if cell.mode == "process-unprivileged":
        pytest.skip("without namespaces and another user only Landlock 6 keeps signals in")
    ran = await cell.run(
        """
import os, signal

def main(strangers):
    reached = []
    for pid in strangers:
        try:
            os.kill(pid, signal.SIGKILL)
            reached.append(pid)
        except OSError:
            pass
    return reached
""",
        {"strangers": [os.getpid(), cell.launcher._zygote._process.pid]},
    )
    assert ran.result == []


@pytest.mark.parametrize("way", ["setsid", "double fork", "child of a killed job"])
async def test_outliving_the_job(cell: Cell, way):
    """Nothing that a job started is there after its end, whatever it did to get away."""
    marker = f"{time.time():.6f}"
    code = """
import os, signal, subprocess, time

def main(way, marker):
    argv = ["sleep", marker]
    if way == "setsid":
        subprocess.Popen(argv, start_new_session=True)
    elif os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", argv)
        os._exit(0)
    else:
        os.wait()
    if way == "child of a killed job":
        print("started", flush=True)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
"""
    begun = cell.begin(code, {"way": way, "marker": marker})
    if way == "child of a killed job":
        await begun.heard.until("started")
        begun.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await begun.task
    else:
        assert (await begun.end()).result is None
    await until_gone(marker)


async def test_writing_elsewhere(cell: Cell):
    """A job can write to its own folder and nowhere else."""
    ran = await cell.run(
        """
import os, sys, tempfile

def main():
    written = []
    for folder in ["/", "/usr", "/usr/lib", "/etc", "/home", "/root", "/run", "/var", "/work", "/dev", os.path.dirname(os.__file__)]:
        try:
            with open(folder + "/millhand-was-here", "w"):
                written.append(folder)
        except OSError:
            pass
    with open("note", "w") as note, tempfile.TemporaryFile() as other:
        note.write("fine")
        other.write(b"fine")
    return written
"""
    )
    assert ran.result == []


async def test_a_fork_bomb(cell: Cell):
    """A fork bomb runs into its limit and is gone with its job."""
    begun = cell.begin(BOMB, limits=Limits(processes=60))
    await begun.heard.until("refused")
    assert isinstance((await begun.cancel()).outcome, Stopped)
    assert (await cell.run("def main():\n    return 'fine'")).result == "fine"


async def test_a_fork_bomb_next_door(cell: Cell):
    """While a job has as many processes as it may, another one starts as ever, and starts processes and threads."""
    if cell.mode in ("process-unprivileged", "bubblewrap"):
        pytest.skip("jobs share the user of their worker here, and with it the kernel's count of processes")
    bomb = cell.begin(BOMB, limits=Limits(processes=60))
    await bomb.heard.until("refused")
    ran = await cell.run(FORKS, limits=Limits(processes=60))
    assert isinstance((await bomb.cancel()).outcome, Stopped)
    assert ran.result == 7


async def test_filling_the_disk(cell: Cell):
    """A job that fills its disk gets an error, and the next one has its own."""
    fill = "def main():\n    with open('big', 'wb') as file:\n        for _ in range(64):\n            file.write(bytes(1 << 16))"
    ran = await cell.run(fill, limits=Limits(tmp_bytes=1 << 20))
    assert ran.error["name"] == "OSError"
    assert (await cell.run(fill)).result is None


async def test_too_much_memory(cell: Cell):
    """A job over its memory limit fails and is labelled; within it, it is not."""
    limits = Limits(memory_bytes=64 << 20)
    code = "def main(n):\n    data = bytearray(n << 20)\n    data[::4096] = bytes(len(data[::4096]))\n    return len(data) >> 20"
    ran = await cell.run(code, {"n": 300}, limits=limits)
    assert ran.outcome.kind is FailureKind.OOM
    ran = await cell.run(code, {"n": 16}, limits=limits)
    assert ran.result == 16


async def test_memory_of_the_whole_tree(cell: Cell):
    """The memory peak counts what a job's processes use together."""
    ran = await cell.run(
        """
import subprocess, sys

def main():
    hold = "import time; data = bytearray(60 << 20); data[::4096] = bytes(len(data[::4096])); print(flush=True); time.sleep(1.2)"
    held = [subprocess.Popen([sys.executable, "-I", "-S", "-c", hold], stdout=subprocess.PIPE) for _ in range(3)]
    for each in held:
        each.stdout.readline()
    for each in held:
        each.wait()
"""
    )
    assert ran.outcome.memory_peak_kb > 150 << 10


async def test_closed_descriptors(cell: Cell):
    """A job that closes its channel fails with a clear error."""
    ran = await cell.run("import os\ndef main():\n    os.closerange(3, 256)\n    return 1")
    assert "result" in ran.error["message"]


async def test_everything_closed_and_going_on(cell: Cell):
    """A job that closes all it has and goes on is ended after a moment."""
    ran = await cell.run("import os, time\ndef main():\n    os.closerange(0, 256)\n    time.sleep(60)")
    assert ran.outcome.kind is FailureKind.KILLED


async def test_garbage_on_the_channel(cell: Cell):
    """Garbage where the result belongs ends the job as what it is."""
    ran = await cell.run("import os, time\ndef main():\n    os.write(4, b'hello, worker')\n    time.sleep(60)")
    assert ran.outcome.kind is FailureKind.PROTOCOL


async def test_half_a_frame(cell: Cell):
    """A frame that is cut off is garbage too."""
    ran = await cell.run("import os\ndef main():\n    os.write(4, b'\\x00\\x01\\x00\\x00V123')\n    os._exit(0)")
    assert ran.outcome.kind is FailureKind.PROTOCOL


async def test_leaving_by_the_back_door(cell: Cell):
    """os._exit is an error with the exit code."""
    ran = await cell.run("import os\ndef main():\n    os._exit(7)")
    assert ran.error["exit_code"] == 7


async def test_crashing(cell: Cell):
    """A crash names the signal."""
    ran = await cell.run("import ctypes\ndef main():\n    ctypes.string_at(0)")
    assert ran.outcome.kind is FailureKind.KILLED
    assert "SIGSEGV" in ran.error["message"]


async def test_an_endless_loop(cell: Cell):
    """A loop ends at TERM, and `finally` blocks run."""
    begun = cell.begin(
        "def main():\n    try:\n        print('looping', flush=True)\n        while True:\n            pass\n    finally:\n        print('bye')"
    )
    await begun.heard.until("looping")
    ran = await begun.cancel()
    assert isinstance(ran.outcome, Stopped)
    assert ran.outcome.cause is StopCause.CANCELED
    assert ran.log == "looping\nbye\n"


async def test_ignoring_the_end(cell: Cell, monkeypatch):
    """A job that ignores TERM is killed after the grace period."""
    monkeypatch.setattr(run_child, "GRACE_S", 0.1)
    begun = cell.begin(
        "import signal, time\ndef main():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    print('deaf', flush=True)\n    time.sleep(60)"
    )
    await begun.heard.until("deaf")
    assert isinstance((await begun.cancel()).outcome, Stopped)


async def test_no_network(cell: Cell):
    """A job without network reaches nobody, but itself."""
    if not cell.sandboxed:
        pytest.skip("needs a network namespace")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        code = """
import socket

def main(port):
    own = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(own.getsockname()).close()
    socket.create_connection(("127.0.0.1", port), timeout=2)
"""
        args = {"port": server.sockets[0].getsockname()[1]}
        ran = await cell.run(code, args, limits=Limits(network=False))
        assert ran.error["name"] == "ConnectionRefusedError"
        assert (await cell.run(code, args)).result is None


async def test_the_launcher_dies(cell: Cell):
    """When a launcher is killed its jobs go with it and fail with the cause; the next job has a new launcher."""
    marker = f"{time.time():.6f}"
    begun = cell.begin(
        "import subprocess\ndef main(marker):\n    subprocess.Popen(['sleep', marker])\n    print('here', flush=True)\n    subprocess.run(['sleep', marker])",
        {"marker": marker},
    )
    await begun.heard.until("here")
    os.kill(cell.launcher._zygote._process.pid, signal.SIGKILL)
    ran = await begun.end()
    assert "launcher died" in ran.error["message"]
    if cell.sandboxed:  # elsewhere what has left its parent's side can't be found again
        await until_gone(marker)
    assert (await cell.run("def main():\n    return 'fine'")).result == "fine"
