"""procrastinate: `setup`, `push N MS`, `single N`, `probe N`, `work CONCURRENCY`."""

import asyncio
import json
import sys
import time

import marks
import procrastinate
import uvloop

app = procrastinate.App(connector=procrastinate.PsycopgConnector())


@app.task(name="bench", queue="bench")
async def bench(**payload):
    ms = marks.start(payload)
    if ms:
        await asyncio.sleep(ms / 1000)


async def push(n, ms):
    for first in range(0, n, 1000):
        await bench.batch_defer_async(*({"ms": ms} for _ in range(min(1000, n - first))))


async def single(n):
    for _ in range(n):
        await bench.defer_async(ms=0)


async def probe(n):
    for _ in range(n):
        before = marks.n_probes()
        await bench.defer_async(sent=time.time_ns())
        while marks.n_probes() == before:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)


async def main(command, *numbers):
    async with app.open_async():
        if command == "setup":
            await app.schema_manager.apply_schema_async()
        elif command == "work":
            await app.run_worker_async(concurrency=numbers[0], queues=["bench"], delete_jobs="never")
        else:
            began = time.perf_counter()
            await {"push": push, "single": single, "probe": probe}[command](*numbers)
            print(json.dumps({"seconds": time.perf_counter() - began}))


uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))
