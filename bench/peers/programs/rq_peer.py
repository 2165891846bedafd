"""RQ: `setup`, `push N MS`, `single N`, `probe N`, `work POOL FORK` (FORK 1: a fork per job, 0: in the worker's own process)."""

import json
import logging
import os
import sys
import time

import marks
import rq_jobs
from redis import Redis
from rq import Queue, SimpleWorker, Worker
from rq.worker_pool import WorkerPool

redis = Redis.from_url(os.environ["REDIS_URL"])
queue = Queue("bench", connection=redis)


def push(n, ms):
    for first in range(0, n, 1000):
        size = min(1000, n - first)
        queue.enqueue_many([Queue.prepare_data(rq_jobs.bench, args=[{"ms": ms}]) for _ in range(size)])


def single(n):
    for _ in range(n):
        queue.enqueue(rq_jobs.bench, {"ms": 0})


def probe(n):
    for _ in range(n):
        before = marks.n_probes()
        queue.enqueue(rq_jobs.bench, {"sent": time.time_ns()})
        while marks.n_probes() == before:
            time.sleep(0.001)
        time.sleep(0.02)


def work(pool, fork):
    logging.disable(logging.CRITICAL)
    worker_class = Worker if fork else SimpleWorker
    if pool == 1:
        worker_class([queue], connection=redis).work(logging_level="ERROR")
    else:
        WorkerPool([queue], connection=redis, num_workers=pool, worker_class=worker_class).start(logging_level="ERROR")


command, numbers = sys.argv[1], [int(number) for number in sys.argv[2:]]
if command == "setup":
    redis.flushall()
elif command == "work":
    work(*numbers)
else:
    began = time.perf_counter()
    {"push": push, "single": single, "probe": probe}[command](*numbers)
    print(json.dumps({"seconds": time.perf_counter() - began}))
