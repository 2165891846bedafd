"""Push: how fast jobs get into the queue, in batches through the store and one by one over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

from bench import stack
from bench.api_client import Connection
from bench.context import Context, Part
from bench.measure import Row, Samples

CONNECTIONS = 16
PATH = "u/admin/push"


def run(context: Context) -> Iterable[Row]:
    """Push batches, then one by one; no worker listens."""
    samples = Samples()
    n_batched, n_http = context.size(50_000, 5_000), context.size(4_000, 500)
    for _ in context.rounds(share=0.5):
        url = stack.fresh_database(context.postgres)
        samples.add("batch", n_batched / stack.run(stack.push(url, [stack.noop() for _ in range(n_batched)])))
    stack.fresh_database(context.postgres)
    with stack.whole_stack(context.postgres, workers=1, tags="nobody") as api:
        stack.run(deploy(api, PATH))
        for _ in context.rounds(share=0.5):
            samples.add("http", n_http / stack.run(_over_http(api, n_http)))
    yield Row(
        metric="push in batches of 1,000, one connection",
        unit="jobs/s",
        values=samples["batch"],
        target=50_000,
    )
    yield Row(
        metric=f"push one by one over HTTP, {CONNECTIONS} connections",
        unit="jobs/s",
        values=samples["http"],
        target=2_000,
        note="POST /api/w/main/jobs/run/p/…, the client on the same cores",
    )


async def deploy(api: stack.Api, path: str, content: str = "def main():\n    return 1\n") -> None:
    """Deploy a Python script without dependencies."""
    script = {"path": path, "content": content, "language": "python3", "summary": "", "description": "", "lock": ""}
    async with Connection(api) as connection:
        await connection.post("w/main/scripts/create", script)


async def _over_http(api: stack.Api, n: int) -> float:
    numbers = iter(range(n))
    began = time.perf_counter()
    await asyncio.gather(*(_push_until_done(api, numbers) for _ in range(CONNECTIONS)))
    return time.perf_counter() - began


async def _push_until_done(api: stack.Api, numbers: Iterator[int]) -> None:
    async with Connection(api) as connection:
        for _ in numbers:
            await connection.post(f"w/main/jobs/run/p/{PATH}", {})


PART = Part(name="push", title="Push", budget_s=45, run=run)
