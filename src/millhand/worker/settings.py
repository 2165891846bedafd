"""What a worker host is told by its environment, read once and passed down."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from millhand.core.errors import MillhandError
from millhand.core.job import DEFAULT_MAX_TIMEOUT_S
from millhand.core.tags import group_tags, parse_tags
from millhand.runtimes.contract import Isolation, Limits

T = TypeVar("T")

MAX_LOG_BYTES = 20 * 1024 * 1024
_PINGS_PER_LEASE = 3  # at least: one that is late, or lost, must not end the lease


class SettingsError(MillhandError):
    """A variable of the environment has a value that can't be used; the message names it and says what can."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One worker host's settings; the variable each comes from stands in `from_environment`."""

    group: str = "default"
    tags: tuple[str, ...] = group_tags("default")
    num_workers: int = 1
    isolation: Isolation = Isolation.SANDBOX
    job_network: bool = True
    job_memory_limit_bytes: int | None = None
    job_default_timeout_s: int | None = None  # for jobs whose run and script name none
    job_max_timeout_s: int = DEFAULT_MAX_TIMEOUT_S  # no job may ask for more
    max_log_bytes: int = MAX_LOG_BYTES
    grace_s: float = 300.0  # how long a draining host lets its jobs finish
    lease_s: float = 60.0  # silent for longer: the host is taken for dead, its jobs go to others
    heartbeat_s: float = 5.0  # how often it pings
    poll_s: float = 1.0  # how often to look for work that nobody announced
    cache_dir: Path = Path("~/.cache/millhand").expanduser()
    base_url: str = "http://localhost:8000"  # where people reach the server
    base_internal_url: str = "http://localhost:8000"  # where jobs reach it
    exit_after_n_jobs: int | None = None
    metrics_addr: str | None = None  # host:port of the Prometheus endpoint
    datatable_url: str | None = None  # what `datatable://main` stands for in SQL jobs

    @property
    def limits(self) -> Limits:
        """Return what each job may use."""
        return Limits(memory_bytes=self.job_memory_limit_bytes, network=self.job_network)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> WorkerSettings:
        """Read the settings; raises SettingsError for the first value that can't be used."""
        read = _Reader(environ)
        group = read("WORKER_GROUP", _group, "default")
        base_url = read("BASE_URL", _url, "http://localhost:8000")
        heartbeat_s = read("PING_INTERVAL", _interval, 5.0)
        shortest_lease_s = _PINGS_PER_LEASE * heartbeat_s
        return cls(
            group=group,
            tags=read("WORKER_TAGS", _tags, group_tags(group)),
            num_workers=read("NUM_WORKERS", _at_least_one, 1),
            isolation=read("MILLHAND_ISOLATION", Isolation, Isolation.SANDBOX),
            job_network=read("JOB_NETWORK", _switch, default=True),
            job_memory_limit_bytes=read("JOB_MEMORY_LIMIT_MB", _megabytes, None),
            job_default_timeout_s=read("JOB_DEFAULT_TIMEOUT", _at_least_one, None),
            job_max_timeout_s=read("TIMEOUT", _at_least_one, DEFAULT_MAX_TIMEOUT_S),
            max_log_bytes=read("MAX_LOG_BYTES", _at_least_one, MAX_LOG_BYTES),
            grace_s=read("GRACE_PERIOD", _seconds, 300.0),
            lease_s=read(
                "ZOMBIE_JOB_TIMEOUT", partial(_lease, shortest_s=shortest_lease_s), max(60.0, shortest_lease_s)
            ),
            heartbeat_s=heartbeat_s,
            poll_s=read("SLEEP_QUEUE", _milliseconds, 1.0),
            cache_dir=read("MILLHAND_CACHE_DIR", _directory, _directory("~/.cache/millhand")),
            base_url=base_url,
            base_internal_url=read("BASE_INTERNAL_URL", _url, base_url),
            exit_after_n_jobs=read("EXIT_AFTER_N_JOBS", _at_least_one, None),
            metrics_addr=read("METRICS_ADDR", _address, None),
            datatable_url=read("MILLHAND_DATATABLE_URL", str, None),
        )


class _Reader:
    """Reads one variable at a time; blank means not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def __call__(self, name: str, parse: Callable[[str], T], default: Any) -> T:
        text = self._environ.get(name, "").strip()
        if not text:
            return default  # type: ignore[no-any-return]
        try:
            return parse(text)
        except (ValueError, MillhandError) as error:
            raise SettingsError(f"{name}={text!r} can't be used: {error}") from None


def _group(text: str) -> str:
    if not text.replace("-", "").replace("_", "").isalnum():
        raise ValueError("a worker group is named with letters, digits, - and _")
    return text


def _tags(text: str) -> tuple[str, ...]:
    tags = parse_tags(text)
    if not tags:
        raise ValueError("give at least one tag, or leave it unset for the default tags of the group")
    return tags


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("give a number") from None


def _at_least_one(text: str) -> int:
    value = _number(text)
    if value < 1 or value != int(value):
        raise ValueError("give a whole number, 1 or more")
    return int(value)


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise ValueError("give a number of seconds, 0 or more")
    return value


def _interval(text: str) -> float:
    value = _seconds(text)
    if not value:
        raise ValueError("give a number of seconds above 0")
    return value


def _lease(text: str, *, shortest_s: float) -> float:
    value = _seconds(text)
    if value < shortest_s:
        raise ValueError(f"give {shortest_s:g} seconds or more: {_PINGS_PER_LEASE} times PING_INTERVAL")
    return value


def _milliseconds(text: str) -> float:
    value = _seconds(text) / 1000
    if not value:
        raise ValueError("give a number of milliseconds above 0")
    return value


def _megabytes(text: str) -> int:
    return _at_least_one(text) * 1024 * 1024


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("give true or false")


def _directory(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("give an http:// or https:// address")
    return text.rstrip("/")


def _address(text: str) -> str:
    """Read `host:port`, `:port`, a bare port, or `true` for the conventional one."""
    if text == "true":
        return "0.0.0.0:8001"
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004 - ports have 16 bits
        raise ValueError("give host:port, or true for port 8001")
    return f"{host or '0.0.0.0'}:{port}"  # noqa: S104 - a scraper comes from elsewhere
