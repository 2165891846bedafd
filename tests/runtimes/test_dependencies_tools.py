"""How the tools that install dependencies are run."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
import uvloop

from millhand.core.errors import LockFailedError
from millhand.runtimes.dependencies.tools import run_tool, tool_env

ENV = {"PATH": os.environ["PATH"]}


def test_under_both_loops(tmp_path, log):
    """Tools run under asyncio's loop and under uvloop, and what they write others can read, whatever our umask."""
    script = "open(__import__('sys').argv[1], 'w').close(); print('said')"
    before = os.umask(0o077)
    try:
        for name, loop in [("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)]:
            with asyncio.Runner(loop_factory=loop) as runner:
                argv = [sys.executable, "-c", script, name]
                assert runner.run(run_tool(argv, cwd=tmp_path, env=ENV, listener=log, what="a test")) == "said\n"
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)
    assert log.text == "said\nsaid\n"


async def test_failure(tmp_path):
    """A tool that fails is quoted."""
    with pytest.raises(LockFailedError, match=r"a test failed:\nno such luck"):
        await run_tool(["sh", "-c", "echo no such luck >&2; exit 3"], cwd=tmp_path, env=ENV, what="a test")
    with pytest.raises(LockFailedError, match=r"a test failed:\nexit code 3"):
        await run_tool(["sh", "-c", "exit 3"], cwd=tmp_path, env=ENV, what="a test")
    with pytest.raises(LockFailedError, match="a test failed"):
        await run_tool(["/no/such/tool"], cwd=tmp_path, env=ENV, what="a test")


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_nothing_survives(tmp_path, how):
    """A tool that takes too long, or that nobody waits for any more, is ended with all that it has started."""
    code = "sleep 600 & echo $! > child; echo started; wait"
    started = asyncio.Event()

    class Heard:
        def log(self, text: str) -> None:
            started.set()

    timeout_s = 0.5 if how == "timeout" else 60
    running = asyncio.create_task(
        run_tool(["sh", "-c", code], cwd=tmp_path, env=ENV, listener=Heard(), what="a test", timeout_s=timeout_s)
    )
    await started.wait()
    if how == "cancel":
        running.cancel()
    with pytest.raises((asyncio.CancelledError, LockFailedError)):
        await running
    child = int((tmp_path / "child").read_text())
    async with asyncio.timeout(10):
        while _lives(child):
            await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_tools_see_nothing_of_the_worker():
    """Resolvers get paths, proxies and their own settings; the database stays unknown to them."""
    source = {"PATH": "/bin", "DATABASE_URL": "x", "https_proxy": "http://p", "UV_INDEX": "x", "MILLHAND_TOKEN": "t"}
    assert tool_env(source) == {"PATH": "/bin", "https_proxy": "http://p", "UV_INDEX": "x"}
