"""`millhand worker`: a worker host over PostgreSQL. TERM or INT drains it, a second one ends it at once."""

from __future__ import annotations

import asyncio
import os
import signal

import prometheus_client
import structlog
import uvloop

from millhand.cli import service_logs
from millhand.cli.data_dir import default_data_dir, private_paths
from millhand.cli.garbage import collect_rarely
from millhand.cli.lifeline import Lifeline
from millhand.cli.schema import database_url, wait_for_database
from millhand.cli.usage import UsageError
from millhand.core.errors import MillhandError
from millhand.runtimes.registry import Runtimes
from millhand.store.source import PgJobSource
from millhand.worker.host import WorkerHost
from millhand.worker.settings import SettingsError, WorkerSettings

log = structlog.get_logger()


def work() -> None:
    """Run jobs until told to end; raises UsageError for settings that can't be used."""
    environment = os.environ
    lifeline = Lifeline.of_environment(environment)
    service_logs.configure(environment)
    url = database_url(environment)
    try:
        settings = WorkerSettings.from_environment(environment)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    uvloop.run(_work(url, settings, lifeline))


async def _work(url: str, settings: WorkerSettings, lifeline: Lifeline) -> None:
    await wait_for_database(url)
    host = WorkerHost(settings=settings, source=PgJobSource(url), runtimes=_runtimes(settings))
    if settings.metrics_addr is not None:
        _serve_metrics(settings.metrics_addr, host)
    ending = _Ending(host)
    await host.start()
    for kind in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(kind, ending.asked)
    lifeline.on_parent_gone(ending.at_once)
    lifeline.ready()
    collect_rarely()
    await host.wait()


def _runtimes(settings: WorkerSettings) -> Runtimes:
    return Runtimes(
        cache_dir=settings.cache_dir,
        isolation=settings.isolation,
        limits=settings.limits,
        n_workers=settings.num_workers,
        hidden=private_paths(default_data_dir(os.environ)),
        datatable_url=settings.datatable_url,
    )


class _Ending:
    """Turns signals into the host's life cycle: drain at the first, terminate at the second."""

    def __init__(self, host: WorkerHost) -> None:
        self._host = host
        self._steps: list[asyncio.Task[None]] = []

    def asked(self) -> None:
        """Drain; when asked before, end at once."""
        if self._steps:
            self.at_once()
        else:
            self._steps.append(asyncio.create_task(self._host.drain()))

    def at_once(self) -> None:
        """Stop the jobs, give them back, end."""
        self._steps.append(asyncio.create_task(self._host.terminate()))


def _serve_metrics(address: str, host: WorkerHost) -> None:
    name, _, port = address.rpartition(":")
    try:
        prometheus_client.start_http_server(int(port), name, registry=host.metrics.registry)
    except OSError as error:
        raise MillhandError(f"METRICS_ADDR={address}: can't listen there: {error.strerror}") from None
