"""Busy shares over windows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millhand.worker.occupancy import OccupancyHistory

STEPS = st.lists(st.tuples(st.floats(0.5, 60), st.floats(0, 1)), min_size=1, max_size=200)


def test_a_window_is_silent_until_the_worker_is_as_old():
    """Nobody reads a 30-minute figure off a worker that started a minute ago."""
    history = OccupancyHistory()
    history.sample(age_s=5, busy_s=5)
    share = history.sample(age_s=20, busy_s=10)
    assert (share.total, share.last_5m, share.last_30m) == (0.5, None, None)
    assert share.last_15s == pytest.approx(5 / 15)


def test_windows_forget():
    """A worker busy for ten minutes and idle for six shows 0 over five minutes."""
    history = OccupancyHistory()
    for age in range(5, 605, 5):
        history.sample(age_s=age, busy_s=age)
    for age in range(605, 965, 5):
        share = history.sample(age_s=age, busy_s=600)
    assert (share.last_15s, share.last_5m) == (0.0, 0.0)
    assert share.total == pytest.approx(600 / 960)


@given(STEPS)
def test_shares_are_shares(steps):
    """Whatever the intervals, each share lies between 0 and 1, and the memory used is bounded."""
    history, age, busy = OccupancyHistory(), 0.0, 0.0
    for seconds, share in steps:
        age += seconds
        busy += seconds * share
        occupancy = history.sample(age_s=age, busy_s=busy)
        shares = (occupancy.total, occupancy.last_15s, occupancy.last_5m, occupancy.last_30m)
        assert all(share is None or 0 <= share <= 1 for share in shares)
    assert len(history._coarse) <= 121
    assert len(history._fine) <= 62


@given(st.floats(0, 1), st.integers(361, 500))
def test_a_steady_share_is_the_same_in_every_window(share: float, n_pings: int):
    """A worker always busy for the same share shows that share over every window."""
    history = OccupancyHistory()
    for i in range(1, n_pings + 1):
        occupancy = history.sample(age_s=i * 5.0, busy_s=i * 5.0 * share)
    expected = pytest.approx(share, abs=1e-9)
    assert (occupancy.total, occupancy.last_15s, occupancy.last_5m, occupancy.last_30m) == (expected,) * 4
