"""Celery over Redis: `setup`, `push N MS`, `single N`, `probe N`; its workers are started by its own command line."""

import json
import os
import sys
import time

import marks
from celery import Celery

app = Celery("bench", broker=os.environ["REDIS_URL"] + "/0", backend=os.environ["REDIS_URL"] + "/2")
app.conf.update(task_default_queue="bench", broker_connection_retry_on_startup=True, worker_enable_remote_control=False)


@app.task(name="bench")
def bench(payload):
    ms = marks.start(payload)
    if ms:
        time.sleep(ms / 1000)


def push(n, ms):
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(n):
            bench.apply_async(({"ms": ms},), producer=producer)


def single(n):
    push(n, 0)


def probe(n):
    for _ in range(n):
        before = marks.n_probes()
        bench.apply_async(({"sent": time.time_ns()},))
        while marks.n_probes() == before:
            time.sleep(0.001)
        time.sleep(0.02)


if __name__ == "__main__":
    command, numbers = sys.argv[1], [int(number) for number in sys.argv[2:]]
    if command == "setup":
        import redis

        redis.Redis.from_url(os.environ["REDIS_URL"]).flushall()
    else:
        began = time.perf_counter()
        {"push": push, "single": single, "probe": probe}[command](*numbers)
        print(json.dumps({"seconds": time.perf_counter() - began}))
