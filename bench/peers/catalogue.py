"""The peers and the best configuration found for each (by trying several on this kind of machine)."""

from __future__ import annotations

from bench.peers.driver import Peer, Workload

_CELERY = ("celery", "-A", "celery_peer", "worker", "-Q", "bench", "-l", "ERROR", "-n", "w{number}@bench")
_CELERY_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")

GRAPHILE = Peer(
    name="graphile-worker",
    program="graphile_peer.mjs",
    drain=Workload(
        name="2 processes x 24, local queue 500, batched completion", processes=2, command=("work", "24", "500")
    ),
    latency=Workload(name="1 process x 1, LISTEN", processes=1, command=("work", "1", "0")),
    sleepers=Workload(name="2 processes x 50, local queue 50", processes=2, command=("work", "50", "50"), n=3000),
    finished="select pg_sequence_last_value(pg_get_serial_sequence('graphile_worker._private_jobs', 'id')::regclass) "
    "- count(*) from graphile_worker._private_jobs",
    unfinished="select exists(select from graphile_worker._private_jobs)",
    note="deletes finished jobs, keeps no result",
)
PG_BOSS = Peer(
    name="pg-boss",
    program="pgboss_peer.mjs",
    drain=Workload(name="2 processes, 2 x batch 500, burst", processes=2, command=("work", "2", "500")),
    latency=Workload(name="1 process, notify", processes=1, command=("work", "1", "1")),
    sleepers=Workload(name="1 process, 4 x batch 25, burst", processes=1, command=("work", "4", "25"), n=3000),
    finished="select count(*) from pgboss.job where name = 'bench' and state = 'completed'",
    unfinished="select exists(select from pgboss.job where name = 'bench' and state < 'completed')",
    note="one handler call and one completion per batch",
)
PGQUEUER = Peer(
    name="pgqueuer",
    program="pgqueuer_peer.py",
    drain=Workload(name="2 processes, batch 500", processes=2, command=("work", "500")),
    latency=Workload(name="1 process, batch 10", processes=1, command=("work", "10")),
    sleepers=Workload(name="1 process, 100 at once, batch 10", processes=1, command=("work", "10", "100"), n=3000),
    finished="select count(*) from pgqueuer_log where status = 'successful'",
    unfinished="select exists(select from pgqueuer)",
    note="stores no result",
)
PROCRASTINATE = Peer(
    name="procrastinate",
    program="procrastinate_peer.py",
    drain=Workload(name="2 processes x 30", processes=2, command=("work", "30"), n=5000),
    latency=Workload(name="1 process x 1, LISTEN", processes=1, command=("work", "1")),
    sleepers=Workload(name="2 processes x 50", processes=2, command=("work", "50"), n=3000),
    finished="select count(*) from procrastinate_jobs where status = 'succeeded'",
    unfinished="select exists(select from procrastinate_jobs where status in ('todo', 'doing'))",
)
RQ = Peer(
    name="RQ + Redis",
    program="rq_peer.py",
    drain=Workload(name="2 x SimpleWorker", processes=1, command=("work", "2", "0"), n=3000),
    latency=Workload(name="1 x Worker (fork per job)", processes=1, command=("work", "1", "1")),
    sleepers=Workload(name="100 x SimpleWorker", processes=1, command=("work", "100", "0"), n=2000),
    fresh=Workload(name="4 x Worker (fork per job)", processes=1, command=("work", "4", "1"), n=600),
    finished_redis=("ZCARD", "rq:finished:bench"),
    note="Redis without its append-only file: not durable per job",
)
CELERY = Peer(
    name="Celery + Redis",
    program="celery_peer.py",
    drain=Workload(name="2 processes, solo", processes=2, command=(*_CELERY, "--pool", "solo", *_CELERY_QUIET), n=5000),
    latency=Workload(
        name="prefork x 2", processes=1, command=(*_CELERY, "--pool", "prefork", "-c", "2", *_CELERY_QUIET)
    ),
    sleepers=Workload(
        name="threads x 100", processes=1, command=(*_CELERY, "--pool", "threads", "-c", "100", *_CELERY_QUIET), n=3000
    ),
    fresh=Workload(
        name="prefork x 4, one job per child",
        processes=1,
        command=(*_CELERY, "--pool", "prefork", "-c", "4", "--max-tasks-per-child", "1", *_CELERY_QUIET),
        n=60,
    ),
    finished_redis=("DBSIZE",),
    redis_db=2,
    note="Redis without its append-only file, acknowledges before running: not durable per job",
)

PEERS = (GRAPHILE, PG_BOSS, PGQUEUER, PROCRASTINATE, RQ, CELERY)
