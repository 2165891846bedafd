"""What the environment says to a worker host."""

from __future__ import annotations

from pathlib import Path

import pytest

from millhand.core.tags import DEFAULT_GROUP_TAGS, NATIVE_GROUP_TAGS
from millhand.runtimes.contract import Isolation
from millhand.worker.settings import SettingsError, WorkerSettings


def test_an_empty_environment_gives_the_defaults():
    """A host that is told nothing is one worker of the default group that listens to its tags, isolated."""
    settings = WorkerSettings.from_environment({})
    assert settings == WorkerSettings()
    assert (settings.num_workers, settings.tags, settings.isolation) == (1, DEFAULT_GROUP_TAGS, Isolation.SANDBOX)


def test_every_variable_is_read():
    """Each documented variable reaches its field, in its unit."""
    settings = WorkerSettings.from_environment(
        {
            "WORKER_GROUP": "native",
            "NUM_WORKERS": "8",
            "MILLHAND_ISOLATION": "process",
            "JOB_NETWORK": "off",
            "JOB_MEMORY_LIMIT_MB": "256",
            "JOB_DEFAULT_TIMEOUT": "30",
            "TIMEOUT": "900",
            "MAX_LOG_BYTES": "1000",
            "GRACE_PERIOD": "2.5",
            "ZOMBIE_JOB_TIMEOUT": "30",
            "SLEEP_QUEUE": "250",
            "MILLHAND_CACHE_DIR": "/var/cache/mill",
            "BASE_URL": "https://mill.example/",
            "BASE_INTERNAL_URL": "http://127.0.0.1:8000",
            "EXIT_AFTER_N_JOBS": "7",
            "METRICS_ADDR": "true",
            "MILLHAND_DATATABLE_URL": "postgresql://x",
        }
    )
    assert settings == WorkerSettings(
        group="native",
        tags=NATIVE_GROUP_TAGS,
        num_workers=8,
        isolation=Isolation.PROCESS,
        job_network=False,
        job_memory_limit_bytes=256 * 1024 * 1024,
        job_default_timeout_s=30,
        job_max_timeout_s=900,
        max_log_bytes=1000,
        grace_s=2.5,
        lease_s=30.0,
        poll_s=0.25,
        cache_dir=Path("/var/cache/mill"),
        base_url="https://mill.example",
        base_internal_url="http://127.0.0.1:8000",
        exit_after_n_jobs=7,
        metrics_addr="0.0.0.0:8001",
        datatable_url="postgresql://x",
    )
    assert settings.limits.memory_bytes == 256 * 1024 * 1024
    assert not settings.limits.network


def test_jobs_reach_the_server_where_people_do_unless_told_otherwise():
    """BASE_INTERNAL_URL defaults to BASE_URL."""
    assert WorkerSettings.from_environment({"BASE_URL": "http://h:1"}).base_internal_url == "http://h:1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUM_WORKERS", "0"),
        ("NUM_WORKERS", "many"),
        ("NUM_WORKERS", "1.5"),
        ("WORKER_GROUP", "../etc"),
        ("WORKER_TAGS", " , "),
        ("WORKER_TAGS", "a b"),
        ("MILLHAND_ISOLATION", "total"),
        ("JOB_NETWORK", "perhaps"),
        ("TIMEOUT", "-1"),
        ("GRACE_PERIOD", "-0.1"),
        ("GRACE_PERIOD", "nan"),
        ("ZOMBIE_JOB_TIMEOUT", "14.9"),
        ("PING_INTERVAL", "0"),
        ("SLEEP_QUEUE", "0"),
        ("BASE_URL", "mill.example"),
        ("METRICS_ADDR", "8001x"),
        ("METRICS_ADDR", "host:70000"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str):
    """The error says which variable, which value, and what would do."""
    with pytest.raises(SettingsError, match=name) as caught:
        WorkerSettings.from_environment({name: value})
    assert repr(value.strip()) in str(caught.value)


def test_a_lease_is_never_shorter_than_three_pings():
    """Who pings more often may have a shorter lease; who pings seldom has a longer one without asking."""
    often = WorkerSettings.from_environment({"PING_INTERVAL": "0.5", "ZOMBIE_JOB_TIMEOUT": "2"})
    assert (often.heartbeat_s, often.lease_s) == (0.5, 2.0)
    assert WorkerSettings.from_environment({"PING_INTERVAL": "30"}).lease_s == 90.0


@pytest.mark.parametrize(
    ("text", "address"), [("9000", "0.0.0.0:9000"), (":9000", "0.0.0.0:9000"), ("[::1]:9", "[::1]:9")]
)
def test_a_metrics_address_may_leave_the_host_out(text: str, address: str):
    """A bare port listens everywhere."""
    assert WorkerSettings.from_environment({"METRICS_ADDR": text}).metrics_addr == address
