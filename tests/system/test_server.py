"""Servers killed while clients wait and push: what was answered for is there, and the next server answers for it."""

from __future__ import annotations

import asyncio
from uuid import UUID

import httpx
import pytest

from millhand.store.pool import Database
from tests.system.stage import Stage, all_ended, client, deploy, ended, free_port, until
from tests.system.witness import SCRIPT, Witness

pytestmark = pytest.mark.system


async def test_killed_while_a_client_waits(database: Database, stage: Stage, witness: Witness):
    """The client sees its connection end; the job goes on, and the next server has its result."""
    port = free_port()
    async with await client(database, port) as http:
        server = stage.server(port)
        stage.worker()
        await deploy(http, "u/admin/witnessed", SCRIPT)
        waiting = asyncio.create_task(
            http.post("jobs/run_wait_result/p/u/admin/witnessed", content=witness.args(wait=True))
        )
        await until(lambda: witness.runs)
        (run,) = witness.runs
        server.kill()
        with pytest.raises(httpx.TransportError):
            await waiting
        stage.server(port)
        assert run.alive
        run.go()
        row = await ended(database, run.job_id)
        answer = await http.get(f"jobs_u/completed/get_result/{run.job_id}")
    assert (row["status"], row["attempt"]) == ("success", 1)
    assert (answer.status_code, answer.text) == (200, str(run.number))


async def test_killed_while_clients_push(database: Database, stage: Stage, witness: Witness):
    """Every job whose push was answered by 201 is there, and runs once."""
    port = free_port()
    accepted: list[UUID] = []

    async def push_until_refused(http: httpx.AsyncClient) -> None:
        while True:
            try:
                answer = await http.post("jobs/run/p/u/admin/witnessed", content=witness.args())
            except httpx.TransportError:
                return
            assert answer.status_code == 201, answer.text
            accepted.append(UUID(answer.text))

    async with await client(database, port) as http:
        server = stage.server(port)
        await deploy(http, "u/admin/witnessed", SCRIPT)
        pushing = asyncio.gather(*[push_until_refused(http) for _ in range(8)])
        await until(lambda: len(accepted) >= 100)
        server.kill()
        await pushing
    stage.worker(NUM_WORKERS="8")
    rows = await all_ended(database, accepted)
    assert {(row["status"], row["attempt"]) for row in rows.values()} == {("success", 1)}
    assert all(len(witness.of(job_id)) == 1 for job_id in accepted)
