"""Run one peer through the same work as ours: drain, latency, sleepers, a fresh process per job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from bench.measure import percentile
from bench.peers import setup
from bench.peers.redis_server import Redis
from bench.postgres import Postgres

N_WARM_UP = 3


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """How a peer does one kind of work best: so many processes of one command."""

    name: str
    processes: int
    command: tuple[str, ...]
    n: int = 10_000


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One system to compare with. `unfinished` is a statement, or for Redis a function, that says whether work is left."""

    name: str
    program: str
    drain: Workload
    latency: Workload
    sleepers: Workload
    fresh: Workload | None = None
    single: int = 500  # jobs to push one by one
    finished: str = ""  # SQL: how many jobs have ended
    unfinished: str = ""  # SQL: whether any job has not
    finished_redis: tuple[str, ...] = ()
    redis_db: int = 0
    note: str = ""


class Ground:
    """The database and Redis that peers run on, and the folder where their handlers leave marks."""

    def __init__(self, postgres: Postgres, redis: Redis | None) -> None:
        self.postgres = postgres
        self.redis = redis

    def environment(self, marks: Path) -> dict[str, str]:
        """Return the environment of a peer's program."""
        redis = {"REDIS_URL": self.redis.url} if self.redis else {}
        return {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "PYTHONPATH": str(setup.PROGRAMS),
            "BENCH_MARKS": str(marks),
            **self.postgres.environment("peer"),
            **redis,
        }


class Run:
    """One fresh start of one peer."""

    def __init__(self, peer: Peer, ground: Ground, marks: Path) -> None:
        self.peer = peer
        self.ground = ground
        self.marks = marks

    def call(self, *words: str) -> float:
        """Run one command of the peer's program to its end and return the seconds it says it took."""
        done = subprocess.run(
            [*self._interpreter(), *words],
            env=self.ground.environment(self.marks),
            cwd=setup.HOME,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.peer.name} {' '.join(words)} failed:\n{done.stderr[-3000:]}")
        return float(json.loads(done.stdout)["seconds"]) if done.stdout.strip() else 0.0

    @contextmanager
    def workers(self, workload: Workload) -> Iterator[None]:
        """Run worker processes for as long as the block lasts."""
        with (self.marks / "workers.log").open("ab") as log:
            running = [self._worker(workload, number, log) for number in range(workload.processes)]
            try:
                yield
            finally:
                for process in running:
                    _end(process)

    def wait(self, condition: Callable[[], bool], *, timeout_s: float, every_s: float = 0.01) -> None:
        """Wait until something holds; raises RuntimeError with the workers' last words where it never does."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                words = (self.marks / "workers.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.peer.name}: nothing more after {timeout_s:.0f} s\n{words}")
            time.sleep(every_s)

    def finished(self) -> int:
        """Return how many jobs have ended."""
        if self.peer.finished_redis:
            assert self.ground.redis is not None
            return self.ground.redis.number(self.peer.redis_db, *self.peer.finished_redis)
        return int(self.ground.postgres.psql("peer", self.peer.finished))

    def first_start(self) -> float | None:
        """Return the Unix time at which the first job started."""
        try:
            lines = (self.marks / "first").read_text().split()
        except FileNotFoundError:
            return None
        return min(map(int, lines)) / 1e9 if lines else None

    def probes(self) -> list[float]:
        """Return the milliseconds from sending to starting of every probe."""
        lines = (self.marks / "probes").read_text().splitlines()
        return [(int(line.split()[1]) - int(line.split()[0])) / 1e6 for line in lines]

    def _worker(self, workload: Workload, number: int, log: object) -> subprocess.Popen[bytes]:
        words = [word.replace("{number}", str(number)) for word in workload.command]
        command = words[1:] if words[0] == "celery" else [*self._interpreter(), *words]
        if words[0] == "celery":
            command = [str(setup.VENV / "bin" / "celery"), *command]
        return subprocess.Popen(
            command,
            env=self.ground.environment(self.marks),
            cwd=setup.HOME,
            stdout=log,  # type: ignore[call-overload]
            stderr=log,
            start_new_session=True,
        )

    def _interpreter(self) -> list[str]:
        program = self.peer.program
        if program.endswith(".mjs"):
            return [str(setup.ensure_node()), str(setup.HOME / program)]
        return [str(setup.ensure_python()), str(setup.PROGRAMS / program)]


@contextmanager
def fresh_run(peer: Peer, ground: Ground) -> Iterator[Run]:
    """Give a peer an empty database and a folder for its marks."""
    ground.postgres.create("peer")
    with tempfile.TemporaryDirectory(prefix="millhand-bench-marks-") as folder:
        run = Run(peer, ground, Path(folder))
        run.call("setup")
        yield run


def rate(peer: Peer, workload: Workload, ground: Ground, *, n: int, ms: int = 0) -> tuple[float, float]:
    """Return jobs/s from the first start to the last completion of n jobs queued before, and jobs/s of pushing them."""
    with fresh_run(peer, ground) as run:
        pushing = run.call("push", str(n), str(ms))
        with run.workers(workload):
            run.wait(lambda: run.first_start() is not None, timeout_s=60)
            ended = _completion_time(run, n)
        first = run.first_start()
        assert first is not None
        return n / (ended - first), n / pushing


def single_rate(peer: Peer, ground: Ground, *, n: int) -> float:
    """Return jobs/s of pushing one by one, each on its own commit."""
    with fresh_run(peer, ground) as run:
        return n / run.call("single", str(n))


def latency(peer: Peer, ground: Ground, *, n: int) -> Sequence[float]:
    """Return p50 and p95 of the milliseconds from sending to starting, with an idle worker."""
    with fresh_run(peer, ground) as run, run.workers(peer.latency):
        run.call("probe", str(N_WARM_UP))
        run.call("probe", str(n))
        waits = run.probes()[N_WARM_UP:]
    return percentile(waits, 0.5), percentile(waits, 0.95)


def _completion_time(run: Run, n: int) -> float:
    if run.peer.unfinished:
        psql = run.ground.postgres.psql
        with run.ground.postgres.watching("peer", run.peer.unfinished) as any_left:
            run.wait(lambda: not any_left(), timeout_s=120)
        ended = time.time()
        if int(psql("peer", run.peer.finished)) != n:
            raise RuntimeError(f"{run.peer.name}: {psql('peer', run.peer.finished)} of {n} jobs ended")
        return ended
    run.wait(lambda: run.finished() >= n, timeout_s=180, every_s=0.02)
    return time.time()


def _end(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    with suppress(ProcessLookupError):  # its children may still be there when it is gone
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
