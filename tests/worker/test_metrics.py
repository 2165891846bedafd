"""What Prometheus is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from millhand.worker.metrics import BatchHistogram, WorkerMetrics

BOUNDS = (0.1, 1.0, 10.0)


@given(st.lists(st.lists(st.floats(0, 20))))
def test_a_batch_histogram_counts_like_the_plain_one(batches: list[list[float]]):
    """Same buckets, same count, same sum."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batched = BatchHistogram("wait_seconds", "Wait.", buckets=BOUNDS)
    ours.register(batched)
    plain = Histogram("wait_seconds", "Wait.", buckets=BOUNDS, registry=theirs)
    for batch in batches:
        batched.observe_all(batch)
        for value in batch:
            plain.observe(value)
    for bound in ("0.1", "1.0", "10.0", "+Inf"):
        name, labels = "wait_seconds_bucket", {"le": bound}
        assert ours.get_sample_value(name, labels) == theirs.get_sample_value(name, labels)
    assert ours.get_sample_value("wait_seconds_count") == theirs.get_sample_value("wait_seconds_count")
    total = theirs.get_sample_value("wait_seconds_sum")
    assert total is not None
    assert abs((ours.get_sample_value("wait_seconds_sum") or 0.0) - total) < 1e-6


def test_busy_workers_are_asked_for_when_scraped():
    """The gauge shows how things stand at that moment."""
    metrics, busy = WorkerMetrics(), [1]
    metrics.watch(n_workers=3, n_busy=lambda: busy[0])
    busy[0] = 2
    assert metrics.registry.get_sample_value("millhand_workers") == 3
    assert metrics.registry.get_sample_value("millhand_workers_busy") == 2
