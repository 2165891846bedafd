"""Peers: other job systems, and Millhand between them, doing the same work in the same run on the same PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable

from bench import stack
from bench.context import Context, Part
from bench.measure import Row, Samples
from bench.parts import drain, sleepers, throughput
from bench.parts.latency import idle_latency
from bench.peers import setup
from bench.peers.catalogue import PEERS
from bench.peers.driver import Ground, Peer, latency, rate, single_rate
from bench.peers.redis_server import Redis

# (metric, unit, more is better)
_METRICS = {
    "drain": ("drain of no-op jobs", "jobs/s", True),
    "push": ("push in batches of 1,000", "jobs/s", True),
    "single": ("push one by one", "jobs/s", True),
    "p50": ("push → started, p50", "ms", False),
    "p95": ("push → started, p95", "ms", False),
    "sleepers": ("100 ms sleepers on 100 slots", "jobs/s", True),
    "fresh": ("a fresh process per job", "jobs/s", True),
}


OURS = "millhand"


def run(context: Context) -> Iterable[Row]:
    """Measure everybody once, then again while time lasts."""
    context.say("installing the peers (first time only)")
    setup.ensure_node()
    samples = {name: Samples() for name in (OURS, *(peer.name for peer in PEERS))}
    with Redis(setup.ensure_redis()) as redis:
        ground = Ground(context.postgres, redis)
        for number in context.rounds():
            context.say(f"{OURS}, round {number + 1}")
            _measure_ours(context, samples[OURS])
            for peer in PEERS:
                context.say(f"{peer.name}, round {number + 1}")
                _measure(peer, ground, context, samples[peer.name])
    versions = setup.installed_versions()
    context.note("versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    theirs = [row for peer in PEERS for row in _rows(peer.name, samples[peer.name], _configurations(peer, context))]
    return [*_rows(OURS, samples[OURS], _OUR_CONFIGURATIONS), *theirs]


def _measure_ours(context: Context, samples: Samples) -> None:
    samples.add("drain", drain.drain_once(context, context.size(10_000, 1000)))
    for name, n, per_call in (("push", 10_000, 1000), ("single", context.size(1000, 200), 1)):
        url = stack.fresh_database(context.postgres)
        jobs = [stack.noop() for _ in range(n)]
        samples.add(name, n / stack.run(stack.push(url, jobs, per_call=per_call)))
    p50, p95, _ = idle_latency(context, n=context.size(100, 20))
    samples.add("p50", p50)
    samples.add("p95", p95)
    samples.add("sleepers", sleepers.rate(context, context.size(3000, 500)))
    samples.add("fresh", throughput.isolated_rate(context, context.size(2000, 200)))


def _measure(peer: Peer, ground: Ground, context: Context, samples: Samples) -> None:
    drained, pushed = rate(peer, peer.drain, ground, n=context.size(peer.drain.n, 1000))
    samples.add("drain", drained)
    if peer.name != "Celery + Redis":  # it has no call for many jobs
        samples.add("push", pushed)
    samples.add("single", single_rate(peer, ground, n=context.size(1000, 200)))
    p50, p95 = latency(peer, ground, n=context.size(100, 20))
    samples.add("p50", p50)
    samples.add("p95", p95)
    samples.add("sleepers", rate(peer, peer.sleepers, ground, n=context.size(peer.sleepers.n, 500), ms=100)[0])
    if peer.fresh is not None:
        samples.add("fresh", rate(peer, peer.fresh, ground, n=context.size(peer.fresh.n, 30))[0])


_OUR_CONFIGURATIONS = {
    "drain": f"{drain.HOSTS} host x {drain.WORKERS} workers; keeps a record of each job",
    "p50": "to the first line of an isolated Python script",
    "sleepers": f"1 host x {sleepers.WORKERS} workers, each job isolated",
    "fresh": f"1 host x {throughput.WORKERS} workers, each job isolated, with a log line and a result",
}


def _configurations(peer: Peer, context: Context) -> dict[str, str]:
    n = context.size(peer.drain.n, 1000)
    return {
        "drain": "; ".join(filter(None, (peer.drain.name, f"{n:,} jobs", peer.note))),
        "p50": peer.latency.name,
        "sleepers": peer.sleepers.name,
        "fresh": peer.fresh.name if peer.fresh else "",
    }


def _rows(who: str, samples: Samples, configurations: dict[str, str]) -> Iterable[Row]:
    for name, (metric, unit, more) in _METRICS.items():
        if name in samples:
            note = configurations.get(name, "")
            yield Row(metric=metric, unit=unit, values=samples[name], more_is_better=more, who=who, note=note)


PART = Part(name="peers", title="Peers", budget_s=360, run=run)
