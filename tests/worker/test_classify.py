"""From an outcome to a report."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millhand.core import job as core_job
from millhand.core.job import JobKind, JobStatus
from millhand.core.worker import Cancelation
from millhand.runtimes.contract import Failure, FailureKind, StopCause, Stopped, Success
from millhand.worker import classify
from millhand.worker.classify import Ran
from millhand.worker.instant import instant_report
from tests.worker.fakes import claimed

RAN = Ran(duration_ms=7, timeout_s=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    max_leaves=8,
)


def test_a_noop_answers_with_an_empty_object():
    """No process, no log: `{}`."""
    report = instant_report(claimed(kind=JobKind.NOOP))
    assert report is not None
    assert (report.status, report.result) == (JobStatus.SUCCESS, b"{}")


@pytest.mark.parametrize(("args", "result"), [(b'{"previous_result": [1, 2]}', b"[1, 2]"), (b"{}", b"null")])
def test_an_identity_gives_its_argument_back(args: bytes, result: bytes):
    """`previous_result`, to the byte."""
    report = instant_report(claimed(kind=JobKind.IDENTITY, args=args))
    assert report is not None
    assert report.result == result


def test_an_identity_without_an_object_fails():
    """It is reported like any other failure: nothing that was claimed may be forgotten."""
    report = instant_report(claimed(kind=JobKind.IDENTITY, args=b"[1"))
    assert report is not None
    assert report.status is JobStatus.FAILURE


def test_a_job_cancelled_before_it_started_is_not_run():
    """Whatever its kind, it ends as cancelled, with who and why in the result clients know."""
    for kind in JobKind:
        report = instant_report(claimed(kind=kind, canceled_by="bob", canceled_reason="typo"))
        assert report is not None
        assert (report.status, report.canceled_by, report.canceled_reason) == (JobStatus.CANCELED, "bob", "typo")
        assert msgspec.json.decode(report.result) == {
            "error": {"name": "Canceled", "message": "Job canceled: typo by bob", "reason": "typo", "canceler": "bob"}
        }


def test_code_needs_a_process():
    """Scripts, previews and dependency jobs are not answered at once."""
    for kind in (JobKind.SCRIPT, JobKind.PREVIEW, JobKind.DEPENDENCIES):
        assert instant_report(claimed(kind=kind)) is None


def test_success_keeps_the_result_to_the_byte():
    """And carries labels, memory, duration and what the job asked for."""
    job = claimed(restart_unless_cancelled=True, delete_after_use=True, cache_ttl_s=60)
    ran = Ran(duration_ms=7, timeout_s=5, cache_key="key")
    report = classify.report_success(job, Success(result=b'{ "wm_labels": ["a", 1, "a"] }', memory_peak_kb=9), ran)
    assert report.result == b'{ "wm_labels": ["a", 1, "a"] }'
    assert (report.labels, report.memory_peak_kb, report.duration_ms) == (("a",), 9, 7)
    assert (report.rerun, report.delete_after_use, report.cache_key, report.cache_ttl_s) == (True, True, "key", 60)


@pytest.mark.parametrize(
    "result", [b'["wm_labels"]', b'{"wm_labels": "a"}', b'{"x": {"wm_labels": ["a"]}}', b'"\\"wm_labels\\""']
)
def test_what_only_looks_like_labels_is_none(result: bytes):
    """Labels are a list of strings at the top of an object."""
    assert classify.labels_of(result) == ()


@given(JSON, st.lists(st.text(min_size=1), min_size=1))
def test_a_stream_joins_the_result(value, pieces: list[str]):
    """It takes the place of null, stands beside an object's keys, and leaves other results alone; always valid JSON."""
    stream = "".join(pieces)
    result = msgspec.json.decode(classify.with_stream(msgspec.json.encode(value), pieces))
    if value is None:
        assert result == stream
    elif isinstance(value, dict) and "wm_stream" not in value:
        assert result in (value | {"wm_stream": stream}, value)
    else:
        assert result == value


def test_a_stream_joins_an_empty_object():
    """Spaces in it or not."""
    assert classify.with_stream(b"{ }", ["a"]) == b'{"wm_stream":"a"}'


def test_a_result_over_the_bound_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    """It says how large it was and what to do instead."""
    monkeypatch.setattr(classify, "MAX_JSON_BYTES", 10)
    report = classify.report_success(claimed(), Success(result=b'"0123456789"', memory_peak_kb=3), RAN)
    assert (report.status, report.memory_peak_kb) == (JobStatus.FAILURE, 3)
    assert "12 bytes" in msgspec.json.decode(report.result)["error"]["message"]
    assert core_job.MAX_JSON_BYTES == 500 * 1024 * 1024


def test_failures_carry_their_error():
    """`{"error": …}` around what the runtime said; want of memory is labelled, and never tried again by itself."""
    error = b'{"name":"ValueError","message":"no"}'
    plain = classify.report_failure(claimed(), Failure(kind=FailureKind.ERROR, error=error), RAN)
    assert (plain.status, plain.result, plain.labels) == (JobStatus.FAILURE, b'{"error":' + error + b"}", ())
    starved = classify.report_failure(claimed(), Failure(kind=FailureKind.OOM, error=error, memory_peak_kb=5), RAN)
    assert (starved.labels, starved.memory_peak_kb, starved.rerun) == (("oom",), 5, False)


def test_a_timeout_is_cancelled_by_timeout():
    """`canceled_by` timeout, `duration > N`; a perpetual script goes on."""
    report = classify.report_stopped(claimed(restart_unless_cancelled=True), Stopped(cause=StopCause.TIMEOUT), RAN)
    assert report is not None
    assert (report.status, report.canceled_by, report.canceled_reason, report.rerun) == (
        JobStatus.CANCELED, "timeout", "duration > 5", True,
    )  # fmt: skip


def test_a_cancelled_perpetual_script_ends():
    """`restart_unless_cancelled` means what it says."""
    ran = Ran(duration_ms=7, timeout_s=5, cancelation=Cancelation(job_id=claimed().id, by="bob", reason=None))
    report = classify.report_stopped(claimed(restart_unless_cancelled=True), Stopped(cause=StopCause.CANCELED), ran)
    assert report is not None
    assert (report.status, report.rerun, report.canceled_by) == (JobStatus.CANCELED, False, "bob")


@pytest.mark.parametrize("cause", [StopCause.LOST, StopCause.SHUTDOWN])
def test_what_was_lost_or_goes_back_is_not_reported(cause: StopCause):
    """No report: the job is another worker's, or will be."""
    assert classify.report_stopped(claimed(), Stopped(cause=cause), RAN) is None


def test_the_cache_key_names_code_and_arguments():
    """Order of arguments does not matter; workspace, code, arguments and entry point do."""
    key = classify.cache_key(claimed(args=b'{"a": 1, "b": 2}'), "code")
    assert key == classify.cache_key(claimed(args=b'{"b":2,"a":1}'), "code")
    others = [
        classify.cache_key(claimed(args=b'{"a": 1, "b": 3}'), "code"),
        classify.cache_key(claimed(args=b'{"a": 1, "b": 2}'), "other"),
        classify.cache_key(claimed(args=b'{"a": 1, "b": 2}', workspace_id="other"), "code"),
        classify.cache_key(claimed(args=b'{"a": 1, "b": 2}', entrypoint="other"), "code"),
    ]
    assert len({key, *others}) == 5
