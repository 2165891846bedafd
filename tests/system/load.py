"""A load of witnessed jobs pushed over HTTP, and the check that each one that was accepted ended well, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx

from millhand.store.pool import Database
from tests.system.stage import Stage, all_ended, client, deploy, free_port, until
from tests.system.witness import SCRIPT, Witness

# A claim that was committed while its answer was lost is found after 75 s. It is rare that a fault hits that instant.
_LONG_S = 150.0


class Load:
    """Pushes one job after another over HTTP, and remembers which were accepted."""

    def __init__(self, http: httpx.AsyncClient, witness: Witness) -> None:
        self.accepted: list[UUID] = []
        self.n_refused = 0
        self.refusals: set[tuple[int, str]] = set()  # status and text of the answers that were no yes
        self._http = http
        self._witness = witness

    @contextlib.asynccontextmanager
    async def running(self, lanes: int = 3) -> AsyncIterator[None]:
        """Push for as long as the context lasts."""
        tasks = [asyncio.create_task(self._push_for_ever()) for _ in range(lanes)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def more(self, n_jobs: int) -> None:
        """Wait until some more jobs are accepted."""
        goal = len(self.accepted) + n_jobs
        await until(lambda: len(self.accepted) >= goal)

    async def _push_for_ever(self) -> None:
        while True:
            try:
                answer = await self._http.post("jobs/run/p/u/admin/witnessed", content=self._witness.args())
            except httpx.TransportError:
                self.n_refused += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 201:
                self.accepted.append(UUID(answer.text))
            else:
                assert answer.status_code >= 500, answer.text
                self.refusals.add((answer.status_code, answer.text))
                self.n_refused += 1
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def loaded(database: Database, stage: Stage, witness: Witness) -> AsyncIterator[Load]:
    """Start a server and a worker host, and return a load for them."""
    port = free_port()
    async with await client(database, port) as http:
        stage.server(port)
        stage.worker(ZOMBIE_JOB_TIMEOUT="60")
        await deploy(http, "u/admin/witnessed", SCRIPT)
        yield Load(http, witness)


async def check(database: Database, witness: Witness, accepted: list[UUID]) -> None:
    """Check that each accepted job ended well, once, and that no run was not counted as an attempt."""
    rows = await all_ended(database, accepted, _LONG_S)
    assert {row["status"] for row in rows.values()} == {"success"}
    for job_id, row in rows.items():
        runs = witness.of(job_id)
        assert 1 <= len(runs) <= row["attempt"]
        assert int(row["result"]) in {run.number for run in runs}
    assert not witness.doubled


def fill(filler: Path) -> None:
    """Write until there is no room."""
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
