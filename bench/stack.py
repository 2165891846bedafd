"""Millhand's real parts, started as a user starts them: a migrated database, worker hosts, servers, jobs pushed through the store."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from bench.measure import Row, Samples
from bench.postgres import Postgres
from millhand.core.ids import new_id
from millhand.core.job import JobKind, NewJob
from millhand.core.script import Language
from millhand.store import queue
from millhand.store.migrate import migrate
from millhand.store.pool import Database

T = TypeVar("T")

DATABASE = "bench"
TAG = "bench"
UNFINISHED = "select exists(select from job_queue)"
_END_S = 20.0


class HostFailedError(Exception):
    """A part of the stack ended or never became ready; the message has its last words."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the event loop that Millhand uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def fresh_database(postgres: Postgres, name: str = DATABASE) -> str:
    """Make an empty, migrated database and return its URL."""
    url = postgres.create(name)
    run(migrate(url))
    return url


def noop(tag: str = TAG) -> NewJob:
    """Return a job that does nothing."""
    return _job(kind=JobKind.NOOP, tag=tag)


def python(code: str, *, args: object = None, tag: str = TAG) -> NewJob:
    """Return a Python preview without dependencies."""
    return _job(
        kind=JobKind.PREVIEW,
        tag=tag,
        raw_code=code,
        raw_lock="",
        language=Language.PYTHON3,
        args=msgspec.json.encode(args or {}),
    )


def typescript(code: str, language: Language, *, tag: str = TAG) -> NewJob:
    """Return a preview in TypeScript."""
    return _job(kind=JobKind.PREVIEW, tag=tag, raw_code=code, raw_lock="", language=language)


async def push(url: str, jobs: Sequence[NewJob], *, per_call: int = 1000) -> float:
    """Push jobs in batches over one connection and return the seconds it took; nobody is nudged."""
    async with Database(url, application_name="bench", max_size=1) as database:
        began = time.perf_counter()
        for first in range(0, len(jobs), per_call):
            await queue.push(database, jobs[first : first + per_call])
        return time.perf_counter() - began


@contextmanager
def worker_host(
    postgres: Postgres, *, workers: int, database: str = DATABASE, tags: str = TAG, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `millhand worker` and give its process once its workers are there."""
    with folder() as place:
        variables = {
            "DATABASE_URL": postgres.url(database),
            "NUM_WORKERS": str(workers),
            "WORKER_TAGS": tags,
            "MILLHAND_CACHE_DIR": str(place / "cache"),
            "GRACE_PERIOD": "5",
            **environment,
        }
        before = int(postgres.psql(database, "select count(*) from worker"))
        with started(["worker"], variables, place) as host:
            enough = f"select count(*) >= {before + workers} from worker"
            with postgres.watching(database, enough) as there:
                wait(there, host, place, timeout_s=60)
            yield host


@contextmanager
def worker_hosts(postgres: Postgres, *, hosts: int, workers: int, **options: Any) -> Iterator[None]:
    """Run several worker hosts with so many workers each."""
    with ExitStack() as stack:
        for _ in range(hosts):
            stack.enter_context(worker_host(postgres, workers=workers, **options))
        yield


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running server answers, and to whom."""

    host: str
    port: int
    token: str


@contextmanager
def whole_stack(
    postgres: Postgres, *, workers: int, database: str = DATABASE, tags: str | None = None
) -> Iterator[Api]:
    """Run `millhand up` on our database and say where its API is."""
    with folder() as place:
        variables = {"DATABASE_URL": postgres.url(database), "MILLHAND_CACHE_DIR": str(place / "cache")}
        if tags is not None:
            variables["WORKER_TAGS"] = tags
        data = place / "data"
        with started(["up", "--port", "0", "--data-dir", str(data), "--workers", str(workers)], variables, place) as up:
            output = place / "output"
            wait(lambda: b"ready: " in output.read_bytes(), up, place, timeout_s=60)
            line = next(text for text in output.read_text().splitlines() if text.startswith("ready: "))
            host, _, port = line.removeprefix("ready: http://").rpartition(":")
            yield Api(host=host, port=int(port), token=(data / "admin.token").read_text().strip())


def against_bare(samples: Samples, rate: float, n: int, *, at_once: int, sleep_ms: float = 0) -> None:
    """Add a rate of isolated jobs, and beside it that of isolated forks with nothing around them: the limit here.

    That is measured by bench/bare.py right after it, as root only.
    """
    samples.add("ours", rate)
    if os.geteuid() == 0:
        program = [sys.executable, "-I", "-S", str(Path(__file__).parent / "bare.py")]
        done = subprocess.run(
            [*program, str(n), str(at_once), str(sleep_ms)], capture_output=True, text=True, check=True, timeout=120
        )
        samples.add("bare", float(done.stdout))


def bare_rows(samples: Samples, what: str) -> Iterator[Row]:
    """Yield what the limit is, and what share of it we reach in the same minutes."""
    if "bare" in samples:
        yield Row(metric=f"bare isolated forks{what}, nothing around them", unit="jobs/s", values=samples["bare"])
        shares = tuple(ours / bare for ours, bare in zip(samples["ours"], samples["bare"], strict=True))
        yield Row(metric=f"isolated Python jobs{what}, end to end / bare forks", unit="x", values=shares)


def drain(
    postgres: Postgres, n: int, *, database: str = DATABASE, look_s: float = 0.03, timeout_s: float = 120
) -> float:
    """Wait until the queue is empty and return jobs/s from the first start to the last completion.

    look_s: how often to look. Each look costs the machine a fifth of an isolated job.
    """
    with postgres.watching(database, UNFINISHED) as any_left:
        deadline = time.monotonic() + timeout_s
        while any_left():
            if time.monotonic() > deadline:
                raise HostFailedError(f"jobs are left after {timeout_s:.0f} s")
            time.sleep(look_s)
        ended = time.time()
    first, n_good = postgres.psql(
        database,
        "select extract(epoch from min(started_at)), count(*) filter (where status = 'success') from job_completed",
    ).split("|")
    if int(n_good) != n:
        failed = postgres.psql(database, "select result from job_completed where status <> 'success' limit 1")
        raise HostFailedError(f"{n_good} of {n} jobs succeeded; one of the others: {failed}")
    return n / (ended - float(first))


@contextmanager
def started(command: Sequence[str], variables: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a `millhand` command for as long as the block lasts; its output goes to files in the folder."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TZ", "LANG") if name in os.environ}
    with (folder / "output").open("wb") as output, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "millhand", *command],
            env={**kept, **variables},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end(process)


def wait(condition: Callable[[], bool], process: subprocess.Popen[bytes], folder: Path, *, timeout_s: float) -> None:
    """Wait until something holds; raises HostFailedError with the process's last words where it never will."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            words = (folder / "log").read_text(errors="replace")[-3000:]
            raise HostFailedError(f"not ready after {timeout_s:.0f} s, or ended (exit code {process.poll()}):\n{words}")
        time.sleep(0.02)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and insist."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _job(**fields: Any) -> NewJob:
    whose = {
        "workspace_id": "main",
        "created_by": "admin",
        "permissioned_as": "u/admin",
        "email": "admin@millhand.local",
    }
    return NewJob(id=new_id(), **whose, **fields)


@contextmanager
def folder() -> Iterator[Path]:
    """Give a throw-away folder. Jobs run as another user and reach their cache through it.

    Not below /tmp: jobs have one of their own, in which a cache that lies there is shown anew for each of them.
    """
    with tempfile.TemporaryDirectory(prefix="millhand-bench-", dir="/var/tmp", ignore_cleanup_errors=True) as place:
        Path(place).chmod(0o755)
        yield Path(place)
