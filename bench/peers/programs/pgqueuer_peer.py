"""pgqueuer: `setup`, `push N MS`, `single N`, `probe N`, `work BATCH [CAP]`."""

import asyncio
import json
import os
import sys
import time

import asyncpg
import marks
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer, Queries


def payload(**fields):
    return json.dumps(fields).encode()


async def push(queries, n, ms):
    for first in range(0, n, 1000):
        size = min(1000, n - first)
        await queries.enqueue(["bench"] * size, [payload(ms=ms)] * size, [0] * size)


async def single(queries, n):
    for _ in range(n):
        await queries.enqueue("bench", payload(ms=0))


async def probe(queries, n):
    for _ in range(n):
        before = marks.n_probes()
        await queries.enqueue("bench", payload(sent=time.time_ns()))
        while marks.n_probes() == before:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)


async def work(connection, batch, cap=0):
    pgq = PgQueuer(AsyncpgDriver(connection))

    @pgq.entrypoint("bench")
    async def bench(job):
        ms = marks.start(json.loads(job.payload))
        if ms:
            await asyncio.sleep(ms / 1000)

    await pgq.run(batch_size=batch, max_concurrent_tasks=cap or None)


async def main(command, *numbers):
    connection = await asyncpg.connect()
    queries = Queries(AsyncpgDriver(connection))
    if command == "setup":
        await queries.install()
    elif command == "work":
        await work(connection, *numbers)
    else:
        began = time.perf_counter()
        await {"push": push, "single": single, "probe": probe}[command](queries, *numbers)
        print(json.dumps({"seconds": time.perf_counter() - began}))
    await connection.close()


os.environ.setdefault("PGQUEUER_LOG_LEVEL", "ERROR")
uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))
