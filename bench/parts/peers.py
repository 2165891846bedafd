"""Peers: other job systems doing the same work on the same machine and the same PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable

from bench.context import Context, Part
from bench.measure import Row, Samples
from bench.peers import setup
from bench.peers.catalogue import PEERS
from bench.peers.driver import Ground, Peer, latency, rate, single_rate
from bench.peers.redis_server import Redis

# (metric, unit, more is better)
_METRICS = {
    "drain": ("drain of {n:,} no-op jobs", "jobs/s", True),
    "push": ("push in batches of 1,000", "jobs/s", True),
    "single": ("push one by one", "jobs/s", True),
    "p50": ("push → started, p50", "ms", False),
    "p95": ("push → started, p95", "ms", False),
    "sleepers": ("100 ms sleepers on 100 slots", "jobs/s", True),
    "fresh": ("a fresh process per job", "jobs/s", True),
}


def run(context: Context) -> Iterable[Row]:
    """Measure every peer; all of them once, then again while time lasts."""
    context.say("installing the peers (first time only)")
    setup.ensure_node()
    samples = {peer.name: Samples() for peer in PEERS}
    with Redis(setup.ensure_redis()) as redis:
        ground = Ground(context.postgres, redis)
        for number in context.rounds():
            for peer in PEERS:
                context.say(f"{peer.name}, round {number + 1}")
                _measure(peer, ground, context, samples[peer.name])
    versions = setup.installed_versions()
    context.note("versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    return [row for peer in PEERS for row in _rows(peer, samples[peer.name], context)]


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


def _rows(peer: Peer, samples: Samples, context: Context) -> Iterable[Row]:
    configurations = {
        "drain": f"{peer.drain.name}; {peer.note}" if peer.note else peer.drain.name,
        "p50": peer.latency.name,
        "sleepers": peer.sleepers.name,
        "fresh": peer.fresh.name if peer.fresh else "",
    }
    for name, (metric, unit, more) in _METRICS.items():
        if name in samples:
            yield Row(
                metric=metric.format(n=context.size(peer.drain.n, 1000)),
                unit=unit,
                values=samples[name],
                more_is_better=more,
                who=peer.name,
                note=configurations.get(name, ""),
            )


PART = Part(name="peers", title="Peers", budget_s=300, run=run)
