"""What happens where the kernel refuses, and where the host itself is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from millhand.core.errors import RuntimeUnavailableError
from millhand.runtimes import bubblewrap
from millhand.runtimes import launcher as launcher_module
from millhand.runtimes.contract import Isolation
from tests.isolation.conftest import ALONE, Cell
from tests.isolation.test_harm import running, until_gone


@pytest.fixture
def refusing(monkeypatch):
    """Have every sandbox refused, as a kernel without namespaces does."""
    start = launcher_module._Zygote.start

    async def refuse(self, python: str, setup: bytes, around: Sequence[str] = ()) -> str | None:
        why = await start(self, python, setup, around)
        return why or (None if b'"mode": "process"' in setup else "Operation not permitted")

    monkeypatch.setattr(launcher_module._Zygote, "start", refuse)


async def test_the_next_best_says_why(make_launcher, refusing):
    """Where namespaces are refused jobs are kept apart by other means, and the text says so."""
    launcher = make_launcher("process", isolation=Isolation.SANDBOX)
    await launcher.start()
    assert launcher.isolation_text.startswith("process: sandbox: Operation not permitted")
    assert (await Cell(launcher, "process").run("def main():\n    return 1")).result == 1
    await launcher.close()


@ALONE
async def test_bubblewrap_where_it_is_present(make_launcher, refusing):
    """Where an ordinary user is refused namespaces, bubblewrap keeps jobs from the machine if it is installed."""
    launcher = make_launcher("userns", isolation=Isolation.SANDBOX)
    if not bubblewrap.find():
        pytest.skip("bubblewrap is not installed")
    await launcher.start()
    assert launcher.isolation_text.startswith("bubblewrap: userns: Operation not permitted")
    code = "import os\ndef main():\n    return [name for name in os.listdir('/proc') if name.isdigit()]"
    assert len((await Cell(launcher, "bubblewrap").run(code)).result) < 10
    await launcher.close()


@ALONE
async def test_without_bubblewrap(make_launcher, refusing, monkeypatch):
    """Where it is not installed there is what needs no right."""
    monkeypatch.setattr(bubblewrap, "find", lambda: None)
    launcher = make_launcher("userns", isolation=Isolation.SANDBOX)
    await launcher.start()
    assert launcher.isolation_text.startswith("process: userns: Operation not permitted")
    await launcher.close()


async def test_required_is_required(make_launcher, refusing):
    """With REQUIRED nothing less will do, and the error says what to do."""
    launcher = make_launcher("sandbox", isolation=Isolation.REQUIRED)
    with pytest.raises(RuntimeUnavailableError, match="set MILLHAND_ISOLATION to less"):
        await launcher.start()
    await launcher.close()


async def test_a_python_out_of_reach(make_launcher, folder, monkeypatch):
    """Where jobs would be users who can't get at Python, the error names the closed folder and says what to do."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").write_text("")
    launcher = make_launcher("process")
    monkeypatch.setattr(launcher, "_python", str(closed / "python"))
    with pytest.raises(RuntimeUnavailableError, match=f"chmod o.x {closed}"):
        await launcher.start()
    await launcher.close()


async def test_a_broken_launcher_is_no_refusal(make_launcher):
    """A launcher that can't start at all is an error; jobs don't fall back to less isolation for it."""
    launcher = make_launcher("sandbox", isolation=Isolation.SANDBOX, preload=["no_such_module"])
    with pytest.raises(RuntimeUnavailableError, match="did not start"):
        await launcher.start()
    await launcher.close()


HOST = """
import asyncio, json, sys
from pathlib import Path
from millhand.runtimes.launcher import Launcher, Spawn, base_environment

async def main():
    launcher = Launcher(python=sys.executable, scratch=Path(sys.argv[1]))
    await launcher.start()
    await launcher.spawn(Spawn(argv=("sleep", sys.argv[2]), env=base_environment(), init=True))
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_host_is_killed(folder):
    """When a host is killed outright its launcher and all its jobs go, too."""
    marker = f"{time.time():.6f}"
    host = subprocess.Popen([sys.executable, "-c", HOST, str(folder), marker])
    async with asyncio.timeout(20):
        while not running(marker):
            await asyncio.sleep(0.02)
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    await until_gone(marker)
