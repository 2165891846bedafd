"""The stage of the system tests: worker hosts and servers as processes that may be killed, and what they did."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil

from millhand.core.ids import new_id
from millhand.core.job import JobKind, NewJob
from millhand.core.script import Language
from millhand.store import people, queue
from millhand.store.pool import Database
from tests.support.runs import cache_dir
from tests.support.stack import environment

PATIENCE_S = 60.0


async def until(condition: Callable[[], Awaitable[Any] | Any], patience_s: float = PATIENCE_S) -> Any:
    """Return the first true answer."""
    async with asyncio.timeout(patience_s):
        while True:
            answer = condition()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            await asyncio.sleep(0.02)


class Part:
    """`millhand worker` or `millhand server`, ready once made."""

    def __init__(self, name: str, *, log: Path, env: dict[str, str]) -> None:
        self._log = log
        self._line, theirs = socket.socketpair()
        with theirs, log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "millhand", name],
                env={**env, "MILLHAND_LIFELINE_FD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.pid = self.process.pid
        self._line.settimeout(PATIENCE_S)
        assert self._line.recv(1) == b"R", self.log

    @property
    def log(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill -9, and be sure that it is gone."""
        self.process.kill()
        self.process.wait()

    def below(self) -> list[psutil.Process]:
        """Return all processes it has started, and those that they have started."""
        return psutil.Process(self.pid).children(recursive=True)

    def close(self) -> None:
        if self.alive:
            self.kill()
        self._line.close()


class Stage:
    """Starts parts over one database, and ends those that still run."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._parts: list[Part] = []
        self._everybody: set[psutil.Process] = set()

    def worker(self, **env: str) -> Part:
        """Start a worker host with two workers that is taken for dead soon."""
        defaults = {
            "NUM_WORKERS": "2", "WORKER_TAGS": "python3,bash,noop", "SLEEP_QUEUE": "100", "PING_INTERVAL": "0.5",
            "ZOMBIE_JOB_TIMEOUT": "4", "MILLHAND_CACHE_DIR": str(cache_dir()),
        }  # fmt: skip
        return self._start("worker", {**defaults, **env})

    def server(self, port: int, **env: str) -> Part:
        """Start a server on a port of this machine."""
        url = f"http://127.0.0.1:{port}"
        return self._start("server", {"PORT": str(port), "BASE_URL": url, **env})

    def note(self) -> None:
        """Remember all processes there are now, to see later that none is left."""
        for part in self._parts:
            if part.alive:
                self._everybody.update(part.below())

    async def all_gone(self) -> None:
        """Wait until none of the remembered processes is left."""
        await until(lambda: not [process for process in self._everybody if is_living(process)])

    def close(self) -> None:
        self.note()
        for part in self._parts:
            part.close()
        _, left = psutil.wait_procs([p for p in self._everybody if is_living(p)], timeout=10)
        assert not left, f"left behind: {left}"

    def _start(self, name: str, env: dict[str, str]) -> Part:
        log = self._folder / f"{name}-{len(self._parts)}.log"
        part = Part(name, log=log, env=environment(self._folder / "data", DATABASE_URL=self.url, **env))
        self._parts.append(part)
        return part


def is_living(process: psutil.Process) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def new_job(code: str, args: bytes = b"{}", **fields: object) -> NewJob:
    """Return a preview of some Python."""
    defaults: dict[str, object] = {
        "id": new_id(), "workspace_id": "main", "kind": JobKind.PREVIEW, "tag": "python3", "created_by": "admin",
        "permissioned_as": "u/admin", "email": "admin@millhand.local", "raw_code": code, "raw_lock": "",
        "language": Language.PYTHON3, "args": args,
    }  # fmt: skip
    return NewJob(**(defaults | fields))  # type: ignore[arg-type]


async def push(database: Database, *jobs: NewJob) -> None:
    """Put jobs into the queue; whoever polls finds them."""
    await queue.push(database, jobs)


async def in_queue(database: Database, job_id: UUID) -> Any:
    """Return the row of a job that has not ended."""
    return await database.fetchrow("select * from job_queue where id = $1", job_id)


async def ended(database: Database, job_id: UUID, patience_s: float = PATIENCE_S) -> Any:
    """Wait for the record of a job."""

    async def look() -> Any:
        return await database.fetchrow("select * from job_completed where id = $1", job_id)

    row = await until(look, patience_s)
    assert await in_queue(database, job_id) is None
    return row


async def all_ended(database: Database, job_ids: Iterable[UUID], patience_s: float = PATIENCE_S) -> dict[UUID, Any]:
    """Wait until none of these jobs is queued or running; return their records, of which each must have one."""
    ids = list(job_ids)
    n_left = "select count(*) from job_queue where id = any($1::uuid[])"

    async def none_left() -> bool:
        return not await database.fetchval(n_left, ids)

    await until(none_left, patience_s)
    rows = await database.fetch("select * from job_completed where id = any($1::uuid[])", ids)
    records = {row["id"]: row for row in rows}
    assert set(records) == set(ids)
    return records


async def log_of(database: Database, job_id: UUID) -> str:
    """Return the log of a job."""
    rows = await database.fetch("select text from job_log where job_id = $1 order by seq", job_id)
    return "".join(text for (text,) in rows)


async def incarnations(database: Database) -> set[UUID]:
    """Return the worker hosts that hold a lease, or did and were not missed yet."""
    return {row["incarnation"] for row in await database.fetch("select incarnation from worker_host")}


async def client(database: Database, port: int) -> httpx.AsyncClient:
    """Make the first people of the instance and return an HTTP client of the superadmin, in the workspace main."""
    first = await people.bootstrap(database)
    assert first is not None
    headers = {"Authorization": f"Bearer {first.token}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/w/main", headers=headers, timeout=PATIENCE_S)


async def deploy(http: httpx.AsyncClient, path: str, content: str) -> None:
    """Deploy a Python script that needs no packages."""
    body = {"path": path, "content": content, "language": "python3", "lock": "", "summary": ""}
    answer = await http.post("scripts/create", json=body)
    assert answer.status_code == 201, answer.text


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_named(name: str) -> list[psutil.Process]:
    """Return the living processes that call themselves this, in whatever namespace."""
    found = []
    for process in psutil.process_iter():
        try:
            comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
        except OSError:
            continue
        if comm == name and is_living(process):
            found.append(process)
    return found


def kill(process: psutil.Process) -> None:
    """Kill -9."""
    os.kill(process.pid, signal.SIGKILL)
