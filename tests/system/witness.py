"""A witness to what jobs really do: each run connects to it, says who it is, and can be held there.

The connection ends with the process, however it ends, so the witness sees runs that nobody recorded, and runs that are
still alive though they should not be.
"""

from __future__ import annotations

import asyncio
from typing import Self
from uuid import UUID

import msgspec

from tests.system.stage import until

SCRIPT = """
import os, socket

def main(port: int, wait: bool = False):
    job_id = os.environ["WM_JOB_ID"]
    with open("/proc/self/comm", "w") as name:
        name.write("mh" + job_id[-12:])
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(f"{job_id} {int(wait)}\\n".encode())
        number = int(line.recv(16))
    print("run", number)
    return number
"""


def process_name(job_id: UUID) -> str:
    """Return what the process of a witnessed job calls itself."""
    return "mh" + str(job_id)[-12:]


class Run:
    """One process that ran a job."""

    def __init__(self, job_id: UUID, number: int, writer: asyncio.StreamWriter) -> None:
        self.job_id = job_id
        self.number = number  # the result of the job, should this run be the one that is recorded
        self.alive = True
        self._writer = writer

    def go(self) -> None:
        """Let it end."""
        self._writer.write(b"%d\n" % self.number)

    async def gone(self) -> None:
        """Wait until its process is."""
        await until(lambda: not self.alive)


class Witness:
    """Hears the runs of all jobs with SCRIPT."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.doubled: list[UUID] = []  # jobs that had two live runs at some time
        self.port = 0
        self._server: asyncio.Server
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    def args(self, *, wait: bool = False) -> bytes:
        """Return the arguments of a job; `wait`: each of its runs is held until told to go."""
        return msgspec.json.encode({"port": self.port, "wait": wait})

    def of(self, job_id: UUID) -> list[Run]:
        """Return the runs of a job so far."""
        return [run for run in self.runs if run.job_id == job_id]

    async def run(self, job_id: UUID, number: int = 1) -> Run:
        """Wait for the first, second, … run of a job."""
        await until(lambda: len(self.of(job_id)) >= number)
        return self.of(job_id)[number - 1]

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            job_id, _, wait = (await reader.readline()).decode().strip().partition(" ")
            run = self._begin(UUID(job_id), writer)
            if wait == "0":
                run.go()
            try:
                await reader.read()
            finally:
                run.alive = False
        except OSError:
            pass  # it was killed before it read our answer
        finally:
            self._writers.discard(writer)
            writer.close()

    def _begin(self, job_id: UUID, writer: asyncio.StreamWriter) -> Run:
        if any(run.alive for run in self.of(job_id)):
            self.doubled.append(job_id)
        run = Run(job_id, len(self.runs) + 1, writer)
        self.runs.append(run)
        return run
