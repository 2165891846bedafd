"""The parts of the benchmarks, in the order in which they run."""

from __future__ import annotations

from bench.context import Part
from bench.parts import backlog, drain, isolation, latency, memory, peers, push, sleepers, throughput

PARTS: tuple[Part, ...] = (
    drain.PART,
    push.PART,
    latency.PART,
    isolation.PART,
    throughput.PART,
    sleepers.PART,
    backlog.PART,
    memory.PART,
    peers.PART,
)
