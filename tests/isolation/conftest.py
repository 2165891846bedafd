"""A launcher for each way in which jobs can be kept apart, so that every attempt is made against all of them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from millhand.core.script import Language
from millhand.runtimes import bubblewrap
from millhand.runtimes import launcher as launcher_module
from millhand.runtimes.contract import Execution, Isolation, Limits, Stop, StopCause
from millhand.runtimes.launcher import Launcher
from millhand.runtimes.python import PythonRuntime, python_spawn
from tests.support.runs import Heard, Ran, execution

SECRET = "postgres://somebody:a-secret-of-the-worker@db/millhand"
# Who starts launchers where the tests run as root. Not nobody: so does PostgreSQL, and processes are counted by user.
STRANGER = 64999
STRANGERS = ("userns", "bubblewrap", "process-unprivileged")  # started by an ordinary user
MODES = ("sandbox", "userns", "bubblewrap", "process", "process-unprivileged")


class Cell:
    """A launcher, and how to run Python in it."""

    def __init__(self, launcher: Launcher, mode: str) -> None:
        self.launcher = launcher
        self.mode = mode
        self._runtime = PythonRuntime(pool=self, environments=None, launch=None)

    @property
    def sandboxed(self) -> bool:
        return self.mode in ("sandbox", "userns")

    async def take(self, limits: Limits):
        return await self.launcher.spawn(python_spawn(limits))

    async def run(self, code: str, args: dict[str, Any] | None = None, **more: Any) -> Ran:
        """Run some Python to its end."""
        return await self.execute(execution(Language.PYTHON3, code, args, lock="", **more))

    async def execute(self, run: Execution) -> Ran:
        heard = Heard()
        return Ran(await self._runtime.execute(run, heard, Stop()), heard)

    def begin(self, code: str, args: dict[str, Any] | None = None, **more: Any) -> Begun:
        """Run some Python beside the test."""
        heard, stop = Heard(), Stop()
        run = execution(Language.PYTHON3, code, args, lock="", **more)
        return Begun(asyncio.create_task(self._runtime.execute(run, heard, stop)), heard, stop)


class Begun:
    """A run that goes on."""

    def __init__(self, task: asyncio.Task, heard: Heard, stop: Stop) -> None:
        self.task = task
        self.heard = heard
        self.stop = stop

    async def end(self) -> Ran:
        return Ran(await self.task, self.heard)

    async def cancel(self) -> Ran:
        self.stop.request(StopCause.CANCELED)
        return await self.end()


def python_for(user: int | None) -> str:
    """Return an interpreter that a user may start."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
            code = "import sys; sys.exit(sys.version_info < (3, 9))"
            if (
                subprocess.run(
                    [python, "-I", "-S", "-c", code], check=False, capture_output=True, **identity
                ).returncode
                == 0
            ):
                return python
        except OSError:
            continue
    pytest.skip("there is no Python that an unprivileged user may start")


def as_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have launchers started by an unprivileged user, and believe that they are."""
    start = asyncio.create_subprocess_exec

    async def start_as_stranger(*argv: str, **options: Any):
        return await start(*argv, user=STRANGER, group=STRANGER, extra_groups=[], **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_as_stranger)
    monkeypatch.setattr(launcher_module.os, "geteuid", lambda: STRANGER)


@pytest.fixture
def folder():
    """Return a folder that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="millhand-isolation-", dir="/var/tmp"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_launcher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Launcher]:
    """Make launchers of a mode; the host has a secret in its environment."""
    monkeypatch.setenv("DATABASE_URL", SECRET)

    def make(mode: str, **options: Any) -> Launcher:
        is_root = os.geteuid() == 0
        if not is_root and mode in ("sandbox", "process"):
            pytest.skip("needs root")
        if mode == "bubblewrap" and not bubblewrap.find():
            pytest.skip("bubblewrap is not installed")
        stranger = mode in STRANGERS
        if is_root and stranger:
            as_stranger(monkeypatch)
        scratch = Path(tempfile.mkdtemp(dir=folder))
        for path in (scratch, scratch / "root"):
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        isolation = Isolation.PROCESS if mode.startswith("process") else Isolation.REQUIRED
        options = {"isolation": isolation, **options}
        python = python_for(STRANGER if is_root and (stranger or mode == "process") else None)
        made = Launcher(python=python, scratch=scratch, **options)
        made._mode = mode if mode == "bubblewrap" else ""
        if stranger:
            made._folders.mkdir()
            os.chown(made._folders, STRANGER, STRANGER) if is_root else None
        return made

    return make


# One at a time: the kernel counts the processes of all jobs of one user together, also those of other test processes.
ALONE = pytest.mark.xdist_group("isolation of one user")


@pytest_asyncio.fixture(params=[pytest.param(mode, marks=ALONE if mode in STRANGERS else ()) for mode in MODES])
async def cell(request: pytest.FixtureRequest, make_launcher: Callable[..., Launcher]) -> AsyncIterator[Cell]:
    """Return a running launcher of each mode."""
    launcher = make_launcher(request.param)
    await launcher.start()
    yield Cell(launcher, request.param)
    await launcher.close()
