"""Why a job stands where it stands: every cause, in words and data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millhand.core.job import JobState, JobStatus
from millhand.core.why import AHEAD_BOUND, Cause, Facts, duration, explain

ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NOW = datetime(2030, 1, 31, 8, tzinfo=UTC)


def facts(**changes) -> Facts:
    """Return the facts of a job that waits for the only worker, changed as asked."""
    fields = {
        "now": NOW, "tag": "gpu", "priority": 0, "scheduled_for": NOW, "state": JobState.QUEUED, "status": None,
        "completed_at": None, "worker": None, "started_at": None, "attempt": 0, "n_lost": 0, "canceled_by": None,
        "canceled_reason": None, "n_ahead": 0, "n_workers": 1, "n_draining": 0, "n_busy": 1,
        "busy_since": NOW - timedelta(seconds=90), "live_tags": ("gpu",),
    }  # fmt: skip
    return Facts(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({}, Cause.BUSY, "the only worker of the tag 'gpu' is busy, the longest for 1 min 30 s; it is next"),
        ({"n_workers": 4, "n_busy": 4, "n_ahead": 7}, Cause.BUSY, "all 4 workers of the tag 'gpu' are busy"),
        ({"n_workers": 4, "n_busy": 4, "n_ahead": 7}, Cause.BUSY, "7 jobs go first"),
        ({"n_ahead": 1}, Cause.BUSY, "1 job goes first"),
        ({"n_ahead": AHEAD_BOUND}, Cause.BUSY, "more than 9999 jobs go first"),
        ({"n_busy": 0}, Cause.STARTING, "1 of 1 workers of the tag 'gpu' is free"),
        ({"n_workers": 0, "live_tags": ("python3",)}, Cause.NO_WORKER, "live workers listen to: python3"),
        ({"n_workers": 0, "live_tags": ()}, Cause.NO_WORKER, "start one with `millhand worker`"),
        ({"n_workers": 0, "n_draining": 2}, Cause.DRAINING, "draining"),
        (
            {"state": JobState.SCHEDULED, "scheduled_for": NOW + timedelta(hours=2, minutes=10)},
            Cause.SCHEDULED,
            "2030-01-31 10:10:00 UTC, in 2 h 10 min",
        ),
        ({"state": JobState.SCHEDULED, "scheduled_for": NOW - timedelta(seconds=1)}, Cause.BUSY, "busy"),
        ({"state": JobState.SUSPENDED}, Cause.SUSPENDED, "approval"),
        (
            {
                "state": JobState.RUNNING,
                "worker": "wk-1",
                "started_at": NOW - timedelta(seconds=5),
                "n_lost": 1,
                "attempt": 2,
            },
            Cause.RUNNING,
            "it runs on wk-1 since 5.0 s (its attempt 2: 1 lost their worker)",
        ),
        (
            {"state": JobState.RUNNING, "worker": "wk-1", "started_at": NOW, "canceled_by": "ann"},
            Cause.CANCELING,
            "told to stop by ann",
        ),
        ({"state": None, "status": JobStatus.SUCCESS}, Cause.COMPLETED, "succeeded"),
        ({"state": None, "status": JobStatus.FAILURE}, Cause.COMPLETED, "failed"),
        (
            {"state": None, "status": JobStatus.CANCELED, "canceled_by": "ann", "canceled_reason": "bored"},
            Cause.COMPLETED,
            "it was canceled by ann: bored",
        ),
    ],
)
def test_each_cause_is_told(changes, cause, words):
    """Facts give the cause and words for it."""
    answer = explain(ID, facts(**changes))

    assert (answer.cause, words in answer.text) == (cause, True), answer.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (12.3, "12 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (273_600, "3 d 4 h")],
)
def test_durations_read_well(seconds, text):
    """Spans of time are written the way people say them."""
    assert duration(seconds) == text


@given(st.floats(min_value=-1e6, max_value=1e9))
def test_every_duration_has_words(seconds):
    """No span of time is too odd to be written."""
    assert duration(seconds)[0].isdigit()
