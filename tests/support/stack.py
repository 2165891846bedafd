"""A real `millhand up` for tests, and the command line beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from millhand.cli.api import Api

PATIENCE_S = 60


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Return an environment in which nothing of the tester's own Millhand or database is found."""
    ours = ("MILLHAND_", "DATABASE_", "WORKER_", "BASE_", "PG", "NUM_WORKERS", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "COLUMNS": "160", "MILLHAND_DATA_DIR": str(data_dir), **more}


def millhand(
    data_dir: Path, *arguments: object, stdin: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "millhand", *map(str, arguments)],
        env=environment(data_dir, **more),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition, not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Stack:
    """One `millhand up` on a data directory."""

    def __init__(self, data_dir: Path, **more: str) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(exist_ok=True)
        self.log = data_dir.with_suffix(".err")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "millhand", "up", "--port=0", "--workers=2"],
                env=environment(data_dir, **more),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("login:"):
                break
        else:
            raise AssertionError(f"up did not start:\n{self.log.read_text()}")
        self.url = self.said[0].removeprefix("ready: ").strip()

    @property
    def token(self) -> str:
        """Return the first superadmin's token."""
        return (self.data_dir / "admin.token").read_text()

    def api(self) -> Api:
        """Return a client of the stack."""
        return Api(url=self.url, token=self.token, workspace="main")

    def __call__(self, *arguments: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command against the stack."""
        return millhand(self.data_dir, *arguments, stdin=stdin)

    def processes(self) -> dict[str, psutil.Process]:
        """Return `up` and its parts by name."""
        parent = psutil.Process(self.process.pid)
        return {"up": parent, **{name: child for child in parent.children() if (name := _name(child))}}

    def end(self) -> int:
        """Drain; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.process.stdout.close()
        return self.process.wait(PATIENCE_S)

    def kill_all(self) -> None:
        """Kill -9 of everything at once, as a power loss would."""
        parent = psutil.Process(self.process.pid)
        everything = [parent, *parent.children(recursive=True)]
        for deed in (psutil.Process.suspend, psutil.Process.kill):
            for process in everything:
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself, or with its parent
                    deed(process)
        self.process.wait()
        self.process.stdout.close()


def _name(process: psutil.Process) -> str:
    """Return what part this is; "" where it has ended."""
    try:
        command = [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except psutil.Error:
        command = []
    return "" if not command else command[-1] if "millhand" in command else Path(command[0]).name
